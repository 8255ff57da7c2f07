"""Answers to questions about images: right or wrong, apart for closed, open and multiple-choice questions.

An answer is compared as words. The normalization follows the VQA evaluation (Antol et al., ICCV 2015, arXiv:1505.00468)
in short: lower case, Unicode forms of one character as one; the articles a, an, the and all punctuation dropped,
apostrophes without a blank ("don't" is "dont"), a decimal point kept; zero to ten and none as digits; 4.0 as 4, 2.50 as
2.5, .5 as 0.5, 1,000 as 1000, 1½ as 1 1/2, 10⁵ as 10^5. `< > = + % ±` stay, so that "< 5 mm" is not "> 5 mm". American
and British spelling are not made one. Chinese characters count as one word each.

- Closed (answer_type "closed"; where that is not known, all references are yes or no): a prediction says what its first
  word says, else the only one of the whole words yes and no in it; both ("yes and no"), or neither, is wrong. Letters
  inside "normal", "nothing" or "know" are no word; "cannot say yes" is no yes, "no doubt" and "no idea" are no no.
  Closed answers other than yes and no are compared as open ones are.
- Open: exact match of the words; F1 of the words with multiplicity; recall as the paper of LLaVA-Med defines it
  (arXiv:2306.00890), the share of the reference's words that occur in the prediction. Its program gives the same but
  where a prediction repeats a word of the reference, which raises its recall and not this one.
- Multiple choice (`choices` is known): the letter ("B", "B.", "(B)", "Answer: B", "B is correct"), the text, also
  within a sentence as whole words ("It is the MRI"), or both where they agree. An explanation may follow the letter
  ("B. Effusion. There is no pneumonia."). What names no choice, or several ("A, B, C"), or one only to deny it
  ("A: wrong", "not the MRI", "CT? No.", "CT is unlikely"), is wrong.

Of several references the one that fits best counts, for each number by itself.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from medvlm.errors import InputError
from medvlm.evaluate.metrics import Options, Segments
from medvlm.evaluate.ngrams import Floats
from medvlm.evaluate.signature import signature

_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_NUMBER = r"-?(?:\d+(?:\.\d+)?|(?<!\.)\.\d+)"
_TOKEN = re.compile(rf"[{_HAN}]|(?<![^\W_{_HAN}]){_NUMBER}|[^\W_{_HAN}]+|[<>≤≥=+%±]")
# NFKC would make 105 of 10⁵ and 11/2 of 1½; a number below, as in C3₂, is no power.
_RAISED = re.compile(r"(?<=\d)(?=[⁰¹²³⁴-⁹⁺⁻¼½¾⅐-⅞])")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_APOSTROPHES = str.maketrans("\N{MINUS SIGN}", "-", "'\N{RIGHT SINGLE QUOTATION MARK}`\N{ACUTE ACCENT}")
_ARTICLES = frozenset({"a", "an", "the"})
_COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(number) for number, word in enumerate(_COUNTS)} | {"none": "0"}

_YES, _NO = "yes", "no"
_SAID = re.compile(r"(?<![^\W_])(?:yes|no)(?![^\W_])")
# What holds a yes or no and says neither: "no doubt"; "not yes", "cannot say yes or no".
_UNSAID = re.compile(
    r"(?<![^\W_])(?:no\s+(?:doubt|idea|clue|way\s+to)"
    r"|(?:not|cannot|never|neither|nor|unable(?:\s+to)?|[a-z]+n['\u2019]t)\s+(?:[^\W_]+\s+)?(?:yes|no)"
    r"(?:\s+n?or\s+(?:a\s+)?(?:yes|no))?)(?![^\W_])"
)
_TRUTH = {"yes": _YES, "true": _YES, "no": _NO, "false": _NO}
_ALONE = re.compile(r"\s*(?:[^\w\s-]|$)")

_LABEL = re.compile(r"\s*[(\[]?([A-Za-z])\s*[)\].:]\s*(?=\S)")
_LEAD = re.compile(
    r"[\s*]*(?:(?:(?:the|my)\s+)?(?:(?:correct|best|right|final)\s+)?(?:ans|answer|option|choice)\b(?:\s+is\b)?"
    r"|(?:正确)?(?:答案|选项|选择|选)[是为]?)[\s*]*[:=]?[\s*]*",
    re.IGNORECASE,
)
# "B" at the beginning of an answer: with a mark, alone or told of; with no more than a blank it may be a word.
_FIRST = re.compile(
    r"\W*([A-Za-z])(?:(?P<label>\s*[)\].:,;*]|\s+-|-\s|[^\S\n]*\n|\W*$"
    r"|\s+(?:and|or|because|since|is\s+(?:the\s+|my\s+)?(?:correct|right|best|true|answer|option|choice|most))\b)|[\s-])",
    re.IGNORECASE,
)
_LABELS = re.compile(r"(?<![^\W_])(?<!['\u2019])[A-Za-z](?=\s*[)\]:;,]|\s*\.(?![A-Za-z])|\W*$)")
_ARTICLE_AS_LABEL = re.compile(r"\W*[Aa](?:\s*[)\].:,;*-]|[^\S\n]*\n)\W*\w")
_NARROW = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)}
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")
_REFUTED = re.compile(
    r"\W*(?:(?:(?:is|was)\s+)?(?:wrong|incorrect|false|not|isn['\u2019]?t)(?![^\W_])|no\W*$)", re.IGNORECASE
)
_NEGATED = re.compile(r"n['\u2019`\u00b4]t(?![^\W_])", re.IGNORECASE)
_ASIDE = re.compile(r",\s*not\s+(?=\w)", re.IGNORECASE)
# Words that deny a choice wherever they stand, and those that deny what comes after them only.
_WRONG = frozenset({"wrong", "incorrect", "false", "unlikely", "unable", "excluded", "ruled"})
_DENIALS = _WRONG | {"not", "cannot", "cant", "never", "neither", "nor", "dont", "doesnt", "isnt", "arent", "wasnt"}
_DENIES_NEXT = _DENIALS | {"no", "without", "than", "but", "except", "unlike"}


class Vqa:
    """Accuracy of answers; closed, open and multiple-choice questions apart. Of a row that is no question nothing."""

    name = "vqa"
    keys = ("accuracy", "closed_accuracy", "open_accuracy", "open_f1", "open_recall", "choice_accuracy")

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()

    def signature(self, segments: Segments) -> str:
        """Return the settings as one string."""
        most = max((len(own) for own in segments.references), default=0)
        return signature(
            "vqa",
            norm="lower+punctuation+articles+numbers",
            closed="yes-no-as-whole-words",
            open="exact+f1+recall=arXiv:2306.00890",
            choice="letter-or-text-within",
            refs=f"{most},best",
        )

    def statistics(self, segments: Segments) -> Floats:
        """Return [n, 8]: closed, right; open, right, F1, recall; choice, right. All 0 where the row is no question."""
        table = np.zeros((len(segments.predictions), 8))
        rows: Sequence[Mapping[str, Any]] = segments.rows or [{}] * len(table)
        for line, prediction, references, row in zip(
            table, segments.predictions, segments.references, rows, strict=True
        ):
            if str(row.get("task") or "vqa").strip().lower() != "vqa":
                continue
            kind = kind_of(references, row)
            right = max(is_right(prediction, reference, row, kind) for reference in references)
            if kind == "closed":
                line[:2] = 1, right
            elif kind == "choice":
                line[6:] = 1, right
            else:
                overlaps = [_overlap(words(prediction), words(reference), right) for reference in references]
                line[2:6] = 1, right, max(f1 for f1, _ in overlaps), max(recall for _, recall in overlaps)
        return table

    def of_sums(self, sums: Floats) -> Floats:
        """Return [R, 6]; NaN where no such question is among them."""
        closed, closed_right, opened, open_right, f1, recall, choice, choice_right = sums.T
        parts = [
            (closed_right + open_right + choice_right, closed + opened + choice),
            (closed_right, closed),
            (open_right, opened),
            (f1, opened),
            (recall, opened),
            (choice_right, choice),
        ]
        found = [np.divide(part, of, out=np.full_like(part, np.nan), where=of > 0) for part, of in parts]
        return np.stack(found, axis=1)


def words(text: object) -> list[str]:
    """Return the normalized words of an answer, as this module's first lines say; [] where it has none.

    Articles stay where the answer is nothing else: "A" is an answer.
    """
    folded = unicodedata.normalize("NFKC", _RAISED.sub(" ", str(text))).lower().translate(_APOSTROPHES)
    found = [_shortest(token) for token in _TOKEN.findall(_THOUSANDS.sub("", folded))]
    return [_NUMBERS.get(word, word) for word in found if word not in _ARTICLES] or found


def _shortest(token: str) -> str:
    """Return a decimal number without zeros at its end, and with the one before its point; any other token as it is."""
    if "." not in token:
        return token
    whole, _, part = token.partition(".")
    part = part.rstrip("0")
    return (whole if whole.strip("-") else f"{whole}0") + (f".{part}" if part else "")


def kind_of(references: Sequence[str], row: Mapping[str, Any]) -> str:
    """Return closed, open or choice: what the row's choices and answer_type say, or else its references."""
    stated = str(row.get("answer_type") or "").strip().lower()
    if _choices(row) or stated == "choice":
        return "choice"
    if stated in ("closed", "open"):
        return stated
    return "closed" if all(_truth(reference) for reference in references) else "open"


