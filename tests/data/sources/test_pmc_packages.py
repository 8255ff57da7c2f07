"""Folders, archives and pictures, hostile ones included: every bad package becomes one counted reason."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image as PILImage

from medvlm.data import look
from medvlm.data.look import PictureError, examine
from medvlm.data.sample import Credit, Reject, Sample
from medvlm.data.sources.pmc import MemoryPackage, PmcSource, packages, read_package
from medvlm.data.sources.pmc.media import MediaError, MediaIndex
from medvlm.errors import InputError

LINKS = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
FIGURE = '<fig id="f1"><label>Fig 1</label><caption><p>A caption.</p></caption><graphic xlink:href="{}"/></fig>'


def jats(href: str = "g1.png", pmcid: int = 1, figures: str = "") -> bytes:
    front = f'<front><article-meta><article-id pub-id-type="pmc">{pmcid}</article-id></article-meta></front>'
    return f"<article {LINKS}>{front}<body>{figures or FIGURE.format(href)}</body></article>".encode()


def picture(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (8, 6)) -> bytes:
    file = io.BytesIO()
    PILImage.new(mode, size).save(file, kind)
    return file.getvalue()


PNG = picture()
FILES = {"a.nxml": jats(), "g1.png": PNG, "paper.pdf": b"%PDF"}


def tar(files: dict[str, bytes], members: Iterable[tarfile.TarInfo] = ()) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in members:
            archive.addfile(info)
    return out.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def read_all(*paths: Path) -> tuple[list[Sample], list[Reject]]:
    source = PmcSource(list(paths))
    assert source.describe()
    results = [item for unit in source.units() for item in source.read(unit)]
    return [r for r in results if isinstance(r, Sample)], [r for r in results if isinstance(r, Reject)]


def reasons(rejects: list[Reject]) -> list[str]:
    return sorted(r.reason for r in rejects)


def read_memory(files: dict[str, bytes], source: str = "pmc") -> list[Sample | Reject]:
    return [r for r in read_package(MemoryPackage("m", files), source) if not isinstance(r, Credit)]


def test_memory_package() -> None:
    (sample,) = read_memory(FILES, "phantom")
    assert isinstance(sample, Sample)
    assert (sample.id, sample.source, sample.image.data) == ("PMC1/f1/-/caption/0", "phantom", PNG)
    assert (sample.target, sample.label, sample.file_name, sample.group) == ("A caption.", "Fig 1", "g1.png", "PMC1")
    assert (sample.license, sample.commercial_use) == (None, "unknown")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("PMC1.tar", tar({f"PMC1/{n}": d for n, d in FILES.items()})),
        ("PMC1.tar.gz", gzip.compress(tar({f"./PMC1/{n}": d for n, d in FILES.items()}))),
        ("PMC1.tgz", gzip.compress(tar(FILES))),
        ("PMC1.tar.bz2", bz2.compress(tar(FILES))),
        ("PMC1.tar.xz", lzma.compress(tar(FILES))),
        ("PMC1.zip", zipped({f"PMC1/{n}": d for n, d in FILES.items()})),
        ("of_packages.zip", zipped({"x/PMC1.tar.gz": gzip.compress(tar(FILES))})),
        ("of_zips.ZIP", zipped({"PMC1.zip": zipped(FILES)})),
    ],
)
def test_archives(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    for path in (tmp_path / name, tmp_path):
        samples, rejects = read_all(path)
        assert [s.id for s in samples] == ["PMC1/f1/-/caption/0"]
        assert samples[0].image.data == PNG
        assert rejects == []


def test_folders(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / "deep" / f"PMC{number}"
        (folder / "images").mkdir(parents=True)
        (folder / "main.xml").write_bytes(jats("g1", number))
        (folder / "images" / "g1.png").write_bytes(PNG)
    (tmp_path / "notes.xml").write_text("<notes/>")
    samples, rejects = read_all(tmp_path)
    assert [s.group for s in samples] == ["PMC1", "PMC2"]
    assert rejects == []
    samples, _ = read_all(tmp_path / "deep" / "PMC2" / "main.xml", tmp_path)
    assert sorted(s.group for s in samples) == ["PMC1", "PMC2"]


def test_pictures_of_neighboring_packages_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "outer.xml").write_bytes(jats("g1.png", 1))
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "inner.xml").write_bytes(jats("g1.png", 2))
    (tmp_path / "inner" / "g1.png").write_bytes(PNG)
    samples, rejects = read_all(tmp_path)
    assert [s.group for s in samples] == ["PMC2"]
    assert reasons(rejects) == ["no image file"]


def test_description_changes_with_a_picture_only(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(jats())
    (tmp_path / "g1.png").write_bytes(PNG)
    source = PmcSource([tmp_path])
    before = source.describe()
    (tmp_path / "readme.txt").write_text("not read")
    assert source.describe() == before
    (tmp_path / "g1.png").write_bytes(picture(size=(9, 9)))
    assert source.describe() != before
    assert [e["path"] for e in before] == [str(tmp_path)]


def test_a_link_to_an_article_is_described_by_what_is_read(tmp_path: Path) -> None:
    for name in ("real", "links"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "g1.png").write_bytes(PNG)
    (tmp_path / "real" / "a.xml").write_bytes(jats())
    link = tmp_path / "links" / "b.xml"
    link.symlink_to(tmp_path / "real" / "a.xml")
    source = PmcSource([link])
    before = source.describe()
    (tmp_path / "links" / "g1.png").write_bytes(picture(size=(9, 9)))
    assert source.describe() == before
    (tmp_path / "real" / "g1.png").write_bytes(picture(size=(9, 9)))
    assert source.describe() != before
    assert [e["path"] for e in before] == [str(link)]
    (unit,) = source.units()
    samples = [item for item in source.read(unit) if isinstance(item, Sample)]
    assert [(s.image.look.width, s.image.look.height) for s in samples] == [(9, 9)]


@pytest.mark.parametrize("inside", ["../evil.nxml", "/etc/evil.nxml", "a/../../evil.nxml", "C:/evil.nxml", "..\\evil"])
def test_members_that_point_outside(tmp_path: Path, inside: str) -> None:
    (tmp_path / "a.tar").write_bytes(tar({**FILES, inside: b"x"}))
    (tmp_path / "b.zip").write_bytes(zipped({**FILES, inside: b"x"}))
    samples, rejects = read_all(tmp_path)
    assert samples == []
    assert reasons(rejects) == ["unsafe archive member"] * 2


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("g2.png")
    info.type, info.linkname = kind, "/etc/passwd"
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar(FILES, [info])))
    samples, rejects = read_all(tmp_path / "a.tar.gz")
    assert samples == []
    assert reasons(rejects) == ["unsafe archive member"]


def test_zip_symlink(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("g2.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    _, rejects = read_all(tmp_path / "a.zip")
    assert reasons(rejects) == ["unsafe archive member"]


def test_decompression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "RATIO_FREE_BYTES", 1 << 20)
    blank = bytes(4 << 20)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar({**FILES, "blank.tif": blank})))
    (tmp_path / "b.zip").write_bytes(zipped({**FILES, "blank.tif": blank}))
    (tmp_path / "c.zip").write_bytes(zipped({"PMC1.tar.gz": gzip.compress(tar({"blank.tif": blank}))}))
    samples, rejects = read_all(tmp_path)
    assert samples == []
    assert reasons(rejects) == ["decompression bomb"] * 3


def test_limits_on_members_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar").write_bytes(tar(FILES))
    monkeypatch.setattr(packages, "MAX_MEMBERS", 2)
    assert reasons(read_all(tmp_path / "a.tar")[1]) == ["decompression bomb"]
    monkeypatch.undo()
    monkeypatch.setattr(packages, "MAX_MEMBER_BYTES", 10)
    (tmp_path / "b.tar").write_bytes(tar(FILES))
    assert reasons(read_all(tmp_path / "b.tar")[1]) == ["decompression bomb"]


def test_damaged_archives(tmp_path: Path) -> None:
    (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(tar(FILES))[:-40])
    (tmp_path / "junk.tar").write_bytes(b"junk" * 500)
    (tmp_path / "junk.zip").write_bytes(b"PK\x03\x04junk")
    (tmp_path / "empty.tar").write_bytes(tar({"readme": b""}))
    (tmp_path / "deep.zip").write_bytes(zipped({"a.zip": zipped({"b.zip": zipped(FILES)})}))
    samples, rejects = read_all(tmp_path)
    assert samples == []
    assert reasons(rejects) == [
        "archive cannot be read",
        "archive cannot be read",
        "archive cannot be read",
        "archive nested too deep",
        "no article in package",
    ]


def test_damaged_member_of_a_zip(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.nxml": jats(), "g1.png": picture("BMP", size=(200, 200))}))
    start = data.index(b"g1.png") + 10
    data[start : start + 8] = b"\xff" * 8
    (tmp_path / "a.zip").write_bytes(data)
    samples, rejects = read_all(tmp_path / "a.zip")
    assert samples == []
    assert reasons(rejects) == ["archive cannot be read"]


@pytest.mark.parametrize("name", ["absent", "absent.xml", "file.docx", "empty_folder", "notes.xml", "plain.zip"])
def test_unusable_inputs_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.docx").write_bytes(b"x")
    (tmp_path / "notes.xml").write_text("<notes/>")
    (tmp_path / "plain.zip").write_bytes(zipped({"readme": b"x"}))
    (tmp_path / "empty_folder").mkdir()
    with pytest.raises(InputError, match=name) as caught:
        PmcSource([tmp_path / name]).units()
    assert "\n" not in str(caught.value)


def test_construction_reads_nothing() -> None:
    assert PmcSource(["/nowhere"]).inputs == [Path("/nowhere")]


def test_duplicate_figures_and_articles_get_distinct_ids_or_a_reason() -> None:
    twice = FIGURE.format("g1.png") * 2
    files = {"a.xml": jats(figures=twice), "b.xml": jats(figures=twice), "g1.png": PNG}
    results = list(read_package(MemoryPackage("m", files), "pmc"))
    assert [r.id for r in results if isinstance(r, Sample)] == ["PMC1/f1/-/caption/0", "PMC1/f1/-/caption/1"]
    assert reasons([r for r in results if isinstance(r, Reject)]) == ["duplicate article"]


@pytest.mark.parametrize(
    ("href", "names", "expected"),
    [
        ("g1.tif", ["g1.tif", "g1.jpg"], ["g1.tif", "g1.jpg"]),
        ("g1.tif", ["g1.jpg"], ["g1.jpg"]),
        ("g1", ["g1.gif", "g1.jpg"], ["g1.jpg", "g1.gif"]),
        ("G1.JPG", ["g1.jpg"], ["g1.jpg"]),
        ("g1.jpg", ["g1.jpg", "G1.jpg"], ["g1.jpg"]),
        ("g1.jpg", ["images/g1.jpg", "g1.jpg"], ["g1.jpg"]),
        ("info:doi/10.1371/journal.pone.0000217.g001", ["pone.0000217.g001.jpg"], ["pone.0000217.g001.jpg"]),
        ("info:doi/10.1371/j.pone.0000217.g001", ["j.pone.0000217.g001.PNG"], ["j.pone.0000217.g001.PNG"]),
        ("info:doi/10.1371/journal.pone.0000217.g001", ["g001.png", "g002.png"], ["g001.png"]),
        ("https://minio.scielo.br/store/abc/58cd.tif?x=1#y", ["58cd.tif"], ["58cd.tif"]),
        ("s3://bucket/PMC1/f%201.jpg?md5=0", ["f 1.jpg"], ["f 1.jpg"]),
        ("pone.0000217.g001", ["pone.0000217.g001.tif"], ["pone.0000217.g001.tif"]),
    ],
)  # fmt: skip
def test_references(href: str, names: list[str], expected: list[str]) -> None:
    assert MediaIndex(names).find(href) == expected


@pytest.mark.parametrize(
    ("href", "names", "reason"),
    [
        ("g1.jpg", [], "no image file"),
        ("", ["g1.jpg"], "no image reference"),
        ("g1.jpg", ["a/g1.jpg", "b/g1.jpg"], "ambiguous image file"),
        ("g1", ["g1.eps"], "image format not supported"),
        ("../../etc/passwd", ["g1.jpg"], "no image file"),
    ],
)
def test_references_without_a_file(href: str, names: list[str], reason: str) -> None:
    with pytest.raises(MediaError) as caught:
        MediaIndex(names).find(href)
    assert caught.value.reason == reason


def test_last_part_of_a_doi_is_not_trusted_among_several_articles() -> None:
    with pytest.raises(MediaError):
        MediaIndex(["g001.png"], sole=False).find("info:doi/10.1371/journal.pone.0000217.g001")


@pytest.mark.parametrize(
    ("kind", "mode"), [("TIFF", "CMYK"), ("JPEG", "L"), ("PNG", "P"), ("GIF", "P"), ("WEBP", "RGB")]
)
def test_whole_pictures_pass(kind: str, mode: str) -> None:
    examine(picture(kind, mode, (64, 48)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "image cannot be read"),
        (b"GIF89a", "image cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image cannot be read"),
        (picture("JPEG", size=(300, 300))[:900], "image truncated"),
        (picture("PNG", size=(300, 300))[:150], "image truncated"),
    ],
)
def test_damaged_pictures(data: bytes, reason: str) -> None:
    with pytest.raises(PictureError) as caught:
        examine(data)
    assert caught.value.reason == reason
    # An address in memory is another one in each run, and what is left out would differ with it.
    assert " at 0x" not in caught.value.detail


def test_pixel_bomb_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "MAX_PIXELS", 40)
    with pytest.raises(PictureError) as caught:
        examine(PNG)
    assert (caught.value.reason, caught.value.detail) == ("image too large", "8x6 pixels")
    bomb = bytearray(PNG)
    bomb[16:24] = (60000).to_bytes(4, "big") * 2
    with pytest.raises(PictureError) as caught:
        examine(bytes(bomb))
    assert caught.value.reason in ("image too large", "image cannot be read")


def test_a_damaged_alternative_gives_way_to_a_whole_one() -> None:
    files = {"a.xml": jats("g1"), "g1.tif": b"II*\0damaged", "g1.png": PNG}
    (sample,) = read_memory(files)
    assert isinstance(sample, Sample)
    assert sample.file_name == "g1.png"
    del files["g1.png"]
    (reject,) = read_memory(files)
    assert isinstance(reject, Reject)
    assert reject.reason == "image cannot be read"


@pytest.mark.parametrize(
    ("href", "names", "expected"),
    [
        ("supp/fig1.jpg", ["fig1.jpg", "supp/fig1.jpg"], "supp/fig1.jpg"),
        ("b/fig1.jpg", ["a/fig1.jpg", "b/fig1.jpg"], "b/fig1.jpg"),
        ("./b/fig1", ["a/fig1.jpg", "b/fig1.png"], "b/fig1.png"),
        ("b/fig1.jpg", ["a/fig1.jpg", "b/fig1.tif"], "b/fig1.tif"),
        ("PMC1/b/fig1.jpg", ["fig1.jpg", "b/fig1.jpg"], "b/fig1.jpg"),
        ("gone/fig1.jpg", ["fig1.jpg", "b/fig1.jpg"], "fig1.jpg"),
        ("https://x.org/b/fig1.jpg?v=1", ["fig1.jpg", "b/fig1.jpg"], "b/fig1.jpg"),
        ("fig1.jpg", ["fig1.jpg", "b/fig1.jpg"], "fig1.jpg"),
    ],
)
def test_a_reference_with_a_folder_means_that_folder(href: str, names: list[str], expected: str) -> None:
    assert MediaIndex(names).find(href)[0] == expected


def test_a_folder_that_is_not_named_is_ambiguous() -> None:
    with pytest.raises(MediaError, match="ambiguous"):
        MediaIndex(["a/fig1.jpg", "b/fig1.jpg"]).find("fig1.jpg")


def version(folder: Path, name: str, number: int, figures: str = "") -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / f"{name}.xml").write_bytes(jats("g1.png", 7, figures))
    (folder / name / "g1.png").write_bytes(picture(size=(8, number)))
    return folder / name


def test_the_newest_version_of_an_article_is_kept(tmp_path: Path) -> None:
    only_once = '<fig id="f2"><caption><p>Only here.</p></caption><graphic xlink:href="g1.png"/></fig>'
    version(tmp_path, "PMC7.9", 9, FIGURE.format("g1.png") + only_once)
    version(tmp_path, "PMC7.10", 10)
    version(tmp_path, "PMC70.1", 1)
    samples, rejects = read_all(tmp_path)
    assert [(s.figure_id, s.image.data) for s in samples] == [
        ("f1", picture(size=(8, 10))),
        ("f1", picture(size=(8, 1))),
    ]
    assert reasons(rejects) == ["older version"]
    assert "PMC7.9/" in rejects[0].where
    assert "PMC7.10/" in rejects[0].detail


@pytest.mark.parametrize(
    "files",
    [
        {"PMC7.1.tar": tar(FILES), "PMC7.2.tar": tar(FILES)},
        {"all.zip": zipped({f"PMC7.{v}/{n}": d for v in (1, 2) for n, d in FILES.items()})},
        {"all.tar": tar({f"PMC7.{v}/{n}": d for v in (1, 2) for n, d in FILES.items()})},
        {"all.zip": zipped({f"PMC7.{v}.tar": tar(FILES) for v in (1, 2)})},
        {"elife-30274-v1.xml": jats(), "elife-30274-v2.xml": jats(), "g1.png": PNG},
    ],
)
def test_older_versions_in_every_kind_of_package(tmp_path: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    samples, rejects = read_all(tmp_path)
    assert len(samples) == 1
    assert reasons(rejects) == ["older version"]
    assert ("7.1" in rejects[0].where) or ("v1" in rejects[0].where)


@pytest.mark.parametrize("damage", [b"", b"<article >", b"\0\1<article x"])
def test_a_newest_version_without_an_article_gives_way_to_the_one_before(tmp_path: Path, damage: bytes) -> None:
    for number in (1, 2, 3):
        version(tmp_path, f"PMC7.{number}", number)
    (tmp_path / "PMC7.3" / "PMC7.3.xml").write_bytes(damage)
    samples, rejects = read_all(tmp_path)
    assert [s.image.data for s in samples] == [picture(size=(8, 2))]
    assert [r.where for r in rejects if r.reason == "older version"] == [f"{tmp_path.name}/PMC7.1/PMC7.1.xml"]


def test_a_newest_version_that_is_cut_short_is_used_as_far_as_it_is_whole(tmp_path: Path) -> None:
    for number in (1, 2):
        version(tmp_path, f"PMC7.{number}", number)
    newest = tmp_path / "PMC7.2" / "PMC7.2.xml"
    newest.write_bytes(newest.read_bytes()[:-30])
    samples, rejects = read_all(tmp_path)
    assert {s.image.data for s in samples} <= {picture(size=(8, 2))}
    assert "older version" in reasons(rejects)


def stated(number: int, form: str) -> bytes:
    data = jats("g1.png", 7)
    if form == "id":
        return data.replace(b">7</article-id>", b">PMC7.%d</article-id>" % number)
    version = b"<article-version article-version-type='number'>%d</article-version>" % number
    if form == "doi":
        data = data.replace(b'"pmc">7<', b'"doi">10.1/X<')
    return data.replace(b"</article-meta>", version + b"</article-meta>")


@pytest.mark.parametrize("form", ["id", "version", "doi"])
@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_versions_that_only_the_xml_states(tmp_path: Path, form: str, kind: str) -> None:
    files = {"b.xml": stated(1, form), "a.xml": stated(10, form), "c.xml": stated(9, form), "g1.png": PNG}
    if kind == "folder":
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
    else:
        (tmp_path / f"all.{kind}").write_bytes(zipped(files) if kind == "zip" else tar(files))
    samples, rejects = read_all(tmp_path)
    assert len(samples) == 1
    assert reasons(rejects) == ["older version"] * 2
    assert all("a.xml is newer" in reject.detail for reject in rejects)


def test_numbers_in_other_names_are_no_versions() -> None:
    names = [
        "release-2024-v1/a.xml",
        "release-2024-v2/b.xml",
        "PMC7.1/a.xml",
        "copy/PMC7.1/a.xml",
        "x-v1.xml",
        "x-v2.xml",
    ]
    assert packages.older_versions(names) == {}


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.nxml", b""), ("a.nxml", b"<html/>"), ("a.nxml", b"\0\1\2"), ("a.xml", b""), ("a.xml", b" \n")],
)
def test_files_that_should_be_articles_are_counted(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    for path in (tmp_path, tmp_path / name):
        assert reasons(read_all(path)[1]) == ["no article in xml"]
    (tmp_path / name).unlink()
    (tmp_path / "b.zip").write_bytes(zipped({name: data}))
    assert reasons(read_all(tmp_path)[1]) == ["no article in xml"]
    (reject,) = read_memory({name: data})
    assert isinstance(reject, Reject)
    assert reject.reason == "no article in xml"


def test_foreign_xml_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "notes.xml").write_bytes(b"<notes/>")
    with pytest.raises(InputError, match="no article"):
        PmcSource([tmp_path]).units()


def test_a_pipe_named_like_an_article_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.xml")
    (tmp_path / "b.nxml").write_bytes(jats())
    (tmp_path / "g1.png").write_bytes(PNG)
    assert len(read_all(tmp_path)[0]) == 1
    with pytest.raises(InputError, match="unknown kind"):
        PmcSource([tmp_path / "a.xml"]).units()
