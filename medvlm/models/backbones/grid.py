"""VisualBERT and LXMERT on a grid of patches: an image tower, a projection, and the classifier, as one model.

Both were published on the regions that an object detector found (Faster R-CNN, 36 to 100 boxes of 2048 features each).
transformers has no such detector, so the patches of a CLIP or SigLIP tower are the regions here (CLIP's are, in
arXiv:2107.06383), and a new linear layer takes them to the width that the classifier knows. It is not the published
input: scores that the papers give are not to be expected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    CLIPVisionConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.clip.processing_clip import CLIPProcessor

from medvlm.errors import AccessError, InputError
from medvlm.models.backbones import classifier_parts as parts
from medvlm.models.backbones.base import width
from medvlm.models.backbones.classifier import ClassifierBackbone, labels_of
from medvlm.models.git_llm.assemble import load_tower, resize_tower, vision_config
from medvlm.models.git_llm.configuration import has_class_token, tokens_of
from medvlm.models.locate import locate_config

BERT = "google-bert/bert-base-uncased"
"""Whose tokenizer the published checkpoints use where they bring none."""


@strict
class GridConfig(PreTrainedConfig):  # type: ignore[misc]
    """What a classifier on a grid of patches is made of.

    Args:
        vision_config: of a `clip_vision_model` or `siglip_vision_model`.
        text_config: of a `visual_bert` or `lxmert`.
        tie_word_embeddings: nothing is tied.
    """

    sub_configs_defaults = {  # noqa: RUF012 (transformers reads it from the class)
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="clip_vision_model"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="visual_bert"),
    }

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    tie_word_embeddings: bool = False

    @property
    def regions(self) -> int:
        """Return how many patches a picture has: CLIP's class token is none."""
        vision: Any = self.vision_config
        return tokens_of(vision) - has_class_token(vision.model_type)


