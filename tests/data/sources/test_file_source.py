"""What every source of published files does: units, hashes, one reason for each lost record, the same bytes again."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import layouts_captions
import layouts_own
import layouts_vqa
import pytest
from layouts_captions import jpeg
from plain_source import PlainSource, plain, rows

from medvlm.data.engine import local
from medvlm.data.prepare import Settings, prepare
from medvlm.data.request import fingerprint
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources import SOURCES, files, records
from medvlm.data.sources.files import FileSource
from medvlm.errors import InputError
from medvlm.io import sha256_bytes, sha256_file

ANY = Settings(license="any")
LAYOUTS = {**layouts_captions.LAYOUTS, **layouts_vqa.LAYOUTS, **layouts_own.LAYOUTS}
KINDS = ("csv", "json", "jsonl")


def read(source: FileSource) -> list[Sample | Reject]:
    return [item for unit in source.units() for item in source.read(unit)]


def hashes(out: Path) -> dict[str, str]:
    """Return every file below `out` but the log with its hash."""
    found = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "log.jsonl")
    return {path.relative_to(out).as_posix(): sha256_file(path) for path in found}


@pytest.mark.parametrize("kind", KINDS)
def test_every_record_comes_once_whatever_the_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    whole = read(PlainSource([plain(tmp_path / "p", 40, kind)]))
    monkeypatch.setattr(records, "ROWS", 7)
    monkeypatch.setattr(records, "LINES_BYTES", 500)
    source = PlainSource([tmp_path / "p"])
    assert len(source.units()) > 5
    assert read(source) == whole
    assert [item.target for item in whole if isinstance(item, Sample)] == [row["text"] for row in rows(40)]


def test_units_are_sorted_by_name_and_hold_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "ROWS", 3)
    source = PlainSource([plain(tmp_path / "b", 40), plain(tmp_path / "a", 4)])
    units = source.units()
    assert [unit.name for unit in units] == sorted(unit.name for unit in units)
    assert units[0].name == "a/notes.csv 000000000000"
    # 100 comes after 20: numbers are padded.
    starts = [int(unit.locator[3]) for unit in units if unit.name.startswith("b/")]
    assert starts == sorted(starts) == list(range(0, 40, 3))
    assert all(isinstance(part, str) for unit in units for part in unit.locator)
    assert pickle.loads(pickle.dumps(units)) == units


def test_a_file_of_one_slice_is_one_unit_by_its_name(tmp_path: Path) -> None:
    (unit,) = PlainSource([plain(tmp_path / "a", 4)]).units()
    assert unit.name == "a/notes.csv"


def test_a_file_without_records_is_no_unit(tmp_path: Path) -> None:
    folder = plain(tmp_path / "a", 1, "jsonl")
    (folder / "notes.jsonl").write_text("")
    source = PlainSource([folder])
    assert source.units() == []
    with pytest.raises(InputError, match="nothing to prepare"):
        prepare(source, tmp_path / "out", ANY, workers=1)


def test_describe_tells_every_file_by_its_own_hash(tmp_path: Path) -> None:
    folder = plain(tmp_path / "a", 3)
    table, pictures = PlainSource([folder]).describe()
    data = (folder / "notes.csv").read_bytes()
    told = {"name": "notes.csv", "path": str(folder / "notes.csv"), "sha256": sha256_bytes(data), "bytes": len(data)}
    assert table == told
    assert pictures["path"] == str(folder / "pictures")
    assert pictures["bytes"] == sum(len(jpeg(n)) for n in range(3))


@pytest.mark.parametrize("limit", [files.HASHED_BYTES, 10])
def test_describe_changes_with_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(files, "HASHED_BYTES", limit)
    folder = plain(tmp_path / "a", 3)
    before = PlainSource([folder]).describe()
    assert PlainSource([folder]).describe() == before
    (folder / "pictures" / "p1.jpg").write_bytes(jpeg(1) + b"\0")
    after = PlainSource([folder]).describe()
    assert [one["sha256"] == other["sha256"] for one, other in zip(before, after, strict=True)] == [True, False]
    (folder / "pictures" / "p1.jpg").rename(folder / "pictures" / "q.jpg")
    assert PlainSource([folder]).describe()[1]["sha256"] != after[1]["sha256"]


def test_names_are_of_the_data_set_and_the_place_is_not(tmp_path: Path) -> None:
    folder = plain(tmp_path / "a", 3)

    def now(*folders: Path) -> str:
        return fingerprint("plain", {"license": "any"}, PlainSource(folders).describe())

    plain(tmp_path / "b", 4)
    (tmp_path / "b/notes.csv").rename(folder / "notes_2.csv")
    before = now(folder)
    assert now(folder.rename(tmp_path / "elsewhere")) == before
    folder = tmp_path / "elsewhere"
    for name, other in (("notes.csv", "x"), ("notes_2.csv", "notes.csv"), ("x", "notes_2.csv")):
        (folder / name).rename(folder / other)
    assert now(folder) != before


def test_large_inputs_are_told_apart_by_size_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "HASHED_BYTES", 10)
    monkeypatch.setattr(files, "sha256_file", lambda path: pytest.fail("a large file was hashed"))
    source = PlainSource([plain(tmp_path / "a", 3)])
    assert len({entry["sha256"] for entry in source.describe()}) == 2


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_the_layout_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    for call in (PlainSource.units, PlainSource.describe):
        with pytest.raises(InputError, match=f"{name}: .*--input takes a folder with notes") as caught:
            call(PlainSource([tmp_path / name]))
        assert "\n" not in str(caught.value)


def test_absent_pictures_are_told_one_by_one(tmp_path: Path) -> None:
    folder = plain(tmp_path / "a", 6)
    for n in (1, 4):
        (folder / "pictures" / f"p{n}.jpg").unlink()
    bad = [item for item in read(PlainSource([folder])) if isinstance(item, Reject)]
    assert [(r.source, r.where, r.reason, r.detail) for r in bad] == [
        ("plain", f"notes.csv row {n}", "no image file", f"p{n}.jpg") for n in (1, 4)
    ]


def test_without_any_picture_the_first_is_named_in_one_line(tmp_path: Path) -> None:
    folder = plain(tmp_path / "a", 6)
    for picture in (folder / "pictures").iterdir():
        picture.unlink()
    with pytest.raises(InputError, match=r"all 6 records .* no image file \(6\).* p0\.jpg") as caught:
        prepare(PlainSource([folder]), tmp_path / "out", ANY, workers=1)
    assert "\n" not in str(caught.value)


def test_only_what_is_asked_for_and_the_rest_is_counted(tmp_path: Path) -> None:
    found = read(PlainSource([plain(tmp_path / "a", 10)], only={"organ": ["chest"]}))
    assert len(found) == 10
    assert {item.organ for item in found if isinstance(item, Sample)} == {"chest"}
    left = [item for item in found if isinstance(item, Reject)]
    assert {(item.reason, item.detail) for item in left} == {("not asked for", "organ head")}
    assert len(left) == 5


def test_only_by_several_values_and_columns(tmp_path: Path) -> None:
    folder = plain(tmp_path / "a", 10)
    both = {"organ": ["chest", "head"], "group": ["patient_1", "patient_2"]}
    assert sum(isinstance(item, Sample) for item in read(PlainSource([folder], only=both))) == 4


def test_own_questions_about_one_picture_are_no_duplicates(tmp_path: Path) -> None:
    """A picture that stands in each row is the same whatever the rows call it; of a patient, too."""
    rows = [
        {
            "image": {"bytes": layouts_own.png(n % 2), "path": f"r{n}.png"},
            "question": f"Is it {n}?",
            "answer": "yes",
            **({"patient_id": "P1"} if n < 3 else {"patient_id": None}),
        }
        for n in range(6)
    ]
    layouts_own.write_table(tmp_path / "in" / "table.parquet", rows)
    source: Any = SOURCES.get("folder")
    settings = Settings(license="any", drop_duplicates=True)
    done = prepare(source([tmp_path / "in"], data_license="CC0-1.0"), tmp_path / "out", settings, workers=1)
    # Another patient's picture is a duplicate, a question of the same patient is none.
    assert done.manifest["drops"] == {"duplicate image": 3}


class FakeScanner:
    """Finds a number in the text; see medvlm.data.phi."""

    def judge(self, sample: Sample) -> Sample | Reject:
        sample.identifiers = "number"
        odd = sample.target.endswith(("1.", "3."))
        return Reject(sample.source, sample.id, "identifiers in text", "number") if odd else sample


def test_every_sample_is_scanned(tmp_path: Path) -> None:
    source = PlainSource([plain(tmp_path / "a", 5)], FakeScanner())  # type: ignore[arg-type]
    found = read(source)
    assert [type(item).__name__ for item in found] == ["Sample", "Reject", "Sample", "Reject", "Sample"]
    assert {item.identifiers for item in found if isinstance(item, Sample)} == {"number"}


def test_the_rights_of_the_whole_unless_the_record_has_its_own(tmp_path: Path) -> None:
    folder = plain(tmp_path / "a", 1)
    source = PlainSource([folder])
    (sample,) = read(source)
    assert isinstance(sample, Sample)
    assert (sample.license, sample.license_scope, sample.commercial_use) == ("CC-BY-4.0", "dataset", "yes")
    assert sample.license_evidence == "these tests"
    for license, use in (("CC-BY-NC-4.0", "no"), (None, "unknown")):
        own = source.sample(sample.image, id=("a",), group="a", task="caption", prompt="", target="x", license=license)
        assert (own.license, own.commercial_use) == (license, use)


def test_what_one_record_raises_costs_that_record_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = PlainSource([plain(tmp_path / "a", 5)])
    samples = source.samples

    def raising(record: records.Record, place: files.Place) -> Iterator[Sample | Reject]:
        if place.number == 2:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid\nstart byte")
        yield from samples(record, place)

    monkeypatch.setattr(source, "samples", raising)
    found = read(source)
    assert [item.where for item in found if isinstance(item, Reject)] == ["notes.csv row 2"]
    assert [type(item).__name__ for item in found].count("Sample") == 4
    (bad,) = [item for item in found if isinstance(item, Reject)]
    assert (bad.reason, bad.detail) == ("record cannot be read", "UnicodeDecodeError")


def test_ids_have_no_blanks(tmp_path: Path) -> None:
    (sample,) = read(PlainSource([plain(tmp_path / "a", 1)]))
    assert isinstance(sample, Sample)
    assert (sample.id, sample.group) == ("patient_0/n0000/-/caption/0", "patient_0")


def test_a_file_that_goes_away_is_a_reason(tmp_path: Path) -> None:
    folder = plain(tmp_path / "a", 3)
    source = PlainSource([folder])
    (unit,) = source.units()
    (folder / "notes.csv").unlink()
    (bad,) = source.read(unit)
    assert isinstance(bad, Reject)
    assert (bad.where, bad.reason) == ("a/notes.csv", "file of records cannot be read")


@pytest.mark.parametrize("name", ["roco", "rocov2/hub", "m3it", "vqa-rad/hub", "path-vqa/hub"])
def test_the_same_bytes_for_any_number_of_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(records, "ROWS", 4)
    monkeypatch.setattr(records, "LINES_BYTES", 2000)
    folder = LAYOUTS[name](tmp_path / "in", 24)
    source = SOURCES.get(name.partition("/")[0])
    for workers, alone in ((1, 9.0), (2, 0.0)):
        monkeypatch.setattr(local, "ALONE_S", alone)
        prepare(source([folder]), tmp_path / str(workers), ANY, workers=workers)  # type: ignore[call-arg]
    assert hashes(tmp_path / "1") == hashes(tmp_path / "2")
    manifest = json.loads((tmp_path / "1" / "manifest.json").read_text())
    assert manifest["counts"]["samples"] == 24


@pytest.mark.parametrize("name", ["m3it", "vqa-rad", "vqa-rad/hub", "slake", "path-vqa/hub", "jsonl"])
def test_questions_about_one_picture_are_no_duplicates(tmp_path: Path, name: str) -> None:
    """Without --drop-duplicates and with it the same samples, where only the questions share pictures."""
    folder = LAYOUTS[name](tmp_path / "in", 24)
    if name == "m3it":
        for table in folder.rglob("train.jsonl"):
            rows = [json.loads(line) for line in table.read_text().splitlines()]
            key = next(key for key in rows[0] if key.startswith("image"))
            table.write_text("".join(json.dumps({**row, key: rows[0][key]}) + "\n" for row in rows))
    source = SOURCES.get(name.partition("/")[0])
    options = {"data_license": "CC0-1.0"} if name == "jsonl" else {}
    settings = Settings(license="any", drop_duplicates=True)
    manifest = prepare(source([folder], **options), tmp_path / "out", settings, workers=1).manifest  # type: ignore[call-arg]
    assert "duplicate image" not in manifest["drops"]


SCRIPT = """
import os, signal, sys
from pathlib import Path
from plain_source import PlainSource
from medvlm.data import chunks
from medvlm.data.prepare import Settings, prepare
from medvlm.data.request import fingerprint
from medvlm.data.sources import records

