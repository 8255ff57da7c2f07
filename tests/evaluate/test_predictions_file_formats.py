"""Predictions in the forms that other programs write."""

import csv
import io
import json
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.errors import InputError
from medvlm.evaluate.metrics import score
from medvlm.evaluate.predictions_file import PredictionRow, columns, read

VLMEVALKIT = (
    "index\timage\tquestion\tanswer\tA\tB\tC\tcategory\tsplit\tprediction\n"
    "0\tiVBORw0KGgo=\tWhich plane?\tB\taxial\tcoronal\tsagittal\tplane\ttest\tB. coronal\n"
    '1\t\t"Which\nmodality?"\tA\tCT\tMRI\t\tmodality\ttest\tThe answer is B\n'
)


@pytest.fixture
def saved(tmp_path):
    def save(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return save


def wrong(path, references=None):
    with pytest.raises(InputError) as caught:
        read(path, references)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_json_list(saved):
    rows = [{"id": 1, "prediction": 4, "references": [4.0, "four"]}, {"id": "b", "prediction": "x", "reference": True}]
    path = saved("all.json", "\n" + json.dumps(rows, indent=1))
    assert read(path) == [PredictionRow("1", "4", ["4", "four"]), PredictionRow("b", "x", ["true"])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n{"id": 1, "prediction": "", "references": "x"},\n\n{"id": 2}]', ':4: no "prediction"'),
        ('[{"id": 1, "prediction": "", "references": "x"},\n {"id": ]', ":2: not JSON (Expecting value, column 9)"),
        ('[{"id": 1, "prediction": "", "references": "x"}\n\n {"id": 2}]', ":3: not JSON (expected , or ]"),
        ('[{"id": 1, "prediction": "", "references": "x"}]\n7', ":2: not JSON (text after the end"),
        ("[" * 100_000, ":1: not JSON that can be read"),
        ("[\n[1]]", ":2: expected a JSON object, found a list"),
        ("[]", "no predictions"),
    ],
)
def test_a_damaged_json_list(saved, text, message):
    assert message in wrong(saved("all.json", text))


def test_a_table_with_what_spreadsheets_do_to_it(saved):
    head = "\ufeffID,Prediction,reference_1,reference_2,modality,,age\r\n"
    text = head + '7.0,"a ""b"",\r\nc",x,,CT,z,61\r\n\r\n8,,4.0,NaN,nan,,\r\n'
    assert read(saved("any.txt", text)) == [
        PredictionRow("7", 'a "b",\r\nc', ["x"], extra={"modality": "CT", "age": "61"}),
        PredictionRow("8", "", ["4"]),
    ]
    assert read(saved("any.csv", text[1:].encode("utf-16"))) == read(saved("any.csv", text))


def test_tables_by_semicolon_and_references_as_a_list(saved):
    path = saved("x.csv", 'id;references;prediction\na;"[""x"", ""y""]";p\nb;[not json;q\n')
    assert [row.references for row in read(path)] == [["x", "y"], ["[not json"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,prediction,reference\na,b\n", ":2: 2 cells, but the first line names 3 columns"),
        ('id,prediction,reference\na,"b\nc",d\ne,f\n', ":4: 2 cells"),
        ('id,prediction,reference\na,b,"c', ":2: not a row of a table"),
        ("id,prediction,prediction\n", ':1: two columns are called "prediction"'),
        ("id,answer\na,b\n", ':2: no "prediction"'),
        ("id,prediction,reference\na,b,c\na,b,c\n", ':3: id "a" was used in line 2'),
        ("", "no predictions"),
        ("id,prediction,reference\n", "no predictions"),
    ],
)
def test_a_damaged_table(saved, text, message):
    assert message in wrong(saved("x.csv", text))


def test_a_cell_of_a_megabyte_leaves_the_limit_of_others_alone(saved):
    before = csv.field_size_limit()
    long = "opacity " * 150_000
    assert read(saved("x.csv", f"id,prediction,reference\na,{long},b\n"))[0].prediction == long
    assert csv.field_size_limit() == before


def test_workbooks_are_refused_with_the_way_out(saved):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    assert "save its sheet as" in wrong(saved("x.xlsx", memory.getvalue()))
    assert "save its sheet as" in wrong(saved("x.tsv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"))


