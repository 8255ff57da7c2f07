"""What a text says about each observation, and where two texts contradict each other."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

from medvlm.errors import UsageError
from medvlm.evaluate.findings.phrases import OBSERVATIONS
from medvlm.evaluate.findings.sentences import Mention, Negation, Rules, Sentence, read, split

ENGINES = ("rules", "negspacy")
_STATES = ("positive", "uncertain", "negative")
_DEVICES = "Support Devices"


class Reading(NamedTuple):
    """All that a text says.

    Attributes:
        labels: observation -> positive, negative or uncertain; absent where the text does not mention it.
        sides: observation -> the sides stated for it; only of the positive and uncertain, only where one is stated.
        normal: whether the text calls the chest normal; None where it says nothing about it.
        mentions: every mention, in the order of the text.
    """

    labels: dict[str, str]
    sides: dict[str, frozenset[str]]
    normal: bool | None
    mentions: tuple[Mention, ...]


class Flip(NamedTuple):
    """A contradiction: one text asserts what the other denies ("negation"), or puts it on the other side ("side").

    Attributes:
        reference: characters `[start, end)` of the mention in the reference.
        prediction: the same in the prediction.
    """

    kind: Literal["negation", "side"]
    observation: str
    reference: tuple[int, int]
    prediction: tuple[int, int]


@functools.cache
def engine(name: str = "rules") -> Negation:
    """Return the engine of negation called `name`.

    Raises:
        UsageError: no such engine.
        MissingExtraError: negspacy is asked for and not installed.
    """
    if name == "rules":
        return Rules()
    if name == "negspacy":
        from medvlm.evaluate.findings.negex import Negex

        return Negex()
    raise UsageError(f"unknown negation engine {name!r}; known: {', '.join(ENGINES)}")


# Reports repeat their sentences; the bound keeps memory flat however many texts are read.
@functools.lru_cache(maxsize=1 << 15)
def _sentence(sentence: str, negation: str) -> Sentence:
    return read(sentence, engine(negation))


def forget() -> None:
    """Forget the sentences read so far, for a measurement that starts from nothing."""
    _sentence.cache_clear()


def reading(text: str, negation: str = "rules") -> Reading:
    """Return what `text` says about the 14 observations of CheXpert.

    Of several mentions of one observation a positive counts before an uncertain, and that before a negative. "No
    Finding" is positive where no other observation save devices is positive or uncertain, nothing else abnormal is
    named, and the text denies an observation or calls the examination normal.

    Raises:
        UsageError: `negation` names no engine.
        MissingExtraError: negspacy is asked for and not installed.
    """
    mentions: list[Mention] = []
    normal = abnormal = False
    for offset, sentence in split(text):
        found = _sentence(sentence.strip(), negation)
        offset += len(sentence) - len(sentence.lstrip())
        mentions += [mention.moved(offset) for mention in found.mentions]
        normal, abnormal = normal or found.normal, abnormal or found.abnormal
    labels, sides = _aggregated(mentions)
    findings = {name: state for name, state in labels.items() if name != _DEVICES}
    abnormal = abnormal or bool({"positive", "uncertain"} & set(findings.values()))
    normal = not abnormal and (normal or bool(findings))
    if normal:
        labels[OBSERVATIONS[0]] = "positive"
    return Reading(labels, sides, normal if normal or abnormal else None, tuple(mentions))


def _aggregated(mentions: list[Mention]) -> tuple[dict[str, str], dict[str, frozenset[str]]]:
    """Return the state and the stated sides by observation."""
    labels: dict[str, str] = {}
    sides: dict[str, frozenset[str]] = {}
    for mention in mentions:
        known = labels.get(mention.observation, "negative")
        labels[mention.observation] = min(known, mention.state, key=_STATES.index)
        if mention.sides and mention.state != "negative":
            sides[mention.observation] = sides.get(mention.observation, frozenset()) | mention.sides
    return labels, sides


def labels(text: str, negation: str = "rules") -> dict[str, str]:
    """Return observation -> positive, negative or uncertain; an observation that `text` does not mention is absent.

    Raises:
        UsageError: `negation` names no engine.
        MissingExtraError: negspacy is asked for and not installed.
    """
    return reading(text, negation).labels


def is_normal(text: str) -> bool | None:
    """Return whether `text` calls the chest normal; None where it says nothing about it."""
    return reading(text).normal


def flips(reference: str, prediction: str) -> list[Flip]:
    """Return where `prediction` contradicts `reference`, in the order of the reference.

    A negation flip: one says positive, the other negative (of an uncertain one there is none). A side flip: both assert
    it and no side that one states is stated by the other. The characters of a side flip include the words of the side.
    """
    known, guessed = reading(reference), reading(prediction)
    found = []
    for name, state in known.labels.items():
        other = guessed.labels.get(name)
        if other and {state, other} == {"positive", "negative"}:
            found.append(Flip("negation", name, _span(known, name, state), _span(guessed, name, other)))
        elif state == other == "positive" and _apart(known.sides.get(name), guessed.sides.get(name)):
            found.append(Flip("side", name, _span(known, name, state, True), _span(guessed, name, state, True)))
    return sorted(found, key=lambda flip: flip.reference)


def _apart(sides: frozenset[str] | None, others: frozenset[str] | None) -> bool:
    return bool(sides and others and not sides & others)


def _span(found: Reading, observation: str, state: str, with_side: bool = False) -> tuple[int, int]:
    """Return the characters of the first mention in `state`; with its side, of the first that states one."""
    own = [each for each in found.mentions if each.observation == observation and each.state == state]
    sided = [each for each in own if each.sides]
    if not with_side or not sided:
        return own[0].start, own[0].end
    low, high = sided[0].side_span
    return min(low, sided[0].start), max(high, sided[0].end)
