"""The words of `phrases.toml`, compiled into one expression for what is named and one for what stands around it."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from typing import NamedTuple

OBSERVATIONS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The 14 observations of CheXpert (Irvin et al. 2019, arXiv:1901.07031)."""
FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five that the CheXpert competition scored."""

_LOOKBEHIND_OR_BLANK = re.compile(r"\(\?<[!=][^)]*\)| [?*]?")
_BLANKS = {" ": " +", " ?": " *", " *": " *"}
_DEPTH = 3  # of parts within parts


class Meaning(NamedTuple):
    """What a phrase says: its observations, and the state that its own wording gives them."""

    observations: tuple[str, ...]
    state: str
    """"" (the context decides), negative or uncertain; normal, abnormal (the whole examination) or ignored."""


class Found(NamedTuple):
    """A match of `[start, end)` in a sentence, and which meaning it has by its number in the matcher."""

    start: int
    end: int
    meaning: int


class Matcher:
    """Groups of patterns as one expression; of two that begin at the same place the longer pattern is tried first."""

    def __init__(self, groups: Iterable[tuple[Iterable[str], int]]) -> None:
        pairs = [(pattern, meaning) for patterns, meaning in groups for pattern in patterns]
        pairs.sort(key=lambda pair: -len(pair[0]))
        self._meanings = [meaning for _, meaning in pairs]
        # Only words' beginnings are tried; a cue may begin with a colon, a blank or a dash.
        parts = "|".join(f"({_edge(pattern)}{pattern})" for pattern, _ in pairs)
        self._expression = re.compile(rf"(?:{parts})(?!\w)")

    def find(self, text: str) -> Iterator[Found]:
        """Yield the matches in lower-case `text`, left to right, none overlapping."""
        for match in self._expression.finditer(text):
            yield Found(*match.span(), self._meanings[(match.lastindex or 1) - 1])


def _edge(pattern: str) -> str:
    return "" if pattern[0] in ":, " else r"\b"


class Phrases(NamedTuple):
    """The compiled file."""

    mentions: Matcher
    meanings: list[Meaning]
    cues: Matcher
    kinds: list[str]
    """The kind of cue by its number: the keys of [cues]."""


@functools.cache
def phrases() -> Phrases:
    """Return the compiled `phrases.toml`."""
    file = tomllib.loads(resources.files(__package__).joinpath("phrases.toml").read_text("utf-8"))
    parts: dict[str, str] = file["parts"]
    groups: list[tuple[list[str], Meaning]] = [
        (words, Meaning((observation,), "")) for observation, words in file["asserts"].items()
    ]
    for table, state in (("denies", "negative"), ("hedges", "uncertain")):
        groups += [(entry["words"], Meaning(tuple(entry["says"]), state)) for entry in file[table]]
    groups += [(file["overall"][state], Meaning((), state)) for state in ("normal", "abnormal", "ignored")]
    meanings = [meaning for _, meaning in groups]
    mentions = Matcher((_expanded(words, parts), number) for number, (words, _) in enumerate(groups))
    kinds = list(file["cues"])
    cues = Matcher((_expanded(file["cues"][kind], parts), number) for number, kind in enumerate(kinds))
    return Phrases(mentions, meanings, cues, kinds)


def _expanded(words: Iterable[str], parts: Mapping[str, str]) -> list[str]:
    """Return the patterns without {parts}, their blanks standing for one or more; groups capture nothing."""
    expanded = []
    for word in words:
        for name, part in list(parts.items()) * _DEPTH:
            word = word.replace(f"{{{name}}}", part)
        expanded.append(_LOOKBEHIND_OR_BLANK.sub(lambda found: _BLANKS.get(found[0], found[0]), word))
    return expanded
