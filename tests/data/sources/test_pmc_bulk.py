"""Collections: large tars article by article, PMC's file lists as the license of last resort, and bounded memory."""

from __future__ import annotations

import csv
import gzip
import io
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm.data.sample import Credit, Reject, Sample
from medvlm.data.sources.pmc import PmcSource, filelists, packages, source
from medvlm.data.sources.pmc.filelists import FileList

LINKS = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
COMMA = "File,Article Citation,Accession ID,Last Updated (YYYY-MM-DD HH:MM:SS),PMID,License\n"
BULK = "Article File,Article Citation,AccessionID,LastUpdated (YYYY-MM-DD HH:MM:SS),PMID,License,Retracted\n"


def article(pmcid: int, license: str = "") -> bytes:
    permissions = f"<permissions><license license-type='{license}'/></permissions>" if license else ""
    front = f"<article-meta><article-id pub-id-type='pmc'>{pmcid}</article-id>{permissions}</article-meta>"
    figure = "<fig id='f1'><caption><p>CT.</p></caption><graphic xlink:href='g1'/></fig>"
    return f"<article {LINKS}><front>{front}</front><body>{figure}</body></article>".encode()


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def credits(*inputs: Path) -> dict[str | None, str | None]:
    """Return PMC id -> license of all articles of some inputs."""
    found = PmcSource(list(inputs))
    items = [item for unit in found.units() for item in found.read(unit)]
    return {item.pmcid: item.license for item in items if isinstance(item, Credit)}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_large_tar_is_read_article_by_article(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, png: bytes
) -> None:
    files = {f"PMC00{n}xxxxxx/PMC{n}.xml": article(n) for n in (1, 2, 3)} | {"PMC001xxxxxx/g1.png": png}
    data = tar({**files, "oa_comm_xml.PMC00.filelist.csv": BULK.encode(), "cut.xml": b"<article >"})
    path = tmp_path / f"oa_comm_xml.PMC00.baseline{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    whole = PmcSource([path])
    as_one = [item for unit in whole.units() for item in whole.read(unit)]
    assert len(whole.units()) == 1
    monkeypatch.setattr(source, "BULK_BYTES", 1)
    split = PmcSource([path])
    assert [unit.name.rpartition("/")[2] for unit in split.units()] == ["PMC1.xml", "PMC2.xml", "PMC3.xml", "cut.xml"]
    in_parts = [item for unit in split.units() for item in split.read(unit)]
    assert in_parts == as_one
    assert [item.group for item in in_parts if isinstance(item, Sample)] == ["PMC1"]
    assert sorted(item.reason for item in in_parts if isinstance(item, Reject))[:2] == ["no image file"] * 2


@pytest.fixture
def png() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    return file.getvalue()


def test_a_file_list_gives_the_license_that_the_article_does_not_state(tmp_path: Path) -> None:
    rows = (
        'a/PMC1.tar.gz,"J. 2020, 1:2",PMC1,2020-01-01 00:00:00,11,CC BY\n'
        "a/PMC2.tar.gz,J,PMC2,2020-01-01 00:00:00,12,CC BY-NC\n"
        "a/PMC3.tar.gz,J,PMC3,2020-01-01 00:00:00,13,NO-CC CODE\n"
        "a/PMC4.tar.gz,J,PMC4,2020-01-01 00:00:00,14,CC0\n"
    )
    (tmp_path / "oa_file_list.csv").write_text(COMMA + rows)
    folder = tmp_path / "oa_package" / "00"
    folder.mkdir(parents=True)
    for number in (1, 2, 3, 5):
        (folder / f"PMC{number}.tar.gz").write_bytes(gzip.compress(tar({f"PMC{number}/a.nxml": article(number)})))
    (folder / "PMC4.tar.gz").write_bytes(gzip.compress(tar({"PMC4/a.nxml": article(4, "cc-by-nd")})))
    assert credits(tmp_path) == {
        "PMC1": "LicenseRef-CC-BY-unversioned",
        "PMC2": "LicenseRef-CC-BY-NC-unversioned",
        "PMC3": None,
        "PMC4": "LicenseRef-CC-BY-ND-unversioned",
        "PMC5": None,
    }
    before = PmcSource([tmp_path]).describe()
    (tmp_path / "oa_file_list.csv").write_text(COMMA + rows.replace("CC BY-NC", "CC BY"))
    assert PmcSource([tmp_path]).describe() != before
    assert credits(folder)["PMC1"] is None


