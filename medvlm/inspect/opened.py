"""A run's model opened to be looked into: how it is asked, and where its image tokens stand and lie."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from medvlm.errors import InputError
from medvlm.recipe.models import Recipe

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from medvlm.evaluate.predict import Predictor
    from medvlm.runs import Run

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1), each 0 to 1 of the picture."""
_QUERIES = frozenset({"blip-2", "instructblip", "instructblipvideo"})
"""Types of models whose image tokens are learned queries, each of the whole picture."""
_ASIDE = frozenset({"idefics", "mllama"})
"""Types of published models whose text looks at pictures by cross-attention, as Flamingo's does."""
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Grid:
    """How image tokens lie over a picture: rows of patches from the top left, after `extra` tokens that have no place.

    Attributes:
        view: the part of the picture that the model sees.
        extra: 1 where CLIP's class token stands first.
    """

    rows: int
    columns: int
    extra: int = 0
    view: Box = WHOLE

    def cell(self, number: int) -> Box:
        """Return the place of patch `number`, the extra tokens not counted."""
        row, column = divmod(number, self.columns)
        x0, y0, x1, y1 = self.view
        wide, high = (x1 - x0) / self.columns, (y1 - y0) / self.rows
        return x0 + column * wide, y0 + row * high, x0 + (column + 1) * wide, y0 + (row + 1) * high


def open_model(run: Run, recipe: Recipe) -> Predictor:
    """Return the run's tuned model, ready to answer.

    Raises:
        InputError: its weights are gone or damaged.
        AccessError: its base is not at hand.
    """
    from medvlm.evaluate.predict import Predictor, load_tuned
    from medvlm.models.locate import check_weights

    check_weights(run.facts())
    return Predictor(load_tuned(run, recipe), recipe)


def prefix_of(recipe: Recipe, task: str | None, prompt: str, language: str = "en") -> str:
    """Return the prefix that the recipe's template makes of a prompt, as `medvlm predict` does.

    Raises:
        UsageError: there is no such task, or it needs a prompt.
    """
    from medvlm.errors import UsageError
    from medvlm.evaluate.ask import task_of
    from medvlm.train.collate import prefix

    meant = task_of(task, recipe, prompt, False)
    if not prompt and "{prompt}" in getattr(recipe.prompts, meant):
        raise UsageError(f"--task {meant} needs a question: give --prompt TEXT")
    return prefix({"task": meant, "prompt": prompt, "language": language}, recipe.prompts)


def bare(model: Any) -> Any:
    """Return the model without PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def image_side(predictor: Predictor) -> int:
    """Return the side in pixels of the square that the model sees; 224 where it takes pictures of any size."""
    return int(predictor.loaded.facts.get("image_size") or 224)


def looks_aside(predictor: Predictor) -> bool:
    """Return whether the picture's tokens stand beside the text, not in its sequence (Flamingo, IDEFICS)."""
    if bare(predictor.model).config.model_type in _ASIDE:
        return True
    tokens = int(predictor.loaded.facts.get("image_tokens") or 0)
    return type(predictor.loaded.backbone).in_sequence(tokens) != tokens


def image_places(predictor: Predictor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """Return [T] bool, True where the first example's image tokens stand; None where input_ids hold none."""
    if looks_aside(predictor):
        return None
    config: Any = bare(predictor.model).config
    for owner, name in (
        (predictor.loaded.backbone, "image_token_id"),
        (config, "image_token_id"),
        (config, "image_token_index"),
    ):
        number = getattr(owner, name, None)
        if number is not None and "input_ids" in inputs:
            found = inputs["input_ids"][0] == int(number)
            return found if bool(found.any()) else None
    return None


def grid_of(predictor: Predictor, inputs: Mapping[str, torch.Tensor], tokens: int, image: Image) -> Grid | None:
    """Return how the picture's tokens lie over it; None where they are no one grid (tiles, queries)."""
    config: Any = bare(predictor.model).config
    if config.model_type in _QUERIES or hasattr(config, "perceiver_config"):
        # Idefics2's perceiver gives queries, too.
        return None
    view = _view(getattr(predictor.loaded.backbone, "image_processor", None), image)
    if "image_grid_thw" in inputs:
        # Qwen2-VL and its kin: patches in rows, merged 2 x 2.
        merged = int(getattr(config.vision_config, "spatial_merge_size", 1))
        _, rows, columns = (int(side) for side in inputs["image_grid_thw"][0])
        rows, columns = rows // merged, columns // merged
        return Grid(rows, columns, view=view) if rows * columns == tokens else None
    pixels = inputs.get("pixel_values")
    if pixels is None or math.prod(pixels.shape[:-3]) != 1 or pixels.shape[-1] != pixels.shape[-2]:
        # Tiles, patches without their picture's shape, or a picture that kept it: no square.
        return None
    for extra in (0, 1):
        side = math.isqrt(max(tokens - extra, 0))
        if side > 1 and side * side == tokens - extra:
            return Grid(side, side, extra, view)
    return None


def _view(processor: Any, image: Image) -> Box:
    """Return the part of a picture that is left when the processor has cut out the middle."""
    size, crop = getattr(processor, "size", None), getattr(processor, "crop_size", None)
    shortest = size.get("shortest_edge") if isinstance(size, Mapping) else getattr(size, "shortest_edge", None)
    if not (getattr(processor, "do_center_crop", False) and shortest and crop):
        return WHOLE
    scale = shortest / min(image.size)
    shares = [
        min(1.0, float(crop[side]) / (edge * scale)) for side, edge in zip(("width", "height"), image.size, strict=True)
    ]
    (x, y) = ((1 - share) / 2 for share in shares)
    return x, y, 1 - x, 1 - y


@contextlib.contextmanager
def eager(model: Any) -> Iterator[None]:
    """Make a model compute its attention so that it can be read, and give it back its own way at the end.

    Raises:
        InputError: the family has no such way.
    """
    inner = bare(model)
    configs = {id(part.config): part.config for part in inner.modules() if hasattr(part, "config")}
    before = [(config, getattr(config, "_attn_implementation", None)) for config in configs.values()]
    try:
        inner.set_attn_implementation("eager")
    except (AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{type(inner).__name__}: its attention cannot be read ({reason})") from error
    try:
        yield
    finally:
        for config, own in before:
            if own is not None:
                config._attn_implementation = own
