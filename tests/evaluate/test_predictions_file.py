import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.errors import InputError
from medvlm.evaluate.predictions_file import PredictionRow, groups, read, texts, write

GOOD = {"id": "a", "prediction": "x", "references": ["y"]}


def saved(tmp_path, *lines):
    path = tmp_path / "predictions.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_rows_with_every_kind_of_field(tmp_path):
    line = {
        "id": 7,
        "prediction": "",
        "references": "one",
        "group": "p1",
        "task": "report",
        "finding": None,
        "score": 2,
    }
    path = saved(tmp_path, GOOD, "", line)
    assert read(path) == [
        PredictionRow("a", "x", ["y"]),
        PredictionRow("7", "", ["one"], group="p1", task="report", extra={"score": 2}),
    ]


def test_columns_for_scoring_and_clusters(tmp_path):
    rows = read(saved(tmp_path, GOOD, GOOD | {"id": "b", "references": ["y", "z"], "group": "p"}))
    assert texts(rows) == (["x", "x"], [["y"], ["y", "z"]])
    assert groups(rows) == ["a", "p"]


def test_a_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n")
    assert [row.id for row in read(path)] == ["a"]


def test_a_line_separator_inside_a_text_does_not_end_the_line(tmp_path):
    text = "one\u2028two\x85three"
    path = saved(tmp_path, json.dumps(GOOD | {"prediction": text}, ensure_ascii=False))
    assert read(path)[0].prediction == text


@given(
    st.lists(
        st.builds(
            PredictionRow,
            st.text(),
            st.text(),
            st.lists(st.text(), min_size=1),
            group=st.none() | st.text(),
            extra=st.dictionaries(st.sampled_from(["k", "l"]), st.integers() | st.text()),
        ),
        min_size=1,
        unique_by=lambda row: row.id,
    )
)
def test_what_is_written_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("written") / "predictions.jsonl"
    write(path, rows)
    assert read(path) == rows


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"not JSON \(.*column 2"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "expected a JSON object, found a list"),
        ({"prediction": "x", "references": ["y"]}, 'no "id"'),
        ({"id": "b", "references": ["y"]}, 'no "prediction"'),
        ({"id": "b", "prediction": "x"}, 'no "references"'),
        (GOOD | {"id": None}, '"id" must be text, found null'),
        (GOOD | {"id": True}, '"id" must be text, found true or false'),
        (GOOD | {"id": "b", "prediction": None}, '"prediction" must be text .* found null'),
        (GOOD | {"id": "b", "prediction": ["x"]}, "found a list"),
        (GOOD | {"id": "b", "references": []}, '"references" is empty'),
        (GOOD | {"id": "b", "references": {"a": 1}}, "must be a list of texts, found an object"),
        (GOOD | {"id": "b", "references": ["y", [3]]}, "must hold texts only, found a list"),
        (GOOD | {"id": "b", "prediction": float("nan")}, '"prediction" must be text .* found NaN'),
        (GOOD | {"id": "b", "group": [1]}, '"group" must be text'),
        (GOOD, 'id "a" was used in line 1 already'),
    ],
)
def test_a_bad_line_is_named_in_one_line(tmp_path, line, message):
    path = saved(tmp_path, GOOD, line)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert "\n" not in str(caught.value)


def test_further_bad_lines_are_counted(tmp_path):
    with pytest.raises(InputError, match=r":1: not JSON .* \(and 2 more lines are wrong\)"):
        read(saved(tmp_path, "x", GOOD, GOOD, "y"))
    with pytest.raises(InputError, match=r"\(and 1 more line is wrong\)"):
        read(saved(tmp_path, "x", "y"))


def test_a_number_too_long_to_convert_is_a_bad_line(tmp_path):
    with pytest.raises(InputError, match=":1: "):
        read(saved(tmp_path, '{"id": ' + "1" * 5000 + ', "prediction": "", "references": ["y"]}'))


def test_lone_surrogates_become_the_replacement_character(tmp_path):
    row = read(saved(tmp_path, '{"id": "\\ud800", "prediction": "a\\ud800", "references": ["\\ud83d\\ude42"]}'))[0]
    assert (row.id, row.prediction, row.references) == ("\ufffd", "a\ufffd", ["🙂"])
    write(tmp_path / "again.jsonl", [row])


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file(tmp_path, content):
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no predictions"):
        read(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"absent.jsonl: cannot be read \(No such file"):
        read(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "latin").write_bytes(b'{"id": "\xe9"}')
    with pytest.raises(InputError, match="not UTF-8 at byte 8"):
        read(tmp_path / "latin")
