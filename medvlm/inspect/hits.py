"""The pointing game (arXiv:1608.00507) on the embedded sample: how often a map's peak lies on the finding.

The generator drew the finding, so it is known to the pixel. A map is as coarse as its cells, so a hit is a peak whose
cell touches the finding; chance is the share of cells that do, and the cell in the middle of the picture is a second
baseline, for findings lie where lungs are. Beside it stands the strict count: the peak's own point is on the finding,
against the share of the picture that the finding covers.

Of attention there is one map a layer, and a layer that is chosen because it hits must not be judged by the same
pictures: it is chosen on the validation split.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvlm.errors import InputError
from medvlm.evaluate.statistics import RESAMPLES, cluster_numbers, cluster_sums, draws
from medvlm.inspect import attention, occlusion
from medvlm.inspect.opened import WHOLE, Box

if TYPE_CHECKING:
    from medvlm.data.mixture import Mixture
    from medvlm.evaluate.predict import Predictor
    from medvlm.recipe.models import Recipe

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ID = re.compile(r"^10\.5555[/_]medvlm\.phantom\.(\d+)\.(\d+)/(fig\d+)/")
SPLITS = ("validation", "test")
WORDS = {
    "nodule": ("small", "large", "round", "nodule", "upper", "lower", "anterior", "posterior"),
    "effusion": ("small", "large", "pleural", "effusion"),
    "pneumothorax": ("small", "large", "pneumothorax"),
    "cardiomegaly": ("cardiomegaly", "enlarged"),
}
"""Finding -> the words that say what it is, how large and where, in the sample's texts.

Not the name alone, which often follows from the word before it ("pleural effusion"); and not its side, which is said of
the other lung, too. Of these, the name alone and the whole answer, these had most hits of the occlusion
map on the validation split."""


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A picture whose finding's place is known.

    Attributes:
        place: of its row in the mixture.
        mask: [H, W] where the finding lies.
    """

    place: int
    id: str
    group: str
    finding: str
    mask: Mask


@dataclasses.dataclass(frozen=True, slots=True)
class Hit:
    """What one map says of one case; chance and center are of the same grid of cells.

    Attributes:
        touch: the cell of the peak touches the finding.
        point: the middle of that cell is on the finding.
        touch_chance: the share of the cells that touch it.
        point_chance: the share of the picture that the finding covers.
        touch_center: a cell about the middle of the picture touches it.
        point_center: the middle of the picture is on it.
    """

    touch: float
    point: float
    touch_chance: float
    point_chance: float
    touch_center: float
    point_center: float