def is_right(prediction: str, reference: str, row: Mapping[str, Any], kind: str) -> bool:
    """Return whether a prediction gives the answer `reference` to a question of `kind` (see `kind_of`)."""
    choices = _choices(row)
    if kind == "choice" and choices:
        wanted = pick(reference, choices)
        if wanted is not None:
            return pick(prediction, choices) == wanted
    truth = (_truth(reference) or _first(reference)) if kind == "closed" else None
    if truth is not None:
        return said(prediction) == truth
    return _same(prediction, reference)


def _choices(row: Mapping[str, Any]) -> list[str]:
    """Return the texts of the choices, [] where none are known; InputError where they are no list."""
    found = row.get("choices")
    if isinstance(found, str) and found:
        raise InputError(f'choices "{found[:60]}": is one text; give a list of texts, one for each choice')
    return [] if found is None else [str(choice) for choice in found]


def _same(prediction: str, reference: str) -> bool:
    """Whether two answers have the same words; where one has none, whether they are the same signs."""
    ours, theirs = words(prediction), words(reference)
    if ours and theirs:
        return ours == theirs
    return prediction.strip().casefold() == reference.strip().casefold()


def said(text: str) -> str | None:
    """Return "yes" or "no", which of them an answer says; None for neither or both.

    The first word decides ("No evidence of a nodule", "Yes, but no effusion"), else the only one of the two in it
    ("There is no nodule"). An answer of nothing but "true" or "false" counts as yes or no.
    """
    folded = _UNSAID.sub(" ", unicodedata.normalize("NFKC", text).lower())
    found = list(_SAID.finditer(folded))
    both = len({match[0] for match in found}) == 2
    if _truth(text) or not found:
        return _truth(text)
    if found[0][0] == _YES == _first(folded):
        return None if both and _contradicts(folded, found) else _YES
    return None if both else found[0][0]


