"""Cleaning a report takes looks away and nothing that was said: words, numbers and sides against a slow reading."""

from __future__ import annotations

import re
import textwrap
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medvlm.data.reports import clean, says_something

WORDS = [
    "no",
    "not",
    "without",
    "left",
    "right",
    "bilateral",
    "pneumothorax",
    "x-ray",
    "T11",
    "The",
    "PA",
    "is",
    "ribs",
]
NUMBERS = ["5", "1", "2", "3.2", "0.5", ".5", "10-12", "3/4", "7mm", "1,5", "20%", "2.", "1.", "3)"]
PIECES = [
    *WORDS,
    *NUMBERS,
    "XXXX",
    "XXXX/XXXX",
    "___",
    "[**Name 12**]",
    ".",
    ". .",
    "..",
    ",",
    ":",
    "-",
    "*",
    "\n",
    " \n ",
    "\n\n",
]
PIECES += ["-----", "______________", "\t", "\r\n", "\u00a0", "(", ")", ";", "1. ", "2. ", "- "]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).flatmap(
    lambda pieces: st.lists(st.sampled_from(["", " ", "  "]), min_size=len(pieces), max_size=len(pieces)).map(
        lambda blanks: "".join(piece + blank for piece, blank in zip(pieces, blanks, strict=True))
    )
)


def unmarked(text: str) -> str:
    """Return a text without the marks of removed identifiers, which are no words."""
    visible = re.sub(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]", "", text)
    return re.sub(r"\[\*\*.*?\*\*\]|X{4,}|_{3,}", " ", visible)


def words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", unmarked(text))


def numbers(text: str) -> list[str]:
    return re.findall(r"\d+", unmarked(text))


@given(TEXTS | st.text(max_size=200))
@example("There are no XXXX of a pleural effusion.")
def test_every_word_stays_in_its_order(text: str) -> None:
    assert words(clean(text)) == words(text)


PROSE = [
    "Nodule of 3 - 4 mm.",
    "Left ribs 4 - 6 are broken, no pneumothorax.",
    "Fusion of C5 - C6.",
    "Tubes in positions 1 and 2. No effusion.",
    "Tip at level 1. Clear.",
    "Fracture of the left rib 2. No change.",
    "Cyst of 2 x 3 cm at - 5 HU.",
    "Grade 3. 1 cm apart.",
    "Not seen at T11. 12 mm apart.",
    "Size 4, 5 and 10. 2 nodules.",
    "No pneumothorax.",
]
SENTENCES = st.lists(st.sampled_from(PROSE), min_size=1, max_size=5)


@given(SENTENCES, st.data())
def test_a_line_break_in_a_sentence_is_a_blank(sentences: list[str], data: st.DataObject) -> None:
    """Numbers keep their units and ranges, negations what they deny, wherever a wrap breaks the lines."""
    words = " ".join(sentences).split(" ")
    blanks = st.lists(st.sampled_from([" ", " ", "\n", "\n "]), min_size=len(words), max_size=len(words))
    broken = "".join(word + blank for word, blank in zip(words, data.draw(blanks), strict=True))
    assert clean(broken) == " ".join(sentences)


@given(
    st.lists(st.sampled_from([*PROSE, "5 mm nodule.", "(Old) fracture."]), min_size=2, max_size=5), st.integers(20, 90)
)
def test_wrapped_items_are_the_list_without_its_numbers(items: list[str], width: int) -> None:
    """Whatever number begins a line of an item, and whatever figure an item."""
    listed = [
        "\n    ".join(textwrap.wrap(f"{number}. {item}", width, break_on_hyphens=False))
        for number, item in enumerate(items, 1)
    ]
    assert clean("\n".join(listed)) == " ".join(items)


@given(TEXTS)
@example("1. A 2 cm nodule at T11. 12 mm apart. 2. No effusion.")
@example("No. 1. Right.")
def test_only_numbers_of_enumerations_go(text: str) -> None:
    """What goes is 1, 2, 3 ... again from 1, each followed by a period or bracket, a blank, and a word."""
    before, after = numbers(text), numbers(clean(text))
    place, gone = 0, []
    for number in before:
        if place < len(after) and after[place] == number:
            place += 1
        else:
            gone.append(int(number))
    assert place == len(after), "a number came that was not there"
    single = re.sub(r"\.(?:\s*\.)+(?!\d)", ".", text.replace("\r\n", "\n"))
    candidates = re.findall(r"(?:^|\n|(?<=[.;!?]))\s*(\d{1,2})(?=[.)]\s)", single)
    assert len(gone) <= len(candidates)
    assert all(number == 1 or number - 1 in gone for number in gone)


