"""Maps under the cases of a report: only where asked for, for as many cases, in every form of the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medvlm.inspect import opened
from medvlm.inspect.maps import Maps
from medvlm.report import gallery
from medvlm.report.write import write
from medvlm.runs import Run


@pytest.fixture
def evaluated(tmp_path: Path, adapted: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with data and predictions, whose model is the tiny one."""
    from fabricated_run import make_run

    def loaded(run: Run, recipe: Any) -> Any:
        return adapted

    monkeypatch.setattr(opened, "open_model", loaded)
    monkeypatch.setattr(Run, "recipe", lambda run: adapted.recipe)
    return make_run(tmp_path / "run", schema=2)


def cases_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the cases of a report's JSON, wherever they stand."""
    if isinstance(value, dict) and "maps_said" in value:
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from cases_in(one)


def test_maps_stand_under_as_many_cases_as_were_asked_for(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medvlm.inspect import maps

    asked: list[maps.Asked] = []
    real = maps.of_picture

    def remembered(predictor: Any, image: Any, one: maps.Asked, *rest: Any) -> Maps:
        asked.append(one)
        return real(predictor, image, one, *rest)

    monkeypatch.setattr(maps, "of_picture", remembered)
    done: list[tuple[int, int]] = []
    page, markdown, told = write(
        [evaluated], tmp_path / "out", looked=2, advance=lambda one, total: done.append((one, total))
    )
    html = page.read_text(encoding="utf-8")
    assert html.count('<img class="maps" src="data:image/png;base64,') == 2
    assert gallery.MAPS in html.replace("&#39;", "'")
    assert done == [(1, 2), (2, 2)]
    cases = list(cases_in(json.loads(told.read_text(encoding="utf-8"))))
    assert len(cases) > 2
    with_maps = [case for case in cases if case["maps_said"]]
    # The predictions themselves are looked into, kinds in turn.
    assert [one.answer for one in asked] == [case["prediction"] for case in with_maps]
    assert len({case["kind"] for case in with_maps}) == 2
    assert all("maps" not in case for case in cases)
    assert markdown.read_text(encoding="utf-8").count("where it looks: Probability of the answer") == 2


def test_nothing_is_loaded_where_nothing_is_asked_for(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(run: Run, recipe: Any) -> Any:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(opened, "open_model", never)
    page = write([evaluated], tmp_path / "out")[0]
    assert 'class="maps"' not in page.read_text(encoding="utf-8")


def test_halves_of_letters_in_a_prediction_are_no_defect(evaluated: Path, tmp_path: Path) -> None:
    path = next(evaluated.glob("eval/test/predictions.jsonl"))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    said = [row | {"prediction": f"{row['prediction']} \ud800"} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in said), encoding="utf-8")
    page = write([evaluated], tmp_path / "out", looked=1)[0]
    assert page.read_text(encoding="utf-8").count('<img class="maps"') == 1


@pytest.mark.parametrize("what", ["shots", "more_images"])
def test_a_prediction_with_more_before_it_has_a_sentence_and_no_maps(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    from medvlm.inspect import maps

    def never(*given: Any) -> Maps:
        raise AssertionError("maps of another prompt were made")

    monkeypatch.setattr(maps, "of_picture", never)
    if what == "shots":
        path = next(evaluated.glob("eval/test/predictions.jsonl"))
        rows = [json.loads(line) | {"shots": ["a", "b"]} for line in path.read_text(encoding="utf-8").splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path = next(evaluated.glob("eval/test/scores.json"))
        scores = json.loads(path.read_text(encoding="utf-8"))
        scores["decoding"] = {**scores.get("decoding", {}), "max_images": 2}
        path.write_text(json.dumps(scores), encoding="utf-8")
        shard = next(tmp_path.rglob("test-*.parquet"))
        table = pq.read_table(shard)
        more = pa.array([[picture] for picture in table["image"].to_pylist()])
        pq.write_table(table.append_column("more_images", more), shard)
    page, _, told = write([evaluated], tmp_path / "out", looked=2)
    assert 'class="maps"' not in page.read_text(encoding="utf-8")
    said = [case["maps_said"] for case in cases_in(json.loads(told.read_text(encoding="utf-8"))) if case["maps_said"]]
    assert said == [[gallery.ONE_ALONE]] * 2