def test_the_own_list_of_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BULK_BYTES", 1)
    (tmp_path / "bulk.tar.gz").write_bytes(gzip.compress(tar({f"x/PMC{n}.xml": article(n) for n in (1, 2)})))
    (tmp_path / "bulk.filelist.csv").write_text(BULK + "x/PMC2.xml,J,PMC2,2020-01-01 00:00:00,1,CC BY-SA,no\n")
    assert credits(tmp_path / "bulk.tar.gz") == {"PMC1": None, "PMC2": "LicenseRef-CC-BY-SA-unversioned"}
    assert credits(tmp_path) == {"PMC1": None, "PMC2": "LicenseRef-CC-BY-SA-unversioned"}


def test_each_article_of_a_small_archive_has_its_own_line_in_the_list(tmp_path: Path) -> None:
    path = tmp_path / "oa_comm_xml.incr.2024-06-19.tar.gz"
    files = {f"PMC000xxxxxx/PMC{n}.xml": article(n) for n in (1, 2, 3, 4, 5)}
    unnamed = article(6).replace(b"<article-id pub-id-type='pmc'>6</article-id>", b"")
    path.write_bytes(gzip.compress(tar({**files, "PMC000xxxxxx/PMC6.xml": unnamed})))
    licenses = {1: "CC BY-NC", 2: "CC BY", 3: "NO-CC CODE", 5: "CC0", 6: "CC BY-ND"}
    rows = [f"x/PMC{n}.xml,J,PMC{n},2020-01-01,1,{code},{'yes' if n == 5 else 'no'}\n" for n, code in licenses.items()]
    (tmp_path / "oa_comm_xml.incr.2024-06-19.filelist.csv").write_text(BULK + "".join(rows))
    assert credits(path) == {
        "PMC1": "LicenseRef-CC-BY-NC-unversioned",
        "PMC2": "LicenseRef-CC-BY-unversioned",
        "PMC3": None,
        "PMC4": None,
        None: "LicenseRef-CC-BY-ND-unversioned",
    }
    found = PmcSource([path])
    told = [i for unit in found.units() for i in found.read(unit) if isinstance(i, Reject)]
    assert [i.where.rpartition("/")[2] for i in told if i.reason == "retracted article"] == ["PMC5.xml"]


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_several_packages_in_one_archive_are_asked_for_one_by_one(tmp_path: Path, suffix: str) -> None:
    files = {f"PMC{n}/a.nxml": article(n) for n in (1, 2)}
    path = tmp_path / f"PMC1-PMC2{suffix}"
    path.write_bytes(tar(files))
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    (tmp_path / "oa_file_list.csv").write_text(COMMA + "x,J,PMC1,d,1,CC BY-NC\nx,J,PMC2,d,1,CC BY\n")
    assert credits(tmp_path) == {"PMC1": "LicenseRef-CC-BY-NC-unversioned", "PMC2": "LicenseRef-CC-BY-unversioned"}


@pytest.mark.parametrize(
    ("package", "member", "expected"),
    [
        ("a/PMC1.tar.gz", "PMC1/x.nxml", "PMC1"),
        ("a/PMC1.tar.gz", "x.nxml", "PMC1"),
        ("PMC9/PMC1-PMC2.tar", "x.nxml", None),
        ("PMC9", "PMC1.2/PMC1.2.xml", "PMC1"),
        ("oa_comm_xml.PMC001xxxxxx.tar", "x.xml", None),
        ("a", "x.xml", None),
    ],
)
def test_the_id_that_a_name_tells(package: str, member: str, expected: str | None) -> None:
    assert filelists.named_in(package, member) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-01-01 10:00:00\noa/a.tar.gz\tJ. 2020\tPMC13900\tPMID:1\tNO-CC CODE\n", "NO-CC CODE"),
        ("2023-01-01\noa/a.tar.gz\tJ. 2020\tPMC13900\t\tCC BY\n", "CC BY"),
        (COMMA + 'a,"J, 2020, PMC1",PMC13900,x,1,CC BY\n', "CC BY"),
        (BULK + "a,J,PMC13900,x,1,CC0,no\nb,J,PMC139,x,1,CC BY,no\n", "CC0"),
        (BULK + "\n,,,\nPMC13900\n", None),
        (BULK + "a,J,PMC13900,x,1,CC0\n", "CC0"),
        ("", None),
        (BULK + 'a,"J.\t2010; 1",PMC13900,x,1,CC BY,no\n', "CC BY"),
        ('a,"J.\t2010; 1",PMC13900,1,CC BY\n', "CC BY"),
        (BULK + 'a,"J ""T"".\n1, 2\n and 3",PMC13900,x,1,CC BY,no\n', "CC BY"),
        (BULK + 'a,"J\n1, 2",PMC13900,x,1,CC BY,no\n', "CC BY"),
        (BULK + 'a,"J,PMC1,x,1,CC0,no\na,"J",PMC13900,x,1,CC BY,no\na,"J,PMC3,x,1,CC0,no\n', "CC BY"),
        (BULK + 'a,J 5",PMC13900,x,1,CC BY,no\na,J,PMC3,x,1,CC0,no\n', "CC BY"),
        (BULK + 'a,J 5",PMC13900,x,1,CC BY,no\n', "CC BY"),
    ],
)
def test_forms_of_file_lists(text: str, expected: str | None) -> None:
    assert FileList(text.splitlines(keepends=True)).code("PMC13900") == expected


