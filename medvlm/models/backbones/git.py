"""GIT itself: the picture, then `[CLS]`, the prompt, the answer and `[SEP]` (arXiv:2205.14100, section 3).

The model puts the picture's tokens before the text by itself, so its logits [B, N + T, V] are longer than `input_ids`
[B, T], and labels here have the logits' length. The picture sees itself whole, the text is causal and sees the
picture. A caption has no prompt, a question is the prompt of its answer; the loss is on the answer and its end only.
The tokenizer is BERT's, uncased: answers come back in small letters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from medvlm.errors import InputError
from medvlm.models.backbones.base import IGNORED, Backbone, Example
from medvlm.models.backbones.rows import kept, pad_prompts, pad_rows, pixel_values
from medvlm.models.positions import resize_embeddings

if TYPE_CHECKING:
    from medvlm.train.memory_trace import Shape

_JOINED = (
    (re.compile(r"(?<=\w) ([-/]) (?=\w)"), r"\1"),
    (re.compile(r"(?<=\d)\. (?=\d)"), "."),
    (re.compile(r"([(\[]) "), r"\1"),
    (re.compile(r" ([)\];:%])"), r"\1"),
)
"""Where English has no blank and BERT's tokens leave one, beyond what its own decoder takes out."""


class GitBackbone(Backbone):
    """Turns examples into GIT's inputs.

    Args:
        processor: the checkpoint's GitProcessor.
        image_tokens: how many tokens the model puts before the text: patches and the class token.
        max_prefix_tokens: the last so many tokens of the prompt are kept, `[CLS]` apart.
        max_suffix_tokens: the answer is cut to so many tokens, `[SEP]` included and always kept.
    """

    components: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "vision_tower": "git.image_encoder.",
        "projector": "git.visual_projection.",
        "language_model": ("git.encoder.", "git.embeddings."),
        "head": "output.",
    }
    packs = False

    def __init__(self, processor: Any, *, image_tokens: int, max_prefix_tokens: int, max_suffix_tokens: int) -> None:
        self.tokenizer = processor.tokenizer
        self.image_processor = processor.image_processor
        self.image_tokens = image_tokens
        self.max_prefix_tokens = max_prefix_tokens
        self.max_suffix_tokens = max_suffix_tokens
        made = self.tokenizer
        self._reserved = {made.cls_token_id, made.sep_token_id, made.pad_token_id}

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> torch.nn.Module:
        """Return a GitForCausalLM of these dimensions."""
        from transformers import GitConfig, GitForCausalLM

        model: torch.nn.Module = GitForCausalLM(GitConfig.from_dict(dict(config)))
        return model

    @classmethod
    def load(cls, paths: Mapping[str, Path], options: Mapping[str, Any], seed: int) -> tuple[torch.nn.Module, Any]:
        """Return the checkpoint's model and processor.

        Raises:
            InputError: the folder holds another architecture, or a GIT for videos.
        """
        from transformers import AutoConfig, GitForCausalLM

        path = paths["model"]
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        if config.model_type != "git":
            raise InputError(f"model.id: {path} is a {config.model_type} model; expected git")
        cls.compose({"model": config.to_dict()})
        options = dict(options)
        if options.get("attn_implementation") == "sdpa":
            # Neither GIT's decoder nor its tower has it.
            options["attn_implementation"] = "eager"
        model = GitForCausalLM.from_pretrained(path, local_files_only=True, **options)
        return model, cls.processor_of(paths)

    @classmethod
    def compose(cls, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the checkpoint's configuration.

        Raises:
            InputError: it is a GIT for videos.
        """
        config = dict(configs["model"])
        if config.get("num_image_with_embedding") is not None:
            raise InputError(
                f"model.id: this GIT takes videos of {config['num_image_with_embedding']} pictures; expected one for "
                "single pictures, such as microsoft/git-base"
            )
        return config

    @classmethod
    def tiny(cls, image_size: int | None, family: str | None) -> tuple[torch.nn.Module, Any]:
        """Return a GIT of about a million parameters with random weights, and its processor.

        Raises:
            InputError: a family is named, and there is one only.
        """
        if family is not None:
            raise InputError(
                f"model.id: medvlm/tiny-random-{family}: git has no such family; expected medvlm/tiny-random"
            )
        from transformers import BertTokenizer

        from medvlm.models import tiny, tiny_tokenizers

        size = image_size or tiny.IMAGE_SIZE
        made = BertTokenizer(vocab=tiny_tokenizers.wordpiece())
        model = cls.build(_tiny_config(tiny_tokenizers.rounded(len(made)), made, size))
        positions = model.get_parameter("git.image_encoder.vision_model.embeddings.position_embedding.weight")
        positions.data[1:].copy_(tiny.sinusoids(size // tiny.PATCH_SIZE, positions.shape[1]))
        return model, _tiny_processor(made, size)

    @classmethod
    def image_tokens_of(cls, config: Any) -> int:
        """Return (image size / patch size)² and one for the class token."""
        return int((config.vision_config.image_size // config.vision_config.patch_size) ** 2) + 1

    @classmethod
    def resize(cls, model: torch.nn.Module, processor: Any, image_size: int) -> bool:
        """Make model and processor take whole pictures, drawn out to squares of `image_size`.

        GIT's own processor cuts the middle out of a picture, and a finding at its border would be lost.

        Returns:
            whether position embeddings were resampled.
        """
        config: Any = model.config
        embeddings = next(one for one in model.modules() if type(one).__name__ == "GitVisionEmbeddings")
        changed = resize_embeddings(embeddings, image_size, class_token=True)
        config.vision_config.image_size = image_size
        decoder: Any = model.get_submodule("git.encoder")
        for module in decoder.modules():
            # By this the decoder knows where the picture ends in its cache, and in its own loss.
            if hasattr(module, "image_patch_tokens"):
                module.image_patch_tokens = cls.image_tokens_of(config)
        square = {"height": image_size, "width": image_size}
        processor.image_processor.size = processor.image_processor.crop_size = square
        return changed

    @classmethod
    def true_lengths(cls, inputs: Mapping[str, torch.Tensor]) -> list[int]:
        """Return the tokens of every example without padding, the picture's included."""
        picture = inputs["labels"].shape[1] - inputs["input_ids"].shape[1]
        return [picture + int(length) for length in inputs["attention_mask"].sum(dim=1)]

    @classmethod
    def fake_inputs(cls, model: Any, shape: Shape, device: torch.device) -> dict[str, Any]:
        """Return the inputs of a training step on tensors without contents: see `Backbone`."""
        from medvlm.models.features import skip_tower

        vision = model.config.vision_config
        picture = cls.image_tokens_of(model.config)
        if shape.features:
            skip_tower(model, cls)
            pictures = torch.empty(shape.images, 1, picture, vision.hidden_size, device=device, dtype=model.dtype)
        else:
            pictures = torch.empty(shape.images, 3, vision.image_size, vision.image_size, device=device)
        text = (shape.rows, shape.length - picture)
        return {
            "input_ids": torch.zeros(text, dtype=torch.long, device=device),
            "attention_mask": torch.ones(text, dtype=torch.long, device=device),
            "pixel_values": pictures,
            "logits_to_keep": torch.zeros(shape.labels, dtype=torch.long, device=device),
        }

    def _words(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        # A text that itself says "[SEP]" does not end.
        return [token for token in ids if token not in self._reserved]

    def _prefix(self, text: str) -> list[int]:
        tokens = self._words(text)
        return [self.tokenizer.cls_token_id, *tokens[max(0, len(tokens) - self.max_prefix_tokens) :]]

    def _suffix(self, text: str | None) -> list[int]:
        return [*self._words(text or "")[: self.max_suffix_tokens - 1], self.tokenizer.sep_token_id]

    def text_tokens(self, prefix: str, suffix: str) -> tuple[int, int]:
        """Return (prompt tokens with `[CLS]`, answer tokens with `[SEP]`), after truncation."""
        return len(self._prefix(prefix)), len(self._suffix(suffix))

    def pixels(self, examples: Sequence[Example]) -> torch.Tensor:
        """Return pixel values [B, 3, S, S], normalized as the tower was trained, or cached features [B, 1, N, D]."""
        values = pixel_values(self.image_processor, examples)
        # The model takes pictures by their four dimensions, so features have four, too.
        return values.unsqueeze(1) if values.dim() == 3 else values

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return training inputs, padded on the right.

        Returns:
            input_ids, attention_mask [B, T] of the text, labels [B, N + T] (unshifted, `IGNORED` off the answer),
            logits_to_keep [B, N + T] bool (True where the next token has a label), pixel_values [B, 3, S, S].
        """
        prefixes = [self._prefix(example.prefix) for example in examples]
        suffixes = [self._suffix(example.suffix) for example in examples]
        rows = pad_rows(prefixes, suffixes, self.tokenizer.pad_token_id)
        picture = torch.full((len(examples), self.image_tokens), IGNORED)
        labels = torch.cat([picture, rows["labels"]], dim=1)
        return {**rows, "labels": labels, "logits_to_keep": kept(labels), "pixel_values": self.pixels(examples)}

    def collate_prompts(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return generation inputs, padded on the left: input_ids, attention_mask [B, T], pixel_values."""
        rows = pad_prompts([self._prefix(example.prefix) for example in examples], self.tokenizer.pad_token_id)
        return {**rows, "pixel_values": self.pixels(examples)}

    def decode(self, tokens: torch.Tensor) -> list[str]:
        """Return the texts of generated tokens [B, T]: no special tokens, no blanks within 1.5 or left-sided."""
        found = self.tokenizer.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=True)
        return [_joined(text).strip() for text in found]


def _joined(text: str) -> str:
    for blanks, put in _JOINED:
        text = blanks.sub(put, text)
    return text


def _tiny_config(vocabulary: int, tokenizer: Any, image_size: int) -> dict[str, Any]:
    """Return the dimensions of the tiny architecture; bitsandbytes' CPU kernels fit its linear layers."""
    from medvlm.models import tiny

    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    # As in the tiny PaliGemma: 1 / sqrt(hidden size), or attention stays flat for long.
    spread = {"initializer_range": 0.088}
    return {
        **sizes,
        **spread,
        "vision_config": {**sizes, **spread, "image_size": image_size, "patch_size": tiny.PATCH_SIZE},
        "vocab_size": vocabulary,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _tiny_processor(tokenizer: Any, image_size: int) -> Any:
    from transformers import GitProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    square = {"height": image_size, "width": image_size}
    return GitProcessor(CLIPImageProcessorPil(size=square, crop_size=square), tokenizer)
