"""ROCO: six folders of tables without headers and one with, read against what was written and a slow second reading."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts_captions import CAPTION, CODES, jpeg, roco, roco_part

from medvlm.data.sample import Reject, Sample
from medvlm.data.sources import records
from medvlm.data.sources.roco import RocoSource
from medvlm.errors import InputError


def read(source: RocoSource) -> list[Sample | Reject]:
    return [item for unit in source.units() for item in source.read(unit)]


def samples(source: RocoSource) -> dict[str, Sample]:
    found = read(source)
    assert all(isinstance(item, Sample) for item in found), found
    return {item.figure_id or "": item for item in found if isinstance(item, Sample)}


@pytest.mark.parametrize("below", ["", "data"])
def test_every_figure_of_the_repository(tmp_path: Path, below: str) -> None:
    found = samples(RocoSource([roco(tmp_path / "r", 30) / below]))
    assert sorted(found) == [f"ROCO_{n:05}" for n in range(30)]
    assert len({sample.id for sample in found.values()}) == 30
    for n in range(30):
        sample = found[f"ROCO_{n:05}"]
        assert sample.target == CAPTION.format(n)
        assert (sample.task, sample.prompt) == ("caption", "")
        assert (sample.pmcid, sample.group) == (f"PMC{300 + n // 2}",) * 2
        assert sample.image.data == jpeg(n)
        assert sample.concepts == ([] if n % 3 == 0 else ["C0040405", f"C{n:07}"])
        assert sample.official_split == ("train", "validation", "test")[n % 6 // 2]
        assert sample.modality == ("radiology", "non-radiology")[n % 2]


def test_the_license_of_every_figure(tmp_path: Path) -> None:
    # As PMC's own codes read; a code without a version names none.
    expected = {
        "CC BY": ("LicenseRef-CC-BY-unversioned", "yes"),
        "CC BY-NC": ("LicenseRef-CC-BY-NC-unversioned", "no"),
        "CC BY-NC-SA": ("LicenseRef-CC-BY-NC-SA-unversioned", "no"),
        "CC BY-NC-ND": ("LicenseRef-CC-BY-NC-ND-unversioned", "no"),
        "CC BY-ND": ("LicenseRef-CC-BY-ND-unversioned", "conditional"),
        "CC0": ("CC0-1.0", "yes"),
        "NO-CC CODE": (None, "unknown"),
    }
    found = samples(RocoSource([roco(tmp_path / "r", 14)]))
    for n in range(14):
        sample, code = found[f"ROCO_{n:05}"], CODES[n % len(CODES)]
        assert (sample.license, sample.commercial_use) == expected[code]
        assert sample.license_evidence == f"licences.txt: {code}"
        assert sample.license_scope == ("article" if sample.license else None)


@pytest.mark.parametrize(
    ("codes", "license", "use"),
    [
        (("CC BY", "CC BY-NC-ND"), "LicenseRef-CC-BY-NC-ND-unversioned", "no"),
        (("CC BY-NC", "CC BY-ND"), "LicenseRef-CC-BY-NC-ND-unversioned", "no"),
        (("CC BY", "CC BY"), "LicenseRef-CC-BY-unversioned", "yes"),
        (("CC0", "NO-CC CODE"), None, "unknown"),
    ],
)
def test_two_rows_for_one_figure_allow_what_both_allow(
    tmp_path: Path, codes: tuple[str, str], license: str | None, use: str
) -> None:
    here = roco_part(tmp_path / "train" / "radiology", [0])
    for one, other in (codes, codes[::-1]):
        rows = "".join(f"ROCO_00000,PMC300_jkms-26-0-g001.jpg,{code}\n" for code in (one, other))
        (here / "licences.txt").write_text(f"ROCO_ID,PMC_ID,CC\n{rows}")
        (sample,) = samples(RocoSource([tmp_path])).values()
        assert (sample.license, sample.commercial_use) == (license, use)
        assert all(code in (sample.license_evidence or "") for code in codes)


def test_against_a_slow_reading_of_the_same_files(tmp_path: Path) -> None:
    here = roco_part(tmp_path / "validation" / "radiology", list(range(40)))
    with open(here / "licences.txt", encoding="utf-8", newline="") as file:
        rights = {row["ROCO_ID"]: row for row in csv.DictReader(file)}
    lines = (here / "captions.txt").read_text("utf-8").splitlines()
    found = samples(RocoSource([tmp_path]))
    assert len(lines) == len(found)
    for line in lines:
        name, caption = re.split(r"\t\s*", line, maxsplit=1)
        assert found[name].target == caption.rstrip()
        assert found[name].file_name == rights[name]["PMC_ID"]


def test_lines_are_cut_into_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "ROWS", 7)
    roco_part(tmp_path / "train" / "radiology", list(range(30)))
    source = RocoSource([tmp_path])
    assert len(source.units()) == 5
    assert len(samples(source)) == 30


def test_images_as_packages_are_unpacked_and_by_their_id(tmp_path: Path) -> None:
    here = roco_part(tmp_path / "train" / "radiology", [0, 1])
    (here / "images" / "PMC300").mkdir()
    (here / "images" / "PMC300_jkms-26-0-g001.jpg").rename(here / "images" / "PMC300" / "jkms-26-0-g001.jpg")
    (here / "images" / "PMC300_jkms-26-1-g001.jpg").rename(here / "images" / "ROCO_00001.jpg")
    assert [sample.image.data for sample in samples(RocoSource([tmp_path])).values()] == [jpeg(0), jpeg(1)]


def test_absent_images_are_counted_by_name(tmp_path: Path) -> None:
    here = roco_part(tmp_path / "train" / "radiology", [0, 1, 2])
    (here / "images" / "PMC300_jkms-26-1-g001.jpg").unlink()
    bad = [item for item in read(RocoSource([tmp_path])) if isinstance(item, Reject)]
    assert [(r.where, r.reason, r.detail) for r in bad] == [
        ("train/radiology/captions.txt row 1", "no image file", "PMC300_jkms-26-1-g001.jpg")
    ]


def test_what_the_tables_beside_the_captions_leave_out(tmp_path: Path) -> None:
    here = roco_part(tmp_path / "train" / "radiology", [0, 1, 2])
    (here / "cuis.txt").unlink()
    (here / "licences.txt").write_text("ROCO_ID,PMC_ID,CC\nROCO_00001,PMC300_jkms-26-1-g001.jpg,CC BY\nROCO_00002\n")
    found = samples(RocoSource([tmp_path]))
    # The article and the image's name stand in dlinks.txt too; the license does not.
    assert [found[f"ROCO_{n:05}"].pmcid for n in range(3)] == ["PMC300", "PMC300", "PMC301"]
    assert [found[f"ROCO_{n:05}"].license is None for n in range(3)] == [True, False, True]
    assert found["ROCO_00002"].license_evidence == "no license in licences.txt"
    assert {tuple(sample.concepts or ()) for sample in found.values()} == {()}


def test_without_both_lists_the_figure_is_its_own_group(tmp_path: Path) -> None:
    here = roco_part(tmp_path / "train" / "radiology", [0])
    (here / "licences.txt").unlink()
    (here / "dlinks.txt").unlink()
    (here / "images" / "PMC300_jkms-26-0-g001.jpg").rename(here / "images" / "ROCO_00000.jpg")
    (sample,) = samples(RocoSource([tmp_path])).values()
    assert (sample.group, sample.pmcid) == ("ROCO_00000", None)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"ROCO_00009 no tab", "malformed record"),
        (b"ROCO_00009\t  ", "malformed record"),
        (b"\tcaption", "malformed record"),
        (b"../../x\tcaption", "malformed record"),
        (b"ROCO_00009\t\xff caption", "malformed record"),
        (b"ROCO_00009\tcaption", "no image file"),
    ],
)
def test_bad_lines_are_counted(tmp_path: Path, line: bytes, reason: str) -> None:
    here = roco_part(tmp_path / "test" / "radiology", [0, 1])
    with open(here / "captions.txt", "ab") as file:
        file.write(b"\n" + line + b"\r\n\n")
    first, second, bad = read(RocoSource([tmp_path]))
    assert isinstance(first, Sample)
    assert isinstance(second, Sample)
    assert isinstance(bad, Reject)
    assert (bad.where, bad.reason) == ("test/radiology/captions.txt row 3", reason)


def test_line_separators_of_unicode_end_no_line(tmp_path: Path) -> None:
    here = roco_part(tmp_path / "test" / "radiology", [0])
    (here / "captions.txt").write_text("ROCO_00000\t one\u2028two\x0bthree\n", encoding="utf-8")
    (sample,) = samples(RocoSource([tmp_path])).values()
    assert sample.target == "one two three"
    assert sample.original_text == " one\u2028two\x0bthree"


def test_utf_16_with_its_mark_is_read(tmp_path: Path) -> None:
    here = roco_part(tmp_path / "test" / "radiology", [0, 1])
    (here / "captions.txt").write_bytes((here / "captions.txt").read_text("utf-8").encode("utf-16"))
    assert len(samples(RocoSource([tmp_path]))) == 2


def test_every_table_belongs_to_the_description(tmp_path: Path) -> None:
    roco_part(tmp_path / "test" / "radiology", [0])
    source = RocoSource([tmp_path])
    before = source.describe()
    (tmp_path / "test" / "radiology" / "licences.txt").write_text("ROCO_ID,PMC_ID,CC\n")
    changed = [one for one, other in zip(before, source.describe(), strict=True) if one != other]
    assert [Path(entry["path"]).name for entry in changed] == ["licences.txt"]


@pytest.mark.parametrize("name", ["captions.txt", "licences.txt", "cuis.txt", "dlinks.txt"])
def test_a_folder_in_place_of_a_table_is_named(tmp_path: Path, name: str) -> None:
    here = roco_part(tmp_path / "test" / "radiology", [0])
    (here / name).unlink()
    (here / name).mkdir()
    with pytest.raises(InputError, match=name):
        RocoSource([tmp_path]).units()


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.text(max_size=30).map(lambda text: f"ROCO_00000\t{text}".encode("utf-8", "replace")),
        )
    )
)
def test_every_line_is_a_sample_or_a_reason(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("roco")
    here = roco_part(folder / "train" / "radiology", [0])
    data = b"\n".join(line.replace(b"\n", b"").removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff") for line in lines)
    (here / "captions.txt").write_bytes(data)
    written = [line for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
    found = read(RocoSource([folder]))
    assert len(found) == len(written)
    for item in found:
        if isinstance(item, Sample):
            assert item.target
            assert item.target == " ".join(item.target.split())


@given(st.binary(max_size=200), st.sampled_from(["licences.txt", "cuis.txt", "dlinks.txt"]))
def test_whatever_stands_in_the_other_tables_is_read(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str
) -> None:
    folder = tmp_path_factory.mktemp("roco")
    here = roco_part(folder / "train" / "radiology", [0, 1])
    with open(here / name, "ab") as file:
        file.write(data)
    # Whatever follows what is known changes nothing of it.
    assert sorted(samples(RocoSource([folder]))) == ["ROCO_00000", "ROCO_00001"]


def test_another_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no train/radiology/captions\.txt"):
        RocoSource([tmp_path]).units()
