"""`medvlm prepare pmc`, `status` and `merge` at the command line: the options that choose, share out and tell."""

from __future__ import annotations

import hashlib
from pathlib import Path

import PIL.Image
import pyarrow.parquet as pq
import pytest

from medvlm.cli import run

ARTICLE = """<?xml version="1.0"?>
<article xmlns:xlink="http://www.w3.org/1999/xlink" article-type="{kind}" xml:lang="en"><front><article-meta>
<article-id pub-id-type="pmc">{pmcid}</article-id><title-group><article-title>On {pmcid}</article-title></title-group>
<pub-date><year>{year}</year></pub-date><permissions><license
 xlink:href="https://creativecommons.org/licenses/by/4.0/"><license-p>Open.</license-p></license></permissions>
</article-meta></front><body><fig id="f1"><label>Figure 1</label>
<caption><p>Axial chest CT of {pmcid} shows a nodule in the right lung.</p></caption>
<graphic xlink:href="{pmcid}.png"/></fig></body></article>"""


@pytest.fixture
def articles(tmp_path: Path) -> Path:
    """Six articles of one figure each, of 2019 to 2024, every second one a case report."""
    folder = tmp_path / "articles"
    folder.mkdir()
    for number in range(6):
        name = f"PMC{100 + number}"
        kind = "case-report" if number % 2 else "research-article"
        (folder / f"{name}.nxml").write_text(ARTICLE.format(pmcid=name, kind=kind, year=2019 + number))
        PIL.Image.effect_noise((48 + number, 40), 60 + number).save(folder / f"{name}.png")
    return folder


def rows(out: Path) -> list[dict[str, object]]:
    return [row for file in sorted(out.glob("data/*.parquet")) for row in pq.read_table(file).to_pylist()]


def tree(out: Path) -> dict[str, str]:
    """Return the hash of every file but the log."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "log.jsonl")
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--since", "2022"], {"PMC103", "PMC104", "PMC105"}),
        (["--article-type", "case-report"], {"PMC101", "PMC103", "PMC105"}),
        (["--limit", "2"], {"PMC100", "PMC101"}),
        (["--modality", "radiology"], {f"PMC{100 + n}" for n in range(6)}),
        (["--min-side", "40"], {f"PMC{100 + n}" for n in range(6)}),
    ],
)
def test_options_choose_articles(articles: Path, tmp_path: Path, options: list[str], kept: set[str]) -> None:
    out = tmp_path / "out"
    assert run(["prepare", "pmc", "-q", "--input", str(articles), "--out", str(out), *options]) == 0
    assert {row["pmcid"] for row in rows(out)} == kept
    assert options[0] in (out / "README.md").read_text("utf-8")


def test_questions_are_made_of_captions(articles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(["prepare", "pmc", "-q", "--input", str(articles), "--out", str(out), "--task", "vqa"]) == 0
    made = rows(out)
    assert {row["task"] for row in made} == {"vqa"}
    assert all("shows a nodule" in str(row["original_text"]) for row in made)


def test_shards_and_merge_give_the_bytes_of_one_run(
    articles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, shared = tmp_path / "a" / "set", tmp_path / "b" / "set"
    command = ["prepare", "pmc", "-q", "--input", str(articles), "--out"]
    assert run([*command, str(whole)]) == 0
    assert run([*command, str(shared), "--shard", "1/2"]) == 0
    assert "medvlm prepare merge" in capsys.readouterr().out
    assert run(["prepare", "merge", str(shared)]) == 3
    assert "chunks are not done" in capsys.readouterr().err
    assert run(["prepare", "status", str(shared)]) == 0
    assert "stopped" in capsys.readouterr().out
    assert run([*command, str(shared), "--shard", "0/2"]) == 0
    assert run(["prepare", "merge", str(shared)]) == 0
    assert tree(shared) == tree(whole)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--ids", "PMC1", "--inventory"], 2, "exclude one another"),
        (["--input", "x", "--query", "ct"], 2, "exclude one another"),
        (["--query", " "], 2, "--query is empty"),
        (["--ids", "12a"], 2, "12a"),
        (["--panels", "split"], 2, "--panels: name the articles too"),
        (["--modality", "ct", "--limit", "3"], 2, "--limit, --modality: name the articles too"),
        (["--input", "x", "--modality", "radiolgy"], 2, 'did you mean "radiology"?'),
        (["--input", "x", "--since", "soon"], 2, "2024-05-31"),
        (["--shard", "2/2"], 2, "0/8"),
        (["--engine", "rai"], 2, 'did you mean "ray"?'),
        (["--input", "nothing-here"], 3, "no such file or folder"),
        (["--ids", "PMC1", "--endpoint", "ftp://x"], 2, "--endpoint"),
    ],
)
def test_bad_options_get_one_line(
    arguments: list[str],
    code: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["prepare", "pmc", "--quiet", *arguments]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert told in lines[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["status", "merge"])
def test_nothing_to_tell_or_merge(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["prepare", verb, str(tmp_path / "none")])
    told = capsys.readouterr()
    assert code == (0 if told.out else 3)
    assert len((told.out + told.err).splitlines()) == 1
