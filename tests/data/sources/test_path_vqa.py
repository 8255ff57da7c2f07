"""PathVQA: its two published forms, and pickles that would do harm if they were run."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts_vqa import cell, hub, loaded, path_vqa, picture, read, rejects, samples

from medvlm.data.prepare import Settings, prepare
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources import pickled
from medvlm.data.sources.path_vqa import PathVqaSource
from medvlm.errors import InputError
from medvlm.licenses.policy import of_sample

ASKED = {"image": "train_0422", "question": "Where are liver stem cells (oval cells) located?", "answer": "canals"}
YES = {"image": "train_0422", "question": "Is the liver shown?", "answer": "yes"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_original_form(tmp_path: Path, protocol: int) -> None:
    folder = path_vqa(tmp_path / "pvqa", protocol, train=[ASKED, YES], val=[{**YES, "image": "val_0001"}])
    found = samples(PathVqaSource([folder]))
    assert [(s.prompt, s.target, s.answer_type, s.group, s.official_split) for s in found] == [
        (ASKED["question"], "canals", "open", "train_0422", "train"),
        (YES["question"], "yes", "closed", "train_0422", "train"),
        (YES["question"], "yes", "closed", "val_0001", "validation"),
    ]
    assert found[0].image.name == found[0].file_name == "train_0422.jpg"
    assert found[0].image.data == picture(1, "JPEG")
    assert len({s.id for s in found}) == 3


def test_the_folder_around_it(tmp_path: Path) -> None:
    path_vqa(tmp_path / "pvqa", test=[{**ASKED, "image": "test_0001"}])
    (sample,) = samples(PathVqaSource([tmp_path]))
    assert sample.official_split == "test"
    assert [Path(entry["path"]).name for entry in PathVqaSource([tmp_path]).describe()] == ["test_qa.pkl", "images"]


def test_rights(tmp_path: Path) -> None:
    """A card cannot license what belongs to publishers: no policy for commercial use admits a sample."""
    (sample,) = samples(PathVqaSource([path_vqa(tmp_path / "p", train=[ASKED])]))
    assert sample.third_party
    assert sample.commercial_use == "no"
    assert "publishers" in (sample.license_evidence or "")
    assert of_sample(sample.license, sample.license_scope, sample.third_party).endswith("AND unknown")
    with pytest.raises(InputError, match=r"license forbids commercial use \(1\)"):
        prepare(PathVqaSource([tmp_path / "p"]), tmp_path / "out", Settings(), workers=1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**ASKED, "image": "train_9999"}, "no image file"),
        ({**ASKED, "image": "../val/val_0001"}, "unsafe image name"),
        ({**ASKED, "image": None}, "malformed question"),
        ({**ASKED, "answer": ["a"]}, "malformed question"),
        ({**ASKED, "question": float("nan")}, "malformed question"),
        ({**ASKED, "answer": ""}, "malformed question"),
        ("text", "malformed record"),
        (None, "malformed record"),
    ],
)
def test_bad_rows_are_counted(tmp_path: Path, row: Any, reason: str) -> None:
    folder = path_vqa(tmp_path / "p", train=[row, ASKED], val=[])
    bad, good = read(PathVqaSource([folder]))
    assert isinstance(bad, Reject)
    assert (bad.where, bad.reason) == ("qas/train/train_qa.pkl row 0", reason)
    assert isinstance(good, Sample)


def test_numbers_and_texts_of_python_2(tmp_path: Path) -> None:
    """A pickle of Python 2 holds bytes where it should hold texts; UTF-8 is understood, other bytes are counted."""
    strings = b"\x80\x02]q\x00}q\x01(U\x05imageU\ntrain_0422U\x08questionU%c%sU\x06answerK\x03ua."
    folder = path_vqa(tmp_path / "p", train=[ASKED])
    file = folder / "qas" / "train" / "train_qa.pkl"
    file.write_bytes(strings % (7, b"What\xc3\xa9?"))
    (sample,) = samples(PathVqaSource([folder]))
    assert (sample.prompt, sample.target) == ("Whaté?", "3")
    file.write_bytes(strings % (6, b"What\xff?"))
    (bad,) = rejects(PathVqaSource([folder]))
    assert bad.reason == "malformed question"


class _Touch:
    """What a malicious pickle holds: loading it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_runs_nothing(tmp_path: Path) -> None:
    folder = path_vqa(tmp_path / "p", train=[ASKED])
    file = folder / "qas" / "train" / "train_qa.pkl"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        trap = tmp_path / f"trap{protocol}"
        for content in ([ASKED, _Touch(trap)], [{**ASKED, "answer": _Touch(trap)}], _Touch(trap)):
            file.write_bytes(pickle.dumps(content, protocol))
            with pytest.raises(InputError, match=r"train_qa\.pkl: not a pickled list of plain records") as caught:
                PathVqaSource([folder]).units()
            assert "\n" not in str(caught.value)
            assert "it was not run" in str(caught.value)
            assert not trap.exists()
        # The trap does spring where it is loaded.
        pickle.loads(file.read_bytes())
        assert trap.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'id'\ntR.",  # GLOBAL, REDUCE
        b"(S'id'\nios\nsystem\n.",  # INST
        b"\x80\x02(cos\nsystem\nS'id'\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"\x80\x02cbuiltins\nobject\n)\x81.",  # NEWOBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"Pid\n.",  # PERSID
        b"S'id'\nQ.",  # BINPERSID
        b"]}b.",  # BUILD
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # BYTEARRAY8 of 8 exabytes
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"]2.",  # DUP
    ],
)
def test_every_other_instruction_is_refused(tmp_path: Path, program: bytes) -> None:
    file = tmp_path / "x_qa.pkl"
    file.write_bytes(program)
    with pytest.raises(InputError, match="it was not run"):
        pickled.slices(file)


