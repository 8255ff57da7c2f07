"""CLIP and SigLIP: a picture and its text are brought near each other, and an answer is the nearest training text.

The text of a caption or report is the target alone; that of a question is "question answer". A batch is its own
contrast (see `contrastive_loss`): with `train.gradient_accumulation` each micro-batch is held against itself only, so a
larger `train.batch_size` is another, harder task, and accumulation is none.

Pictures are resized to a square and not cropped at the center as CLIP's own processor does: a finding may lie at the
border. A tower tuned so is taken by GIT-LLM, which does the same.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers import CLIPConfig, CLIPModel, SiglipModel, SiglipProcessor

from medvlm.errors import InputError, MissingExtraError, RecipeError
from medvlm.models.backbones import contrastive_loss
from medvlm.models.backbones.base import Backbone, Example, width
from medvlm.models.backbones.rows import pixel_values, texts
from medvlm.models.positions import image_tokens, resize_embeddings
from medvlm.recipe.models import PromptsPart, Recipe

if TYPE_CHECKING:
    from medvlm.train.memory_trace import Shape

Facts = dict[str, dict[str, list[str]]]
"""Task -> question ("" where there is none) -> the texts that the training rows answer with, each once."""

CHUNK = 64
"""Texts that are embedded at one time."""


class ContrastiveBackbone(Backbone):
    """Turns examples into pairs of picture and text.

    Args:
        processor: a CLIPProcessor or SiglipProcessor; its tokenizer knows how many tokens the text tower reads.
        image_tokens: patches, and CLIP's class token; the text tower sees none of them.
        max_prefix_tokens: a question is cut to its first so many tokens.
        max_suffix_tokens: the target is cut to so many tokens, its end token included. Question and target together
            are cut to what the text tower reads (77 tokens CLIP, 64 SigLIP), the question first.
    """

    components: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "vision_tower": "vision_model.",
        "projector": ("visual_projection.", "text_projection.", "logit_scale."),
        "language_model": "text_model.",
    }
    quantizable = None
    output = "match"
    packs = False
    caches = False

    def __init__(self, processor: Any, *, image_tokens: int, max_prefix_tokens: int, max_suffix_tokens: int) -> None:
        self.tokenizer, self.image_processor = processor.tokenizer, processor.image_processor
        self.max_prefix_tokens, self.max_suffix_tokens = max_prefix_tokens, max_suffix_tokens
        # SigLIP was trained on texts padded to one length, padding seen, and reads the last position.
        self.one_length = isinstance(processor, SiglipProcessor)
        self.start, self.end = _marks(self.tokenizer)
        self._reserved = {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        self.templates = PromptsPart()
        self.kind: contrastive_loss.Kind = "sigmoid" if self.one_length else "softmax"
        self.candidates: Facts = {}
        self._asked: list[str] = []
        self._kept: dict[str, tuple[list[str], torch.Tensor]] = {}

    @classmethod
    def components_of(cls, config: Any) -> dict[str, tuple[str, ...]]:
        """Return component -> prefixes. What brings both towers into one space is the projector: of SigLIP its two
        heads, so that its vision tower is the part that other models take."""
        found = super().components_of(config)
        if config.model_type == "siglip":
            found["projector"] = ("vision_model.head.", "text_model.head.", "logit_scale.", "logit_bias.")
        elif hasattr(config, _BIAS):
            found["projector"] = (*found["projector"], "logit_bias.")
        return found

    @classmethod
    def check(cls, recipe: Recipe, config: Any) -> None:
        """Raise where the recipe asks for what a model that generates nothing has not.

        Raises:
            RecipeError: beams, temperature, label smoothing; every one of them.
        """
        asked = {
            "eval.num_beams": (recipe.eval.num_beams, 1),
            "eval.temperature": (recipe.eval.temperature, 0.0),
            "train.label_smoothing": (recipe.train.label_smoothing, 0.0),
        }
        problems = [
            f"{key}: {value}: contrastive matches texts and generates none; expected {usual:g}"
            for key, (value, usual) in asked.items()
            if value != usual
        ]
        if problems:
            raise RecipeError("recipe", problems)

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> torch.nn.Module:
        """Return a CLIPModel or SiglipModel of these dimensions."""
        from transformers import AutoConfig

        whole = AutoConfig.for_model(**config)
        model: torch.nn.Module = _class_of(whole)(whole)
        return model

    @classmethod
    def load(cls, paths: Mapping[str, Path], options: Mapping[str, Any], seed: int) -> tuple[torch.nn.Module, Any]:
        """Return the checkpoint's model and processor.

        Raises:
            InputError: the folder lacks weights of one of the towers.
            MissingExtraError: the tokenizer's package is not installed.
        """
        from transformers import AutoConfig

        path = paths["model"]
        kind = _class_of(AutoConfig.from_pretrained(path, local_files_only=True))
        model, facts = kind.from_pretrained(path, local_files_only=True, output_loading_info=True, **options)
        if facts["missing_keys"]:
            raise InputError(f"model.id: {path} lacks weights ({sorted(facts['missing_keys'])[0]}, ...)")
        return model, cls.processor_of(paths)

    @classmethod
    def processor_of(cls, paths: Mapping[str, Path]) -> Any:
        """Return the checkpoint's processor, for whole pictures and no more text than the tower reads.

        Raises:
            MissingExtraError: the tokenizer's package is not installed.
        """
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(paths["model"], local_files_only=True)
        try:
            processor = super().processor_of(paths)
        except ImportError as error:
            raise MissingExtraError("SigLIP's tokenizer", "siglip") from error
        _fit(processor, config)
        return processor

    @classmethod
    def tiny(cls, image_size: int | None, family: str | None) -> tuple[torch.nn.Module, Any]:
        """Return a small CLIP, or with family `siglip` a SigLIP (see `contrastive_tiny`)."""
        from medvlm.models.backbones import contrastive_tiny

        return contrastive_tiny.made(image_size, family)

    @classmethod
    def image_tokens_of(cls, config: Any) -> int:
        """Return (image size / patch size)², and one for CLIP's class token."""
        vision = config.vision_config
        return (int(vision.image_size) // int(vision.patch_size)) ** 2 + int(config.model_type == "clip")

    @classmethod
    def in_sequence(cls, image_tokens: int) -> int:
        """Return 0: the text tower sees no picture."""
        return 0

    @classmethod
    def takes_sdpa(cls, config: Any) -> bool:
        """Both towers do."""
        return True

    @classmethod
    def widths(cls, config: Any) -> dict[str, int]:
        """Return component -> heads x head dimension of its attention."""
        return {"vision_tower": width(config.vision_config), "language_model": width(config.text_config)}

    @classmethod
    def amounts(
        cls, config: Any, tower_tokens: int, lengths: Sequence[int], labels: int, images: int
    ) -> dict[str, tuple[int, int]]:
        """Return component -> (tokens, pairs); SigLIP's texts are all of one length."""
        if config.model_type == "siglip":
            lengths = [config.text_config.max_position_embeddings] * len(lengths)
        return {
            "vision_tower": (images * tower_tokens, images * tower_tokens**2),
            "projector": (images, 0),
            "language_model": (sum(lengths), sum(length * length for length in lengths)),
            "head": (0, 0),
        }

    @classmethod
    def running(
        cls, model: torch.nn.Module, members: Mapping[str, Sequence[tuple[str, torch.nn.Module]]]
    ) -> list[tuple[str, str, torch.nn.Module]]:
        """Return the text tower with its projection, then, beside it, the vision tower with its own.

        SigLIP's pooling head is left out: it takes about a hundredth of what its tower does.
        """
        ends = {"text": ("text_projection", "text_model.head"), "vision": ("visual_projection",)}
        found: list[tuple[str, str, torch.nn.Module]] = []
        for side, tower in (("text", "language_model"), ("vision", "vision_tower")):
            found += [(tower, name, module) for name, module in members.get(tower, ())]
            found += [("projector", *one) for one in members.get("projector", ()) if _within(one[0], ends[side])]
            found.append(("", "", model))
        return found

    @classmethod
    def labels_in(cls, inputs: Mapping[str, torch.Tensor]) -> int:
        """Return the number of pairs: each has one loss."""
        return len(inputs["input_ids"])

    @classmethod
    def resize(cls, model: torch.nn.Module, processor: Any, image_size: int) -> bool:
        """Make model and processor take images of `image_size`; return whether position embeddings were resampled."""
        config: Any = model.config
        tower = model.get_submodule("vision_model")
        embeddings = next(module for module in tower.modules() if hasattr(module, "position_embedding"))
        if image_size != config.vision_config.image_size:
            image_tokens(image_size, config.vision_config.patch_size)
        changed = resize_embeddings(embeddings, image_size, class_token=config.model_type == "clip")
        config.vision_config.image_size = image_size
        _fit(processor, config)
        return changed

    @classmethod
    def fake_loss(cls, model: Any, shape: Shape, device: torch.device) -> torch.Tensor:
        """Return a contrast of pictures and texts without contents."""
        config = model.config
        longest = config.text_config.max_position_embeddings
        length = longest if config.model_type == "siglip" else min(longest, shape.length)
        side = config.vision_config.image_size
        found = model(
            input_ids=torch.zeros(shape.rows, length, dtype=torch.long, device=device),
            pixel_values=torch.empty(shape.images, 3, side, side, device=device),
        )
        own = torch.arange(shape.rows, device=device)
        logits = found.logits_per_text.float()
        return torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own)

    def follow(self, model: torch.nn.Module, recipe: Recipe) -> None:
        """Take the prompts, by which a task is known, and the loss; give a CLIP that is to have SigLIP's a bias."""
        self.templates = recipe.prompts
        asked = recipe.train.contrastive
        biased = getattr(model, "logit_bias", None) is not None
        self.kind = asked if asked != "auto" else "sigmoid" if biased else "softmax"
        if self.kind == "sigmoid" and not biased:
            add_bias(model)

    def updated(self, model: torch.nn.Module) -> None:
        """Keep CLIP's temperature in its bounds, so that what is validated and saved is what is trained."""
        _clamp(bare(model))

    def task_of(self, prefix: str) -> tuple[str, str]:
        """Return the task of a prefix and its question, "" where that has none: by the recipe's templates.

        What none of them has made is taken for a question as it stands.
        """
        for task in ("caption", "report", "vqa"):
            found = _matched(getattr(self.templates, task), prefix)
            if found is not None:
                return task, found.strip()
        return "vqa", prefix

    def _words(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        # A text that itself says "<|endoftext|>" does not end there.
        return [token for token in ids if token not in self._reserved]

    def _parts(self, question: str, target: str) -> tuple[list[int], list[int]]:
        """Return the tokens of question and target, marks apart, as many as the text tower reads."""
        room = int(self.tokenizer.model_max_length) - len(self.start) - len(self.end)
        answer = self._words(target)[: min(room, self.max_suffix_tokens - len(self.end))]
        asked = self._words(question)[: min(room - len(answer), self.max_prefix_tokens)] if question else []
        return asked, answer

    def row(self, question: str, target: str) -> list[int]:
        """Return the tokens of one text: start, question, target, end."""
        asked, answer = self._parts(question, target)
        return [*self.start, *asked, *answer, *self.end]

    def text_tokens(self, prefix: str, suffix: str) -> tuple[int, int]:
        """Return (tokens of the question with the start token, tokens of the target with the end token)."""
        asked, answer = self._parts(self.task_of(prefix)[1], suffix)
        return len(self.start) + len(asked), len(answer) + len(self.end)

    def text_inputs(self, rows: Sequence[list[int]]) -> dict[str, torch.Tensor]:
        """Return texts as the tower takes them: input_ids, attention_mask [B, T], padded on the right.

        SigLIP sees its padding, so that all of its mask is 1.
        """
        length = int(self.tokenizer.model_max_length) if self.one_length else max(map(len, rows))
        ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        mask = torch.full_like(ids, int(self.one_length))
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        return {"input_ids": ids, "attention_mask": mask}

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return a batch of pairs.

        Returns:
            input_ids, attention_mask [B, T], pixel_values [B, 3, S, S], and labels and pictures [B]: numbers that are
            equal where texts and pictures are.
        """
        rows = [self.row(self.task_of(example.prefix)[1], example.suffix or "") for example in examples]
        pixels = pixel_values(self.image_processor, examples)
        return {
            **self.text_inputs(rows),
            "pixel_values": pixels,
            "labels": torch.tensor([_key(repr(row).encode()) for row in rows]),
            "pictures": picture_keys(pixels),
        }

    def collate_prompts(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return what `answer` takes: pixel_values [B, 3, S, S], and asked [B], numbers of the prefixes."""
        numbers = []
        for example in examples:
            if example.prefix not in self._asked:
                self._asked.append(example.prefix)
            numbers.append(self._asked.index(example.prefix))
        return {"pixel_values": pixel_values(self.image_processor, examples), "asked": torch.tensor(numbers)}

    def losses(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, torch.Tensor],
        *,
        count: torch.Tensor | int | None = None,
        per_example: bool = False,
        smoothing: float = 0.0,
        chunk: int = 256,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the contrast of a batch: see `Backbone.losses`; each example has one loss, a filler none.

        Several processes hold their rows against each other's, in validation too, so all must call it together.
        """
        inner = bare(model)
        training = torch.is_grad_enabled() and inner.training
        if training:
            # What is kept of texts is the weights' of before.
            self._kept.clear()
            _clamp(inner)
        seen = model(**{name: inputs[name] for name in ("input_ids", "attention_mask", "pixel_values")})
        # Whose weights take part all the same, so that their gradients are there on all devices.
        rows = slice(0 if "filler" in inputs else None)
        tensors = (seen.image_embeds, seen.text_embeds, inputs["pictures"], inputs["labels"])
        pairs = contrastive_loss.Pairs(*(one[rows] for one in tensors))
        bias = getattr(inner, "logit_bias", None)
        with torch.autocast(inputs["input_ids"].device.type, enabled=False):
            found = contrastive_loss.contrast(pairs, self.kind, inner.logit_scale.exp(), bias, spread=True)
            if bias is not None and self.kind == "softmax":
                # It has no part in the loss, but processes that train together wait for its gradient.
                found = found + 0.0 * bias.float()
        divisor = max(1, len(found)) if count is None else count
        return found.sum() / divisor, found.detach(), torch.ones_like(pairs.text_keys)

    def fit(
        self, model: torch.nn.Module, pairs: Sequence[tuple[str, str]], earlier: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Take the texts that answers are chosen from, by task and question, each once and in the order of the rows."""
        found: dict[str, dict[str, dict[str, None]]] = {}
        for prefix, suffix in pairs:
            task, question = self.task_of(prefix)
            found.setdefault(task, {}).setdefault(question, {})[suffix] = None
        facts: Facts = {task: {key: list(own) for key, own in parts.items()} for task, parts in found.items()}
        self.restore(model, {"candidates": facts})
        return {"candidates": facts}

    def restore(self, model: torch.nn.Module, facts: Mapping[str, Any]) -> None:
        """Take the texts that answers are chosen from."""
        found = {task: {key: list(own) for key, own in parts.items()} for task, parts in facts["candidates"].items()}
        self.candidates = found
        self._kept.clear()

    def choices(self, prefix: str) -> tuple[str, list[str]]:
        """Return the question of a prefix, and the training texts that may answer it.

        Those of its task; of a question those that answered it in training, or all answers where it is a new one; all
        texts where training had none of the task.

        Raises:
            InputError: nothing is known of any training text.
        """
        task, question = self.task_of(prefix)
        own = self.candidates.get(task, {})
        found = own.get(question) or _distinct(own.values())
        found = found or _distinct(texts for parts in self.candidates.values() for texts in parts.values())
        if not found:
            raise InputError(
                "contrastive answers with the training text that matches best, and this model has none; name a run of "
                "medvlm finetune, whose fitted.json holds them"
            )
        return question, found

    def answer(
        self, model: Any, inputs: Mapping[str, torch.Tensor], max_new_tokens: int, search: Mapping[str, Any]
    ) -> list[str]:
        """Return for each picture the training text that matches best, the earliest of equals."""
        images = image_embeddings(model, inputs["pixel_values"])
        answers = []
        for picture, number in zip(images, inputs["asked"].tolist(), strict=True):
            known, embedded = self._embedded(model, self._asked[number])
            answers.append(known[int((embedded @ picture).argmax())])
        return answers

    def _embedded(self, model: Any, prefix: str) -> tuple[list[str], torch.Tensor]:
        """Return the texts that may answer a prefix, and their embeddings [N, D]."""
        if prefix not in self._kept:
            question, known = self.choices(prefix)
            rows = [self.row(question, text) for text in known]
            self._kept[prefix] = known, text_embeddings(self, model, rows)
        return self._kept[prefix]

    def decode(self, tokens: torch.Tensor) -> list[str]:
        """Return the texts of tokens [B, T], special tokens and outer blanks removed."""
        return texts(self.tokenizer, tokens)


def _within(name: str, parts: Sequence[str]) -> bool:
    """Return True for a module that is one of the parts or inside one, wrapped by PEFT or not."""
    return any(f".{part}." in f".{name}." for part in parts)


_BIAS = "logit_bias_init_value"


class BiasedCLIPModel(CLIPModel):  # type: ignore[misc]
    """CLIP with the bias that the sigmoid loss learns; any CLIP's folder with the configuration's mark is one."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__(config)
        self.logit_bias = torch.nn.Parameter(torch.full((1,), float(getattr(config, _BIAS))))


def add_bias(model: Any) -> None:
    """Give a CLIP SigLIP's bias, and let temperature and bias begin where SigLIP's did."""
    setattr(model.config, _BIAS, contrastive_loss.FIRST_BIAS)
    model.__class__ = BiasedCLIPModel
    scale = model.logit_scale
    model.logit_bias = torch.nn.Parameter(scale.new_full((1,), contrastive_loss.FIRST_BIAS))
    scale.data.fill_(contrastive_loss.FIRST_SCALE)


def _class_of(config: Any) -> Any:
    if config.model_type == "siglip":
        return SiglipModel
    return BiasedCLIPModel if hasattr(config, _BIAS) else CLIPModel


def bare(model: Any) -> Any:
    """Return the transformers model inside PEFT's, data-parallel and compiled wrappers."""
    while True:
        if hasattr(model, "get_base_model"):
            model = model.get_base_model()
        elif isinstance(getattr(model, "module", None), torch.nn.Module):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return model


def _clamp(model: Any) -> None:
    """Keep CLIP's temperature below 100, as the paper does, where it is trained."""
    if model.config.model_type == "clip" and model.logit_scale.requires_grad:
        with torch.no_grad():
            model.logit_scale.clamp_(max=contrastive_loss.LARGEST_SCALE)


def image_embeddings(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Return the embeddings [B, D] of pixel values [B, 3, S, S], of length 1, in float32."""
    found = bare(model).get_image_features(pixels).pooler_output.float()
    return torch.nn.functional.normalize(found, dim=-1)


def text_embeddings(backbone: ContrastiveBackbone, model: Any, rows: Sequence[list[int]]) -> torch.Tensor:
    """Return the embeddings [N, D] of texts as `ContrastiveBackbone.row` makes them, of length 1, in float32."""
    inner = bare(model)
    device = inner.logit_scale.device
    # Those of like length together, so that little is padded.
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    found = []
    for start in range(0, len(order), CHUNK):
        inputs = backbone.text_inputs([rows[place] for place in order[start : start + CHUNK]])
        inputs = {name: value.to(device) for name, value in inputs.items()}
        found.append(inner.get_text_features(**inputs).pooler_output.float())
    back = torch.tensor(order, device=device).argsort()
    return torch.nn.functional.normalize(torch.cat(found), dim=-1)[back]


def picture_keys(pixels: torch.Tensor) -> torch.Tensor:
    """Return numbers [B] that are equal where pixel values [B, C, S, S] are."""
    keys = []
    for picture in pixels:
        # A worker sends gray pictures with one channel or with three, whichever the batch takes.
        own = picture[:1] if bool((picture == picture[:1]).all()) else picture
        keys.append(_key(own.contiguous().numpy().tobytes()))
    return torch.tensor(keys)


def _key(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)


def _distinct(lists: Any) -> list[str]:
    return list(dict.fromkeys(text for own in lists for text in own))


def _matched(template: str, prefix: str) -> str | None:
    """Return what stands for {prompt} in a prefix that `train.collate.prefix` made of this template; None of others."""
    pattern = re.escape(template.strip()).replace(r"\{language\}", r"\S+")
    pattern = pattern.replace(r"\{prompt\}", "(?P<prompt>.*)", 1).replace(r"\{prompt\}", "(?P=prompt)")
    found = re.fullmatch(pattern, prefix, re.DOTALL)
    return None if found is None else found.groupdict().get("prompt", "")


def _marks(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the tokens that the tokenizer puts before and after a text."""
    plain: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer("a")["input_ids"]
    at = next(place for place in range(len(whole)) if whole[place : place + len(plain)] == plain)
    return whole[:at], whole[at + len(plain) :]


def _fit(processor: Any, config: Any) -> None:
    """Make a processor take whole pictures of the tower's size, and say how many tokens the text tower reads."""
    side = config.vision_config.image_size
    images = processor.image_processor
    images.size = {"height": side, "width": side}
    if hasattr(images, "do_center_crop"):
        images.do_center_crop = False
        images.crop_size = {"height": side, "width": side}
    positions = int(config.text_config.max_position_embeddings)
    processor.tokenizer.model_max_length = min(positions, int(min(processor.tokenizer.model_max_length, math.inf)))
