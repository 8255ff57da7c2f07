"""The plan of a run before anything is trained: parameters, memory, operations, time, money; no weights, no network."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medvlm.data.mixture import Mixture, Share
from medvlm.models import adapters
from medvlm.models.backbones import BACKBONES
from medvlm.models.backbones.base import Backbone
from medvlm.models.load import planned_config
from medvlm.models.locate import is_local, locate_parts
from medvlm.recipe.models import Recipe
from medvlm.train import compute, few_shot, memory
from medvlm.train.arguments import updates
from medvlm.train.collate import prefix
from medvlm.train.flops import FlopModel, Flops
from medvlm.train.memory import Estimate
from medvlm.train.memory_trace import Shape
from medvlm.train.remedies import remedies

SAMPLED = 1000
"""From so many rows the number of text tokens is taken, and scaled to all."""
ASSUMED_SHARE = 0.4
"""Share of the peak that hours are reckoned with; well-fed training of large models reaches 0.35 to 0.55 (arXiv:
2204.02311, table 3)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Texts:
    """Text tokens of the rows, image tokens apart."""

    mean: float
    longest: int
    mean_labels: float
    most_labels: int
    found: str
    """"counted", "sampled" or "estimated"."""


@dataclasses.dataclass(frozen=True, slots=True)
class Device:
    """What the run would train on, as far as this machine tells."""

    name: str
    kind: str
    """"cuda" or "cpu"."""
    memory: int
    """Bytes of the whole GPU, or those of main memory that are free."""


@dataclasses.dataclass(slots=True)
class Plan:
    """What a recipe would do."""

    census: dict[str, adapters.Count]
    lora_modules: int
    quantized_modules: int
    image_tokens: int
    largest_pictures: bool
    """Whether pictures keep their size, and each is taken for the largest that the model takes."""
    rows: int
    steps: int
    tokens: int
    tokens_are: str
    """How `tokens` was found: "counted", "sampled" or "estimated"."""
    samples: int
    """Seen in all steps together."""
    memory: Estimate
    batch: Shape
    """The largest batch, which `memory` is of."""
    device: Device
    devices: int
    flops_a_sample: Flops
    """Of a sample of mean length."""
    peak_tflops: float | None
    peak_source: str | None
    hours: float | None
    """At `ASSUMED_SHARE` of the peak, recomputation counted; None where the device's peak is not known."""
    money: dict[str, Any] | None
    licenses: dict[str, int]
    """Training rows by license."""
    shares: list[Share]
    """What each data set is of an epoch."""
    remedies: list[str]
    """What would make it fit, each with what it takes; empty where it fits."""

    @property
    def fits(self) -> bool:
        """Return True where the device has as much memory as the estimate."""
        return self.memory.total <= self.device.memory

    @property
    def flops(self) -> int:
        """Return the useful operations of all steps."""
        return self.flops_a_sample.useful * self.samples


def make_plan(recipe: Recipe, mixture: Mixture, device: Device | None = None, devices: int = 1) -> Plan:
    """Return the plan; the model is built without weights, so it takes no memory and no network.

    Args:
        recipe: what to do.
        mixture: its training rows.
        device: to check against; None is what this machine has.
        devices: on how many of them; time is taken to shrink as they grow in number.

    Raises:
        AccessError, InputError, RecipeError: as in loading the model; or a row's pictures do not fit into it.
    """
    device = device or this_device()
    kind = BACKBONES.get(recipe.model.backbone)
    prepared = memory.prepare(recipe, kind.planned(planned_config(recipe), _pairs(kind, recipe, mixture)))
    model = prepared.model
    tokens = kind.image_tokens_of(model.config)
    few_shot.check_pictures(recipe, model.config, mixture)
    texts = text_tokens(recipe, mixture, tokens)
    steps = updates(recipe, len(mixture), devices)
    samples = steps * recipe.train.batch_size * recipe.train.gradient_accumulation * devices
    pictures = few_shot.most_pictures(recipe)
    counted = FlopModel(model, recipe, kind).training(
        [round(pictures * kind.in_sequence(tokens) + texts.mean)], round(texts.mean_labels), pictures
    )
    census = adapters.census(model, kind, set(prepared.quantized))
    lora = sum(1 for _, module in model.named_modules() if hasattr(module, "lora_A"))
    batch = largest_batch(recipe, tokens, texts)
    needed = memory.estimate(recipe, prepared, batch, device.kind)
    mend = []
    if needed.total > device.memory:
        mend = remedies(
            recipe, needed, device.memory, device.kind, lambda changed, images: largest_batch(changed, images, texts)
        )
    peak, source = compute.peak_tflops(recipe, device.name)
    work = (counted.useful + counted.recomputed) * samples
    hours = None if peak is None else work / (peak * devices * 1e12 * ASSUMED_SHARE) / 3600
    return Plan(
        census=census,
        lora_modules=lora,
        quantized_modules=len(prepared.quantized),
        image_tokens=tokens,
        largest_pictures=kind.image_size_of(model.config) is None,
        rows=len(mixture),
        steps=steps,
        tokens=round(samples * (tokens + texts.mean)),
        tokens_are=texts.found,
        samples=samples,
        memory=needed,
        batch=batch,
        device=device,
        devices=devices,
        flops_a_sample=counted,
        peak_tflops=peak,
        peak_source=source,
        hours=hours,
        money=None if hours is None else compute.money(recipe, hours),
        licenses=dict(mixture.licenses()),
        shares=mixture.shares(),
        remedies=mend,
    )


