"""Answers to questions about images: right or wrong, apart for closed, open and multiple-choice questions.

An answer is compared as words. The normalization follows the VQA evaluation (Antol et al., ICCV 2015, arXiv:1505.00468)
in short: lower case, Unicode forms of one character as one; the articles a, an, the and all punctuation dropped,
apostrophes without a blank ("don't" is "dont"), a decimal point kept; zero to ten and none as digits; 4.0 as 4, 1,000
as 1000. `< > = + % ±` stay, so that "< 5 mm" is not "> 5 mm". American and British spelling are not made one. Chinese
characters count as one word each.

- Closed (answer_type "closed"; where that is not known, all references are yes or no): a prediction says what its first
  word says, else the only one of the whole words yes and no in it; both ("yes and no"), or neither, is wrong. Letters
  inside "normal", "nothing" or "know" are no word. Closed answers other than yes and no are compared as open ones are.
- Open: exact match of the words; F1 of the words with multiplicity; recall as the paper of LLaVA-Med defines it
  (arXiv:2306.00890), the share of the reference's words that occur in the prediction. Its program gives the same but
  where a prediction repeats a word of the reference, which raises its recall and not this one.
- Multiple choice (`choices` is known): the letter ("B", "B.", "(B)", "Answer: B"), the text, or both where they agree.
  Anything that fits no choice, or more than one, is wrong.

Of several references the one that fits best counts, for each number by itself.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medvlm.evaluate.metrics import Options, Segments
from medvlm.evaluate.ngrams import Floats
from medvlm.evaluate.signature import signature

_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_TOKEN = re.compile(rf"[{_HAN}]|(?<![^\W_])-?\d+(?:\.\d+)?|[^\W_{_HAN}]+|[<>≤≥=+%±]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_ZEROS = re.compile(r"\.0+$")
_APOSTROPHES = str.maketrans("\N{MINUS SIGN}", "-", "'\N{RIGHT SINGLE QUOTATION MARK}`\N{ACUTE ACCENT}")
_ARTICLES = frozenset({"a", "an", "the"})
_COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(number) for number, word in enumerate(_COUNTS)} | {"none": "0"}

_YES, _NO = "yes", "no"
_SAID = re.compile(r"(?<![^\W_])(yes|no)(?![^\W_])")
_TRUTH = {"yes": _YES, "true": _YES, "no": _NO, "false": _NO}
_ALONE = re.compile(r"\s*(?:[^\w\s-]|$)")

_LABEL = re.compile(r"\s*[(\[]?([A-Za-z])\s*[)\].:]\s*(?=\S)")
_LEAD = re.compile(
    r"\s*(?:the\s+)?(?:(?:correct|best|right|final)\s+)?(?:answer|option|choice)\b(?:\s+is\b)?\s*[:=]?\s*",
    re.IGNORECASE,
)
_LETTER = re.compile(r"\W*([A-Za-z])(?:\W*$|\s*[)\].:,;-]+\s*(?P<text>\S.*)$|\s+(?P<bare>\S.*)$)", re.DOTALL)


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
            choice="letter-or-text",
            refs=f"{most},best",
        )

    def statistics(self, segments: Segments) -> Floats:
        """Return [n, 8]: closed, right; open, right, F1, recall; choice, right. All 0 where the row is no question."""
        table = np.zeros((len(segments.predictions), 8))
        rows: Sequence[Mapping[str, Any]] = segments.rows or [{}] * len(table)
        for line, prediction, references, row in zip(
            table, segments.predictions, segments.references, rows, strict=True
        ):
            if row.get("task") not in (None, "", "vqa"):
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
    folded = unicodedata.normalize("NFKC", str(text)).lower().translate(_APOSTROPHES)
    found = [_ZEROS.sub("", token) for token in _TOKEN.findall(_THOUSANDS.sub("", folded))]
    return [_NUMBERS.get(word, word) for word in found if word not in _ARTICLES] or found


def kind_of(references: Sequence[str], row: Mapping[str, Any]) -> str:
    """Return closed, open or choice: what the row's choices and answer_type say, or else its references."""
    stated = str(row.get("answer_type") or "").strip().lower()
    if row.get("choices") or stated == "choice":
        return "choice"
    if stated in ("closed", "open"):
        return stated
    return "closed" if all(_truth(reference) for reference in references) else "open"


def is_right(prediction: str, reference: str, row: Mapping[str, Any], kind: str) -> bool:
    """Return whether a prediction gives the answer `reference` to a question of `kind` (see `kind_of`)."""
    choices = [str(choice) for choice in row.get("choices") or ()]
    if kind == "choice" and choices:
        wanted = pick(reference, choices)
        if wanted is not None:
            return pick(prediction, choices) == wanted
    truth = (_truth(reference) or _first(reference)) if kind == "closed" else None
    if truth is not None:
        return said(prediction) == truth
    return _same(prediction, reference)


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
    folded = unicodedata.normalize("NFKC", text).lower()
    found = list(_SAID.finditer(folded))
    both = len({match[1] for match in found}) == 2
    if _truth(text) or not found:
        return _truth(text)
    if found[0][1] == _YES == _first(text):
        return None if both and _contradicts(folded, found) else _YES
    return None if both else found[0][1]


def _contradicts(text: str, found: Sequence[re.Match[str]]) -> bool:
    """Whether a "no" after the first "yes" is an answer too ("yes and no", "yes. no."), unlike in "no effusion"."""
    between = text[found[0].end() : found[1].start()]
    if found[1][1] == _NO and words(between) in (["and"], ["or"]):
        return True
    return any(match[1] == _NO and _ALONE.match(text, match.end()) for match in found)


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

    Choices that carry their letters ("A: CT", "B: MRI") are compared without them.
    """
    bare = without_labels(choices)
    for text in (answer, answer[match.end() :] if (match := _LEAD.match(answer)) else ""):
        if text.strip():
            by_text = [place for place, choice in enumerate(bare) if _same(text, choice)]
            if by_text:
                return by_text[0] if len(by_text) == 1 else None
            found = _by_letter(text, bare)
            if found is not None:
                return found
    return None


def _by_letter(text: str, choices: Sequence[str]) -> int | None:
    """Return the choice that a letter at the beginning names, unless what follows it is the text of another one."""
    match = _LETTER.match(text)
    place = string.ascii_lowercase.index(match[1].lower()) if match else len(choices)
    if match is None or place >= len(choices):
        return None
    rest = match["text"] or match["bare"]
    if rest is None:
        return place
    second = _LETTER.match(rest)
    if second and not (second["text"] or second["bare"]):
        # "B, C" names two.
        return place if second[1].lower() == match[1].lower() else None
    named = [other for other, choice in enumerate(choices) if _same(rest, choice)]
    if match["bare"]:
        # "A nodule" begins with an article, "B right lung" with a letter.
        return place if place in named else None
    return place if not named or place in named else None


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