class GridClassifier(PreTrainedModel):  # type: ignore[misc]
    """An image tower, a linear projection of its patches, and a classifier of transformers.

    Args:
        config: of the whole.
        vision_tower: a tower with weights; None makes one from the configuration.
        encoder: a `...ForQuestionAnswering` with weights; None makes one from the configuration.
    """

    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    _supports_sdpa = True

    def __init__(
        self, config: Any, vision_tower: PreTrainedModel | None = None, encoder: PreTrainedModel | None = None
    ) -> None:
        super().__init__(config)
        config.text_config._attn_implementation = "eager"
        self.vision_tower = vision_tower or AutoModel.from_config(config.vision_config)
        self.projector = nn.Linear(config.vision_config.hidden_size, self.region_width(config.text_config))
        self.encoder = encoder or self.make_encoder(config.text_config)
        self.post_init()

    @staticmethod
    def region_width(config: Any) -> int:
        """Return how many features of a region the classifier takes."""
        raise NotImplementedError

    @staticmethod
    def make_encoder(config: Any) -> PreTrainedModel:
        """Return the classifier of transformers for its configuration."""
        raise NotImplementedError

    def classify(self, regions: torch.Tensor, image_mask: torch.Tensor, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Return logits [B, C] of regions [B, N, F], their mask [B, N], and the question's inputs."""
        raise NotImplementedError

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings."""
        module: nn.Module = self.encoder.get_input_embeddings()
        return module

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings."""
        self.encoder.set_input_embeddings(value)

    def set_attn_implementation(
        self, attn_implementation: str | dict[str, Any], allow_all_kernels: bool = False
    ) -> None:
        """Set the attention of the tower; the classifier's is always eager."""
        tower: Any = attn_implementation
        if isinstance(attn_implementation, dict):
            tower = attn_implementation.get("vision_config", attn_implementation.get("", "eager"))
        self.vision_tower.set_attn_implementation(tower, allow_all_kernels)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Return logits [B, C].

        Args:
            input_ids, attention_mask, token_type_ids: [B, T].
            pixel_values: [B, 3, S, S], or features of the tower [B, N, D] (see `medvlm.models.features`).
            image_mask: [B, N] of ones; None is that.
            kwargs: not used.
        """
        features = self.vision_tower(pixel_values).last_hidden_state
        patches = features[:, int(has_class_token(self.config.vision_config.model_type)) :]
        regions = self.projector(patches.to(self.projector.weight.dtype))
        if image_mask is None:
            image_mask = torch.ones(regions.shape[:2], dtype=torch.long, device=regions.device)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        return SequenceClassifierOutput(logits=self.classify(regions, image_mask, inputs))


class GridBackbone(ClassifierBackbone):
    """Turns questions and pictures into a `GridClassifier`'s inputs: see `ClassifierBackbone`."""

    components: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "vision_tower": "vision_tower.",
        "projector": "projector.",
        "language_model": "encoder.",
    }
    caches = True
    model_class: ClassVar[type[GridClassifier]]
    config_class: ClassVar[type[GridConfig]]
    text_type: ClassVar[str]
    """`model_type` of the classifier of transformers."""
    new: ClassVar[tuple[str, ...]]
    """Prefixes of weights in that classifier which a checkpoint may lack."""

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> torch.nn.Module:
        """Return a GridClassifier of these dimensions."""
        model: torch.nn.Module = cls.model_class(cls.config_class.from_dict(dict(config)))
        return model

    @classmethod
    def encoder_class(cls) -> Any:
        """Return the classifier's class in transformers."""
        raise NotImplementedError

    @classmethod
    def trimmed(cls, encoder: Any) -> PreTrainedModel:
        """Return a loaded classifier without what it does not use."""
        made: PreTrainedModel = encoder
        return made

    @classmethod
    def load(cls, paths: Mapping[str, Path], options: Mapping[str, Any], seed: int) -> tuple[torch.nn.Module, Any]:
        """Return model and processor: a saved whole, or a new one of an image tower and a published checkpoint.

        Args:
            paths: `model`, which medvlm saved; or `vision_tower`, a CLIP or SigLIP, and `language_model`.
            options: as in `Backbone`.
            seed: of the new projection's and head's weights.

        Raises:
            InputError: another architecture, or weights are missing.
            AccessError: the checkpoint brings no tokenizer, and BERT's is not at hand.
        """
        if "model" in paths:
            cls._check_whole(AutoConfig.from_pretrained(paths["model"], local_files_only=True).to_dict())
            whole: Any = cls.model_class.from_pretrained(paths["model"], local_files_only=True, **options)
            return whole, cls.processor_of(paths)
        text = AutoConfig.from_pretrained(paths["language_model"], local_files_only=True)
        cls._check_text(text.model_type)
        tower = load_tower(paths["vision_tower"], options)
        encoder = cls.trimmed(parts.classifier(cls.encoder_class(), paths["language_model"], options, seed, cls.new))
        config = cls.config_class(vision_config=tower.config, text_config=encoder.config, dtype=options.get("dtype"))
        config._attn_implementation = {
            "": tower.config._attn_implementation,
            "vision_config": tower.config._attn_implementation,
            "text_config": "eager",
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _around(cls.model_class, config, tower, encoder)
        model.projector.to(device=encoder.device, dtype=options.get("dtype", torch.float32))
        model.eval()
        return model, cls.processor_of(paths)

    @classmethod
    def _check_text(cls, model_type: str | None) -> None:
        if model_type != cls.text_type:
            raise InputError(f"model.language_model: a {model_type} model; expected {cls.text_type}")

    @classmethod
    def _check_whole(cls, config: Mapping[str, Any]) -> None:
        if config.get("model_type") != cls.config_class.model_type:
            raise InputError(
                f"model.id: a {config.get('model_type')} model alone sees no picture; name it as model.language_model, "
                "and a CLIP or SigLIP as model.vision_tower"
            )

    @classmethod
    def processor_of(cls, paths: Mapping[str, Path]) -> Any:
        """Return the saved processor, or one of the tower's normalization and the checkpoint's tokenizer.

        Raises:
            AccessError: the checkpoint brings no tokenizer, and BERT's is not at hand.
        """
        if "model" in paths:
            return super().processor_of(paths)
        tower = paths["vision_tower"]
        vision = vision_config(AutoConfig.from_pretrained(tower, local_files_only=True))
        return CLIPProcessor(parts.squares_as(tower, vision.image_size), _tokenizer(paths["language_model"]))

    @classmethod
    def compose(cls, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the configuration of the whole: the saved one, or that of the two parts, as `load` makes it.

        Raises:
            InputError: as `load`.
        """
        if "model" in configs:
            cls._check_whole(configs["model"])
            return dict(configs["model"])
        vision, text = (dict(configs[role]) for role in ("vision_tower", "language_model"))
        cls._check_text(text.get("model_type"))
        tower = vision_config(AutoConfig.for_model(**vision))
        whole = cls.config_class(vision_config=tower, text_config=AutoConfig.for_model(**text))
        config: dict[str, Any] = whole.to_dict()
        return config

    @classmethod
    def sized(cls, config: dict[str, Any], answers: Sequence[str]) -> dict[str, Any]:
        """Return a configuration for these answers: of the whole, and of the classifier in it."""
        labels = labels_of(answers)
        return {**config, **labels, "text_config": {**config["text_config"], **labels}}

    def _tell(self, config: Any) -> None:
        super()._tell(config)
        super()._tell(config.text_config)

    @classmethod
    def image_tokens_of(cls, config: Any) -> int:
        """Return (image size / patch size)²: the class token of CLIP is no region."""
        return int(config.regions)

    @classmethod
    def resize(cls, model: torch.nn.Module, processor: Any, image_size: int) -> bool:
        """Make model and processor take images of this side; return whether position embeddings were resampled."""
        changed = resize_tower(model, image_size)
        processor.image_processor.size = {"height": image_size, "width": image_size}
        return changed

    @classmethod
    def widths(cls, config: Any) -> dict[str, int]:
        """Return component -> heads x head dimension."""
        return {"vision_tower": width(config.vision_config), "language_model": width(config.text_config)}

    @classmethod
    def fake_features(cls, model: Any, images: int, device: torch.device) -> torch.Tensor:
        """Return features of the tower [images, N, D] without contents."""
        from medvlm.models.features import skip_tower

        skip_tower(model, cls)
        vision = model.config.vision_config
        return torch.empty(images, tokens_of(vision), vision.hidden_size, device=device, dtype=model.dtype)

    @classmethod
    def tiny_of(cls, image_size: int | None, family: str | None, make_text: Any) -> tuple[torch.nn.Module, Any]:
        """Return a tiny whole and its processor.

        Args:
            image_size: as for `tiny`.
            family: as for `tiny`.
            make_text: returns the classifier's configuration for a size of the vocabulary.
        """
        parts.no_family(cls.text_type, family)
        size = image_size or parts.TINY_SIZE
        tokenizer, vocabulary = parts.tiny_tokenizer()
        keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        vision = CLIPVisionConfig(
            image_size=size, patch_size=parts.TINY_PATCH, **{key: parts.TINY_TRANSFORMER[key] for key in keys}
        )
        model = cls.model_class(cls.config_class(vision_config=vision, text_config=make_text(vocabulary)))
        positions = next(module for module in model.modules() if hasattr(module, "position_embedding"))
        parts.begin_with_places(positions.position_embedding.weight, size, class_token=True)
        return model, CLIPProcessor(parts.squares(size), tokenizer)


def _around(kind: type[GridClassifier], config: Any, tower: Any, encoder: Any) -> GridClassifier:
    """Return the whole around parts with weights, its projection newly drawn."""
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model = kind(config, tower, encoder)
    model.projector.reset_parameters()
    return model


def _tokenizer(path: Path) -> Any:
    """Return a checkpoint's tokenizer, or BERT's where it brings none.

    Raises:
        AccessError: BERT's is not at hand.
    """
    if any((path / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    try:
        return AutoTokenizer.from_pretrained(BERT, local_files_only=True)
    except (OSError, ValueError):
        pass
    try:
        locate_config(BERT, key="model.language_model")
        return AutoTokenizer.from_pretrained(BERT)
    except (AccessError, OSError, ValueError) as error:
        raise AccessError(
            f"{path} brings no tokenizer and {BERT}, whose it is, cannot be reached; put that model's vocab.txt into it"
        ) from error
