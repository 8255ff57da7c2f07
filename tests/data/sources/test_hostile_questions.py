"""All sets of questions against hostile files: each record is a sample or a counted reason, whatever it holds."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts_vqa import PMC, RAD, SLAKE, path_vqa, picture, pmc_vqa, read, slake, vqa_rad

from medvlm.data import chunks
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources import pictures
from medvlm.data.sources.path_vqa import PathVqaSource
from medvlm.data.sources.pmc_vqa import PmcVqaSource
from medvlm.data.sources.questions import QuestionSource
from medvlm.data.sources.slake import SlakeSource
from medvlm.data.sources.vqa_rad import VqaRadSource
from medvlm.errors import InputError

PATH = {"image": "train_0001", "question": "Is it?", "answer": "yes"}
Make = Callable[[Path, list[Any]], QuestionSource]

SETS: dict[str, tuple[Make, dict[str, Any], str]] = {
    "vqa-rad": (lambda folder, rows: VqaRadSource([vqa_rad(folder, rows)]), RAD, "images/synpic1.jpg"),
    "slake": (lambda folder, rows: SlakeSource([slake(folder, train=rows)]), SLAKE, "imgs/xmlab1/source.jpg"),
    "path-vqa": (
        lambda folder, rows: PathVqaSource([path_vqa(folder, train=rows)]),
        PATH,
        "images/train/train_0001.jpg",
    ),
    "pmc-vqa": (
        lambda folder, rows: PmcVqaSource([pmc_vqa(folder, "folder", train=rows)]),
        PMC,
        "images/PMC1064097_F1.jpg",
    ),
}
"""Name -> what writes a folder of rows, a good row, and where its picture lies."""

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(),
    st.text(max_size=8),
    st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2),
    st.sampled_from(["../x.jpg", "\0", "a\nb", "C:\\x", "=1+1", "A:", " B:", "CLOSED ", "x" * 3000]),
    st.lists(st.text(max_size=3), max_size=2),
    st.dictionaries(st.sampled_from(["bytes", "path"]), st.text(max_size=3), max_size=2),
)


@pytest.mark.parametrize("name", ["vqa-rad", "slake", "path-vqa"])
@given(st.data())
def test_every_record_is_a_sample_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    make, good, _ = SETS[name]
    change = st.dictionaries(st.sampled_from(sorted(good)), VALUES, max_size=3)
    rows: list[Any] = [{**good, **more} for more in data.draw(st.lists(change, max_size=3))]
    rows += data.draw(st.lists(VALUES, max_size=1))
    found = read(make(tmp_path_factory.mktemp("hostile"), rows))
    assert len(found) == len(rows)
    for item in found:
        if isinstance(item, Sample):
            assert chunks.fault(item) is None
            assert item.id == "/".join("_".join(part.split()) for part in item.id.split("/"))
        else:
            assert item.reason
            assert item.where
    ids = [item.id for item in found if isinstance(item, Sample)]
    assert len(ids) == len(set(ids))


@given(
    st.lists(
        st.dictionaries(st.sampled_from(sorted(PMC)), VALUES.filter(lambda value: not _halved(value)), max_size=4),
        max_size=4,
    )
)
def test_every_row_of_a_table_is_a_sample_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, changes: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("table")
    pmc_vqa(folder, "folder", train=[PMC])
    pmc_vqa(folder, "none", train=[{**PMC, **change} for change in changes] or [PMC])
    found = read(PmcVqaSource([folder]))
    assert len(found) == max(1, len(changes))
    for item in found:
        assert not isinstance(item, Sample) or (chunks.fault(item) is None and item.target in (item.choices or []))


def _halved(value: Any) -> bool:
    """Whether a value holds half a character, which no CSV file can."""
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return True
    return False


@pytest.mark.parametrize("name", SETS)
def test_repeated_rows_have_ids_of_their_own(tmp_path: Path, name: str) -> None:
    make, good, _ = SETS[name]
    found = [item for item in read(make(tmp_path / "x", [good] * 1101)) if isinstance(item, Sample)]
    assert len({item.id for item in found}) == 1101
    assert len({item.group for item in found}) == 1


@pytest.mark.parametrize("name", SETS)
def test_links_out_of_the_folder(tmp_path: Path, name: str) -> None:
    make, good, place = SETS[name]
    source = make(tmp_path / "x", [good])
    (tmp_path / "secret.jpg").write_bytes(picture(1))
    (tmp_path / "x" / place).unlink()
    (tmp_path / "x" / place).symlink_to(tmp_path / "secret.jpg")
    (bad,) = read(source)
    assert isinstance(bad, Reject)
    assert bad.reason == "link out of the folder"


@pytest.mark.parametrize("name", SETS)
def test_absent_and_broken_images(tmp_path: Path, name: str) -> None:
    make, good, place = SETS[name]
    source = make(tmp_path / "x", [good])
    image = tmp_path / "x" / place
    whole = image.read_bytes()
    for data, reason in ((whole[:-200], "image truncated"), (b"", "image cannot be read")):
        image.write_bytes(data)
        (bad,) = read(pickle.loads(pickle.dumps(source)))
        assert isinstance(bad, Reject)
        assert bad.reason == reason
    image.unlink()
    (bad,) = read(pickle.loads(pickle.dumps(source)))
    assert isinstance(bad, Reject)
    assert bad.reason == "no image file"


@pytest.mark.parametrize("name", SETS)
def test_gigantic_fields_cost_their_own_record(tmp_path: Path, name: str) -> None:
    make, good, _ = SETS[name]
    field = next(key for key in good if key.lower() == "question")
    bad, sample = read(make(tmp_path / "x", [{**good, field: "x" * (5 << 20)}, good]))
    assert isinstance(bad, Reject)
    assert (bad.reason, bad.detail) == ("malformed question", f"{field} is longer than 1,048,576 letters")
    assert isinstance(sample, Sample)


@pytest.mark.parametrize("name", ["vqa-rad", "slake", "pmc-vqa"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le"])
def test_wrong_encodings_are_named(tmp_path: Path, name: str, encoding: str) -> None:
    make, good, _ = SETS[name]
    source = make(tmp_path / "x", [good])
    (table,) = [*(tmp_path / "x").glob("*.json"), *(tmp_path / "x").glob("*.csv")]
    table.write_bytes(table.read_text("utf-8-sig").replace("How", "Hów").replace("What", "Whát").encode(encoding))
    with pytest.raises(InputError, match=table.name) as caught:
        source.units()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "archive", "member"),
    [
        (lambda folder: SlakeSource([slake(folder, "none", train=[SLAKE])]), "imgs.zip", "imgs/xmlab1/source.jpg"),
        (
            lambda folder: PmcVqaSource([pmc_vqa(folder, "none", train=[PMC])]),
            "images.zip",
            "images/PMC1064097_F1.jpg",
        ),
    ],
)
def test_zip_bombs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], QuestionSource],
    archive: str,
    member: str,
) -> None:
    monkeypatch.setattr(pictures, "FILE_BYTES", 1 << 16)
    source = make(tmp_path)
    with zipfile.ZipFile(tmp_path / archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(member, bytes(8 << 20))
    (bad,) = read(source)
    assert isinstance(bad, Reject)
    assert bad.reason == "image too large"


def test_a_table_that_becomes_unreadable_is_counted(tmp_path: Path) -> None:
    """Between the cutting and the reading: the unit is lost with its reason, and the run goes on."""
    source = SlakeSource([slake(tmp_path, train=[SLAKE], test=[SLAKE])])
    units = source.units()
    (tmp_path / "train.json").write_text(json.dumps([SLAKE])[:-5])
    found = [item for unit in units for item in source.read(unit)]
    assert [type(item) for item in found] == [Sample, Reject]
    assert isinstance(found[1], Reject)
    assert found[1].reason == "file of records cannot be read"