def test_vlmevalkit_tables_answer_by_letter(saved):
    rows = read(saved("model_set.tsv", VLMEVALKIT))
    assert [row.references for row in rows] == [["coronal"], ["CT"]]
    found = [columns(row) for row in rows]
    assert found[0]["choices"] == ["axial", "coronal", "sagittal"]
    assert found[1]["choices"] == ["CT", "MRI"]
    assert (found[1]["prompt"], found[1]["question_type"], found[1]["task"]) == ("Which\nmodality?", "modality", "vqa")
    assert "image" not in found[0]
    values = score(["vqa"], [row.prediction for row in rows], [row.references for row in rows], found).values
    assert values == {"accuracy": 0.5, "choice_accuracy": 0.5}


@pytest.mark.parametrize("said", ["US", "D", "D. US"])
def test_a_missing_choice_moves_no_letter(saved, said):
    table = f"index\tA\tB\tC\tD\tE\tanswer\tprediction\n1\tCT\tMRI\t\tUS\t\tD\t{said}\n"
    told = {"id": 1, "A": "CT", "B": "MRI", "C": None, "D": "US", "answer": "D", "prediction": said}
    other = {"id": 1, "choices": {"A": "CT", "B": "MRI", "D": "US"}, "answer": "D", "prediction": said}
    for path in (saved("x.tsv", table), saved("y.jsonl", json.dumps(told)), saved("z.jsonl", json.dumps(other))):
        (row,) = read(path)
        assert columns(row)["choices"] == ["CT", "MRI", "", "US"]
        assert score(["vqa"], [row.prediction], [row.references], [columns(row)]).values["choice_accuracy"] == 1
    (row,) = read(saved("x.tsv", table.replace(f"\tD\t{said}\n", f"\tB\t{said}\n")))
    assert row.references == ["MRI"]
    # An open question in the same table has no choices.
    (row,) = read(saved("x.tsv", table.replace("CT\tMRI\t\tUS", "\t\t\t")))
    assert "choices" not in columns(row)


def test_the_reference_without_a_number_is_the_first(saved):
    for head in ("reference,reference_2", "reference 1,reference", "references,reference_2"):
        (row,) = read(saved("x.csv", f"id,prediction,{head}\n1,x,one,two\n"))
        assert sorted(row.references) == ["one", "two"]
    (row,) = read(saved("x.csv", 'id,prediction,references,reference_3\n1,x,"[""one"", ""two""]",three\n'))
    assert row.references == ["one", "two", "three"]


def test_columns_of_rows_without_any():
    assert columns(PredictionRow("a", "x", ["y"])) == {}
    row = PredictionRow("a", "x", ["y"], task="report", extra={"choices": {"A": 1, "B": 2}, "organ": None})
    assert columns(row) == {"choices": ["1", "2"], "task": "report"}


def coco(saved, results, captions):
    annotations = [{"id": n, "image_id": image, "caption": text} for n, (image, text) in enumerate(captions)]
    return saved("results.json", json.dumps(results)), saved(
        "annotations.json", json.dumps({"annotations": annotations})
    )


def test_results_of_coco_captions(saved, capsys):
    results = [{"image_id": 9, "caption": "a cat"}, {"image_id": 3, "caption": ""}]
    path, references = coco(saved, results, [(3, "one"), (9, "two"), (3, "three"), (4, "four")])
    assert read(path, references) == [PredictionRow("9", "a cat", ["two"]), PredictionRow("3", "", ["one", "three"])]
    assert "1 of 3 references have no prediction there" in capsys.readouterr().err


def test_results_without_their_references(saved):
    path, references = coco(saved, [{"image_id": 9, "caption": "x"}, {"image_id": 8, "caption": "x"}], [(3, "one")])
    assert "--references" in wrong(path)
    assert 'no references for id "9"' in wrong(path, references)
    assert "(and 1 more)" in wrong(path, references)
    references.write_text(json.dumps({"annotations": [{"image_id": 9}]}))
    assert 'annotation 1: needs "image_id" and "caption"' in wrong(path, references)


def test_an_answer_beside_a_text_is_the_reference(saved):
    line = {"question_id": 5, "question": "Is there a nodule?", "answer": "no", "text": "yes"}
    (row,) = read(saved("x.jsonl", json.dumps(line)))
    assert (row.prediction, row.references) == ("yes", ["no"])
    truth = saved("truth.json", '[{"question_id": 5, "answer": "maybe"}]')
    (row,) = read(saved("x.jsonl", json.dumps(line)), truth)
    assert (row.prediction, row.references) == ("yes", ["maybe"])
    del line["question"]
    assert 'call the one that the model said "prediction"' in wrong(saved("x.jsonl", json.dumps(line)), truth)
    line = {"question_id": 5, "text": "Is there a nodule? ", "answer": "no"}
    assert 'call the one that the model said "prediction"' in wrong(saved("x.jsonl", json.dumps(line)))
    (row,) = read(saved("x.jsonl", json.dumps(line)), truth)
    assert (row.prediction, row.references, columns(row)["prompt"]) == ("no", ["maybe"], "Is there a nodule? ")


