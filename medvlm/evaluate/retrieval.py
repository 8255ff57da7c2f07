"""Retrieval: does a picture find its text among the split's, and a text its picture?

Candidates are the distinct texts, and the distinct pictures, of a task's rows in the evaluated split; every row asks
once in each direction. Right is every text that any row has of this very picture, and every picture that any row has
with this very text: a sentence that stands below three pictures finds any of them. The rank is that of the best right
candidate. Candidates whose cosines are as good as equal are taken in random order: a hit among them counts by its
probability and a rank by its mean, so that a model that tells nothing apart scores exactly at chance. Candidates stay
the whole split's where a bootstrap draws rows, and where leaked rows are left out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medvlm.evaluate.metrics import Options, Segments, means
from medvlm.evaluate.ngrams import Floats
from medvlm.evaluate.signature import signature
from medvlm.evaluate.statistics import Bootstrap, Interval
from medvlm.io import stable_hash, write_json

if TYPE_CHECKING:
    from medvlm.cli.common import Progress
    from medvlm.data.mixture import Mixture
    from medvlm.evaluate.predict import Predictor

Bools = NDArray[np.bool_]
Row = dict[str, Any]

AT = (1, 5, 10)
"""Ranks up to which a right candidate is a hit."""

DIRECTIONS = {"i2t": "image to text", "t2i": "text to image"}

COLUMN = "retrieval"
"""Of a row: i2t and t2i, each {rank, hits by `AT`, chance by `AT`, of: number of candidates}."""

EQUAL = 1e-6
"""Cosines that differ by less tell nothing apart in float32."""

_BLOCK = 4_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What queries find: ranks [Q], hits [Q, len(AT)], and what a random order would hit [Q, len(AT)]."""

    ranks: Floats
    hits: Floats
    chance: Floats


def found(cosines: Floats, right: Bools) -> Found:
    """Return what each query finds.

    Args:
        cosines: [Q, C] of queries and candidates.
        right: [Q, C] which candidates are right; at least one of each query.
    """
    best = np.where(right, cosines, -np.inf).max(axis=1, keepdims=True)
    above = (cosines > best + EQUAL).sum(axis=1)
    level = np.abs(cosines - best) <= EQUAL
    tied, good = level.sum(axis=1), (level & right).sum(axis=1)
    # The first of `good` among `tied` in random order comes at (tied + 1) / (good + 1) on average.
    ranks = above + (tied + 1) / (good + 1)
    size = np.full(len(cosines), cosines.shape[1])
    return Found(ranks, _hits(above, tied, good), _hits(np.zeros_like(above), size, right.sum(axis=1)))


