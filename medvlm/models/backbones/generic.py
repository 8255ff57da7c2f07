"""Chat models: any `AutoModelForImageTextToText` with a chat template, prompts written as the template says.

The user's turn holds the pictures and the prefix, the model's turn the suffix and the end of the turn, which is learned
as well. Few-shot examples are earlier turns. The loss is on the last answer only. What a family needs beside tokens and
pictures (grids, masks, token types) is its own processor's, and its attention mask is its own model's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from PIL import Image

from medvlm.errors import InputError, RecipeError
from medvlm.models.backbones import generic_families as families
from medvlm.models.backbones.base import IGNORED, Backbone, Example
from medvlm.models.backbones.generic_chat import Chat, Turn
from medvlm.models.backbones.generic_processor import load_processor
from medvlm.models.backbones.generic_rows import Inputs, by_token, continued, padded, same_shape
from medvlm.models.backbones.rows import kept, texts

if TYPE_CHECKING:
    from medvlm.recipe.models import Recipe
    from medvlm.train.memory_trace import Shape

NESTED = ("IdeficsProcessor", "Idefics2Processor", "Idefics3Processor", "SmolVLMProcessor")
"""Processors that give the pictures of a batch sample by sample."""
UNFIT = {"mllama": "takes no batch of samples with and without pictures"}
"""Type of a model that cannot be trained here -> why."""
LONGEST = 200
"""How often a picture's short side goes into its long one at most: Qwen refuses others (`smart_resize`)."""


