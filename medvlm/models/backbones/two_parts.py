"""What the backbones share that are put together here of an image tower and a decoder language model.

The tower is a CLIP or SigLIP; what lies between the two is new, and named `projector` whatever it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from medvlm.errors import InputError
from medvlm.models.backbones.base import Backbone
from medvlm.models.backbones.rows import texts
from medvlm.models.git_llm import assemble as parts
from medvlm.models.quantize import mend_cpu_layers


class TwoParts(Backbone):
    """A tower, a projector and a language model as one: how such a model is made, loaded, planned and resized.

    Args:
        processor: of `processor_class`.
        image_tokens: as `image_tokens_of` says.
        max_prefix_tokens: the last so many tokens of the prompt are kept.
        max_suffix_tokens: the answer is cut to so many tokens, its end token included and always kept.
    """

    components: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "vision_tower": "vision_tower.",
        "projector": "projector.",
        "language_model": "language_model.",
    }
    model_class: ClassVar[Any]
    """Of the whole, made of a configuration and, where they have weights, tower and language model."""
    config_class: ClassVar[Any]
    """Of the whole; its `model_type` is what a saved one says that it is."""
    processor_class: ClassVar[Any]
    """Made of an image processor and a tokenizer."""
    assembly: ClassVar[Any]
    """Module with `check_text`, `processor_of` and `put_together` for this kind of whole."""

    def __init__(self, processor: Any, *, image_tokens: int, max_prefix_tokens: int, max_suffix_tokens: int) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.image_processor = processor.image_processor
        self.image_tokens = image_tokens
        self.image_token_id: int = processor.image_token_id
        self.max_prefix_tokens = max_prefix_tokens
        self.max_suffix_tokens = max_suffix_tokens

    @classmethod
    def prove(cls, model: Any) -> None:
        """Raise InputError where the language model's family does not do what the whole needs of it."""
        raise NotImplementedError

    @classmethod
    def together(cls, vision: Any, text: Any) -> Any:
        """Return the configuration of the whole for those of its parts, where no tokenizer is at hand."""
        raise NotImplementedError

    @classmethod
    def tiny_of(cls, vision: Any, text: Any, processor: Any) -> torch.nn.Module:
        """Return the untrained whole of two small configurations, and tell the processor what it must know."""
        raise NotImplementedError

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> torch.nn.Module:
        """Return the whole of these dimensions."""
        model: torch.nn.Module = cls.model_class(cls.config_class.from_dict(dict(config)))
        return model

    @classmethod
    def load(cls, paths: Mapping[str, Path], options: Mapping[str, Any], seed: int) -> tuple[torch.nn.Module, Any]:
        """Return model and processor: a saved whole, or a new one of an image tower and a language model.

        Args:
            paths: `model`, a saved whole; or `vision_tower`, a CLIP or SigLIP, and `language_model`, a folder or a
                GGUF file.
            options: as in `Backbone`; `sizes` are for `put_together`.
            seed: of the new weights.

        Raises:
            InputError: another architecture, a family that `prove` refuses, or a GGUF file without its package.
        """
        options = dict(options)
        sizes = options.pop("sizes", {})
        if "model" in paths:
            model, processor = cls._saved(paths["model"], options)
        else:
            tower = parts.load_tower(paths["vision_tower"], options)
            text = parts.load_text(paths["language_model"], options)
            processor = cls.processor_of(paths)
            dtype = options.get("dtype", torch.float32)
            model = cls.assembly.put_together(tower, text, processor, seed, dtype, **sizes)
        if "quantization_config" in options and not torch.cuda.is_available():
            # Before the first forward pass, which would repack the weights.
            mend_cpu_layers(model)
        cls.prove(model)
        return model, processor

    @classmethod
    def _saved(cls, path: Path, options: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return a saved whole and its processor."""
        from transformers import AutoConfig, AutoProcessor

        config = AutoConfig.from_pretrained(path, local_files_only=True)
        expected = cls.config_class.model_type
        if config.model_type != expected:
            raise InputError(f"model.id: {path} is a {config.model_type} model; expected {expected}")
        options = dict(options)
        quantization = options.pop("quantization_config", None)
        if quantization is not None:
            head = f"language_model.{parts.head_name(config.text_config)}"
            options["quantization_config"] = parts.spared(quantization, ["vision_tower", "projector", head])
        model = cls.model_class.from_pretrained(path, local_files_only=True, **options)
        processor = AutoProcessor.from_pretrained(path, local_files_only=True, backend="pil")
        processor.fit(model.get_input_embeddings().weight.shape[0])
        return model, processor

    @classmethod
    def processor_of(cls, paths: Mapping[str, Path]) -> Any:
        """Return the processor of a saved whole, or of a tower and a language model put together."""
        if "model" in paths:
            return super().processor_of(paths)
        from transformers import AutoConfig

        vision = parts.vision_config(AutoConfig.from_pretrained(paths["vision_tower"], local_files_only=True))
        return cls.assembly.processor_of(paths["vision_tower"], paths["language_model"], vision)

    @classmethod
    def tiny(cls, image_size: int | None, family: str | None) -> tuple[torch.nn.Module, Any]:
        """Return the whole of a CLIP tower and a LLaMA of four layers each, and its processor.

        Raises:
            InputError: a family is named; there is one.
        """
        from transformers import CLIPVisionConfig, LlamaConfig, LlamaTokenizer
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        from medvlm.models import tiny, tiny_tokenizers

        if family is not None:
            kind = cls.config_class.model_type
            raise InputError(f"model.id: {kind} has one untrained form, no {family}; expected medvlm/tiny-random")
        side = image_size or tiny.IMAGE_SIZE
        square = {"height": side, "width": side}
        vocabulary, merges = tiny_tokenizers.sentencepiece(["<unk>", "<s>", "</s>"])
        processor = cls.processor_class(
            CLIPImageProcessorPil(size=square, crop_size=square), LlamaTokenizer(vocab=vocabulary, merges=merges)
        )
        sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
        vision = CLIPVisionConfig(**sizes, image_size=side, patch_size=tiny.PATCH_SIZE)
        text = LlamaConfig(
            **sizes,
            initializer_range=tiny.INITIAL,
            vocab_size=tiny_tokenizers.rounded(len(processor.tokenizer)),
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
        )
        return cls.tiny_of(vision, text, processor), processor

    @classmethod
    def compose(cls, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the configuration of the whole: the saved one, or that of the two parts, as `load` makes it.

        Raises:
            InputError: as `load`.
        """
        if "model" in configs:
            return dict(configs["model"])
        from transformers import AutoConfig

        vision, text = (AutoConfig.for_model(**configs[role]) for role in ("vision_tower", "language_model"))
        cls.assembly.check_text(text)
        config: dict[str, Any] = cls.together(parts.vision_config(vision), text).to_dict()
        return config

    @classmethod
    def resize(cls, model: torch.nn.Module, processor: Any, image_size: int) -> bool:
        """Make model and processor take images of `image_size`; return whether position embeddings were resampled."""
        changed = parts.resize_tower(model, image_size)
        processor.image_processor.size = {"height": image_size, "width": image_size}
        if hasattr(processor.image_processor, "crop_size"):
            processor.image_processor.crop_size = {"height": image_size, "width": image_size}
        return changed

    def _suffix(self, text: str | None) -> list[int]:
        tokens: list[int] = self.processor.answer_tokens(text or "", self.max_suffix_tokens)
        return tokens

    def decode(self, tokens: torch.Tensor) -> list[str]:
        """Return the texts of generated tokens [B, T], special tokens and outer blanks removed."""
        return texts(self.tokenizer, tokens)