@pytest.mark.parametrize(
    "bomb",
    [
        b"]r\xff\xff\xff\x7f.",  # a table of 2 billion entries
        b"]p2000000000\n.",
        b"]p-5\n.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a text of 8 exabytes
        b"X\xff\xff\xff\x7f.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f].",  # a frame of as many
        b"\x8b\xff\xff\xff\x7f.",  # a number of 2 GB
        b"I" + b"9" * 100_000 + b"\n.",
        b"\x8a\xff" + b"\x7f" * 255 + b".",
        b"",
        b".",
        b"]",
        b"N.",
        b"a.",
        b"].more",
    ],
)
def test_bombs_and_torn_pickles(tmp_path: Path, bomb: bytes) -> None:
    file = tmp_path / "x_qa.pkl"
    file.write_bytes(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"x_qa\.pkl") as caught:
            pickled.slices(file)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_the_memory_that_a_bomb_would_take_is_never_asked_for(tmp_path: Path) -> None:
    """The unpickler's own table is not seen by tracemalloc: the process may not have the memory at all."""
    file = tmp_path / "x_qa.pkl"
    file.write_bytes(b"]r\xff\xff\xff\x3f.")
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "from pathlib import Path; from medvlm.data.sources import pickled; from medvlm.errors import InputError\n"
        "try: pickled.slices(Path(sys.argv[1]))\n"
        "except InputError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert "instruction LONG_BINPUT 1073741823" in done.stdout


def test_one_long_text_named_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x_qa.pkl"
    text = "x" * 100_000
    file.write_bytes(pickle.dumps([{"question": text, "answer": text} for _ in range(100)]))
    assert file.stat().st_size < 110_000
    assert pickled.slices(file)
    monkeypatch.setattr(pickled, "TEXT_CHARS", 19_999_999)
    os.utime(file, (1, 1))
    with pytest.raises(InputError, match="unfolds to more than"):
        pickled.slices(file)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x_qa.pkl"
    file.write_bytes(pickle.dumps([ASKED] * 1000))
    monkeypatch.setattr(pickled, "INSTRUCTIONS", 1000)
    with pytest.raises(InputError, match="more than 1,000 instructions"):
        pickled.slices(file)
    monkeypatch.setattr(pickled, "FILE_BYTES", 100)
    with pytest.raises(InputError, match="too much for a pickled list"):
        pickled.slices(file)
    for value, said in (({"image": "x"}, "not a list of records"), ((1, 2), "not a pickled list")):
        file.write_bytes(pickle.dumps(value))
        with pytest.raises(InputError, match=said):
            pickled.slices(file)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(plain, max_size=6), st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], protocol: int
) -> None:
    file = tmp_path_factory.mktemp("plain") / "x_qa.pkl"
    file.write_bytes(pickle.dumps(rows, protocol))
    found = [record for locator in pickled.slices(file) for _, record in pickled.read(locator)]
    assert [record for record in found if isinstance(record, dict)] == [row for row in rows if isinstance(row, dict)]
    assert len(found) == len(rows)


@given(st.binary(max_size=80), st.integers(0, 200), st.binary(max_size=3))
def test_any_bytes_are_plain_records_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int, change: bytes
) -> None:
    whole = pickle.dumps([ASKED, YES])
    for data in (noise, whole[:at] + change + whole[at + len(change) :], whole[:at]):
        file = tmp_path_factory.mktemp("noise") / "x_qa.pkl"
        file.write_bytes(data)
        said = ""
        try:
            for locator in pickled.slices(file):
                list(pickled.read(locator))
        except InputError as error:
            said = str(error)
        assert "\n" not in said


def test_slices_cover_every_row_once(tmp_path: Path) -> None:
    file = tmp_path / "x_qa.pkl"
    file.write_bytes(pickle.dumps([{"question": str(n)} for n in range(1203)]))
    rows = [(number, record) for locator in pickled.slices(file) for number, record in pickled.read(locator)]
    assert rows == [(n, {"question": str(n)}) for n in range(1203)]
    assert len(pickled.slices(file)) == 3


def test_the_form_of_the_hub(tmp_path: Path) -> None:
    rows = [{"image": cell(1, "img_0.jpg"), "question": "is it?", "answer": "no"}]
    rows.append({"image": cell(1, "img_1.jpg"), "question": "where?", "answer": "in the liver"})
    for split in ("train", "validation", "test"):
        hub(tmp_path / "data" / f"{split}-00000-of-00001-27fa.parquet", rows)
    found = samples(PathVqaSource([tmp_path]))
    assert {s.official_split for s in found} == {"train", "validation", "test"}
    assert len({s.id for s in found}) == 6
    assert len({s.group for s in found}) == 1
    assert [s.answer_type for s in found[:2]] == ["closed", "open"]
    assert all(s.third_party for s in found)


def test_end_to_end(tmp_path: Path) -> None:
    folder = path_vqa(tmp_path / "p", train=[ASKED, YES], test=[{**YES, "image": "test_0001"}])
    done = prepare(PathVqaSource([folder]), tmp_path / "out", Settings(license="any"), workers=1)
    rows = loaded(tmp_path / "out", tmp_path / "cache")
    assert [(row["target"], row["answer_type"], row["third_party"]) for row in rows] == [
        ("yes", "closed", True),
        ("canals", "open", True),
        ("yes", "closed", True),
    ]
    # The made-up images of both splits are the same.
    leak = done.manifest["leakage"]["official"]["train/test"]
    assert (leak["images"], leak["texts"], leak["repeats"]) == (0, 1, 0)
