"""What a scan does to samples: modes, silence about what was found, no network, bounded time."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.data.phi import MODES, NONE, REASON, Scanner
from medvlm.data.phi.plain import plain
from medvlm.data.phi.spans import FINDERS
from medvlm.data.sample import Image, Reject, Sample
from medvlm.errors import InputError, MissingExtraError, UsageError

TEXT = "Dictated by Zebediah Quux on 2 Jan 2019, MRN 7654321."
KINDS = ["date", "name", "record number"]


def sample(**fields: object) -> Sample:
    given = {"id": "set/1", "image": Image(b"", "1.png"), "task": "report", "prompt": "", "target": "No effusion."}
    return Sample(**given | {"source": "set"} | fields)  # type: ignore[arg-type]


TEXTS = ("prompt", "target", "indication", "original_text")


@pytest.mark.parametrize(
    "fields", [*({name: TEXT} for name in TEXTS), {"mentions": ["Clear.", TEXT]}, {"choices": ["none", TEXT]}]
)
def test_every_text_of_a_sample_is_scanned(fields: dict[str, object]) -> None:
    one = sample(**fields)
    assert Scanner("count").judge(one) == dataclasses.replace(one, identifiers=", ".join(KINDS))
    assert Scanner("strict").judge(one) == Reject("set", "set/1", REASON, ", ".join(KINDS))
    assert Scanner("off").judge(one) is one


@pytest.mark.parametrize("mode", ["count", "strict"])
def test_a_sample_without_identifiers_says_that_it_was_scanned(mode: str) -> None:
    one = sample()
    assert Scanner(mode).judge(one) == dataclasses.replace(one, identifiers=NONE)
    assert one.identifiers is None


KNOWN = ["QUUX-ZABEL^ZEBEDIAH^^DR", "0047110", "ANONYMOUS", "", "Li", "17"]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Clear lungs. Quux-Zabel was told.", ["name"]),
        ("ZABEL: clear lungs.", ["name"]),
        ("zebediah's lungs are clear_zebediah", ["name"]),
        ("Number 47110 of today", ["record number"]),
        ("Number 0047110.", ["record number"]),
        ("Zebediahs and quuxes, 147110, 471100; anonymous Dr at level 17, li", []),
    ],
)
def test_what_is_known_beforehand_is_found_wherever_it_stands(text: str, kinds: list[str]) -> None:
    assert Scanner("count").kinds(text, KNOWN) == kinds
    assert Scanner("count").kinds(text) == []
    said = Scanner("strict").judge(sample(target=text), KNOWN)
    assert said == (
        Reject("set", "set/1", REASON, ", ".join(kinds)) if kinds else sample(target=text, identifiers=NONE)
    )


@pytest.mark.parametrize(
    ("known", "text", "found"),
    [
        ("Wu^Li", "Li Wu fell, as Wu, Li said.", ["Li Wu", "Wu, Li"]),
        ("WU^LI^^DR", "seen by wu li", ["wu li"]),
        ("Wu^Li", "Li and Wu, 3 Li", []),
        ("Le^A^B", "Plan A. B is clear. Le, A. B was told, as A. B. Le said.", ["Le, A. B", "A. B. Le"]),
        ("Zyx^A^B", "A B-line is seen.", []),
        ("Zyx^Abc^^^III", "A grade III sprain.", []),
        ("NOT^SPECIFIED", "It is not otherwise specified.", []),
        ("EMERGENCY^ROOM^PHYSICIAN", "The emergency physician in the room was told.", []),
        ("NO REFERRING DOCTOR", "No doctor and no referring clinic.", []),
        ("19570713", "Born 1957 07 13, 19570713.", ["1957 07 13", "19570713"]),
        ("19570713", "Born 13.7.57, 7/13/57 and 13-07-1957.", ["13.7.57", "7/13/57", "13-07-1957"]),
        ("1957.07.13", "13. July '57 or Jul 13th, 57", ["13. July '57", "Jul 13th, 57"]),
        ("19570713", "13 of 7.57 mm, 12.7.57, 113.7.57 and 3", []),
    ],
)
def test_short_names_and_dates_known_beforehand(known: str, text: str, found: list[str]) -> None:
    spans = [span for span in Scanner("count").spans(text, [known]) if span.kind in ("name", "date")]
    assert [text[span.start : span.end] for span in spans] == found


@pytest.mark.parametrize(
    ("known", "text", "found"),
    [
        ("0001", "Series 1, image 0001, grade 1.", ["0001"]),
        ("00000005", "Segment 5.", []),
        ("0012", "12 mm", []),
        ("123456", "Number 123 456, 123456, 1234567", ["123 456", "123456"]),
        ("12.345.678", "Known as 12.345.678, 12345678, 12 345-678.", ["12.345.678", "12345678", "12 345-678"]),
        ("AB 123 456", "Of AB123456 and ab 123 456, not AB 123 45.", ["AB123456", "ab 123 456"]),
        ("AB-12345", "Of AB12345, AB 12345 and AB-12345.", ["AB12345", "AB 12345", "AB-12345"]),
        ("AB#0012345", "Of AB#0012345.", ["AB#0012345"]),
        ("0012 34 567", "Of 12 34567.", ["12 34567"]),
    ],
)
def test_numbers_known_beforehand(known: str, text: str, found: list[str]) -> None:
    spans = [span for span in Scanner("count").spans(text, [known]) if span.kind == "record number"]
    assert [text[span.start : span.end] for span in spans] == found


@given(st.lists(st.text(max_size=20), max_size=4), st.text(max_size=60))
def test_known_values_of_any_form_break_nothing(known: list[str], text: str) -> None:
    # What looks like a phone number may be known to be another.
    assert set(Scanner("count").kinds(text)) <= {*Scanner("count").kinds(text, known), "phone"}


def test_kinds_of_all_texts_are_named_once() -> None:
    judged = Scanner("count").judge(sample(prompt="Seen on 2019-01-02?", target="Seen by Dr. Quux on 2019-01-03."))
    assert isinstance(judged, Sample)
    assert judged.identifiers == "date, name"


def test_what_was_found_is_in_no_reject() -> None:
    said = repr(Scanner("strict").judge(sample(target=TEXT)))
    assert not [word for word in ("Zebediah", "Quux", "2019", "7654321") if word in said]


def test_a_scanner_goes_to_other_processes() -> None:
    for mode in MODES:
        scanner = Scanner(mode)
        scanner.kinds(TEXT)
        copy = pickle.loads(pickle.dumps(scanner))
        assert copy == scanner
        assert copy.kinds(TEXT) == KINDS


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="choose from off, count, strict"):
        Scanner("loud")


def test_a_missing_package_is_named_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    Scanner("off")
    with pytest.raises(MissingExtraError, match=r"pip install 'medvlm\[phi\]'"):
        Scanner("count")


def run(code: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_nothing_is_loaded_while_the_mode_is_off() -> None:
    run(
        "import sys\nfrom medvlm.data.phi import Scanner\n"
        "from medvlm.data.sample import Image, Sample\n"
        "Scanner('off').judge(Sample('a', Image(b'', 'a'), 'report', '', 'Dr. Quux'))\n"
        "loaded = {'phonenumbers', 'spacy', 'numpy', 'pyarrow', 'medvlm.data.phi.spans'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )


def test_a_scan_opens_no_connection_and_writes_no_file() -> None:
    run(
        "import os, sys\n"
        "sys.dont_write_bytecode = True\n"
        "def watch(event, arguments):\n"
        "    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT\n"
        "    if event.startswith('socket.') or (event == 'open' and isinstance(arguments[2], int)\n"
        "        and arguments[2] & writes):\n"
        "        raise SystemExit(f'{event} {arguments}')\n"
        "sys.addaudithook(watch)\n"
        "from medvlm.data.phi import Scanner\n"
        "text = 'Dr. Quux, a.b@example.org, 617-726-2000, +44 20 7946 0958, www.example.org, 10.0.0.1, 2 May 2019'\n"
        "found = Scanner('strict').kinds(text)\n"
        "assert found == ['IP address', 'date', 'e-mail', 'name', 'phone', 'web address'], found"
    )


HOSTILE = """
    a A 1 . - / : @ # ( ^ ' é ٣ _ X [** **] 1. 1- 1/ 1: :: a. a- a@ A. Ab A' Ab- (212 -- ++1 +1 http:// www. .com Dr. Mc
    O' MRN MRN# acc# Jan Jan- 1Jan 12Jan' 99y 99- 0000 P.O. 2019- 20190102 1.2.840.