def test_references_in_a_file_of_their_own(saved):
    path = saved("answers.jsonl", '{"question_id": 5, "text": "no"}\n')
    lines = '{"id": 5, "references": ["No"], "answer_type": "CLOSED", "group": "p1", "task": "vqa"}\n'
    row = read(path, saved("truth.jsonl", lines))[0]
    assert row == PredictionRow("5", "no", ["No"], group="p1", task="vqa", extra={"answer_type": "CLOSED"})
    truth = saved("truth.json", json.dumps([{"question_id": 5, "answer": 4}]))
    assert read(path, truth)[0].references == ["4"]
    assert ":2: not JSON" in wrong(path, saved("truth.jsonl", lines + "x"))
    assert "was used before" in wrong(path, saved("truth.jsonl", lines * 2))


cell = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda text: text.strip().lower() not in ("", "nan") and not text.strip().endswith(".0")
)


@given(
    st.lists(st.tuples(cell, cell | st.just(""), cell, cell), min_size=1, unique_by=lambda row: row[0]),
    st.sampled_from(["excel", "excel-tab", "unix"]),
)
def test_a_table_is_read_back(tmp_path_factory, rows, dialect):
    path = tmp_path_factory.mktemp("table") / "x.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, dialect)
        writer.writerow(["id", "prediction", "reference", "organ"])
        writer.writerows(rows)
    assert [(row.id, row.prediction, row.references[0], row.extra["organ"]) for row in read(path)] == rows


@given(
    st.lists(
        st.tuples(st.text(), st.text(), st.lists(st.text(), min_size=1)), min_size=1, unique_by=lambda row: row[0]
    ),
    st.sampled_from([None, 1]),
)
def test_a_json_list_is_read_back(tmp_path_factory, rows, indent):
    path = tmp_path_factory.mktemp("list") / "x.json"
    names = ("id", "prediction", "references")
    path.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=indent), encoding="utf-8")
    assert [(row.id, row.prediction, row.references) for row in read(path)] == rows


@given(st.binary(max_size=200) | st.text(st.sampled_from('[]{}":,;\t\n\r predictonaABid1.0')).map(str.encode))
def test_any_file_is_read_or_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "x.tsv"
    path.write_bytes(content)
    problem = ""
    try:
        assert read(path)
    except InputError as error:
        problem = str(error)
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("said", "choices"),
    [
        ('["CT", "MRI"]', ["CT", "MRI"]),
        ('{"A": "CT", "B": "MRI"}', ["CT", "MRI"]),
        (" ", None),
        (None, None),
        ([], None),
    ],
)
def test_choices_may_be_the_json_of_a_list(tmp_path, said, choices):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"id": 1, "choices": said, "prediction": "B", "references": ["MRI"]}))
    assert columns(read(path)[0]).get("choices") == choices


@pytest.mark.parametrize("said", ["CT|MRI", "CT, MRI", "['CT', 'MRI']", '"CT"', 5, True])
def test_choices_that_are_no_list_are_refused_not_dropped(tmp_path, said):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"id": 1, "choices": said, "prediction": "B", "references": ["MRI"]}))
    with pytest.raises(InputError, match=r'p.jsonl:1: "choices" must be a list of texts'):
        read(path)


def test_the_task_is_the_same_in_capitals():
    assert columns(PredictionRow("a", "x", ["y"], task=" VQA ")) == {"task": "vqa"}


@pytest.mark.parametrize(
    ("header", "cells"),
    [("reference", ""), ("references", "nan"), ("reference_1,reference_2", ","), ("reference", " ")],
)
def test_an_empty_cell_of_a_reference_is_an_empty_reference(tmp_path, header, cells):
    file = tmp_path / "p.csv"
    other = "no" + "," * header.count(",")
    file.write_text(f"id,prediction,{header}\na,yes,{other}\nb,,{cells}\n", encoding="utf-8")
    assert [(row.id, row.prediction, row.references) for row in read(file)] == [("a", "yes", ["no"]), ("b", "", [""])]
