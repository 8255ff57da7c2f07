"""FLAVA (arXiv:2112.04482): an image encoder, a text encoder and one above both; answers from a closed vocabulary.

The classifier stands on the multimodal encoder's class token, as the paper fine-tunes for VQA (section 4). The codebook
of image tokens, the contrastive projections and the poolers belong to its pretraining and are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import FlavaConfig, FlavaModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.flava.modeling_flava import FlavaPreTrainedModel
from transformers.models.flava.processing_flava import FlavaProcessor

from medvlm.models.backbones import classifier_parts as parts
from medvlm.models.backbones.base import width
from medvlm.models.backbones.classifier import ClassifierBackbone
from medvlm.models.positions import image_tokens

CLASSIFIER_WIDTH = 2
"""The classifier's inner width as a multiple of the encoder's, as in ViLT's (arXiv:2102.03334): 1536."""


class FlavaClassifier(FlavaPreTrainedModel):  # type: ignore[misc]
    """`FlavaModel` with a classifier on its multimodal class token.

    Args:
        config: of FLAVA; `num_labels` says how many classes there are.
    """

    base_model_prefix = "flava"

    def __init__(self, config: FlavaConfig) -> None:
        super().__init__(config)
        self.flava = FlavaModel(config)
        # FlavaModel counts on what a pooler gives, so that it cannot be None, but does not look at it.
        self.flava.image_model.pooler = self.flava.text_model.pooler = nn.Identity()
        self.flava.multimodal_model.pooler = None
        del self.flava.image_projection, self.flava.text_projection, self.flava.logit_scale
        wide = config.multimodal_config.hidden_size
        self.classifier = nn.Sequential(
            nn.Linear(wide, CLASSIFIER_WIDTH * wide),
            nn.LayerNorm(CLASSIFIER_WIDTH * wide),
            nn.GELU(),
            nn.Linear(CLASSIFIER_WIDTH * wide, config.num_labels),
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embeddings."""
        module: nn.Module = self.flava.text_model.get_input_embeddings()
        return module

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings."""
        self.flava.text_model.set_input_embeddings(value)

    def set_attn_implementation(
        self, attn_implementation: str | dict[str, Any], allow_all_kernels: bool = False
    ) -> None:
        """Do nothing: FLAVA's attention is always eager."""

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
            pixel_values: [B, 3, S, S].
            image_mask: [B, N] of ones; not needed, all patches are real.
            kwargs: not used.
        """
        found = self.flava(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            pixel_values=pixel_values,
            return_dict=True,
        )
        return SequenceClassifierOutput(logits=self.classifier(found.multimodal_embeddings[:, 0]))


class FlavaBackbone(ClassifierBackbone):
    """Turns questions and pictures into FLAVA's inputs: see `ClassifierBackbone`."""

    components: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "vision_tower": "flava.image_model.",
        "projector": ("flava.image_to_mm_projection.", "flava.text_to_mm_projection."),
        "language_model": ("flava.text_model.", "flava.multimodal_model."),
        "head": "classifier.",
    }

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> torch.nn.Module:
        """Return a FlavaClassifier of these dimensions."""
        model: torch.nn.Module = FlavaClassifier(FlavaConfig.from_dict(dict(config)))
        return model

    @classmethod
    def load(cls, paths: Mapping[str, Path], options: Mapping[str, Any], seed: int) -> tuple[torch.nn.Module, Any]:
        """Return model and processor of a checkpoint, pretrained or saved by medvlm.

        Raises:
            InputError: weights beside the head are missing.
        """
        model = parts.classifier(FlavaClassifier, paths["model"], options, seed, ("classifier.",))
        return model, cls.processor_of(paths)

    @classmethod
    def processor_of(cls, paths: Mapping[str, Path]) -> Any:
        """Return a FlavaProcessor whose pictures are squares, normalized as the checkpoint's."""
        return parts.processor(FlavaProcessor, paths["model"], cls.image_size_of)

    @classmethod
    def tiny(cls, image_size: int | None, family: str | None) -> tuple[torch.nn.Module, Any]:
        """Return a FLAVA of 1.3 M parameters; raises InputError for a family, since there is one."""
        parts.no_family("flava", family)
        size = image_size or parts.TINY_SIZE
        tokenizer, vocabulary = parts.tiny_tokenizer()
        half = {**parts.TINY_TRANSFORMER, "num_hidden_layers": 2}
        config = FlavaConfig(
            image_config={**parts.TINY_TRANSFORMER, "image_size": size, "patch_size": parts.TINY_PATCH},
            text_config={**half, "vocab_size": vocabulary, "max_position_embeddings": 128},
            multimodal_config=half,
            hidden_size=half["hidden_size"],
            projection_dim=half["hidden_size"],
            init_codebook=False,
            num_labels=2,
        )
        model = FlavaClassifier(config)
        embeddings = model.flava.image_model.embeddings
        parts.begin_with_places(embeddings.position_embeddings, size, class_token=True)
        return model, FlavaProcessor(parts.squares(size), tokenizer)

    @classmethod
    def positions(cls, config: Any) -> int:
        """Return how many text tokens the text encoder has positions for."""
        return int(config.text_config.max_position_embeddings)

    @classmethod
    def image_size_of(cls, config: Any) -> int:
        """Return the side of the square image in pixels."""
        return int(config.image_config.image_size)

    @classmethod
    def patch_size_of(cls, config: Any) -> int:
        """Return the side of a patch in pixels."""
        return int(config.image_config.patch_size)

    @classmethod
    def image_tokens_of(cls, config: Any) -> int:
        """Return (image size / patch size)², and one for the image encoder's class token."""
        return int((cls.image_size_of(config) // cls.patch_size_of(config)) ** 2) + 1

    @classmethod
    def resized(cls, config: dict[str, Any], image_size: int) -> dict[str, Any]:
        """Return the configuration for images of this side; RecipeError where its patches do not fit."""
        whole = FlavaConfig.from_dict(config)
        image_tokens(image_size, whole.image_config.patch_size)
        return {**config, "image_config": {**config.get("image_config", {}), "image_size": image_size}}

    @classmethod
    def resize(cls, model: torch.nn.Module, processor: Any, image_size: int) -> bool:
        """Make model and processor take images of this side; return whether position embeddings were resampled."""
        config: Any = model.config
        processor.image_processor.size = {"height": image_size, "width": image_size}
        vision = config.image_config
        if vision.image_size == image_size:
            return False
        parts.resize_patches(model.get_submodule("flava.image_model.embeddings"), image_size, vision.patch_size)
        vision.image_size = image_size
        return True

    @classmethod
    def widths(cls, config: Any) -> dict[str, int]:
        """Return component -> heads x head dimension."""
        return {"vision_tower": width(config.image_config), "language_model": width(config.multimodal_config)}

    @classmethod
    def amounts(
        cls, config: Any, tower_tokens: int, lengths: Sequence[int], labels: int, images: int
    ) -> dict[str, tuple[int, int]]:
        """Return component -> (tokens, pairs): see `Backbone.amounts`.

        The text encoder sees the question, the multimodal one also the picture and a class token, so the language
        model's figures are means over both, by their numbers of layers, which are of one width as published.
        """
        seen = cls.image_tokens_of(config)
        both = (int(config.text_config.num_hidden_layers), int(config.multimodal_config.num_hidden_layers))
        sides = [(length - seen, length + int(config.multimodal_config.use_cls_token)) for length in lengths]

        def mean(power: int) -> int:
            work: int = sum(both[0] * text**power + both[1] * whole**power for text, whole in sides)
            return round(work / sum(both))

        return {
            "vision_tower": (images * tower_tokens, images * tower_tokens**2),
            # One layer for patches, one for the question.
            "projector": (round(sum(lengths) / 2), 0),
            "language_model": (mean(1), mean(2)),
            "head": (len(lengths), 0),
        }

    @classmethod
    def last_layer(cls, model: Any) -> tuple[torch.nn.Module, str]:
        """Return the classifier's last linear layer: see `ClassifierBackbone.last_layer`."""
        return model.classifier, "3"
