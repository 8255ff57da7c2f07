"""What makes a run fit that does not: each proposal is estimated, and only what helps is named, with what it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from medvlm.models.backbones import BACKBONES
from medvlm.models.load import planned_config
from medvlm.recipe.load import merge
from medvlm.recipe.models import Recipe
from medvlm.train import memory
from medvlm.train.failures import FEWER
from medvlm.train.memory import Estimate
from medvlm.train.memory_trace import Shape

Batch = Callable[[Recipe, int], Shape]
"""Recipe and image tokens -> the largest batch that training will meet."""

ENOUGH = 2
"""So many ways are told; each costs a trace of the whole model."""


def remedies(recipe: Recipe, found: Estimate, room: int, device: str, batch: Batch) -> list[str]:
    """Return settings, each with the memory that it takes; the last resort where no single one is enough.

    Args:
        recipe: what does not fit.
        found: its memory.
        room: bytes of the device.
        device: "cuda" or "cpu".
        batch: gives the largest batch of a changed recipe.
    """
    tried = _Tries(room, device, batch)
    told = []
    for words, changed in _single(recipe, found, tried):
        taken = tried.total(changed)
        if taken is not None and taken <= room:
            told.append(f"{words} would take {size(taken)}")
        if len(told) == ENOUGH:
            break
    return told or [_all_together(recipe, tried)]


def size(count: float) -> str:
    """Return bytes in words, decimal units."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.{2 if unit == 'GB' else 1}f} {unit}"
    return f"{count:.0f} B" if count else "-"


class _Tries:
    """Estimates changed recipes; one whose standing memory alone is too much is not traced."""

    def __init__(self, room: int, device: str, batch: Batch) -> None:
        self.room, self.device, self.batch = room, device, batch

    def total(self, recipe: Recipe, *, anyway: bool = False) -> int | None:
        """Return the bytes, or None where they are too many without any activations."""
        prepared = memory.prepare(recipe, planned_config(recipe))
        if not anyway and memory.standing(recipe, prepared, self.device).total > self.room:
            return None
        shape = self.batch(recipe, prepared.kind.image_tokens_of(prepared.model.config))
        return memory.estimate(recipe, prepared, shape, self.device).total


def _single(recipe: Recipe, found: Estimate, tried: _Tries) -> Iterator[tuple[str, Recipe]]:
    """Yield changes, those that leave the result as it is first."""
    contrast = _is_contrast(recipe)
    if contrast:
        yield from _changes(recipe)
    smaller = _smaller_batch(recipe, found, tried)
    if smaller is not None:
        part = smaller.train
        same = f" with train.gradient_accumulation={part.gradient_accumulation} (the same update)"
        yield f"train.batch_size={part.batch_size}{f' ({FEWER})' if contrast else same}", smaller
    if not contrast:
        yield from _changes(recipe)


def _is_contrast(recipe: Recipe) -> bool:
    return BACKBONES.get(recipe.model.backbone).output == "match"


def _changes(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    if not recipe.train.activation_checkpointing:
        yield "train.activation_checkpointing=true", _with(recipe, {"train": {"activation_checkpointing": True}})
    four_bit = BACKBONES.get(recipe.model.backbone).quantizable is not None
    if four_bit and recipe.quantization.mode == "none" and recipe.adapters.language_model.kind != "full":
        yield "quantization.mode=nf4", _with(recipe, {"quantization": {"mode": "nf4"}})
    smaller = _half_picture(recipe)
    if smaller is not None:
        yield f"model.image_size={smaller}", _with(recipe, {"model": {"image_size": smaller}})


def _with(recipe: Recipe, changes: dict[str, object]) -> Recipe:
    return Recipe.model_validate(merge(recipe.model_dump(), changes))


def _half_picture(recipe: Recipe) -> int | None:
    """Return half the side of the picture in whole patches; None where that is too little to see much."""
    prepared = memory.prepare(recipe, planned_config(recipe))
    size = prepared.kind.image_size_of(prepared.model.config)
    if size is None:
        return None
    patch = prepared.kind.patch_size_of(prepared.model.config)
    patches = size // patch // 2
    return patches * patch if patches >= 8 else None


def _smaller_batch(recipe: Recipe, found: Estimate, tried: _Tries) -> Recipe | None:
    """Return the recipe with the largest batch that fits and divides the update evenly; None where none does.

    The peak grows no slower with a larger batch (each row adds the same, or another moment becomes the peak), so
    between one sample and the batch asked for it lies below the straight line.
    """
    part = recipe.train
    whole = part.batch_size * part.gradient_accumulation
    if part.batch_size == 1:
        return None
    one = _of_batch(recipe, 1, whole)
    least = tried.total(one)
    if least is None or least > tried.room:
        return None
    # With gradients that accumulate, all of them are there at the peak.
    most = max(found.total + found.gradients, least + 1)
    fitting = 1 + (tried.room - least) * (part.batch_size - 1) // (most - least)
    largest = max(rows for rows in range(1, min(fitting, part.batch_size - 1) + 1) if whole % rows == 0)
    made = _of_batch(recipe, largest, whole)
    # Packed rows come in whole numbers, so the line holds only about.
    while largest > 1 and (tried.total(made) or tried.room + 1) > tried.room:
        largest = max(rows for rows in range(1, largest) if whole % rows == 0)
        made = _of_batch(recipe, largest, whole)
    return None if largest == 1 and _is_contrast(recipe) else made


def _of_batch(recipe: Recipe, rows: int, whole: int) -> Recipe:
    return _with(recipe, {"train": {"batch_size": rows, "gradient_accumulation": whole // rows}})


def _all_together(recipe: Recipe, tried: _Tries) -> str:
    """Return what all changes at once would take, whether it fits or not."""
    whole = recipe.train.batch_size * recipe.train.gradient_accumulation
    words, changed = [], recipe
    if recipe.train.batch_size > 1 and not _is_contrast(recipe):
        words, changed = ["train.batch_size=1"], _of_batch(recipe, 1, whole)
    while (following := next(_changes_left(changed, words), None)) is not None:
        word, changed = following
        words.append(word)
    taken = tried.total(changed, anyway=True) or 0
    listed = " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    if not words:
        return "no setting makes it fit; take a smaller model"
    if taken <= tried.room:
        return f"only together, {listed} would take {size(taken)}"
    return f"even {listed} would take {size(taken)}; take a smaller model or a larger device"


def _changes_left(recipe: Recipe, words: list[str]) -> Iterator[tuple[str, Recipe]]:
    """Yield the changes of kinds that are not made yet."""
    made = {word.partition("=")[0] for word in words}
    return ((word, changed) for word, changed in _changes(recipe) if word.partition("=")[0] not in made)