def _contradicts(text: str, found: Sequence[re.Match[str]]) -> bool:
    """Whether a "no" after the first "yes" is an answer too ("yes and no", "yes. no."), unlike in "no effusion"."""
    between = text[found[0].end() : found[1].start()]
    if found[1][0] == _NO and words(between) in (["and"], ["or"]):
        return True
    return any(match[0] == _NO and _ALONE.match(text, match.end()) for match in found)


def _truth(text: str) -> str | None:
    """Return yes or no where an answer is that one word."""
    found = words(text)
    return _TRUTH.get(found[0]) if len(found) == 1 else None


def _first(text: str) -> str | None:
    """Return yes or no where an answer begins with it."""
    match = re.match(r"[\W_]*(yes|no)(?![^\W_])", unicodedata.normalize("NFKC", text).lower())
    return match[1] if match else None


def pick(answer: str, choices: Sequence[str]) -> int | None:
    """Return which of the `choices` an answer names, by its letter, its text or both; None for none or several.

    Choices that carry their letters ("A: CT", "B: MRI") are compared without them. A sentence names the choices whose
    texts are in it as whole words, the longest where one is part of another ("left lung", "lung").
    """
    bare = without_labels(choices)
    text = answer.translate(_NARROW)
    lead = _LEAD.match(text)
    rest = text[lead.end() :] if lead else text
    for whole in filter(str.strip, (text, rest)):
        equal = [place for place, choice in enumerate(bare) if _same(whole, choice)]
        # As words "A. No" is no more than "No", since articles are none.
        if equal and not _ARTICLE_AS_LABEL.match(whole):
            return equal[0] if len(equal) == 1 else None
    first = _FIRST.match(rest)
    if first and first["label"] is not None:
        return _labeled(_place(first[1], bare), rest[first.end() :], bare, "\n" in first["label"])
    return _worded(rest, bare)


def _labeled(place: int | None, text: str, choices: Sequence[str], broken: bool) -> int | None:
    """Return the choice an answer's leading letter names, None where the `text` after it takes that back.

    It does with another letter, in the same sentence or at the beginning of a later one that denies nothing, and with
    "wrong", "is not".
    Where the choice's own text does not follow, so does the text of another one in the same sentence, unless that is
    denied, in brackets or, after a line break (`broken`), within an explanation.
    """
    if place is None:
        return None
    begin = next(_parts(text, choices), ("-", set[int]()))
    own = not begin[0] and place in begin[1]
    # A choice's text may hold a full stop: "E. coli".
    start = len(choices[place]) - 1 if own else len(text) - len(text.lstrip("\n\t *"))
    head, *later = _SENTENCE_END.split(text[start:])
    sentence = text[:start] + head
    parts = list(_parts(sentence, choices))
    letters: set[int | None] = {other for word, places in parts if word for other in places}
    told = [each for each in later if _DENIALS.isdisjoint(words(_plain(each)))]
    letters |= {_place(first[1], choices) for first in map(_FIRST.match, told) if first and first["label"] is not None}
    if letters - {place, None}:
        return None
    if own:
        several = len(parts) > 2 and parts[1][0] in ("and", "or") and not parts[2][0]
        return None if several else place
    if _REFUTED.match(sentence):
        return None
    if (broken or "\n" in text[:start]) and len(parts) > 1:
        return place
    affirmed, denied = _affirmed(list(_parts(sentence.partition("(")[0], choices)))
    return None if affirmed - {place} or place in denied else place