def _hits(above: NDArray[Any], tied: NDArray[Any], good: NDArray[Any]) -> Floats:
    """Return [Q, len(AT)]: the probability that one of `good` is among the first, behind `above` wrong ones.

    Args:
        above: [Q] candidates that come before.
        tied: [Q] candidates that come then, in random order.
        good: [Q] how many of these are right.
    """
    columns = []
    missed = np.ones(len(above))
    drawn = np.zeros(len(above))
    for rank in range(1, max(AT) + 1):
        # The next one of the tied is wrong as well.
        turn = (rank > above) & (drawn < tied)
        left = np.maximum(tied - drawn, 1)
        missed = np.where(turn, missed * np.maximum(tied - good - drawn, 0) / left, missed)
        drawn = drawn + turn
        if rank in AT:
            columns.append(1.0 - missed)
    return np.stack(columns, axis=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Pool:
    """One task's rows: [n] which distinct text and which distinct picture each has, and the embeddings of those."""

    texts: NDArray[np.int64]
    pictures: NDArray[np.int64]
    text_embeddings: Floats
    picture_embeddings: Floats

    def found(self) -> dict[str, Found]:
        """Return direction -> what the rows find."""
        texts, pictures = (self.text_embeddings, self.texts), (self.picture_embeddings, self.pictures)
        return {"i2t": _each(*pictures, *texts), "t2i": _each(*texts, *pictures)}


def _each(queries: Floats, asked: NDArray[np.int64], candidates: Floats, held: NDArray[np.int64]) -> Found:
    """Return what each row finds.

    Args:
        queries: [Q, D] embeddings.
        asked: [n] each row's query.
        candidates: [C, D] embeddings.
        held: [n] each row's candidate, which is right for its query.
    """
    step = max(1, _BLOCK // len(candidates))
    parts = []
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        inside = (asked >= start) & (asked < start + step)
        right = np.zeros((len(block), len(candidates)), dtype=bool)
        right[asked[inside] - start, held[inside]] = True
        parts.append(found(block @ candidates.T, right))
    joined = (np.concatenate([getattr(part, name) for part in parts])[asked] for name in ("ranks", "hits", "chance"))
    return Found(*joined)


def measure(predictor: Predictor, mixture: Mixture, places: Sequence[int], show: Progress) -> list[Row]:
    """Return what the model finds of each place: its `COLUMN`.

    Args:
        predictor: of a contrastive model.
        mixture: the rows.
        places: which of them are evaluated.
        show: told how many pictures are embedded.
    """
    by_task: dict[str, list[int]] = {}
    for number, place in enumerate(places):
        by_task.setdefault(str(mixture.text(place)["task"]), []).append(number)
    done: list[Row] = [{} for _ in places]
    told = 0
    for numbers in by_task.values():
        pool = _pool(predictor, mixture, [places[number] for number in numbers], show, told, len(places))
        told += len(numbers)
        sizes = {"i2t": len(pool.text_embeddings), "t2i": len(pool.picture_embeddings)}
        for direction, one in pool.found().items():
            for at, number in enumerate(numbers):
                done[number][direction] = {
                    "rank": float(one.ranks[at]),
                    "hits": one.hits[at].tolist(),
                    "chance": one.chance[at].tolist(),
                    "of": sizes[direction],
                }
    return done


def _pool(predictor: Predictor, mixture: Mixture, places: Sequence[int], show: Progress, told: int, of: int) -> Pool:
    import torch

    from medvlm.models.backbones.contrastive import ContrastiveBackbone, image_embeddings, text_embeddings
    from medvlm.models.backbones.rows import pixel_values
    from medvlm.train.collate import prefix

    backbone = predictor.loaded.backbone
    assert isinstance(backbone, ContrastiveBackbone)
    pairs = []
    for place in places:
        text = mixture.text(place)
        pairs.append((backbone.task_of(prefix(text, predictor.recipe.prompts))[1], str(text["target"])))
    texts, text_numbers = _numbered(pairs)
    pictures, numbers = _numbered([_identity(mixture, place) for place in places])
    first = dict(zip(reversed(numbers), reversed(places), strict=True))
    size, made = predictor.recipe.eval.batch_size, []
    with torch.inference_mode(), predictor.precision():
        for start in range(0, len(pictures), size):
            batch = [first[number] for number in range(start, min(start + size, len(pictures)))]
            examples = [_example(mixture, place) for place in batch]
            pixels = pixel_values(backbone.image_processor, examples).to(predictor.device)
            made.append(image_embeddings(predictor.model, pixels).cpu())
            show.update(told + (start + len(batch)) * len(places) // len(pictures), of)
        rows = [backbone.row(question, target) for question, target in texts]
        embedded = text_embeddings(backbone, predictor.model, rows).cpu()
    return Pool(
        np.asarray(text_numbers), np.asarray(numbers), embedded.double().numpy(), torch.cat(made).double().numpy()
    )


def _example(mixture: Mixture, place: int) -> Any:
    from medvlm.models.backbones.base import Example

    return Example(mixture.image(place), "")


def _identity(mixture: Mixture, place: int) -> str:
    """Return what is equal of places that show the very same file first."""
    (data, *_) = mixture.encoded(place)
    return hashlib.sha256(data).hexdigest()


def _numbered(values: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """Return the distinct values in order, and which of them each value is."""
    distinct = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return list(distinct), [distinct[value] for value in values]


def at_chance(row: Row) -> Row:
    """Return a row's `COLUMN` as a model leaves it that tells nothing apart."""
    told = {}
    for direction, one in row.items():
        # The hit at rank 1 is the share that is right; the first of r among C comes at (C + 1) / (r + 1) on average.
        right = round(one["chance"][0] * one["of"])
        told[direction] = {**one, "hits": one["chance"], "rank": (one["of"] + 1) / (right + 1)}
    return told


def of_run(
    predictor: Callable[[], Predictor],
    mixture: Mixture,
    places: Sequence[int],
    path: Path,
    fingerprint: str,
    show: Progress,
) -> list[Row]:
    """Return the `COLUMN` of each place, from `path` where that holds it of the same fingerprint, else measured.

    Args:
        predictor: loads the model.
        mixture: the rows.
        places: which of them are evaluated.
        path: JSON; written where it was not of these places and this model.
        fingerprint: of model and data.
        show: as for `measure`.
    """
    ids = [str(mixture.text(place)["id"]) for place in places]
    fingerprint = stable_hash([fingerprint, ids])
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["fingerprint"] == fingerprint:
            return [known["rows"][name] for name in ids]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # Not there, or cut off.
    rows = measure(predictor(), mixture, places, show)
    write_json(path, {"fingerprint": fingerprint, "rows": dict(zip(ids, rows, strict=True))})
    return rows


def fits(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return True where rows say what was found."""
    return any(row.get(COLUMN) for row in rows)


class Retrieval:
    """Recall at 1, 5 and 10 in both directions, of the rows that say what was found."""

    name = "retrieval"
    keys: tuple[str, ...] = tuple(f"{direction}_r{at}" for direction in DIRECTIONS for at in AT)

    def __init__(self, options: Options) -> None:
        self.options = options

    def statistics(self, segments: Segments) -> Floats:
        """Return [n, 7]: the six hits, and whether they are known."""
        table = np.zeros((len(segments.predictions), len(self.keys) + 1))
        for line, row in zip(table, segments.rows, strict=True):
            told = row.get(COLUMN)
            if told:
                line[:] = [*told["i2t"]["hits"], *told["t2i"]["hits"], 1.0]
        return table

    def of_sums(self, sums: Floats) -> Floats:
        """Return [R, 6]; NaN where nothing is known."""
        return means(sums)

    def signature(self, segments: Segments) -> str:
        """Return the settings as one string."""
        return signature_of(segments.rows)


def signature_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what recalls were computed with; the candidates by task, since more of them are harder."""
    sizes = {str(row.get("task")): row[COLUMN] for row in rows if row.get(COLUMN)}
    texts, pictures = (
        ",".join(f"{task}={told[direction]['of']}" for task, told in sorted(sizes.items())) for direction in DIRECTIONS
    )
    return signature(
        "retrieval", texts=texts, pictures=pictures, distinct="text,file", right="any", ties="expected,1e-6"
    )


def summary(
    rows: Mapping[str, Sequence[Mapping[str, Any]]], groups: Sequence[str], bootstrap: Bootstrap | None
) -> dict[str, Any] | None:
    """Return what scores.json says of retrieval beside the recalls, which stand among the scores.

    Args:
        rows: row of the table -> predictions of the same samples in one order.
        groups: [n] the cluster of each.
        bootstrap: of these groups; None leaves intervals out.

    Returns:
        signature, n, chance (key -> recall of a random order), median_rank (row -> direction -> [median, low, high],
        or [median] without a bootstrap) and candidates (task -> texts, pictures); None where nothing was found.
    """
    main = next(iter(rows.values()))
    if not fits(main):
        return None
    chance = np.array([[*row[COLUMN]["i2t"]["chance"], *row[COLUMN]["t2i"]["chance"]] for row in main]).mean(axis=0)
    sizes = {str(row.get("task")): row[COLUMN] for row in main}
    return {
        "signature": signature_of(main),
        "n": len(main),
        "chance": dict(zip(Retrieval.keys, chance.tolist(), strict=True)),
        "median_rank": {
            name: {direction: _median_of(listed, direction, bootstrap) for direction in DIRECTIONS}
            for name, listed in rows.items()
            if fits(listed)
        },
        "candidates": {task: {"texts": one["i2t"]["of"], "pictures": one["t2i"]["of"]} for task, one in sizes.items()},
    }


def _median_of(rows: Sequence[Mapping[str, Any]], direction: str, bootstrap: Bootstrap | None) -> list[float]:
    ranks = np.array([row[COLUMN][direction]["rank"] for row in rows])
    one = median_rank(ranks, bootstrap)
    return [one.estimate] if bootstrap is None else [one.estimate, one.low, one.high]


def median_rank(ranks: Floats, bootstrap: Bootstrap | None) -> Interval:
    """Return the lower median of ranks [n], with its percentile interval over draws of whole groups."""
    order = np.argsort(ranks, kind="stable")
    estimate = float(ranks[order][(len(ranks) - 1) // 2])
    if bootstrap is None:
        return Interval(estimate, float("nan"), float("nan"))
    drawn = np.concatenate(list(_medians(ranks[order], bootstrap.cluster[order], bootstrap)))
    tail = (1 - bootstrap.confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))


def _medians(ranks: Floats, clusters: NDArray[Any], bootstrap: Bootstrap) -> Iterator[Floats]:
    """Yield the lower medians of each block of draws; `ranks` are sorted."""
    for block in bootstrap.blocks():
        step = max(1, _BLOCK // len(ranks))
        for start in range(0, len(block), step):
            reached = block[start : start + step][:, clusters].astype(np.int64).cumsum(axis=1)
            half = (reached[:, -1:] + 1) // 2
            yield ranks[(reached >= half).argmax(axis=1)]