def _pairs(kind: type[Backbone], recipe: Recipe, mixture: Mixture) -> list[tuple[str, str]]:
    """Return prefix and suffix of every training row, for a backbone that takes something from them."""
    if kind.fit is Backbone.fit:
        return []
    return [(prefix(text, recipe.prompts), str(text["target"])) for text in mixture.texts()]


def this_device() -> Device:
    """Return the GPU, or the processor with the memory that is free now."""
    if torch.cuda.is_available():
        return Device(compute.device_name(), "cuda", int(torch.cuda.get_device_properties(0).total_memory))
    return Device(compute.device_name(), "cpu", _available())


def _available() -> int:
    """Return the bytes of main memory that can be had without swapping; all of it where the system does not say."""
    facts = Path("/proc/meminfo")
    if facts.is_file():
        for line in facts.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def largest_batch(recipe: Recipe, image_tokens: int, texts: Texts) -> Shape:
    """Return the largest batch that training will meet: all rows as long as the longest, or packed full."""
    part = recipe.train
    pictures = few_shot.most_pictures(recipe)
    longest = pictures * BACKBONES.get(recipe.model.backbone).in_sequence(image_tokens) + texts.longest
    cached = any(data.cache_features for data in recipe.data)
    if part.batching != "packed":
        return Shape(part.batch_size, longest, texts.most_labels, part.batch_size * pictures, cached)
    width = max(longest, part.pack_tokens or 2 * longest)
    rows = math.ceil(part.batch_size / max(1, width // longest))
    labels = math.ceil(texts.most_labels * part.batch_size / rows)
    return Shape(rows, min(width, longest * part.batch_size), labels, part.batch_size, cached)


def text_tokens(recipe: Recipe, mixture: Mixture, images: int) -> Texts:
    """Return how long the texts are: by the tokenizer where it lies here, else by their words."""
    places = range(0, len(mixture), max(1, len(mixture) // SAMPLED))
    texts = [mixture.text(place) for place in places]
    pairs = [(prefix(text, recipe.prompts), str(text["target"])) for text in texts]
    processor = _local_processor(recipe)
    if processor is None:
        found, counts = "estimated", [_by_words(recipe, *pair) for pair in pairs]
    else:
        backbone = BACKBONES.get(recipe.model.backbone)(
            processor,
            image_tokens=images,
            max_prefix_tokens=recipe.text.max_prefix_tokens,
            max_suffix_tokens=recipe.text.max_suffix_tokens,
        )
        found = "counted" if len(texts) == len(mixture) else "sampled"
        counts = [backbone.text_tokens(*pair) for pair in pairs]
    counts = few_shot.lengthened(recipe, counts)
    both = [before + after for before, after in counts] or [0]
    labels = [after for _, after in counts] or [0]
    return Texts(sum(both) / len(both), max(both), sum(labels) / len(labels), max(1, *labels), found)


def _by_words(recipe: Recipe, before: str, after: str) -> tuple[int, int]:
    """Return about how many tokens prefix and suffix have: 1.3 a word in English with a large vocabulary."""
    limits = (recipe.text.max_prefix_tokens, recipe.text.max_suffix_tokens)
    words = [min(limit, round(1.3 * len(text.split()))) for text, limit in zip((before, after), limits, strict=True)]
    return words[0] + 2, words[1] + 1


def _local_processor(recipe: Recipe) -> Any:
    """Return the base's processor where all of it lies on this machine, else None."""
    if not all(map(is_local, recipe.model.parts.values())):
        return None
    paths: Mapping[str, Path | None] = {role: part.path for role, part in locate_parts(recipe.model).items()}
    if None in paths.values():
        return None
    return BACKBONES.get(recipe.model.backbone).processor_of({role: Path(str(path)) for role, path in paths.items()})
