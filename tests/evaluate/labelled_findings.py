"""The hand-labelled sentences, and how far the rules agree with them; read by the tests and the benchmark.

The rules were written with `DEVELOPMENT` in view, all of it: agreement with it shows that nothing broke, and says
little about other reports. `FRESH` was written and labelled apart from the rules, after them, and no rule is fitted to
it: what it says of them holds only as long as that stays so.

"No Finding" follows from the other labels (Irvin et al. 2019: nothing else is positive or uncertain) and is counted by
itself alone: `FRESH` keeps it for texts that call the whole examination normal.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from medvlm.evaluate.findings.labels import reading

DEVELOPMENT = Path(__file__).with_name("labelled_sentences.tsv")
FRESH = Path(__file__).with_name("fresh_sentences.tsv")
NO = "No Finding"


class Labelled(NamedTuple):
    """One sentence with what its author read in it."""

    id: str
    sentence: str
    labels: dict[str, str]
    sides: dict[str, frozenset[str]]


class Agreement(NamedTuple):
    """How far an engine agrees with the sentences over 13 observations; No Finding is in `by_observation` alone."""

    n: int
    mentions: int
    mention_f1: float
    positive_f1: float
    exact: float
    sides: float
    by_observation: dict[str, tuple[int, float]]
    wrong: list[tuple[Labelled, dict[str, str]]]


def labelled(table: Path = DEVELOPMENT) -> list[Labelled]:
    """Return the sentences of a table with the columns id, sentence, positive, negative, uncertain, sides."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    return [
        Labelled(
            row["id"],
            row["sentence"],
            {name: state for state in ("positive", "negative", "uncertain") for name in _items(row[state])},
            {name: frozenset(sides.split("+")) for name, sides in (each.split("=") for each in _items(row["sides"]))},
        )
        for row in rows
    ]


def _items(cell: str) -> list[str]:
    return cell.split("; ") if cell else []


def agreement(rows: list[Labelled], negation: str) -> Agreement:
    """Compare the labels of `negation` with those of `rows`; a mention is an observation with its state."""
    truth, said = set(), set()
    wrong, sides = [], []
    for row in rows:
        found = reading(row.sentence, negation)
        truth |= {(row.id, *item) for item in row.labels.items()}
        said |= {(row.id, *item) for item in found.labels.items()}
        if {**found.labels, NO: ""} != {**row.labels, NO: ""}:
            wrong.append((row, found.labels))
        sides += [found.sides.get(name) == own for name, own in row.sides.items()]
        sides += [False for name in found.sides.keys() - row.sides.keys()]
    names = sorted({item[1] for item in truth | said})
    asserted = [{item[:2] for item in items if item[2] != "negative" and item[1] != NO} for items in (truth, said)]
    each = {name: ({i for i in truth if i[1] == name}, {i for i in said if i[1] == name}) for name in names}
    truth, said = ({item for item in items if item[1] != NO} for items in (truth, said))
    return Agreement(
        n=len(rows),
        mentions=len(truth),
        mention_f1=f1(truth, said),
        positive_f1=f1(*asserted),
        exact=1 - len(wrong) / len(rows),
        sides=sum(sides) / len(sides) if sides else 1.0,
        by_observation={name: (len(known), f1(known, own)) for name, (known, own) in each.items()},
        wrong=wrong,
    )


def f1(truth: set[tuple[str, ...]], said: set[tuple[str, ...]]) -> float:
    """Return F1 of two sets."""
    return 2 * len(truth & said) / (len(truth) + len(said)) if truth or said else 1.0
