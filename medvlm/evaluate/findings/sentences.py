"""What one sentence says: which observations it names, where, in which state and on which side.

A mention is found by its words; a negation engine says which mentions are denied; words that leave a matter open
("cannot exclude", "possible", "versus") make it uncertain. The idea of cues whose reach ends at the clause is that of
NegEx (Chapman et al. 2001, J Biomed Inform 34:301) and of the labeler of CheXpert (arXiv:1901.07031).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from medvlm.evaluate.findings.phrases import Meaning, phrases

_BOUNDARY = re.compile(
    r"(?<!\bvs)(?<!\bapprox)(?<!\bdr)(?:[.!?]+(?=\s|$)(?!(?<=[?])\s*(?:no|none|yes)\b)|[;\n]+)",
    re.IGNORECASE,
)
_WRAPPED = re.compile(r"\n(?=[ \t]*[a-z])")
_LONGEST = 1000  # characters of a sentence; a longer one is read in pieces, so that time stays linear
_BLANK = re.compile(r"\s")
_NOT_TODAY = re.compile(
    r"\s*(?:indications?|(?:clinical )?history|reason for|clinical (?:information|data)|"
    r"\d+[- ]?(?:years?[- ]old|(?:y/?o|[fm])\b))"
)
_EXCEPTION = re.compile(r"\b(?:except|aside from|apart from|other than)\b")
_OTHERWISE = re.compile(r"\botherwise\b")
_OR = re.compile(r"\b(?:or|nor)\b")
_LIST = re.compile(r"\b(?:and|or|nor)\b")
_QUESTIONED = re.compile(r"\?(?=\w)")
_SAME_PLACE = re.compile(r" *(?:/|(?:and/)?or|versus|vs\.?) *")
_OTHER_PLACE = re.compile(r";| and |,(?! *(?:on the )?(?:left|right|both|bilateral)\b *(?:,|\.?$))")
_APART = re.compile(  # the same where no other mention follows: "on the right, small on the left", "left apex and base"
    r";| (?:with|shift\w*) |(?:,| and )(?! *(?:and )?(?:(?!no|the)\w+ ){0,2}(?:(?:on|in|at) )?(?:the )?"
    r"(?:left|right|both|bilateral|lingula)\b(?: (?!is|are)\w+){0,3} *(?:[,.]|$))"
)
_SEPARATOR = re.compile(r"[,;]| and ")
_COMPARED = re.compile(r"\bthan (?:(?:on|in|at) )?(?:the )?(?:left|right)\b")
_APPOSED = re.compile(r", *(?:(?:now|since|which|that|has|have|\w+ly)\b *)*$")  # "effusion, now resolved"
_MIDLINE = {"Cardiomegaly", "Enlarged Cardiomediastinum"}
_BARE_ITEM = re.compile(  # "no effusion, pneumothorax."; not "no effusion, pneumothorax persists."
    r",\s*(?!\w+ (?:present|yes|persists?|remains?|continues|unchanged|stable|larger|smaller|worse|improved)\b)"
    r"\w+(?: \w+)?\s*(?=[.,]|$)"
)
_VERB = re.compile(r"\b(?:is|are|was|were|lies|shows?|remains?)\b")
_SIDE = re.compile(
    r"\b(?:(left|lt|lll|lul|lingular?)|(right|rt|rll|rul|rml)"
    r"|(both|bilateral(?:ly)?|bilat|bibasilar|bibasal|biapical|either))\b"
    r"(?! (?:atrium|ventric\w+|heart|pulmonary artery))"
)
_PLAIN = Meaning((), "")
_SIDES = (frozenset({"left"}), frozenset({"right"}), frozenset({"left", "right"}))


class Mention(NamedTuple):
    """One observation named at characters `[start, end)`.

    Attributes:
        state: positive, negative or uncertain.
        sides: left, right, both or none of them, as stated nearby.
        side_span: characters of the words that state the side; empty (equal numbers) where none does.
    """

    observation: str
    start: int
    end: int
    state: str
    sides: frozenset[str]
    side_span: tuple[int, int]

    def moved(self, offset: int) -> Mention:
        """Return the mention with its characters counted from `offset` earlier."""
        low, high = self.side_span
        return self._replace(start=self.start + offset, end=self.end + offset, side_span=(low + offset, high + offset))


class Sentence(NamedTuple):
    """The mentions of a sentence, and whether it calls the whole examination normal or names anything else abnormal."""

    mentions: tuple[Mention, ...]
    normal: bool
    abnormal: bool


class Cue(NamedTuple):
    """Words around mentions: a kind of `phrases.toml` at characters `[start, end)`."""

    kind: str
    start: int
    end: int


class Negation(Protocol):
    """An engine that says which mentions a sentence denies."""

    name: str

    def negated(self, text: str, spans: Sequence[tuple[int, int]], cues: Sequence[Cue]) -> list[bool]:
        """Return for each of `spans` (characters of lower-case `text`) whether the sentence denies it."""


class Rules:
    """The built-in engine: words of negation with a reach that ends at the clause or with the list."""

    name = "rules"

    def negated(self, text: str, spans: Sequence[tuple[int, int]], cues: Sequence[Cue]) -> list[bool]:
        """Return for each of `spans` whether a word of negation reaches it."""
        reached = [*_reached(text, cues, "before", "after")]
        return [any(low <= start < high for low, high in reached) for start, _ in spans]


def split(text: str) -> Iterator[tuple[int, str]]:
    """Yield (start, sentence) of each sentence of `text`, which together are `text`, one blank for some line ends.

    A line that goes on in lower case is no new sentence.
    """
    text = _WRAPPED.sub(" ", text)
    start = 0
    for end in [*(boundary.end() for boundary in _BOUNDARY.finditer(text)), len(text)]:
        while end - start > _LONGEST:
            low, high = start + 1, start + _LONGEST
            cut = next(
                place for place in (text.rfind(", ", low, high) + 1, text.rfind(" ", low, high), high) if place > 0
            )
            yield start, text[start:cut]
            start = cut
        if start < end:
            yield start, text[start:end]
        start = end


def read(sentence: str, negation: Negation) -> Sentence:
    """Return what `sentence` says, its characters counted from its own beginning."""
    text = _BLANK.sub(" ", _lower(sentence))
    compiled = phrases()
    found = [(start, end, compiled.meanings[number]) for start, end, number in compiled.mentions.find(text)]
    if not found or _NOT_TODAY.match(text):
        return Sentence((), False, False)
    cues = _cues(text, [(start, end) for start, end, _ in found])
    apart = any(what.state in ("", "uncertain", "abnormal") for _, _, what in found) and _OTHERWISE.search(text)
    excepted = bool(apart or _EXCEPTION.search(text))
    named = [each for each in found if each[2].observations and not (excepted and each[2].state == "negative")]
    states = _states(text, named, cues, negation)
    mentions = tuple(
        Mention(observation, start, end, state, *_sides(text, index, named))
        for index, ((start, end, what), state) in enumerate(zip(named, states, strict=True))
        for observation in what.observations
        if state
    )
    whole = [(start, end, what) for start, end, what in found if what.state in ("normal", "abnormal")]
    denied = _states(text, [(start, end, _PLAIN) for start, end, _ in whole], cues, negation)
    overall = {what.state for (_, _, what), state in zip(whole, denied, strict=True) if state == "positive"}
    if any(what.state == "normal" and state == "negative" for (_, _, what), state in zip(whole, denied, strict=True)):
        overall.add("abnormal")  # "not a normal study"
    return Sentence(mentions, "normal" in overall and not excepted, "abnormal" in overall)


def _cues(text: str, taken: Sequence[tuple[int, int]]) -> list[Cue]:
    """Return the cues from left to right, without those that begin within characters `taken` by a phrase.

    A question leaves open all that it names.
    """
    compiled = phrases()
    cues = [Cue(compiled.kinds[number], start, end) for start, end, number in compiled.cues.find(text)]
    cues += [Cue("hedge_before", *mark.span()) for mark in _QUESTIONED.finditer(text)]
    free = [cue for cue in cues if not _within(cue.start, taken)]
    if text.rstrip().endswith("?"):
        free.append(Cue("open_before", 0, 0))
    return sorted(free, key=lambda cue: cue.start)


def _lower(text: str) -> str:
    """Return `text` in lower case, ’ as ', every character where it was (a few become two when lowered)."""
    text = text.replace("’", "'")
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(c if len(c.lower()) > 1 else c.lower() for c in text)