records.ROWS = 4
real, left = chunks._Note.write, [int(sys.argv[3])]
def write(*given, **named):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **named)
chunks._Note.write = write
prepare(PlainSource([Path(sys.argv[1])]), Path(sys.argv[2]), Settings(license="any"), workers=1)
"""


@pytest.mark.parametrize("count", [1, 7, 20])
def test_killed_and_run_again_the_bytes_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    folder = plain(tmp_path / "in", 120)
    (folder / "pictures" / "p5.jpg").unlink()
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", SCRIPT, str(folder), str(tmp_path / "out"), str(count)]
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": here}, capture_output=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "out" / "manifest.json").exists()
    monkeypatch.setattr(records, "ROWS", 4)
    outcome = prepare(PlainSource([folder]), tmp_path / "out", ANY, workers=1)
    # One note is written before its rename; the chunks before it are done.
    assert outcome.chunks_resumed == count - 1
    prepare(PlainSource([folder]), tmp_path / "straight", ANY, workers=1)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "straight")
    assert outcome.manifest["drops"] == {"no image file": 2}


def test_a_second_run_is_up_to_date_until_a_file_changes(tmp_path: Path) -> None:
    folder = plain(tmp_path / "in", 4)
    assert not prepare(PlainSource([folder]), tmp_path / "out", ANY, workers=1).up_to_date
    assert prepare(PlainSource([folder]), tmp_path / "out", ANY, workers=1).up_to_date
    (folder / "pictures" / "p0.jpg").write_bytes(jpeg(77))
    with pytest.raises(InputError, match="--overwrite"):
        prepare(PlainSource([folder]), tmp_path / "out", ANY, workers=1)
    again = prepare(PlainSource([folder]), tmp_path / "out", ANY, workers=1, overwrite=True)
    assert not again.up_to_date


def test_the_card_tells_what_the_facts_say() -> None:
    card = PlainSource([]).card()
    assert (card["title"], card["description"]) == ("Plain notes", "Notes about pictures, made for tests.")
    assert card["known_problems"] == ["It is not real."]
    assert "a folder with notes" in card["pictures_from"]
