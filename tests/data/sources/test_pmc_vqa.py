"""PMC-VQA: both versions, the quirks of their tables, and licenses by article."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import pytest
from layouts_vqa import PMC, loaded, pmc_vqa, read, samples

from medvlm.data.prepare import Settings, prepare
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources.pmc_vqa import PmcVqaSource
from medvlm.errors import InputError
from medvlm.licenses.expressions import symbols

SECOND = {
    "index": "0",
    "Figure_path": "PMC8253797_Fig4_41.jpg",
    "Caption": "A. Slice of a patient.",
    "Question": " What does the image show?",
    "Choice A": " A:A CT image ",
    "Choice B": " B: A. baumannii ",
    "Choice C": "C:C cells",
    "Choice D": " D:An X-ray ",
    "Answer": " B ",
    "split": "train",
}
"""A row of version 2: the answer is the letter alone."""

LIST = """File,Article Citation,Accession ID,Last Updated (YYYY-MM-DD HH:MM:SS),PMID,License
oa_package/08/e0/PMC1064097.tar.gz,Breast Cancer Res. 2004; 7(1):R33,PMC1064097,2013-03-17 20:32:48,15642166,CC BY
oa_package/b0/ac/PMC8253797.tar.gz,Sci Rep. 2021; 11:1,PMC8253797,2021-07-06 02:00:00,1,CC BY-NC
oa_package/b0/ac/PMC1000000.tar.gz,Some J. 2021; 11:1,PMC1000000,2021-07-06 02:00:00,2,NO-CC CODE
"""


def source(folder: Path, *rows: dict[str, Any], table: str = "train", **options: Any) -> PmcVqaSource:
    return PmcVqaSource([pmc_vqa(folder, **{table: rows})], **options)


@pytest.mark.parametrize("images", ["zip", "folder"])
def test_version_1(tmp_path: Path, images: str) -> None:
    folder = pmc_vqa(tmp_path / "p", images, train=[PMC], test=[{**PMC, "Question": "And?"}])
    test, train = samples(PmcVqaSource([folder]))
    assert (train.prompt, train.target) == ("What is the uptake pattern in the breast?", "Focal uptake pattern")
    assert train.choices == [
        "Diffuse uptake pattern",
        "Focal uptake pattern",
        "No uptake pattern",
        "Cannot determine from the information given",
    ]
    assert (train.answer_type, train.language) == ("choice", "en")
    assert (train.group, train.pmcid, train.file_name) == ("PMC1064097", "PMC1064097", "PMC1064097_F1.jpg")
    assert (train.official_split, test.official_split) == ("train", "test")


@pytest.mark.parametrize("images", ["zip", "folder"])
def test_version_2(tmp_path: Path, images: str) -> None:
    (sample,) = samples(PmcVqaSource([pmc_vqa(tmp_path / "p", images, train_2=[SECOND])]))
    assert sample.target == "A. baumannii"
    assert sample.choices == ["A CT image", "A. baumannii", "C cells", "An X-ray"]
    assert (sample.group, sample.official_split) == ("PMC8253797", "train")


def test_both_versions_and_splits_have_ids_of_their_own(tmp_path: Path) -> None:
    folder = pmc_vqa(tmp_path / "p", train=[PMC], train_2=[SECOND], test_2=[SECOND], test=[PMC])
    found = [sample for version in "12" for sample in samples(PmcVqaSource([folder], version=version))]
    assert len({s.id for s in found}) == 4
    assert [s.official_split for s in found] == ["test", "train", "test", "train"]


def test_one_version_is_read_and_which_must_be_told_where_both_lie(tmp_path: Path) -> None:
    both = pmc_vqa(tmp_path / "both", train=[PMC], train_2=[SECOND])
    with pytest.raises(InputError, match="holds both versions"):
        PmcVqaSource([both]).describe()
    with pytest.raises(InputError, match="no version 2; --version 1 is there"):
        PmcVqaSource([pmc_vqa(tmp_path / "one", train=[PMC])], version="2").units()


def test_a_question_of_the_clean_test_is_taken_once(tmp_path: Path) -> None:
    other = {**PMC, "Question": "Another?"}
    found = read(PmcVqaSource([pmc_vqa(tmp_path / "p", test=[other, PMC], test_clean=[PMC])]))
    assert [item.id for item in found if isinstance(item, Sample)] == [
        "PMC1064097/test-0/-/vqa/0",
        "PMC1064097/test_clean-0/-/vqa/0",
    ]
    (bad,) = [item for item in found if isinstance(item, Reject)]
    assert (bad.where, bad.reason) == ("test.csv row 1", "question of test_clean.csv")


def test_only_the_same_question_of_the_clean_test_is_left_out(tmp_path: Path) -> None:
    """What differs in its answer or choices stays, and what the clean table asks in vain."""
    differs = {**PMC, "Answer": "Diffuse uptake pattern", "Answer_label": "A"}
    others = {**PMC, "Choice D": "D:Other"}
    wrong = {**PMC, "Question": "And?", "Answer": "Something else"}
    good = {**PMC, "Question": "And?"}
    folder = pmc_vqa(tmp_path / "p", test=[differs, others, good, PMC], test_clean=[PMC, wrong])
    found = read(PmcVqaSource([folder]))
    assert [(item.where, item.reason) for item in found if isinstance(item, Reject)] == [
        ("test.csv row 3", "question of test_clean.csv"),
        ("test_clean.csv row 1", "answer and label differ"),
    ]
    assert len([item for item in found if isinstance(item, Sample)]) == 4


@pytest.mark.parametrize(
    ("choices", "answer", "label", "target"),
    [
        (("N:P ratio", "x", "C:N ratio", "D:y"), "C:N ratio", "C", "C:N ratio"),
        (("N:P ratio", "x", "C:N ratio", "D:y"), "C:N ratio", "", "C:N ratio"),
        (("N:P ratio", "x", "C:N ratio", "y"), "C:N ratio", "nan", "C:N ratio"),
        ((" A:N:P ratio", " B:x", " C:C:N ratio", " D:y"), "C:N ratio", "C", "C:N ratio"),
        ((" A:N:P ratio", " B:x", " C:C:N ratio", " D:y"), "C:C:N ratio", "", "C:N ratio"),
        (("A:one", "B:two", "", ""), "two", "", "two"),
        (("A:one", "B:two", "three", ""), "two", "B", "B:two"),
    ],
)
def test_choices_that_begin_like_a_letter(
    tmp_path: Path, choices: tuple[str, ...], answer: str, label: str, target: str
) -> None:
    named = {f"Choice {letter}": choice for letter, choice in zip("ABCD", choices, strict=True)}
    (sample,) = samples(source(tmp_path / "p", {**PMC, **named, "Answer": answer, "Answer_label": label}))
    assert sample.target == target
    assert sample.target in (sample.choices or [])


@pytest.mark.parametrize(
    "change",
    [
        {"Answer": "B:Focal uptake pattern"},
        {"Answer": " focal uptake pattern."},
        {"Answer": "", "Answer_label": " b"},
        {"Answer_label": ""},
        {"Answer": "B", "Answer_label": ""},
        {"Answer": "B", "Answer_label": "B"},
        {"Answer": " B:Focal uptake pattern", "Answer_label": "nan"},
    ],
)
def test_how_the_right_choice_is_told(tmp_path: Path, change: dict[str, str]) -> None:
    (sample,) = samples(source(tmp_path / "p", {**PMC, **change}))
    assert sample.target == "Focal uptake pattern"
    assert sample.target in (sample.choices or [])


def test_the_misspelt_column(tmp_path: Path) -> None:
    row = {("Anwser" if name == "Answer" else name): value for name, value in PMC.items()}
    (sample,) = samples(source(tmp_path / "p", row))
    assert sample.target == "Focal uptake pattern"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Answer": "Diffuse uptake pattern"}, "answer and label differ"),
        ({"Answer": "A:Diffuse uptake pattern"}, "answer and label differ"),
        ({"Answer": "Something else", "Answer_label": ""}, "no right choice"),
        ({"Answer": "", "Answer_label": ""}, "no right choice"),
        ({"Answer": "", "Choice B": ""}, "no right choice"),
        ({"Answer_label": "E", "Answer": ""}, "no right choice"),
        ({"Question": "  "}, "malformed question"),
        ({"Figure_path": ""}, "malformed question"),
        ({"Figure_path": "absent_F1.jpg"}, "no image file"),
        ({"Figure_path": "../PMC1064097_F1.jpg"}, "unsafe image name"),
        ({"Figure_path": "/etc/passwd"}, "unsafe image name"),
    ],
)
def test_bad_rows_are_counted(tmp_path: Path, change: dict[str, str], reason: str) -> None:
    bad, good = read(source(tmp_path / "p", {**PMC, **change}, PMC))
    assert isinstance(bad, Reject)
    assert (bad.where, bad.reason) == ("train.csv row 0", reason)
    assert isinstance(good, Sample)


def test_a_choice_may_be_absent(tmp_path: Path) -> None:
    (sample,) = samples(source(tmp_path / "p", {**PMC, "Choice D": ""}))
    assert len(sample.choices or []) == 3


def test_missing_columns_and_stray_fields(tmp_path: Path) -> None:
    rows = [{"Figure_path": "PMC1_F1.jpg", "Answer": "x"}]
    with pytest.raises(InputError, match=r"train\.csv: has no column Question; it has Figure_path, Answer"):
        source(tmp_path / "p", *rows).units()
    table = tmp_path / "q" / "train.csv"
    pmc_vqa(tmp_path / "q", train=[PMC])
    table.write_text(table.read_text() + "PMC1064097_F1.jpg,one,two,three,four,five,six,seven,eight,nine\n")
    found = read(PmcVqaSource([tmp_path / "q"]))
    assert isinstance(found[0], Sample)
    assert isinstance(found[1], Reject)
    assert found[1].reason == "malformed record"


def test_formulas_stay_texts(tmp_path: Path) -> None:
    formula = '=HYPERLINK("http://x","a")'
    row = {**PMC, "Question": formula, "Answer": "@SUM(1)", "Choice B": "@SUM(1)"}
    folder = pmc_vqa(tmp_path / "p", train=[row])
    (folder / "oa_file_list.csv").write_text(LIST)
    prepare(PmcVqaSource([folder]), tmp_path / "out", Settings(), workers=1)
    (found,) = loaded(tmp_path / "out", tmp_path / "cache")
    assert (found["prompt"], found["target"]) == (formula, "@SUM(1)")
    with open(tmp_path / "out" / "attribution.tsv", newline="", encoding="utf-8") as file:
        cells = [cell for line in csv.reader(file, delimiter="\t") for cell in line]
    assert "PMC1064097" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_without_a_list_the_license_is_unknown(tmp_path: Path) -> None:
    only = source(tmp_path / "p", PMC)
    (sample,) = samples(only)
    assert (sample.license, sample.license_scope, sample.commercial_use) == (None, None, "unknown")
    with pytest.raises(InputError, match=r"license unknown \(1\)"):
        prepare(only, tmp_path / "out", Settings(), workers=1)


@pytest.mark.parametrize("name", ["oa_file_list.csv", "oa_comm_use_file_list.csv", None])
def test_licenses_by_article(tmp_path: Path, name: str | None) -> None:
    rows = [{**PMC, "Figure_path": f"{of}_F1.jpg"} for of in ("PMC1064097", "PMC8253797", "PMC1000000", "PMC2")]
    folder = pmc_vqa(tmp_path / "p", train=rows)
    path = (folder if name else tmp_path) / (name or "my list.csv")
    path.write_text(LIST)
    made = PmcVqaSource([folder], licenses=None if name else path)
    by, nc, none, absent = samples(pickle.loads(pickle.dumps(made)))
    assert by.commercial_use == "yes"
    assert nc.commercial_use == "no"
    assert none.commercial_use == absent.commercial_use == "unknown"
    assert none.license is absent.license is None
    assert [symbol.split("-unversioned")[0] for symbol in symbols(by.license)] == [
        "LicenseRef-CC-BY",
        "LicenseRef-CC-BY-SA",
    ]
    assert (by.license_scope, nc.license_scope) == ("article", "article")
    assert "PMC file list: CC BY" in (by.license_evidence or "")
    assert str(path) in [entry["path"] for entry in made.describe()]


def test_retracted_articles_are_left_out(tmp_path: Path) -> None:
    folder = pmc_vqa(tmp_path / "p", train=[PMC])
    header, row, *_ = LIST.splitlines()
    (folder / "oa_file_list.csv").write_text(f"{header},Retracted\n{row},yes\n")
    (bad,) = read(PmcVqaSource([folder]))
    assert isinstance(bad, Reject)
    assert bad.reason == "retracted article"


def test_an_absent_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        PmcVqaSource([tmp_path], licenses=tmp_path / "none.csv")


def test_figures_without_an_article(tmp_path: Path) -> None:
    (sample,) = samples(source(tmp_path / "p", {**PMC, "Figure_path": "figure 1.jpg"}))
    assert (sample.group, sample.pmcid) == ("figure_1", None)


def test_end_to_end(tmp_path: Path) -> None:
    other = {**PMC, "Figure_path": "PMC8253797_F1.jpg"}
    folder = pmc_vqa(tmp_path / "p", train=[PMC, other], test=[{**PMC, "Question": "And now?"}])
    (folder / "oa_comm_use_file_list.csv").write_text(LIST)
    done = prepare(PmcVqaSource([folder]), tmp_path / "out", Settings(), workers=1)
    assert done.manifest["drops"] == {"license forbids commercial use": 1}
    one, two = loaded(tmp_path / "out", tmp_path / "cache")
    assert one["choices"][1] == one["target"] == two["target"] == "Focal uptake pattern"
    leak = done.manifest["leakage"]["official"]["train/test"]
    assert (leak["images"], leak["groups"]) == (1, 1)