class GenericBackbone(Backbone):
    """Turns examples into the inputs of a chat model.

    Args:
        processor: the checkpoint's, as `load_processor` reads it.
        image_tokens: how many tokens stand for a picture.
        max_prefix_tokens: each user's text is cut to so many tokens; what the template writes is not counted.
        max_suffix_tokens: an answer is cut to so many tokens, its end included and always kept.
    """

    components: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "vision_tower": "model.vision_tower.",
        "projector": "model.multi_modal_projector.",
        "language_model": "model.language_model.",
    }
    quantizable = "language_model"
    several = True
    packs = False
    caches = False

    def __init__(self, processor: Any, *, image_tokens: int, max_prefix_tokens: int, max_suffix_tokens: int) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.image_processor = processor.image_processor
        self.image_tokens = image_tokens
        name = type(processor).__name__
        self.interleaved = name == "IdeficsProcessor"
        # A row a sample, [B, N, 3, S, S], not a picture after the other [N, 3, S, S].
        self.nested = name in NESTED
        self.chat = Chat(
            processor,
            template=_idefics_template(processor.tokenizer) if self.interleaved else None,
            max_prefix_tokens=max_prefix_tokens,
            max_suffix_tokens=max_suffix_tokens,
        )
        self.pad: int = next(
            token for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0) if token is not None
        )

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> torch.nn.Module:
        """Return the model of these dimensions.

        Raises:
            InputError: no model of pictures and text that fits here is known for them.
        """
        from transformers import AutoConfig, AutoModelForImageTextToText

        whole = AutoConfig.for_model(**config)
        _check_kind(whole, str(config.get("model_type")))
        model: torch.nn.Module = AutoModelForImageTextToText.from_config(whole)
        return model

    @classmethod
    def load(cls, paths: Mapping[str, Path], options: Mapping[str, Any], seed: int) -> tuple[torch.nn.Module, Any]:
        """Return the checkpoint's model and processor.

        Raises:
            InputError: the folder holds no model of pictures and text, or no processor for one.
        """
        from transformers import AutoConfig, AutoModelForImageTextToText

        path = paths["model"]
        _check_kind(AutoConfig.from_pretrained(path, local_files_only=True), str(path))
        processor = load_processor(path)
        model: Any = AutoModelForImageTextToText.from_pretrained(path, local_files_only=True, **options)
        # Decoding is the recipe's to say; what a checkpoint says of drawing would be warned of each time.
        for name in ("temperature", "top_p", "top_k"):
            setattr(model.generation_config, name, None)
        model.generation_config.do_sample = False
        return model, processor

    @classmethod
    def tiny(cls, image_size: int | None, family: str | None) -> tuple[torch.nn.Module, Any]:
        """Return a small untrained model of a family (smolvlm when None) and its processor.

        Raises:
            InputError: no such family.
            RecipeError: its pictures cannot have this side.
        """
        from medvlm.models.backbones.generic_tiny import tiny_model

        return tiny_model(image_size, family)

    @classmethod
    def components_of(cls, config: Any) -> dict[str, tuple[str, ...]]:
        """Return component -> the prefixes of its parameters' names in a model of this configuration.

        Raises:
            InputError: an unknown family whose parts cannot be told apart.
        """
        return dict(families.components(config))

    @classmethod
    def image_size_of(cls, config: Any) -> int | None:
        """Return the side of the square picture in pixels; None where pictures keep their shape (Qwen)."""
        return families.side(config)

    @classmethod
    def patch_size_of(cls, config: Any) -> int:
        """Return of what the side must be a multiple, in pixels."""
        return families.step(config)

    @classmethod
    def resized(cls, config: dict[str, Any], image_size: int) -> dict[str, Any]:
        """Return a configuration for pictures of this side.

        Raises:
            RecipeError: it is no multiple of what becomes one token, or the family is not known by name.
        """
        from transformers import AutoConfig

        families.check_side(AutoConfig.for_model(**config), image_size)
        return {**config, "vision_config": {**config["vision_config"], "image_size": image_size}}

    @classmethod
    def image_tokens_of(cls, config: Any) -> int:
        """Return how many tokens stand for a picture.

        For Qwen for a square one; an oblong one of the same area may have a row and a column more.
        """
        return families.image_tokens(config)

    @classmethod
    def takes_sdpa(cls, config: Any) -> bool:
        """Return True where the family computes attention by torch's own function."""
        from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

        family = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None)
        return bool(getattr(family, "_supports_sdpa", False))

    @classmethod
    def resize(cls, model: torch.nn.Module, processor: Any, image_size: int) -> bool:
        """Make model and processor take pictures of this side, whole; return whether positions were resampled.

        Qwen keeps a picture's shape and gives it the area of the square; Idefics3 and SmolVLM cut it into no tiles.

        Raises:
            RecipeError: it is no multiple of what becomes one token.
        """
        return families.resize(model, processor, image_size)

    @classmethod
    def amounts(
        cls, config: Any, tower_tokens: int, lengths: Sequence[int], labels: int, images: int
    ) -> dict[str, tuple[int, int]]:
        """Return component -> (tokens, pairs of tokens in attention) of a batch; see `Backbone`.

        Pictures whose size nothing fixes count as the largest that the family takes. Where LLaVA takes the last layer
        but one of its tower, the last one's backward is counted though there is none.
        """
        found = super().amounts(config, tower_tokens, lengths, labels, images)
        if config.model_type in families.QWEN:
            tower_tokens = families.tower_patches(config)
        found["vision_tower"] = (images * tower_tokens, images * families.tower_pairs(config, tower_tokens))
        if config.model_type == "idefics":
            found |= families.idefics_amounts(config, tower_tokens, lengths, images)
        return found

    @classmethod
    def amounts_in(
        cls, config: Any, tower_tokens: int, inputs: Mapping[str, torch.Tensor]
    ) -> dict[str, tuple[int, int]]:
        """Return the same of a batch, by its pictures' true sizes and tiles; see `Backbone`."""
        found = super().amounts_in(config, tower_tokens, inputs)
        patches = families.patches_in(config, tower_tokens, inputs)
        found["vision_tower"] = (sum(patches), sum(families.tower_pairs(config, one) for one in patches))
        token = getattr(config, "image_token_id", None)
        if config.model_type != "idefics" and token is not None:
            found["projector"] = (int((inputs["input_ids"] == token).sum()), 0)
        return found

    @classmethod
    def widths(cls, config: Any) -> dict[str, int]:
        """Return component -> heads x head dimension of its attention."""
        found = super().widths(config)
        if config.model_type == "qwen2_vl":
            # What it calls hidden_size is the decoder's.
            found["vision_tower"] = int(config.vision_config.embed_dim)
        if config.model_type == "idefics":
            part = config.perceiver_config
            found["projector"] = int(part.resampler_n_heads) * int(part.resampler_head_dim)
        return found

    @classmethod
    def check(cls, recipe: Recipe, config: Any) -> None:
        """Raise where a projector is to be trained that cannot be told apart; see `Backbone`.

        Raises:
            RecipeError: says so.
        """
        kind = recipe.adapters.projector.kind
        if kind != "frozen" and not cls.components_of(config)["projector"]:
            problem = f"adapters.projector: {kind}: which part of a {config.model_type} model it is, is not known"
            raise RecipeError("recipe", [f"{problem}; expected frozen"])

    @classmethod
    def fake_inputs(cls, model: Any, shape: Shape, device: torch.device) -> dict[str, Any]:
        """Return the inputs of a training step on tensors without contents; see `Backbone`."""
        from medvlm.models.backbones import generic_memory

        return generic_memory.inputs(model, shape, device)

    @classmethod
    def images_in(cls, inputs: Mapping[str, torch.Tensor]) -> int:
        """Return the number of pictures in a batch, padding apart; of tiles where the inputs hold nothing else."""
        for name in ("image_grid_thw", "image_sizes"):
            if name in inputs:
                return len(inputs[name])
        pictures = inputs.get("pixel_values")
        if pictures is None:
            return 0
        if pictures.dim() == 5:
            # [B, N, 3, S, S]; missing ones are 0 throughout, which no picture's values are.
            return int(pictures.flatten(2).any(dim=2).sum())
        return len(pictures)

    def _prompt(self, example: Example) -> tuple[str, list[Any]]:
        """Return the conversation up to the answer, and all its pictures in order."""
        turns = [Turn(len(shot.images), shot.prefix, shot.suffix or "") for shot in example.shots]
        pictures = [image for shot in (*example.shots, example) for image in shot.images]
        prompt = self.chat.prompt([*turns, Turn(len(example.images), example.prefix)])
        return prompt, [_bounded(image if image.mode == "RGB" else image.convert("RGB")) for image in pictures]

    def _seen(self, prompt: str, pictures: list[Any]) -> Inputs:
        """Return the inputs [1, ...] of one prompt, its pictures' tokens in place."""
        if self.interleaved:
            return self._interleaved(prompt, pictures)
        start = self.tokenizer.bos_token
        written = start is not None and prompt.startswith(start)
        try:
            found = self.processor(
                text=[prompt],
                images=[pictures] if pictures else None,
                text_kwargs={"add_special_tokens": not written, "padding": False},
                return_tensors="pt",
            )
        except ValueError as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"a picture cannot be prepared for the model ({reason}); leave it out") from error
        return dict(found)

    def _interleaved(self, prompt: str, pictures: list[Any]) -> Inputs:
        """Return IDEFICS's inputs: pictures [1, N, 3, S, S], and which one each token sees [1, T, N]."""
        from transformers.models.idefics import processing_idefics as idefics

        ids = torch.tensor([self.chat.tokens(prompt)])
        if pictures:
            values = self.image_processor(pictures, return_tensors="pt")
            numbers, _ = idefics.image_attention_mask_for_packed_input_ids(ids, self.tokenizer, "pt")
            mask = idefics.incremental_to_binary_attention_mask(numbers, "pt", num_classes=len(pictures))
        else:
            # The model wants pictures all the same; none of its tokens sees this one.
            values = torch.zeros(1, *self.processor.default_image_dims)
            mask = torch.zeros(1, ids.shape[1], 1, dtype=torch.long)
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": torch.as_tensor(values)[None],
            "image_attention_mask": mask,
        }

    def collate(self, examples: Sequence[Example]) -> Inputs:
        """Return training inputs, padded on the right.

        Returns:
            input_ids, attention_mask, labels [B, T] (labels unshifted, `IGNORED` off the last answer), logits_to_keep
            [B, T] bool, and where there are pictures pixel_values with what else the family needs, as its processor
            names them.
        """
        rows, answers = [], []
        for example in examples:
            prompt, pictures = self._prompt(example)
            rows.append(self._seen(prompt, pictures))
            answers.append(self.chat.answer(prompt, example.suffix or "")[1])
        inputs = self._joined([continued(row, answer) for row, answer in zip(rows, answers, strict=True)])
        labels = torch.full_like(inputs["input_ids"], IGNORED)
        for number, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            start = row["input_ids"].shape[1]
            labels[number, start : start + len(answer)] = torch.tensor(answer)
        return {**inputs, "labels": labels, "logits_to_keep": kept(labels)}

    def collate_prompts(self, examples: Sequence[Example]) -> Inputs:
        """Return generation inputs, padded on the left: the same keys as `collate`, without labels."""
        return self._joined([self._seen(*self._prompt(example)) for example in examples], left=True)

    def _joined(self, rows: Sequence[Inputs], *, left: bool = False) -> Inputs:
        """Return rows [1, ...] as one batch: tokens padded on one side, pictures one behind the other."""
        made: Inputs = {}
        length = max(row["input_ids"].shape[1] for row in rows)
        tokens = {name for row in rows for name in by_token(row)}
        for name in dict.fromkeys(name for row in rows for name in row):
            values = [row[name] for row in rows if name in row]
            if name in tokens:
                values = [padded(value, length, self.pad if name == "input_ids" else 0, left) for value in values]
            elif self.nested:
                values = [row.get(name, torch.zeros_like(values[0][:, :1])) for row in rows]
            made[name] = torch.cat(same_shape(values))
        return made

    def text_tokens(self, prefix: str, suffix: str) -> tuple[int, int]:
        """Return (tokens of a prompt with one picture, those of the picture apart; answer tokens with their end)."""
        prompt = self.chat.prompt([Turn(1, prefix)])
        around = self._around + len(self.chat.tokens(prompt))
        return around, len(self.chat.answer(prompt, suffix)[1])

    def prompt_length(self, example: Example) -> int:
        """Return how many tokens `collate_prompts` makes of an example; see `Backbone`."""
        prompt, pictures = self._prompt(example)
        return len(self.chat.tokens(prompt)) + len(pictures) * (self._around + self.image_tokens)

    @functools.cached_property
    def _around(self) -> int:
        """How many tokens more than the picture's own a picture takes, than in a text with one placeholder for it."""
        prompt, pictures = self._prompt(Example(Image.new("RGB", (64, 64), (128, 128, 128)), "?"))
        ids = self._seen(prompt, pictures)["input_ids"]
        own = torch.isin(ids, torch.tensor(self.processor.image_token_ids)).sum()
        return int(ids.shape[1] - own) - len(self.chat.tokens(prompt))

    def answer(
        self, model: Any, inputs: Mapping[str, torch.Tensor], max_new_tokens: int, search: Mapping[str, Any]
    ) -> list[str]:
        """Return what the model says to `collate_prompts` until its turn ends; see `Backbone`."""
        tokens = model.generate(
            **inputs, max_new_tokens=max_new_tokens, eos_token_id=self._ends(model), pad_token_id=self.pad, **search
        )
        return self.decode(tokens[:, inputs["input_ids"].shape[1] :])

    def _ends(self, model: Any) -> list[int]:
        """Return the tokens that end an answer: the template's, the tokenizer's, and those the checkpoint names."""
        own = model.generation_config.eos_token_id
        known = {self.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
        last = self.tokenizer(self.chat.end, add_special_tokens=False)["input_ids"][-1]
        return sorted({int(token) for token in {*known, last} if token is not None})

    def decode(self, tokens: torch.Tensor) -> list[str]:
        """Return the texts of generated tokens [B, T], special tokens and outer blanks removed."""
        return texts(self.tokenizer, tokens)


def _check_kind(config: Any, name: str) -> None:
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise InputError(
            f"model.id: {name} is a {config.model_type} model, which answers no pictures with text; expected one of "
            "AutoModelForImageTextToText"
        )
    if config.is_encoder_decoder or config.model_type in UNFIT:
        reason = UNFIT.get(config.model_type, "reads with one text model and answers with another")
        raise InputError(f"model.id: {name} is a {config.model_type} model, which {reason}; take another family")


def _bounded(image: Image.Image) -> Image.Image:
    """Return the picture, its short side filled up with black where it is longer than Qwen takes."""
    width, height = image.size
    short = math.ceil(max(width, height) / LONGEST)
    if min(width, height) >= short:
        return image
    made = Image.new("RGB", (max(width, short), max(height, short)))
    made.paste(image, ((made.width - width) // 2, (made.height - height) // 2))
    return made


def _idefics_template(tokenizer: Any) -> str:
    """Return IDEFICS's dialogue; the base that was taught no instructions has no token for a turn's end."""
    known = "<end_of_utterance>" in tokenizer.get_vocab()
    return families.IDEFICS_TEMPLATE if known else families.IDEFICS_TEMPLATE.replace("<end_of_utterance>", "")
