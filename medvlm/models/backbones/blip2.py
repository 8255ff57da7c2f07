"""BLIP-2 and InstructBLIP: 32 queries of a Q-Former stand for the picture, then start token, prompt, answer and end.

A frozen tower's patches are read by the Q-Former, whose queries go through a linear layer into a decoder as if they
were words (arXiv:2301.12597, section 3). InstructBLIP's Q-Former reads the prompt too, in tokens of its own
(arXiv:2305.06500, section 2.3); it never sees the answer. The decoder is causal, the loss is on the answer only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from medvlm.errors import InputError
from medvlm.models.backbones.base import Backbone, Example, width
from medvlm.models.backbones.rows import answer_gap, pack_rows, pad_prompts, pad_rows, pixel_values, texts
from medvlm.models.positions import image_tokens, resample_positions

if TYPE_CHECKING:
    from medvlm.train.memory_trace import Shape

IMAGE_TOKEN = "<image>"


class Blip2Backbone(Backbone):
    """Turns examples into the inputs of BLIP-2 or InstructBLIP with a decoder (OPT, Vicuna).

    Args:
        processor: the checkpoint's, as `processor_of` returns it: it knows the token that ends an answer.
        image_tokens: how many queries stand for a picture.
        max_prefix_tokens: the last so many tokens of the prompt are kept, the start token apart.
        max_suffix_tokens: the answer is cut to so many tokens, the end token included and always kept.
    """

    components: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "vision_tower": "vision_model.",
        "projector": ("qformer.", "language_projection.", "query_tokens."),
        "language_model": "language_model.",
    }

    def __init__(self, processor: Any, *, image_tokens: int, max_prefix_tokens: int, max_suffix_tokens: int) -> None:
        self.tokenizer = processor.tokenizer
        self.image_processor = processor.image_processor
        self.reader = getattr(processor, "qformer_tokenizer", None)
        self.image_tokens = image_tokens
        self.max_prefix_tokens = max_prefix_tokens
        self.max_suffix_tokens = max_suffix_tokens
        made = self.tokenizer
        self.image_token_id: int = made.convert_tokens_to_ids(IMAGE_TOKEN)
        self.end_token_id: int = getattr(processor, "end_token_id", made.eos_token_id)
        self._start = [] if made.bos_token_id is None else [made.bos_token_id]
        self._reserved = {self.image_token_id, made.bos_token_id, made.eos_token_id, made.pad_token_id}
        self._ends_lines = made.decode([self.end_token_id]) == "\n"
        self._gap = answer_gap(self._words)

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> torch.nn.Module:
        """Return a Blip2ForConditionalGeneration or InstructBlipForConditionalGeneration of these dimensions."""
        from transformers import AutoConfig

        whole = AutoConfig.for_model(**config)
        model: torch.nn.Module = _class_of(whole.model_type)(whole)
        return model

    @classmethod
    def load(cls, paths: Mapping[str, Path], options: Mapping[str, Any], seed: int) -> tuple[torch.nn.Module, Any]:
        """Return the checkpoint's model and processor.

        Raises:
            InputError: the folder holds another architecture, one with an encoder-decoder, or a copy from before
                `<image>` had a token.
        """
        from transformers import AutoConfig

        path = paths["model"]
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        if config.model_type not in _CLASSES:
            raise InputError(f"model.id: {path} is a {config.model_type} model; expected blip-2 or instructblip")
        cls.compose({"model": config.to_dict()})
        processor = cls.processor_of(paths)
        model: Any = _class_of(config.model_type).from_pretrained(path, local_files_only=True, **options)
        image = processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        if image >= model.get_input_embeddings().weight.shape[0]:
            raise InputError(
                f"model.id: {path}: its tokenizer has {IMAGE_TOKEN} at {image}, where the model has no embedding: an "
                "old copy; expected the Hub's current revision"
            )
        model.config.image_token_index = image
        _generates_with(model, processor)
        return model, processor

    @classmethod
    def processor_of(cls, paths: Mapping[str, Path]) -> Any:
        """Return the checkpoint's processor; `end_token_id` is what its language model was trained to end with."""
        from transformers import AutoConfig

        processor = super().processor_of(paths)
        config = AutoConfig.from_pretrained(paths["model"], local_files_only=True)
        processor.num_query_tokens = config.num_query_tokens
        return _with_end(processor, config)

    @classmethod
    def compose(cls, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the checkpoint's configuration.

        Raises:
            InputError: its language model is an encoder-decoder (Flan-T5).
        """
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        config = dict(configs["model"])
        family = (config.get("text_config") or {}).get("model_type", "opt")
        if family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise InputError(
                f"model.id: its language model, {family}, has an encoder beside its decoder, which is not trained "
                "here; expected a BLIP-2 with OPT or an InstructBLIP with Vicuna"
            )
        return config

    @classmethod
    def tiny(cls, image_size: int | None, family: str | None) -> tuple[torch.nn.Module, Any]:
        """Return a small model with random weights, and its processor: `blip-2` with OPT, or `instructblip` with LLaMA.

        Raises:
            InputError: another family.
        """
        from medvlm.models.backbones import blip2_tiny

        if family not in (None, "blip-2", "instructblip"):
            raise InputError(f"model.id: medvlm/tiny-random-{family}: blip2 has no such family; expected instructblip")
        model, processor = blip2_tiny.made(cls, image_size, instructed=family == "instructblip")
        processor = _with_end(processor, model.config)
        _generates_with(model, processor)
        return model, processor

    @classmethod
    def image_tokens_of(cls, config: Any) -> int:
        """Return how many queries the Q-Former has, whatever the size of the picture."""
        return int(config.num_query_tokens)

    @classmethod
    def resize(cls, model: torch.nn.Module, processor: Any, image_size: int) -> bool:
        """Make model and processor take images of `image_size`; return whether position embeddings were resampled."""
        config: Any = model.config
        embeddings: Any = model.get_submodule("vision_model.embeddings")
        changed = bool(embeddings.image_size != image_size)
        if changed:
            patches = image_tokens(image_size, embeddings.patch_size)
            old = embeddings.position_embedding
            grid = resample_positions(old.data[0, 1:], image_size // embeddings.patch_size)
            new = torch.cat([old.data[0, :1], grid])[None]
            embeddings.position_embedding = torch.nn.Parameter(new, requires_grad=old.requires_grad)
            embeddings.image_size, embeddings.num_patches, embeddings.num_positions = image_size, patches, patches + 1
        config.vision_config.image_size = image_size
        processor.image_processor.size = {"height": image_size, "width": image_size}
        return changed

    @classmethod
    def widths(cls, config: Any) -> dict[str, int]:
        """Return component -> heads x head dimension of its attention; the projector has some, too."""
        return {**super().widths(config), "projector": width(config.qformer_config)}

    @classmethod
    def amounts(
        cls, config: Any, tower_tokens: int, lengths: Sequence[int], labels: int, images: int
    ) -> dict[str, tuple[int, int]]:
        """Return component -> (tokens, pairs of tokens) of one training batch: see `Backbone`."""
        seen = _seen(config)
        tokens, pairs = _read(config, seen, _prompt(config, sum(lengths), labels, images))
        return {
            **super().amounts(config, seen, lengths, labels, images),
            "projector": (images * round(tokens), images * round(pairs)),
        }

    @classmethod
    def amounts_in(
        cls, config: Any, tower_tokens: int, inputs: Mapping[str, torch.Tensor]
    ) -> dict[str, tuple[int, int]]:
        """Return what `amounts` does, by the prompts as the Q-Former reads them, whichever examples share a batch."""
        found = super().amounts_in(config, tower_tokens, inputs)
        if "qformer_attention_mask" in inputs:
            read = [_read(config, _seen(config), prompt) for prompt in inputs["qformer_attention_mask"].sum(1).tolist()]
            found["projector"] = (sum(round(tokens) for tokens, _ in read), sum(round(pairs) for _, pairs in read))
        return found

    @classmethod
    def fake_inputs(cls, model: Any, shape: Shape, device: torch.device) -> dict[str, Any]:
        """Return the inputs of a training step on tensors without contents: see `Backbone`."""
        from medvlm.models.features import skip_tower

        config = model.config
        vision = config.vision_config
        if shape.features:
            skip_tower(model, cls)
            pictures = torch.empty(shape.images, _seen(config), vision.hidden_size, device=device, dtype=model.dtype)
        else:
            pictures = torch.empty(shape.images, 3, vision.image_size, vision.image_size, device=device)
        text = (shape.rows, shape.length)
        eager = config.get_text_config()._attn_implementation == "eager"
        mask = torch.zeros(shape.rows, 1, *text[1:] * 2, device=device, dtype=torch.float32 if eager else torch.bool)
        inputs = {
            "input_ids": torch.zeros(text, dtype=torch.long, device=device),
            "attention_mask": mask,
            "position_ids": torch.zeros(text, dtype=torch.long, device=device),
            "pixel_values": pictures,
            "logits_to_keep": torch.zeros(shape.labels, dtype=torch.long, device=device),
        }
        if config.model_type == "instructblip":
            prompt = _prompt(config, shape.rows * shape.length, shape.rows * shape.labels, shape.images)
            inputs["qformer_input_ids"] = torch.zeros(shape.images, prompt, dtype=torch.long, device=device)
        return inputs

    def _words(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        # A text that itself says "<image>" must not claim a place in the picture, and "</s>" in it is no end.
        return [token for token in ids if token not in self._reserved]

    def _last(self, tokens: list[int]) -> list[int]:
        # The end of a prompt leads into the answer.
        return tokens[max(0, len(tokens) - self.max_prefix_tokens) :]

    def _prefix(self, text: str) -> list[int]:
        return [self.image_token_id] * self.image_tokens + self._start + self._last(self._words(text))

    def _suffix(self, prefix: str, text: str | None) -> list[int]:
        answer = text or ""
        if self._ends_lines:
            # The end of a line would be the end of the answer.
            answer = re.sub(r"\s*\n\s*", " ", answer)
        # Where there is no prompt the answer begins a text.
        tokens = self._words((self._gap if prefix else "") + answer) if answer else []
        tokens = [token for token in tokens if token != self.end_token_id]
        return [*tokens[: self.max_suffix_tokens - 1], self.end_token_id]

    def _rows_of(self, examples: Sequence[Example]) -> tuple[list[list[int]], list[list[int]]]:
        prefixes = [self._prefix(example.prefix) for example in examples]
        return prefixes, [self._suffix(example.prefix, example.suffix) for example in examples]

    def _pictures(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return pixel values [B, 3, S, S], and for InstructBLIP the prompts as its Q-Former reads them [B, Q]."""
        found = {"pixel_values": pixel_values(self.image_processor, examples)}
        reader = self.reader
        if reader is None:
            return found
        reserved = {reader.cls_token_id, reader.sep_token_id, reader.pad_token_id}
        prompts = []
        for example in examples:
            tokens = reader(example.prefix, add_special_tokens=False)["input_ids"]
            words = self._last([token for token in tokens if token not in reserved])
            prompts.append([reader.cls_token_id, *words, reader.sep_token_id])
        read = pad_rows(prompts, [[]] * len(prompts), reader.pad_token_id)
        return {
            **found,
            "qformer_input_ids": read["input_ids"],
            "qformer_attention_mask": read["attention_mask"],
        }

    def text_tokens(self, prefix: str, suffix: str) -> tuple[int, int]:
        """Return (prompt tokens with the start token, answer tokens with the end token), after truncation."""
        return len(self._prefix(prefix)) - self.image_tokens, len(self._suffix(prefix, suffix))

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return training inputs, padded on the right.

        Returns:
            input_ids, attention_mask, labels [B, T], logits_to_keep [B, T] bool (see `rows.pad_rows`), pixel_values;
            of InstructBLIP qformer_input_ids and qformer_attention_mask [B, Q].
        """
        return {**pad_rows(*self._rows_of(examples), self.tokenizer.pad_token_id), **self._pictures(examples)}

    def collate_packed(self, examples: Sequence[Example], pack_tokens: int | None) -> dict[str, torch.Tensor]:
        """Return training inputs in few rows, the examples of a row blind to each other: see `Backbone`."""
        packed = pack_rows(
            *self._rows_of(examples), [0] * len(examples), pad=self.tokenizer.pad_token_id, pack_tokens=pack_tokens
        )
        return {**packed.inputs, **self._pictures([examples[number] for number in packed.order])}

    def collate_prompts(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return generation inputs, padded on the left: the keys of `collate` but labels and logits_to_keep."""
        rows = pad_prompts([self._prefix(example.prefix) for example in examples], self.tokenizer.pad_token_id)
        return {**rows, **self._pictures(examples)}

    def answer(
        self, model: Any, inputs: Mapping[str, torch.Tensor], max_new_tokens: int, search: Mapping[str, Any]
    ) -> list[str]:
        """Return the answers to what `collate_prompts` made, up to the token that training ends them with."""
        ends = {"eos_token_id": self.end_token_id, "pad_token_id": self.tokenizer.pad_token_id}
        return super().answer(model, inputs, max_new_tokens, {**ends, **search})

    def decode(self, tokens: torch.Tensor) -> list[str]:
        """Return the texts of generated tokens [B, T], special tokens and outer blanks removed."""
        return texts(self.tokenizer, tokens)


_CLASSES = {"blip-2": "Blip2ForConditionalGeneration", "instructblip": "InstructBlipForConditionalGeneration"}


def _class_of(model_type: str) -> Any:
    import transformers

    return getattr(transformers, _CLASSES[model_type])


def _with_end(processor: Any, config: Any) -> Any:
    """Return the processor with `end_token_id`: a line's end for BLIP-2's OPT, the tokenizer's `</s>` for Vicuna.

    The configuration of InstructBLIP has the numbers of an early LLaMA (end 1, which is `<s>` in its tokenizer).
    """
    instructed = config.model_type == "instructblip"
    end = processor.tokenizer.eos_token_id if instructed else config.text_config.eos_token_id
    processor.end_token_id = end[0] if isinstance(end, (list, tuple)) else end
    return processor


def _generates_with(model: Any, processor: Any) -> None:
    """Let the model end what it generates where training does, also when it is saved and loaded without medvlm."""
    model.generation_config.eos_token_id = processor.end_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id


def _seen(config: Any) -> int:
    """Return how many tokens the tower makes of a picture: patches and the class token."""
    vision = config.vision_config
    return int((vision.image_size // vision.patch_size) ** 2) + 1


def _prompt(config: Any, tokens: int, labels: int, images: int) -> int:
    """Return about how many tokens of a prompt the Q-Former reads, if it was one in the decoder's tokens."""
    if config.model_type != "instructblip":
        return 0
    words = (tokens - labels) // max(1, images) - int(config.num_query_tokens)
    return min(max(2, words + 1), int(config.qformer_config.max_position_embeddings))


def _read(config: Any, seen: int, prompt: int) -> tuple[float, float]:
    """Return what a picture costs: tokens through all layers of the projector, and pairs in all of its attentions.

    Its layers see different numbers of tokens: those that read the picture make keys and values of `seen`, a prompt has
    feed-forward layers of its own, and all else is done for the queries.
    """
    former, queries = config.qformer_config, int(config.num_query_tokens)
    side, inner, layers = former.hidden_size, former.intermediate_size, former.num_hidden_layers
    crossing = -(-layers // former.cross_attention_frequency)
    keys, feed = 2 * side * config.vision_config.hidden_size * crossing, 2 * side * inner * layers
    own, out = 4 * side * side * layers, side * config.text_config.hidden_size
    across = 2 * side * side * crossing
    every = own + across + keys + feed * (2 if prompt else 1) + out
    work = (own + feed) * (queries + prompt) + (across + out) * queries + keys * seen
    pairs = ((queries + prompt) ** 2 * layers + queries * seen * crossing) / (layers + crossing)
    return work / every, pairs
