"""How `medvlm eval` words numbers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.cli import eval_table


@pytest.mark.parametrize(
    ("value", "interval", "said"),
    [
        (0.412, [0.38, 0.44], "0.412 [.38, .44]"),
        (4.132, [3.98, 4.291], "4.132 [3.98, 4.29]"),
        (0.7201, [0.714, 0.728], "0.720 [.714, .728]"),
        (0.0, [0.0, 1e-12], "0.000 [.000, .000]"),
        (1.0, [1.0, 1.0], "1.000 [1.000, 1.000]"),
        (0.182, [0.1819, 0.1821], "0.182 [.182, .182]"),
        (0.1849, [0.16, 0.1849], "0.185 [.160, .185]"),
        (0.41235, None, "0.4123"),
        (None, None, "-"),
    ],
)
def test_a_score_and_its_interval(value: float | None, interval: list[float] | None, said: str) -> None:
    assert eval_table.cell(value, interval) == said


@given(st.floats(0, 10), st.floats(0, 0.1), st.floats(0, 0.1))
def test_a_score_is_never_printed_beside_its_interval(value: float, below: float, above: float) -> None:
    score, low, high = eval_table.cell(value, [value - below, value + above]).replace("[", "").replace("]", "").split()
    assert float(low.rstrip(",")) <= float(score) <= float(high)


def test_nothing_compared_is_not_called_clean() -> None:
    found = {"leakage": {"n": 6, "leaked": 0, "train_rows": 0}}
    assert list(eval_table._leakage(found)) == []
    found["leakage"]["train_rows"] = 9
    assert list(eval_table._leakage(found)) == ["none of 6 samples was found in the training data"]


@given(st.integers(1, 5001))
def test_p_is_never_printed_as_nothing(count: int) -> None:
    p = count / 5001
    assert float(eval_table.p_value(p)) > 0
    assert float(eval_table.p_value(p)) == pytest.approx(p, abs=0.0005, rel=0.5)


def test_p_as_papers_print_it() -> None:
    assert [eval_table.p_value(p) for p in (0.0034, 0.25, 1.0, 1 / 5001)] == [".003", ".250", "1.000", ".0002"]


@pytest.mark.parametrize(
    ("difference", "p", "said"),
    [
        (0.2, 0.003, "A is better than B in CIDEr: +.200 [+.100, +.300], p = .003"),
        (-0.2, 0.003, "A is worse than B in CIDEr: -.200 [-.300, -.100], p = .003"),
        (0.2, 0.06, "A and B do not clearly differ in CIDEr: +.200 [+.100, +.300], p = .060"),
    ],
)
def test_a_difference_in_words(difference: float, p: float, said: str) -> None:
    cell = {"difference": difference, "low": difference - 0.1, "high": difference + 0.1, "p": p / 2, "p_holm": p}
    assert eval_table.in_words("A", "B", "cider", cell) == said


def test_questions_alone_have_their_own_columns() -> None:
    values = dict.fromkeys(("bleu_4", "rouge_l", "cider", "accuracy", "closed_accuracy", "open_accuracy"), 0.5)
    assert eval_table.columns(values, ["vqa"]) == ["accuracy", "closed_accuracy", "open_accuracy"]
    assert eval_table.columns(values, ["caption", "vqa"]) == ["cider", "accuracy", "bleu_4", "rouge_l"]
    chosen = values | {"choice_accuracy": 0.5}
    assert eval_table.columns(chosen, ["vqa"])[-1] == "choice_accuracy"
    assert "choice_accuracy" in eval_table.columns(chosen, ["caption", "vqa"])
    assert eval_table.columns({"bertscore_f1": 0.9}, []) == ["bertscore_f1"]


@pytest.mark.parametrize(("columns", "screen"), [(60, True), (200, True), (60, False)])
def test_a_table_fits_the_screen_and_keeps_names_and_numbers(
    columns: int, screen: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: screen)
    keys = ["cider", "accuracy", "bleu_4", "rouge_l"]
    names = [f"20260101-120000-a-very-long-name-of-a-run-of-variant-{end}" for end in "ab"]
    rows = {name: dict.fromkeys(keys, 0.4 + place / 10) for place, name in enumerate(names)}
    eval_table._print("title", rows, [{key: [0.38, 0.54] for key in keys}] * 2, keys)
    _, *lines = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= (columns if screen else eval_table.WIDTH)
    rows_of_cells = [re.split("[│┃]", line)[1:-1] for line in lines if line[0] in "│┃"]
    said = ["".join(cell.strip() for cell in column) for column in zip(*rows_of_cells, strict=True)]
    assert all(any(name in column for column in said) for name in names)
    assert "…" not in "".join(lines)
    for value in ("0.400 [.38, .54]", "0.500 [.38, .54]"):
        assert "".join(said).replace(" ", "").count(value.replace(" ", "")) == 4
