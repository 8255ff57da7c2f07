"""What a report says of retrieval: recalls and median ranks in both directions, beside what chance would give."""

from __future__ import annotations

from collections.abc import Iterator

from medvlm.report.document import Block, Facts, Table, Text
from medvlm.report.scored import ROWS, Scored, Value
from medvlm.report.values import listed, mapping, number, text

_DIRECTIONS = {"i2t": "image to text", "t2i": "text to image"}
_AT = (1, 5, 10)


def blocks(scored: Scored) -> Iterator[Block]:
    """Yield what was found in retrieval; nothing where nothing was ranked."""
    told = mapping(scored.raw.get("retrieval"))
    if not told:
        return
    medians = mapping(told.get("median_rank"))
    header = ["direction", "row", *(f"recall at {at}" for at in _AT), "median rank"]
    body = []
    for direction, label in _DIRECTIONS.items():
        keys = [f"{direction}_r{at}" for at in _AT]
        for row in medians:
            ranks = [number(one) for one in listed(mapping(medians[row]).get(direction))]
            body.append([label, ROWS.get(row, row), *(str(scored.value(row, key)) for key in keys), _rank(ranks)])
        chance = mapping(told.get("chance"))
        body.append([label, "at chance", *(str(Value(number(chance.get(key)))) for key in keys), "-"])
    yield Table(header, body, "Retrieval", numeric=frozenset({2, 3, 4, 5}))
    pools = "; ".join(
        f"{task}: {text(mapping(size).get('texts'))} texts, {text(mapping(size).get('pictures'))} pictures"
        for task, size in mapping(told.get("candidates")).items()
    )
    yield Text(
        f"Recall at k: how often a right text is among the k nearest to a picture, and the other way round. Candidates "
        f"are the distinct texts and pictures of the split, task by task ({pools}): with more of them it is harder. "
        "Candidates that a model cannot tell apart count as in random order."
    )
    yield Facts([("retrieval", text(told.get("signature")))])


def _rank(ranks: list[float | None]) -> str:
    """Return "12 [10, 15]"."""
    first, *interval = [f"{rank:.4g}" for rank in ranks if rank is not None] or ["-"]
    return f"{first} [{', '.join(interval)}]" if len(interval) == 2 else first