def cases_of(mixture: Mixture, task: str, limit: int | None) -> list[Case]:
    """Return the rows of a task whose picture shows a finding at a known place, evenly spread where there is a limit.

    Raises:
        InputError: there is none: the data are not the embedded sample.
    """
    from medvlm.data.sources.phantom.articles import finding_masks

    known: dict[tuple[int, int], dict[str, Mask | None]] = {}
    found: dict[str, Case] = {}
    pictures: set[str] = set()
    for place, row in enumerate(mixture.texts()):
        match = _ID.match(str(row["id"]))
        if row.get("source") != "phantom" or match is None or row["task"] != task or row.get("finding") not in WORDS:
            continue
        key, figure = (int(match[1]), int(match[2])), match[3]
        if match[0] in pictures:
            continue
        pictures.add(match[0])
        if key not in known:
            known[key] = finding_masks(*key)
        mask = known[key].get(figure)
        if mask is not None:
            found[str(row["id"])] = Case(place, str(row["id"]), str(row["group"]), str(row["finding"]), mask)
    cases = list(found.values())
    if not cases:
        raise InputError(
            f"no {task} about a finding whose place is known; only of the embedded sample (`medvlm prepare pmc` "
            "without --input) are the places known"
        )
    if limit is not None and limit < len(cases):
        cases = [cases[number * len(cases) // limit] for number in range(limit)]
    return cases


def hit(values: Floats, mask: Mask, view: Box = WHOLE) -> Hit:
    """Return whether the peak of a map [R, C] over the `view` of a picture lies on its finding [H, W].

    Of several equal peaks the first counts, from the top left.
    """
    rows, columns = values.shape
    peak = int(values.argmax())
    cells = [_cell(mask, row, column, (rows, columns), view) for row in range(rows) for column in range(columns)]
    high, wide = mask.shape
    middle = _box((0.5 - 0.5 / columns, 0.5 - 0.5 / rows, 0.5 + 0.5 / columns, 0.5 + 0.5 / rows), view)
    row, column = divmod(peak, columns)
    x, y = _point(((column + 0.5) / columns, (row + 0.5) / rows), view)
    return Hit(
        touch=float(cells[peak]),
        point=float(mask[min(int(y * high), high - 1), min(int(x * wide), wide - 1)]),
        touch_chance=float(np.mean(cells)),
        point_chance=float(mask.mean()),
        touch_center=float(_inside(mask, middle).any()),
        point_center=float(mask[high // 2, wide // 2]),
    )


def _cell(mask: Mask, row: int, column: int, shape: tuple[int, int], view: Box) -> bool:
    rows, columns = shape
    box = _box((column / columns, row / rows, (column + 1) / columns, (row + 1) / rows), view)
    return bool(_inside(mask, box).any())


def _point(point: tuple[float, float], view: Box) -> tuple[float, float]:
    x0, y0, x1, y1 = view
    return x0 + point[0] * (x1 - x0), y0 + point[1] * (y1 - y0)


def _box(box: Box, view: Box) -> Box:
    return (*_point(box[:2], view), *_point(box[2:], view))


def _inside(mask: Mask, box: Box) -> Mask:
    """Return the part of a mask within a box; a pixel belongs to the cell that its middle lies in."""
    high, wide = mask.shape
    x0, x1 = (round(box[side] * wide) for side in (0, 2))
    y0, y1 = (round(box[side] * high) for side in (1, 3))
    return mask[y0:y1, x0:x1]


@dataclasses.dataclass(frozen=True, slots=True)
class Looked:
    """What the model said of a case, and what each map says of where it looked.

    Attributes:
        named: the answer names the finding; the maps are then about the words that do, else about all its words.
        hits: map -> hit: "occlusion", "rolled out", "layer 1", ...
    """

    case: Case
    answer: str
    named: bool
    hits: Mapping[str, Hit]


def look(predictor: Predictor, mixture: Mixture, cases: Sequence[Case]) -> Iterator[Looked]:
    """Yield what each case's maps say, in the cases' order; those of attention are left out where there are none."""
    from medvlm.evaluate.findings import expected_findings, named_findings
    from medvlm.train.collate import prefix

    recipe = predictor.recipe
    windows = occlusion.windows_of(predictor)
    size = recipe.eval.batch_size
    for start in range(0, len(cases), size):
        batch = cases[start : start + size]
        images = [mixture.image(case.place) for case in batch]
        prefixes = [prefix(mixture.text(case.place), recipe.prompts) for case in batch]
        answers = predictor.answers(images, prefixes)
        for case, image, asked, answer in zip(batch, images, prefixes, answers, strict=True):
            words = WORDS[case.finding]
            named = expected_findings(case.finding) <= named_findings(answer) and any(
                re.search(rf"\b{word}\b", answer, re.IGNORECASE) for word in words
            )
            about = words if named else None
            hidden = occlusion.of_answer(predictor, image, asked, answer, windows, words=about)
            hits = {"occlusion": hit(hidden.losses, case.mask)}
            looked = attention.of_answer(predictor, image, asked, answer, words=about)
            if not isinstance(looked, str) and looked.grid is not None:
                view = looked.grid.view
                hits["rolled out"] = hit(looked.map(), case.mask, view)
                for layer in range(len(looked.layers)):
                    hits[f"layer {layer + 1}"] = hit(looked.map(layer), case.mask, view)
            yield Looked(case, answer, named, hits)


def best_layer(looked: Sequence[Looked]) -> str | None:
    """Return the layer whose peak touches the finding most often, the first of equals; None without attention."""
    names = [name for name in (looked[0].hits if looked else ()) if name.startswith("layer ")]
    if not names:
        return None
    return max(names, key=lambda name: sum(one.hits[name].touch for one in looked))


def summary(looked: Sequence[Looked], names: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Return, of each map, how often its peak hits, with 95 % bootstrap intervals over articles, and the baselines.

    Returns:
        n, groups, named (share of answers that name the finding), maps: name -> {touch, touch_interval, touch_chance,
        touch_center, point, ..., touch_above_chance_interval}.
    """
    groups = [one.case.group for one in looked]
    found: dict[str, Any] = {
        "n": len(looked),
        "groups": len(set(groups)),
        "named": float(np.mean([one.named for one in looked])),
        "resamples": RESAMPLES,
        "seed": seed,
        "maps": {},
    }
    for name in names:
        columns = np.array([dataclasses.astuple(one.hits[name]) for one in looked])
        parts = dict(zip((field.name for field in dataclasses.fields(Hit)), columns.T, strict=True))
        told: dict[str, Any] = {key: float(values.mean()) for key, values in parts.items()}
        for kind in ("touch", "point"):
            told[f"{kind}_interval"] = interval(parts[kind], groups, seed)
            told[f"{kind}_above_chance"] = told[kind] - told[f"{kind}_chance"]
            told[f"{kind}_above_chance_interval"] = interval(parts[kind] - parts[f"{kind}_chance"], groups, seed)
        found["maps"][name] = told
    return found


def interval(values: Floats, groups: Sequence[str], seed: int) -> list[float]:
    """Return the 95 % percentile bootstrap interval of a mean, whole groups drawn."""
    cluster = cluster_numbers(groups)
    sums = cluster_sums(np.stack([values, np.ones_like(values)], axis=1), cluster)
    drawn = np.concatenate([block.astype(np.float64) @ sums for block in draws(len(sums), RESAMPLES, seed)])
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return [float(low), float(high)]


def measure(
    open_model: Callable[[], Predictor],
    recipe: Recipe,
    *,
    task: str = "caption",
    split: str = "test",
    limit: int | None = None,
    advance: Callable[[int, int], Any] | None = None,
) -> dict[str, Any]:
    """Play the pointing game on a split, the layer chosen on the validation split.

    Args:
        open_model: gives the run's model; called only once there are pictures to ask about.
        recipe: the run's.
        task: whose answers are looked at.
        split: on which is judged.
        limit: so many pictures of each split, evenly spread.
        advance: told how many pictures are done, of how many.

    Returns:
        task, split, layer (chosen; None without attention), chosen_on, validation and, under the split's name, what
        `summary` gives; rows: id, finding, answer, named and the maps that hit, of each picture of the split.

    Raises:
        InputError: the data are not the embedded sample.
    """
    from medvlm.data.mixture import Mixture

    wanted = list(dict.fromkeys((SPLITS[0], split)))
    mixtures = {name: Mixture(recipe.data, name, recipe.seed, weighted=False, how=recipe.mixture) for name in wanted}
    cases = {name: cases_of(mixture, task, limit) for name, mixture in mixtures.items()}
    predictor = open_model()
    total, done = sum(map(len, cases.values())), 0
    looked: dict[str, list[Looked]] = {name: [] for name in wanted}
    for name in wanted:
        for one in look(predictor, mixtures[name], cases[name]):
            looked[name].append(one)
            done += 1
            if advance is not None:
                advance(done, total)
    layer = best_layer(looked[SPLITS[0]])
    every = list(looked[SPLITS[0]][0].hits)
    maps = [name for name in every if not name.startswith("layer ") or name == layer]
    named = [one for one in looked[split] if one.named]
    return {
        "task": task,
        "split": split,
        "layer": layer,
        "chosen_on": SPLITS[0],
        SPLITS[0]: summary(looked[SPLITS[0]], every),
        split: summary(looked[split], every if split == SPLITS[0] else maps),
        "named_only": summary(named, maps) if named else None,
        "rows": [
            {
                "id": one.case.id,
                "finding": one.case.finding,
                "answer": one.answer,
                "named": one.named,
                "hit": [name for name in maps if one.hits[name].touch],
            }
            for one in looked[split]
        ],
    }