def test_a_retraction_is_told_behind_any_citation() -> None:
    citations = ["J.\t2010; 1:2", 'J "Test".\n2010; 1:2', "J, 2010", '"', "a\n\n,b"]
    file = io.StringIO(newline="")
    rows = csv.writer(file)
    rows.writerow(BULK.strip().split(","))
    rows.writerows(["a.xml", cited, f"PMC{n}", "d", 1, "CC BY-NC", "yes"] for n, cited in enumerate(citations, 1))
    found = FileList(file.getvalue().splitlines(keepends=True))
    for number in range(1, len(citations) + 1):
        assert (found.code(f"PMC{number}"), found.retracted(f"PMC{number}")) == ("CC BY-NC", True)


@given(st.lists(st.text(max_size=40), max_size=8), st.text(max_size=12))
@settings(max_examples=100, deadline=None)
def test_any_file_list(lines: list[str], name: str) -> None:
    assert FileList(lines).code(name) is None or "PMC" in "".join(lines).upper()


@given(st.dictionaries(st.integers(1, 10**9), st.sampled_from(["CC BY", "CC0", "NO-CC CODE"]), max_size=30))
@settings(max_examples=50, deadline=None)
def test_a_list_answers_as_a_dictionary_does(codes: dict[int, str]) -> None:
    found = FileList([BULK, *(f"f,c,PMC{number},d,1,{code},no\n" for number, code in codes.items())])
    for number in [*codes, 0, 5, 10**9 + 1]:
        assert found.code(f"PMC{number}") == codes.get(number)


def test_an_index_of_many_members_is_small() -> None:
    count = 20_000
    data = tar({f"PMC001xxxxxx/PMC{n}.xml": b"" for n in range(count)})
    tracemalloc.start()
    package = packages.TarPackage("bulk", io.BytesIO(data), len(data))
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(package.names()) == count
    assert used < 400 * count


PEAK = """
import resource, sys
sys.path.insert(0, {benchmarks!r})
from read_articles import large_article
from medvlm.data.sources.pmc import MemoryPackage, read_package
data = large_article({megabytes})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
items = sum(1 for _ in read_package(MemoryPackage("m", {{"a.nxml": data}}), "pmc"))
print(items, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / len(data))
"""


@pytest.mark.parametrize("megabytes", [25, pytest.param(100, marks=pytest.mark.slow)])
def test_a_large_article_takes_at_most_ten_times_its_size(megabytes: int) -> None:
    benchmarks = str(Path(__file__).parents[2] / "benchmarks")
    script = PEAK.format(benchmarks=benchmarks, megabytes=megabytes)
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    items, ratio = out.split()
    assert int(items) > 500 * megabytes
    assert float(ratio) < 10


def test_lists_are_found_by_the_name_of_their_archive(tmp_path: Path) -> None:
    for name in ("a.tar.gz", "a.filelist.csv", "oa_file_list.txt", "b.filelist.csv"):
        (tmp_path / name).write_text("")
    found = [path.name for path in filelists.beside(tmp_path / "a.tar.gz", [tmp_path])]
    assert found == ["a.filelist.csv", "oa_file_list.txt"]