@given(
    st.lists(
        st.sampled_from(
            [f"A {n} nodule {side}." for n in ("1.5 cm", "2 mm", "12 x 3 mm") for side in ("left", "right")]
        ),
        min_size=1,
        max_size=6,
    )
)
def test_an_enumeration_is_the_list_without_its_numbers(items: list[str]) -> None:
    for template in ("{}. {}", "{}) {}", " {}.  {}"):
        listed = [template.format(number, item) for number, item in enumerate(items, 1)]
        assert clean("\n".join(listed)) == " ".join(items)
        assert clean("\n".join(line.removesuffix(".") for line in listed)) == " ".join(items).removesuffix(".")
    assert clean(" ".join(f"{n}. {item}" for n, item in enumerate(items, 1))) == " ".join(items)
    assert clean("\n".join(f"- {item}" for item in items)) == " ".join(items)


@given(TEXTS | st.text(max_size=200))
def test_the_result_is_one_line_without_other_marks(text: str) -> None:
    cleaned = clean(text)
    assert cleaned == " ".join(cleaned.split())
    assert "XXXX" not in cleaned
    assert "[**" not in re.sub(r"\[\*\*(?![^\[\]]*\*\*\])", "", cleaned)


@given(TEXTS)
def test_a_clean_text_stays_as_it_is_but_for_numbers_that_now_begin_it(text: str) -> None:
    cleaned = clean(text)
    again = clean(cleaned)
    assert words(again) == words(cleaned)
    assert re.sub(r"[\d.)\s]", "", again) == re.sub(r"[\d.)\s]", "", cleaned) or re.search(r"[-–=*:;,|/]", cleaned)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("There are no XXXX of a pleural effusion.", "There are no ___ of a pleural effusion."),
        ("Normal chest x-XXXX.", "Normal chest x-___."),
        ("Inferior XXXX XXXX XXXX.", "Inferior ___."),
        ("by XXXX\u00a0XXXX\r\nXXXX / XXXX.", "by ___."),
        ("at XXXX p.m. XXXX/XXXX.", "at ___ p.m. ___."),
        ("by Dr. [**Last Name (STitle) 123**] on [**2101-3-4**]", "by Dr. ___ on ___"),
        ("Stable congestion. .", "Stable congestion."),
        ("No effusion.. Cardio silhouette.", "No effusion. Cardio silhouette."),
        ("in the left lung apex.There are streaks", "in the left lung apex. There are streaks"),
        ("1. No acute disease.", "No acute disease."),
        ("nodule at T11. 12 mm apart", "nodule at T11. 12 mm apart"),
        ("a nodule of .5 cm . Clear", "a nodule of .5 cm. Clear"),
        ("Large left\r\n effusion\n________________\n", "Large left effusion"),
        ("-5 HU", "-5 HU"),
        ("- 5 HU", "- 5 HU"),
        ("nodule measuring 3\n - 4 mm", "nodule measuring 3 - 4 mm"),
        ("2 x\n- 3 cm", "2 x - 3 cm"),
        ("SVC ___\n- no pneumothorax", "SVC ___ - no pneumothorax"),
        ("at level\n1. Clear", "at level 1. Clear"),
        ("1. Tubes 1 and\n 2. No pneumothorax.\n 3. Stable.", "Tubes 1 and 2. No pneumothorax. 3. Stable."),
        ("1. No pneumothorax.  2. 5 mm nodule.  3. Right.", "No pneumothorax. 5 mm nodule. Right."),
        ("1. Nodule of 5 mm. 2. No effusion.", "Nodule of 5 mm. No effusion."),
        ("There is no:\n1. effusion\n2. nodule", "There is no: effusion; nodule"),
        ("from 3 to 5", "from 3 to 5"),
        ("the lungs are clear .", "the lungs are clear."),
        ("a ___ year old", "a ___ year old"),
        (" : , ", ""),
        ("", ""),
    ],
)
def test_rules_by_example(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_marks_alone_say_nothing() -> None:
    assert not says_something(" XXXX, XXXX. ")
    assert not says_something("___")
    assert not says_something("[**Name 3**] .")
    assert says_something("XXXX clear")
    assert says_something("5")


@pytest.mark.parametrize(
    "piece",
    [
        " ",
        "\n",
        "X",
        "_",
        "[**",
        "1. ",
        "a. ",
        ". ",
        "- ",
        "=",
        "a.B",
        ":",
        "\n1. a",
        "FINDINGS:",
        "XXXX/",
        "XXXX ",
        "a. Date: ",
        "\n- a",
        "\n1. a\n2. b",
        "\nFINAL REPORT\n",
        "\nADDENDUM",
        "LUNGS: a\n",
        " =",
        "\nREPORT: a.",
        "\nComparison: a. b.",
        "\nWET READ: a. Final report",
    ],
)
def test_long_texts_take_time_in_proportion(piece: str) -> None:
    """Twenty times the text in less than a hundred times the time: nothing grows with the square."""
    from medvlm.data.reports import sections

    def seconds(length: int) -> float:
        text = "x" + piece * (length // len(piece)) + "y"
        begin = time.process_time()
        clean(text), sections(text)
        return time.process_time() - begin

    assert seconds(200_000) < 100 * max(seconds(10_000), 0.01)
