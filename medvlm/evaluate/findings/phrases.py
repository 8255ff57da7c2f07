"""The words of `phrases.toml`, compiled into one expression for what is named and one for what stands around it."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import NamedTuple

from medvlm.evaluate.findings.matcher import Matcher

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


class Phrases(NamedTuple):
    """The compiled file."""

    mentions: Matcher
    meanings: list[Meaning]
    cues: Matcher
    kinds: list[str]
    """The kind of cue by its number: the keys of [cues]."""
    subject: re.Pattern[str]
    """A comma behind which something new is said."""


@functools.cache
def phrases() -> Phrases:
    """Return the compiled `phrases.toml`."""
    file = tomllib.loads(resources.files(__package__).joinpath("phrases.toml").read_text("utf-8"))
    parts: dict[str, str] = file["parts"]
    groups: list[tuple[list[str], Meaning]] = [
        (words, Meaning(tuple(names.split(" + ")), "")) for names, words in file["asserts"].items()
    ]
    for table, state in (("denies", "negative"), ("hedges", "uncertain")):
        groups += [(entry["words"], Meaning(tuple(entry["says"]), state)) for entry in file[table]]
    groups += [(file["overall"][state], Meaning((), state)) for state in ("normal", "abnormal", "ignored")]
    meanings = [meaning for _, meaning in groups]
    # "Ignored" is the last group, and goes first: "mass effect" is no mass.
    mentions = Matcher(((_expanded(words, parts), n) for n, (words, _) in enumerate(groups)), len(groups) - 1)
    kinds = list(file["cues"])
    cues = Matcher((_expanded(file["cues"][kind], parts), number) for number, kind in enumerate(kinds))
    (subject,) = _expanded([file["reach"]["subject"]], parts)
    return Phrases(mentions, meanings, cues, kinds, re.compile(subject))


def _expanded(words: Iterable[str], parts: Mapping[str, str]) -> list[str]:
    """Return the patterns without {parts}, their blanks standing for one or more; groups capture nothing."""
    expanded = []
    for word in words:
        for name, part in list(parts.items()) * _DEPTH:
            word = word.replace(f"{{{name}}}", part)
        expanded.append(_LOOKBEHIND_OR_BLANK.sub(lambda found: _BLANKS.get(found[0], found[0]), word))
    return expanded
