"""The Porter stemmer (Porter 1980, An algorithm for suffix stripping) with the changes of NLTK, which rouge_score uses.

Equal to `nltk.stem.porter.PorterStemmer` in its default mode; written here because nothing else of NLTK is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_IRREGULAR = {"skies": "sky", "sky": "sky", "dying": "die", "lying": "lie", "tying": "tie"}
_IRREGULAR |= {word: word for word in ("news", "howe", "proceed", "exceed", "succeed")}
_IRREGULAR |= {word + end: word for word in ("inning", "outing", "canning") for end in ("", "s")}
_RULES_2 = (
    "ational:ate tional:tion enci:ence anci:ance izer:ize bli:ble alli:al entli:ent eli:e ousli:ous ization:ize "
    "ation:ate ator:ate alism:al iveness:ive fulness:ful ousness:ous aliti:al iviti:ive biliti:ble fulli:ful"
)
_STEP_2: Final = {rule.partition(":")[0]: rule.partition(":")[2] for rule in _RULES_2.split()}
_STEP_3: Final = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_SUFFIXES_4 = "al ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize"
_STEP_4: Final = dict.fromkeys(_SUFFIXES_4.split(), "")


def _longest(suffixes: Mapping[str, str]) -> re.Pattern[str]:
    return re.compile(rf"(?:{'|'.join(sorted(suffixes, key=len, reverse=True))})\Z")


_ENDS: Final = {id(steps): _longest(steps) for steps in (_STEP_2, _STEP_3, _STEP_4)}


def _kinds(word: str) -> str:
    """Return a "c" for each consonant and a "v" for each vowel; y is a vowel after a consonant."""
    kinds = ""
    for letter in word:
        vowel = letter in "aeiou" or (letter == "y" and kinds.endswith("c"))
        kinds += "v" if vowel else "c"
    return kinds


def _measure(word: str) -> int:
    """Return how often a consonant follows a vowel: the paper's m."""
    return _kinds(word).count("vc")


def _ends_short(word: str) -> bool:
    """Tell whether the last syllable is short: consonant, vowel, consonant but w, x and y; NLTK: or "up" alone."""
    kinds = _kinds(word)
    return (kinds.endswith("cvc") and word[-1] not in "wxy") or kinds == "vc"


def _double(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _kinds(word)[-1] == "c"


def _plural(word: str) -> str:
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past(word: str) -> str:
    """Return step 1b: -ed and -ing off, and what they left mended."""
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) else word
    left = word[:-2] if word.endswith("ed") else word[:-3] if word.endswith("ing") else ""
    if "v" not in _kinds(left):
        return word
    if left.endswith(("at", "bl", "iz")):
        return left + "e"
    if _double(left):
        return left if left[-1] in "lsz" else left[:-1]
    return left + "e" if _measure(left) == 1 and _ends_short(left) else left


def _final_y(word: str) -> str:
    """Return step 1c in NLTK's form: y to i after a consonant that is not the first letter."""
    return word[:-1] + "i" if word.endswith("y") and len(word) > 2 and _kinds(word[:-1])[-1] == "c" else word


def _replaced(word: str, suffixes: Mapping[str, str], least: int) -> str:
    """Return `word` with the longest of `suffixes` replaced, where at least the measure `least` stays before it."""
    found = _ENDS[id(suffixes)].search(word)
    if found is None:
        return word
    left = word[: found.start()]
    if _measure(left) < least or (found[0] == "ion" and left[-1] not in "st"):
        return word
    return left + suffixes[found[0]]


def _step_2(word: str) -> str:
    if word.endswith("alli") and _measure(word[:-4]):
        return _step_2(word[:-2])
    if word.endswith("logi"):
        return word[:-1] if _measure(word[:-3]) else word
    return _replaced(word, _STEP_2, 1)


def _final_e(word: str) -> str:
    if word.endswith("e"):
        left = word[:-1]
        measure = _measure(left)
        if measure > 1 or (measure == 1 and not _ends_short(left)):
            return left
    return word


def stem(word: str) -> str:
    """Return the stem of `word`, in lower case."""
    word = word.lower()
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 2:
        return word
    word = _step_2(_final_y(_past(_plural(word))))
    word = _final_e(_replaced(_replaced(word, _STEP_3, 1), _STEP_4, 2))
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word