"""
PHRASES = """
Dr. A |by: A | A|Ab |to A |given a |van |1 Ab |1 Ab St |called a b c |1 of May |signed by |, MA 1
"""
UNITS = [*HOSTILE.split(), *PHRASES.strip("\n").split("|"), "\n", " ", "\t", "\u200b"]


@pytest.mark.parametrize("unit", UNITS)
def test_repetition_takes_no_more_than_linear_time(unit: str) -> None:
    text = unit * (40_000 // len(unit))
    for name, finder in [*FINDERS.items(), ("plain", lambda text: iter([plain(text)]))]:
        start = time.process_time()
        for _ in finder(text):
            pass
        # A pattern of quadratic time takes minutes, the slowest here a third of a second.
        assert time.process_time() - start < 5, name


@given(st.lists(st.sampled_from(UNITS), min_size=1, max_size=6))
def test_mixed_repetition_takes_no_more_than_linear_time(units: list[str]) -> None:
    unit = "".join(units)
    start = time.process_time()
    Scanner("count").spans(unit * (10_000 // len(unit)))
    assert time.process_time() - start < 5


def test_an_identifier_is_found_at_the_end_of_a_very_long_text() -> None:
    text = "The lungs are clear, and the heart is normal in size (T1, L4-5, 3/5). " * 15_000 + TEXT
    assert len(text) > 1_000_000
    assert Scanner("count").kinds(text) == KINDS


@pytest.fixture
def pipeline(tmp_path: Path) -> str:
    """The folder of a spaCy pipeline that knows one person."""
    spacy = pytest.importorskip("spacy")
    blank = spacy.blank("en")
    blank.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Zebediah Quux"}])
    blank.to_disk(tmp_path / "pipeline")
    return str(tmp_path / "pipeline")


def test_persons_of_a_spacy_pipeline_count_too(pipeline: str) -> None:
    scanner = Scanner("count", pipeline)
    text = "Clear lungs. " * 8000 + "Zebediah Quux was told; so was Zebediah Quux."
    assert Scanner("count").kinds(text) == []
    assert [text[start:end] for start, end, _ in scanner.spans(text)] == ["Zebediah Quux"] * 2
    assert scanner.kinds("___ was told by XXXX.") == []
    assert pickle.loads(pickle.dumps(scanner)).kinds(text) == ["name"]


def test_a_pipeline_that_is_absent_damaged_or_knows_no_persons_is_refused(pipeline: str, tmp_path: Path) -> None:
    import spacy

    spacy.blank("en").to_disk(tmp_path / "blank")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "meta.json").write_text("{}")
    for name, said in (("no_such", "no spaCy pipeline"), ("blank", "knows no persons"), ("damaged", "cannot load")):
        with pytest.raises(InputError, match=said) as error:
            Scanner("count", name if name == "no_such" else str(tmp_path / name))
        assert "\n" not in str(error.value)
