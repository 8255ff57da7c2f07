"""`medvlm data` as a user types it: what is printed, the exit codes, one line for each thing that is wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_sets import edit_manifest, png, prepared, rewrite, sample

from medvlm.cli import run
from medvlm.data.sample import Image

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of a data set, v1 and v2, in one folder."""
    folder = tmp_path_factory.mktemp("data")
    items = [sample(f"g{n}", n, split="test" if n % 3 == 0 else "train", modality="ct") for n in range(12)]
    prepared(folder / "v1", items)
    items[1].modality, items[2].target, items[4].official_split = "mri", "changed", "test"
    prepared(folder / "v2", [*items[:11], sample("new", 40)])
    return folder


@pytest.fixture
def at(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with copies of v1 and v2."""
    for name in ("v1", "v2"):
        shutil.copytree(made / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(arguments: list[str], capsys: Said) -> Any:
    assert run(["data", *arguments, "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


def test_show(at: Path, capsys: Said) -> None:
    assert run(["data", "show", "v1", "--split", "test", "--rows", "2", "--check"]) == 0
    said = capsys.readouterr().out
    assert "Set v1  [v1]" in said
    assert "checked: every row, picture and hash: as promised" in said
    assert "g0/0  (test)" in said
    assert "g3/3  (test)" in said
    assert "g6/6" not in said
    facts = told(["show", "v1", "--id", "g7/7"], capsys)
    assert facts["samples"] == 12
    assert facts["broken"] == []
    assert [row["id"] for row in facts["rows"]] == ["g7/7"]


def test_a_broken_promise_is_a_line_and_exit_code_3(at: Path, capsys: Said) -> None:
    edit_manifest(at / "v1", lambda manifest: manifest["counts"].update(samples=5))
    next((at / "v1" / "data").glob("test-*")).unlink()
    assert run(["data", "show", "v1"]) == 3
    captured = capsys.readouterr()
    lines = [line for line in captured.out.splitlines() if line.startswith("broken: ")]
    assert lines == [
        "broken: data/test-00000-of-00001.parquet: is missing",
        "broken: manifest.json: counts 5 samples, its shards 12",
    ]
    assert captured.err.splitlines() == [
        "medvlm: error: v1: 2 promises are broken; prepare the data set again with --overwrite, or fetch it again"
    ]
    assert run(["data", "show", "v1", "--json"]) == 3
    assert len(json.loads(capsys.readouterr().out)["broken"]) == 2


def test_a_broken_row_needs_the_check(at: Path, capsys: Said) -> None:
    rewrite(at / "v1", lambda rows: rows[0].update(target=""))
    assert run(["data", "show", "v1"]) == 0
    assert "--check reads all" in capsys.readouterr().out
    assert run(["data", "show", "v1", "--check"]) == 3
    assert "broken: empty target: 1 (the first: g1/1)" in capsys.readouterr().out


def test_stats(at: Path, capsys: Said) -> None:
    found = told(["stats", "v2", "--by", "modality"], capsys)
    assert found["counts"]["modality"]["mri"] == {"train": 1}
    assert set(found["by"]["values"]) == {"ct", "mri", "none stated"}
    assert "pictures" in found
    assert "pictures" not in told(["stats", "v2", "--no-pictures"], capsys)
    assert run(["data", "stats", "v2"]) == 0
    assert "always answering" in capsys.readouterr().out


def test_sample_draws_a_picture_and_prints_the_ids(at: Path, capsys: Said) -> None:
    assert run(["data", "sample", "v2", "-n", "5", "--where", "modality=ct", "--split", "train"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[-1] == "drawn: sheet.png (5 samples)"
    rows = {row["id"]: row for path in (at / "v2/data").glob("train-*") for row in pq.read_table(path).to_pylist()}
    assert all(rows[line.split()[1]]["modality"] == "ct" for line in lines[:-1])
    with PIL.Image.open("sheet.png") as page:
        assert page.width > 1000
    first = told(["sample", "v2", "-n", "3"], capsys)["ids"]
    assert told(["sample", "v2", "-n", "3"], capsys)["ids"] == first
    drawn = {tuple(told(["sample", "v2", "-n", "3", "--seed", str(seed)], capsys)["ids"]) for seed in range(1, 6)}
    assert len(drawn) > 1


def test_a_sheet_replaces_nothing_but_a_sheet(at: Path, capsys: Said) -> None:
    (at / "mine.csv").write_text("precious")
    (at / "mine.png").write_text("no picture")
    before = {path: path.read_bytes() for path in at.rglob("*") if path.is_file()}
    shard = next((at / "v1" / "data").glob("train-*")).relative_to(at)
    for out, said in (
        ("mine.csv", "the sheet is a PNG; name it mine.png"),
        ("mine.png", "is there and is no PNG"),
        ("v1/manifest.json", "the sheet is a PNG"),
        (str(shard), "the sheet is a PNG"),
        ("v1/new.png", "lies in the data set"),
    ):
        assert run(["data", "sample", "v1", "--out", out]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    assert {path: path.read_bytes() for path in at.rglob("*") if path.is_file()} == before
    assert [run(["data", "sample", "v1", "--quiet"]) for _ in range(2)] == [0, 0]


def test_pictures_that_may_not_be_changed_are_not_drawn(tmp_path: Path, capsys: Said) -> None:
    red, blue = png(255, (99, 99)), png(255 * 65536, (99, 99))
    free = sample("free", 1, image=Image(red, "r.png"))
    bound = sample("bound", 2, image=Image(blue, "b.png"), license="CC-BY-ND-4.0", more_images=[Image(blue, "c.png")])
    folder = prepared(tmp_path / "set", [free, bound])
    assert run(["data", "sample", str(folder), "--out", str(tmp_path / "s.png")]) == 0
    said = capsys.readouterr().out
    assert "bound/2  train  vqa  CC-BY-ND-4.0  (picture not shown" in said
    assert "2 samples, 1 not shown" in said

    def blue_is_drawn() -> bool:
        with PIL.Image.open(tmp_path / "s.png") as page:
            colors = {color for _, color in page.convert("RGB").getcolors(1 << 20)}
        assert any(r > 200 and g < 60 and b < 60 for r, g, b in colors)
        return any(b > 200 and r < 60 and g < 60 for r, g, b in colors)

    assert not blue_is_drawn()
    assert run(["data", "sample", str(folder), "--out", str(tmp_path / "s.png"), "--private"]) == 0
    assert "not shown" not in capsys.readouterr().out
    assert blue_is_drawn()


def test_all_views_of_a_sample_are_drawn(tmp_path: Path) -> None:
    shades = [255, 255 * 256, 255 * 65536, 255 + 255 * 256]
    views = [Image(png(shade, (99, 99)), "v.png") for shade in shades]
    folder = prepared(tmp_path / "set", [sample("a", 1, image=views[0], more_images=views[1:])])
    assert run(["data", "sample", str(folder), "--out", str(tmp_path / "s.png")]) == 0
    with PIL.Image.open(tmp_path / "s.png") as page:
        colors = {color for count, color in page.convert("RGB").getcolors(1 << 20) if count > 5000}
    assert colors >= {(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)}


def test_diff(at: Path, capsys: Said) -> None:
    assert run(["data", "diff", "v1", "v1"]) == 0
    assert capsys.readouterr().out.startswith("identical: v1 and v1")
    found = told(["diff", "v1", "v2"], capsys)
    assert found["counts"] == {"added": 1, "removed": 1, "changed": 3, "moved": 1}
    assert found["moved"] == [{"id": "g4/4", "from": "train", "to": "test"}]
    assert run(["data", "diff", "v1", "v2", "--limit", "1"]) == 0
    said = capsys.readouterr().out
    assert "DANGER: 1 samples moved from train to test" in said
    assert 'modality: "ct" -> "mri"' in said
    assert "… and 2 more changed" in said


def test_merge(at: Path, capsys: Said) -> None:
    assert run(["data", "merge", "v1", "v2", "--out", "both", "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "samples in" in said
    assert "are in several parts and were taken once" in said
    assert run(["data", "show", "both", "--check", "--rows", "0"]) == 0
    assert "medvlm data merge v1 v2 --shared drop" in capsys.readouterr().out
    assert run(["data", "merge", "v1", "v2", "--out", "both"]) == 0
    assert "up to date" in capsys.readouterr().out
    assert run(["data", "merge", "v1", "both", "--out", "both"]) == 2
    assert run(["data", "merge", "v2", "v1", "--out", "both"]) == 3
    assert "--overwrite" in capsys.readouterr().err


def hub(folder: Path) -> None:
    """Write what a data set of somebody else looks like."""
    (folder / "x" / "data").mkdir(parents=True)
    pq.write_table(
        pa.table({"question": ["?"], "answer": ["!"]}), folder / "x" / "data" / "train-00000-of-00001.parquet"
    )


def cut(folder: Path) -> None:
    shutil.copytree(folder / "v1", folder / "x")
    path = next((folder / "x" / "data").glob("train-*"))
    path.write_bytes(path.read_bytes()[:100])


def missing(folder: Path) -> None:
    shutil.copytree(folder / "v1", folder / "x")
    next((folder / "x" / "data").glob("train-*")).unlink()


def linked(folder: Path) -> None:
    shutil.copytree(folder / "v1", folder / "x")
    path = next((folder / "x" / "data").glob("train-*"))
    path.unlink()
    os.symlink("/etc/hostname", path)


def no_json(folder: Path) -> None:
    shutil.copytree(folder / "v1", folder / "x")
    (folder / "x" / "manifest.json").write_bytes(b"\xff\xfe{")


def a_file(folder: Path) -> None:
    (folder / "x").write_text("x")


def empty(folder: Path) -> None:
    (folder / "x").mkdir()


HOSTILE = [hub, cut, missing, linked, no_json, a_file, empty, lambda folder: None]
VERBS = (["show", "x"], ["stats", "x"], ["sample", "x"], ["diff", "v1", "x"], ["merge", "v1", "x", "--out", "o"])


@pytest.mark.parametrize(
    "make", HOSTILE, ids=["hub", "cut", "missing", "linked", "no-json", "file", "empty", "nothing"]
)
def test_hostile_folders_are_one_line_and_exit_code_3(at: Path, make: Any, capsys: Said) -> None:
    make(at)
    for verb in VERBS:
        assert run(["data", *verb]) == 3, verb
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "x" in error
        assert "defect" not in error
    assert not (at / "sheet.png").exists()
    assert not (at / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["shw", "v1"], 2, "shw"),
        (["show", "v1", "--split", "dev"], 3, "it has train, test"),
        (["show", "v1", "--id", "nobody"], 3, 'no sample has the id "nobody"'),
        (["stats", "v1", "--by", "organs"], 2, "no column to count by"),
        (["sample", "v1", "--where", "organs=x"], 2, 'did you mean "organ"'),
        (["sample", "v1", "--where", "organ"], 2, "is not COLUMN=VALUE"),
        (["sample", "v1", "--where", "organ=heart"], 3, "no sample has organ=heart"),
        (["sample", "v1", "--split", "dev"], 3, "it has train, test"),
        (["sample", "v1", "--out", "v1"], 2, "is a folder"),
        (["diff", "v1"], 2, "NEW"),
        (["merge", "v1", "--out", "o"], 2, "at least two"),
        (["merge", "v1", "v2", "--out", "o", "--shared", "mov"], 2, 'did you mean "move"'),
        (["merge", "v1", "v2", "--out", "o", "--license", "free beer"], 2, "free beer"),
    ],
)
def test_wrong_arguments(at: Path, arguments: list[str], code: int, said: str, capsys: Said) -> None:
    assert run(["data", *arguments]) == code
    assert said in capsys.readouterr().err