def _affirmed(parts: Sequence[tuple[str, set[int]]]) -> tuple[set[int], set[int]]:
    """Return the choices whose texts a sentence names, and those it denies: "not a CT", "a CT would"."""
    affirmed, denied = set[int](), set[int]()
    against = False
    for (word, places), (following, _) in pairwise([*parts, ("", set[int]())]):
        if places:
            (denied if against or following in ("would", "cannot") else affirmed).update(places)
        against = word in _DENIES_NEXT or (against and not places)
    return affirmed, denied


def _worded(text: str, choices: Sequence[str]) -> int | None:
    """Return the only choice that a text without a letter before it names by whole words, denying nothing."""
    parts = list(_parts(text, choices))
    named = {place for _, places in parts for place in places}
    texts = {place for word, places in parts for place in places if not word}
    first = _FIRST.match(text)
    letter = _place(first[1], choices) if first else None
    if texts and all(words(choices[place]) in ([_YES], [_NO]) for place in texts):
        spoken = said(text)
        named &= {place for place in texts if _truth(choices[place]) == spoken}
        return named.pop() if len(named) == 1 and (letter is None or letter in named) else None
    if not texts or len(named) != 1 or _denied([word for word, _ in parts]):
        return None
    if first and letter is not None and not parts[0][1] and first[1].lower() not in "ai":
        # "B left lung" begins with a letter, "A nodule" with an article.
        named &= {letter}
    return named.pop() if named else None


def _denied(found: Sequence[str]) -> bool:
    """Whether words, "" standing for a choice's text, deny it: "not the MRI", "CT was ruled out", "CT? No."

    After the choice "no" and "without" begin something else: "Normal, no fracture", "MRI, not contrast-enhanced".
    """
    at = found.index("")
    return not (_DENIES_NEXT.isdisjoint(found[:at]) and _DENIALS.isdisjoint(found[at:])) or found[-1] == _NO


def _parts(text: str, choices: Sequence[str]) -> Iterator[tuple[str, set[int]]]:
    """Yield the words of a text, each with the places of the choices it is the letter of; of a choice's text ""."""
    tokens: list[tuple[str, set[int]]] = []
    text = _plain(text)
    end = 0
    for match in _LABELS.finditer(text):
        tokens += [(word, set()) for word in words(text[end : match.start()])]
        place = _place(match[0], choices)
        tokens.append((match[0].lower(), set() if place is None else {place}))
        end = match.end()
    tokens += [(word, set()) for word in words(text[end:])]
    texts = [words(_plain(choice)) for choice in choices]
    runs = sorted(filter(None, texts), key=len, reverse=True)
    found = [word for word, _ in tokens]
    at = 0
    while at < len(tokens):
        run = next((run for run in runs if found[at : at + len(run)] == run), None)
        yield ("", {place for place, own in enumerate(texts) if own == run}) if run else tokens[at]
        at += len(run) if run else 1


def _plain(text: str) -> str:
    """Return a text with "not" for "n't", and with "without" for a "not" that begins an aside."""
    return _ASIDE.sub(" without ", _NEGATED.sub(" not", text))


def _place(letter: str, choices: Sequence[str]) -> int | None:
    place = string.ascii_lowercase.find(letter.lower())
    return place if 0 <= place < len(choices) else None


def without_labels(choices: Sequence[str]) -> list[str]:
    """Return the texts of choices without the letters A, B, C, ... before them, where all have theirs in order."""
    found = [_LABEL.match(choice) for choice in choices]
    letters = "".join(match[1].upper() if match else "-" for match in found)
    if len(choices) < 2 or letters != string.ascii_uppercase[: len(choices)]:
        return list(choices)
    return [choice[match.end() :] for choice, match in zip(choices, found, strict=True) if match]


def _overlap(prediction: Sequence[str], reference: Sequence[str], right: bool) -> tuple[float, float]:
    """Return F1 with multiplicity, and the share of the reference's words that occur in the prediction."""
    if not prediction or not reference:
        return float(right), float(right)
    shared = (Counter(prediction) & Counter(reference)).total()
    known = set(prediction)
    recall = sum(word in known for word in reference) / len(reference)
    return 2 * shared / (len(prediction) + len(reference)), recall
