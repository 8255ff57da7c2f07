"""GIT-LLM: image tokens, the language model's start token if it has one, the prompt, then the answer and its end token.

The image block sees itself whole and no text; text is causal and sees the image; the loss is on the answer only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

import medvlm.models.git_llm  # noqa: F401 (so that transformers' Auto classes know it)
from medvlm.errors import InputError
from medvlm.models.backbones.base import Backbone, Example
from medvlm.models.backbones.rows import pack_rows, pad_prompts, pad_rows, pixel_values, texts
from medvlm.models.git_llm import GitLlmConfig, GitLlmForConditionalGeneration, assemble
from medvlm.models.git_llm.configuration import has_class_token
from medvlm.models.positions import resize_embeddings
from medvlm.models.quantize import mend_cpu_layers


class GitLlmBackbone(Backbone):
    """Turns examples into GIT-LLM's inputs.

    Args:
        processor: a GitLlmProcessor.
        image_tokens: how many image tokens stand before the text: patches, and CLIP's class token.
        max_prefix_tokens: the last so many tokens of the prompt are kept, the start token apart.
        max_suffix_tokens: the answer is cut to so many tokens, its end token included and always kept.
    """

    components: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "vision_tower": "vision_tower.",
        "projector": "projector.",
        "language_model": "language_model.",
    }

    def __init__(self, processor: Any, *, image_tokens: int, max_prefix_tokens: int, max_suffix_tokens: int) -> None:
        processor.image_seq_length = image_tokens
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.image_processor = processor.image_processor
        self.image_tokens = image_tokens
        self.image_token_id: int = processor.image_token_id
        self.max_prefix_tokens = max_prefix_tokens
        self.max_suffix_tokens = max_suffix_tokens

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> torch.nn.Module:
        """Return a GitLlmForConditionalGeneration of these dimensions."""
        model: torch.nn.Module = GitLlmForConditionalGeneration(GitLlmConfig.from_dict(dict(config)))
        return model

    @classmethod
    def load(cls, paths: Mapping[str, Path], options: Mapping[str, Any], seed: int) -> tuple[torch.nn.Module, Any]:
        """Return model and processor: a saved GIT-LLM, or a new one of an image tower and a language model.

        Args:
            paths: `model`, a saved GIT-LLM; or `vision_tower`, a CLIP or SigLIP, and `language_model`, a folder or a
                GGUF file.
            options: as in `Backbone`.
            seed: of the new projection's weights.

        Raises:
            InputError: another architecture, a family that refuses GIT's mask, or a GGUF file without its package.
        """
        if "model" in paths:
            model, processor = _saved(paths["model"], options)
        else:
            tower = assemble.load_tower(paths["vision_tower"], options)
            text = assemble.load_text(paths["language_model"], options)
            processor = assemble.processor_of(paths["vision_tower"], paths["language_model"], tower.config)
            model = assemble.put_together(tower, text, processor, seed, options.get("dtype", torch.float32))
        if "quantization_config" in options and not torch.cuda.is_available():
            # Before the first forward pass, which would repack the weights.
            mend_cpu_layers(model)
        assemble.check_mask(model)
        return model, processor

    @classmethod
    def processor_of(cls, paths: Mapping[str, Path]) -> Any:
        """Return the processor of a saved GIT-LLM, or of the two models that are put together."""
        if "model" in paths:
            return super().processor_of(paths)
        from transformers import AutoConfig

        vision = assemble.vision_config(AutoConfig.from_pretrained(paths["vision_tower"], local_files_only=True))
        return assemble.processor_of(paths["vision_tower"], paths["language_model"], vision)

    @classmethod
    def tiny(cls, image_size: int | None, family: str | None) -> tuple[torch.nn.Module, Any]:
        """Return a CLIP tower and a LLaMA of four layers each, and their processor.

        Raises:
            InputError: a family is named; there is one.
        """
        from transformers import CLIPVisionConfig, LlamaConfig, LlamaTokenizer
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        from medvlm.models import tiny, tiny_tokenizers
        from medvlm.models.git_llm.processing import GitLlmProcessor

        if family is not None:
            raise InputError(f"model.id: git_llm has one untrained form, no {family}; expected medvlm/tiny-random")
        side = image_size or tiny.IMAGE_SIZE
        square = {"height": side, "width": side}
        vocabulary, merges = tiny_tokenizers.sentencepiece(["<unk>", "<s>", "</s>"])
        processor = GitLlmProcessor(
            CLIPImageProcessorPil(size=square, crop_size=square), LlamaTokenizer(vocab=vocabulary, merges=merges)
        )
        sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
        config = GitLlmConfig(
            vision_config=CLIPVisionConfig(**sizes, image_size=side, patch_size=tiny.PATCH_SIZE),
            text_config=LlamaConfig(
                **sizes,
                initializer_range=tiny.INITIAL,
                vocab_size=tiny_tokenizers.rounded(len(processor.tokenizer)),
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=2,
            ),
            image_token_id=processor.image_token_id,
        )
        processor.image_seq_length = config.image_tokens
        return GitLlmForConditionalGeneration(config), processor

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
        assemble.check_text(text)
        # The placeholder's id is the tokenizer's to say; it has no weights, so a plan does not depend on it.
        whole = GitLlmConfig(
            vision_config=assemble.vision_config(vision), text_config=text, image_token_id=text.vocab_size
        )
        config: dict[str, Any] = whole.to_dict()
        return config

    @classmethod
    def image_tokens_of(cls, config: Any) -> int:
        """Return (image size / patch size)², and one for CLIP's class token."""
        return int(config.image_tokens)

    @classmethod
    def resize(cls, model: torch.nn.Module, processor: Any, image_size: int) -> bool:
        """Make model and processor take images of `image_size`; return whether position embeddings were resampled."""
        config: Any = model.config
        vision = config.vision_config
        embeddings = next(module for module in model.modules() if hasattr(module, "position_embedding"))
        changed = resize_embeddings(embeddings, image_size, class_token=has_class_token(vision.model_type))
        vision.image_size = image_size
        processor.image_processor.size = {"height": image_size, "width": image_size}
        if hasattr(processor.image_processor, "crop_size"):
            processor.image_processor.crop_size = {"height": image_size, "width": image_size}
        processor.image_seq_length = config.image_tokens
        return changed

    def _prefix(self, text: str) -> list[int]:
        tokens: list[int] = self.processor.prompt_tokens(text, self.max_prefix_tokens)
        return tokens

    def _suffix(self, text: str | None) -> list[int]:
        tokens: list[int] = self.processor.answer_tokens(text or "", self.max_suffix_tokens)
        return tokens

    def text_tokens(self, prefix: str, suffix: str) -> tuple[int, int]:
        """Return (prompt tokens with the start token, answer tokens with the end token), after truncation."""
        return len(self._prefix(prefix)) - self.image_tokens, len(self._suffix(suffix))

    def pixels(self, examples: Sequence[Example]) -> torch.Tensor:
        """Return pixel values [B, 3, S, S], normalized as the tower was trained."""
        return pixel_values(self.image_processor, examples)

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return training inputs, padded on the right.

        Returns:
            input_ids, attention_mask, labels [B, T], logits_to_keep [B, T] bool (see `rows.pad_rows`), pixel_values.
        """
        prefixes = [self._prefix(example.prefix) for example in examples]
        suffixes = [self._suffix(example.suffix) for example in examples]
        rows = pad_rows(prefixes, suffixes, self.tokenizer.pad_token_id)
        return {**rows, "pixel_values": self.pixels(examples)}

    def collate_packed(self, examples: Sequence[Example], pack_tokens: int | None) -> dict[str, torch.Tensor]:
        """Return training inputs in few rows, the examples of a row blind to each other: see `Backbone`."""
        packed = pack_rows(
            [self._prefix(example.prefix) for example in examples],
            [self._suffix(example.suffix) for example in examples],
            [self.image_tokens] * len(examples),
            pad=self.tokenizer.pad_token_id,
            pack_tokens=pack_tokens,
        )
        return {**packed.inputs, "pixel_values": self.pixels([examples[number] for number in packed.order])}

    def collate_prompts(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return generation inputs, padded on the left: input_ids, attention_mask [B, T], pixel_values."""
        rows = pad_prompts([self._prefix(example.prefix) for example in examples], self.tokenizer.pad_token_id)
        return {**rows, "pixel_values": self.pixels(examples)}

    def decode(self, tokens: torch.Tensor) -> list[str]:
        """Return the texts of generated tokens [B, T], special tokens and outer blanks removed."""
        return texts(self.tokenizer, tokens)


def _saved(path: Path, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return a saved GIT-LLM and its processor."""
    from transformers import AutoConfig, AutoProcessor

    config = AutoConfig.from_pretrained(path, local_files_only=True)
    if config.model_type != "git_llm":
        raise InputError(f"model.id: {path} is a {config.model_type} model; expected git_llm")
    options = dict(options)
    quantization = options.pop("quantization_config", None)
    if quantization is not None:
        head = f"language_model.{assemble.head_name(config.text_config)}"
        options["quantization_config"] = assemble.spared(quantization, ["vision_tower", "projector", head])
    model = GitLlmForConditionalGeneration.from_pretrained(path, local_files_only=True, **options)
    processor = AutoProcessor.from_pretrained(path, local_files_only=True, backend="pil")
    processor.fit(model.get_input_embeddings().weight.shape[0])
    return model, processor