def _states(text: str, named: Sequence[tuple[int, int, Meaning]], cues: Sequence[Cue], negation: Negation) -> list[str]:
    """Return the state of each mention; "" of one that is only history."""
    spans = [(start, end) for start, end, _ in named]
    if not cues and negation.name == Rules.name:
        denied = [False] * len(spans)
    else:
        denied = negation.negated(text, spans, cues)
    unsure = [*_reached(text, cues, "open_before", "open_after")]
    hedged = [*_reached(text, cues, "hedge_before", "hedge_after"), *_alternatives(text, spans, cues)]
    past = [*_reached(text, cues, "history", "")]
    states = []
    for (start, _, what), no in zip(named, denied, strict=True):
        if _within(start, past):
            states.append("")
        elif what.state:
            states.append("negative" if no and not _within(start, unsure) else what.state)
        elif _within(start, unsure):
            states.append("uncertain")
        elif no:
            states.append("negative")
        else:
            states.append("uncertain" if _within(start, hedged) else "positive")
    return states


def _within(place: int, reached: Sequence[tuple[int, int]]) -> bool:
    return any(low <= place < high for low, high in reached)


def _reached(text: str, cues: Sequence[Cue], before: str, after: str) -> Iterator[tuple[int, int]]:
    """Yield the characters that cues of the kind `before` reach forward and those of the kind `after` backward."""
    for index, cue in enumerate(cues):
        if cue.kind == before:
            stop = next((other.start for other in cues[index + 1 :] if other.kind == "break"), len(text))
            yield cue.start, _reach(text, cue.end, stop)
        elif cue.kind == after:
            start = next((other.end for other in reversed(cues[:index]) if other.kind == "break"), 0)
            yield _reach_back(text, start, cue), cue.start


def _reach(text: str, start: int, stop: int) -> int:
    """Return where a cue that ends at `start` loses its hold: at a comma, save within a list, or at `stop`."""
    for comma in re.finditer(",", text[start:stop]):
        end = start + comma.start()
        if phrases().subject.match(text, end):
            goes_on = _OR.search(text, end, stop)
        else:
            goes_on = _LIST.search(text, end, stop) or _BARE_ITEM.match(text, end)
        if not goes_on:
            return end
    return stop


def _reach_back(text: str, start: int, cue: Cue) -> int:
    """Return where the hold of a cue begins: behind another's verb, at a comma (save in a list), or at `start`."""
    verbs = [verb.end() for verb in _VERB.finditer(text, start, cue.end)]
    if len(verbs) > 1:
        start = verbs[-2]
    apposed = _APPOSED.search(text, start, cue.start)
    comma = text.rfind(",", start, apposed.start() if apposed else cue.start)
    return start if comma < 0 or _LIST.search(text, comma, cue.start) else comma


def _alternatives(text: str, spans: Sequence[tuple[int, int]], cues: Sequence[Cue]) -> Iterator[tuple[int, int]]:
    """Yield the mentions on both sides of "versus", and those of an "A or B" that leaves open which.

    "No change in A or B" leaves nothing open.
    """
    for cue in cues:
        if cue.kind == "versus":
            before = [span for span in spans if span[1] <= cue.start]
            after = [span for span in spans if span[0] >= cue.end]
            yield from before[-1:] + after[:1]
    kept = min((cue.start for cue in cues if cue.kind == "pseudo"), default=len(text))
    for (start, end), (other, stop) in itertools.pairwise(spans):
        if start < kept and re.fullmatch(r" +(?:and/)?or(?: [a-z]+)? +", text[end:other]):
            yield start, stop


def _sides(text: str, index: int, named: Sequence[tuple[int, int, Meaning]]) -> tuple[frozenset[str], tuple[int, int]]:
    """Return the sides that stand nearest to a mention, before it or else behind it, and where they stand."""
    start, end, what = named[index]
    if _MIDLINE & set(what.observations):
        return frozenset(), (start, start)
    low = named[index - 1][1] if index else 0
    if index and _SAME_PLACE.fullmatch(text, low, start):
        return _sides(text, index - 1, named)
    following = [each for each in named[index + 1 :] if each[0] > end + 1]
    rest = text[: following[0][0]] if following else text
    other = (_OTHER_PLACE if following else _APART).search(rest, end)
    behind = [*_SIDE.finditer(rest, end, other.start() if other else len(rest))]
    before = [*_SIDE.finditer(text, low, end)]
    others = bool(index and before and _SEPARATOR.search(text, before[-1].end(), start))  # "on the left, effusion"
    found = behind if behind and (others or text.startswith(" (", end)) else before or behind
    if found is before and behind and _COMPARED.search(rest, end, other.start() if other else len(rest)):
        found = before + behind
    if not found:
        return frozenset(), (start, start)
    sides = frozenset[str]().union(*(_SIDES[(match.lastindex or 1) - 1] for match in found))
    return sides, (found[0].start(), found[-1].end())
