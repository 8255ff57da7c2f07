"""Reading run folders: whole, half-written, damaged, and no run at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fabricated_run import make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm.errors import InputError
from medvlm.recipe.load import check
from medvlm.recipe.resolve import write_resolved
from medvlm.report import as_json, context, results
from medvlm.report.build import build
from medvlm.report.html import render as html
from medvlm.report.markdown import render as markdown

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_a_whole_run(tmp_path: Path) -> None:
    run = context.read(make_run(tmp_path))
    assert run.problems == []
    assert run.name == "20260101-120000-tiny"
    assert run.licenses == {"CC-BY-4.0": 1360, "CC0-1.0": 240}
    assert run.synthetic
    assert [entry.name for entry in run.parts.values() if entry] == ["medvlm tiny-base"]
    assert run.group == {}
    assert run.verdict().commercial_use == "yes"
    assert [evaluation.split for evaluation in run.evaluations] == ["test"]
    assert len(run.evaluations[0].predictions) == 60


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        context.read(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="not the folder of a run"):
        context.read(tmp_path)


def test_the_recorded_verdict_wins(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    facts = json.loads((path / "run.json").read_text())
    facts["license"] = {"commercial_use": "no", "may_share": "no", "license": "none", "reasons": ["as recorded"]}
    (path / "run.json").write_text(json.dumps(facts))
    verdict = context.read(path).verdict()
    assert (verdict.commercial_use, verdict.reasons) == ("no", ["as recorded"])
    assert "name the authors of the CC-BY-4.0 material (attribution file)" in verdict.obligations, "of today's inputs"


def made(root: Path, name: str, licenses: dict[str, int], start: Path | None = None, **facts: Any) -> Path:
    """Return a run with a whole recipe, trained on data under these licenses."""
    run = make_run(root, name, n=2)
    model = {"id": "medvlm/tiny-base"} | ({} if start is None else {"start": str(start)})
    write_resolved(
        check({"name": "tiny", "model": model, "data": [{"path": f"data/{name}"}]}, "test"), run / "recipe.yaml"
    )
    told = json.loads((run / "run.json").read_text())
    part = {"path": f"data/{name}", "fingerprint": name, "rows": 5, "licenses": licenses, "title": f"Set {name}"}
    (run / "run.json").write_text(json.dumps({**told, "data": [part], **facts}))
    return run


def test_a_recorded_verdict_never_widens_what_follows_today(tmp_path: Path) -> None:
    yes = {"commercial_use": "yes", "may_share": "yes", "license": "MIT"}
    for number, stored in enumerate((yes, {**yes, "commercial_use": "YES!"}, {**yes, "license": [1]})):
        run = context.read(made(tmp_path, f"run{number}", {"CC-BY-NC-4.0": 5}, license=stored))
        verdict = run.verdict()
        assert (verdict.commercial_use, verdict.may_share) == ("no", "conditional")
        assert verdict.obligations
    mixed = {"commercial_use": "conditional", "may_share": "no", "license": "none", "forbids": ["as recorded"]}
    verdict = context.read(made(tmp_path, "mixed", {"CC-BY-NC-4.0": 5}, license=mixed)).verdict()
    assert (verdict.commercial_use, verdict.may_share, verdict.license) == ("no", "no", "none")
    assert "as recorded" in verdict.forbids


def test_earlier_stages_count_and_are_shown(tmp_path: Path) -> None:
    first = made(tmp_path, "first", {"CC-BY-NC-4.0": 5})
    free = {"commercial_use": "yes", "may_share": "yes", "license": "Apache-2.0"}
    second = context.read(made(tmp_path, "second", {"CC0-1.0": 5}, first, license=free))
    assert second.verdict().commercial_use == "no"
    page = markdown(build([second]))
    assert "data of an earlier stage: Set first" in page
    assert "Set second, Set first" in markdown(build([second, second])), "the column names all that was trained on"
    assert [part["title"] for part in as_json._run(second)["earlier_data"]] == ["Set first"]
    assert results.license_cells(second, "model")[2] == "CC0-1.0 (5), CC-BY-NC-4.0 (5)"
    assert results.license_cells(second, "constant")[2] == "CC0-1.0 (5)"
    shutil.rmtree(first)
    lost = context.read(second.path).verdict()
    assert (lost.commercial_use, lost.may_share) == ("unknown", "unknown")
    assert "gone" in lost.reasons[0]


def test_a_recipe_that_cannot_be_read_may_name_a_start(tmp_path: Path) -> None:
    run = made(tmp_path, "run", {"CC0-1.0": 5})
    assert context.read(run).verdict().commercial_use == "yes"
    for damaged in ("name: [", "a: 2024-99-99", "[" * 5000):
        (run / "recipe.yaml").write_text(damaged)
        assert context.read(run).verdict().commercial_use == "unknown"
        assert "A recipe is missing or damaged" in markdown(build([context.read(run), context.read(run)]))
    (run / "recipe.yaml").write_text("name: x\nmodel: {id: medvlm/tiny-base, start: runs/other}\n")
    assert "run runs/other that it starts from: gone" in context.read(run).verdict().reasons[0]


@pytest.mark.parametrize("count", [None, -1, "5", 1.5])
def test_a_count_that_is_none_is_no_permission(tmp_path: Path, count: Any) -> None:
    run = context.read(made(tmp_path, "run", {"CC-BY-4.0": 5, "CC-BY-NC-4.0": count}))
    assert (run.licenses, run.verdict().commercial_use) == ({"CC-BY-4.0": 5, "unknown": 1}, "unknown")


def test_the_same_rows_count_once_and_no_data_is_told(tmp_path: Path) -> None:
    path = made(tmp_path, "run", {"CC0-1.0": 5})
    facts = json.loads((path / "run.json").read_text())
    (part,) = facts["data"]
    twice = [{**part, "tasks": ["a", "b"]}, {**part, "tasks": ["b", "a"], "weight": 2.0}]
    (path / "run.json").write_text(json.dumps({**facts, "data": twice}))
    run = context.read(path)
    assert run.licenses == run.all_licenses == {"CC0-1.0": 5}
    (path / "run.json").write_text(json.dumps({**facts, "data": []}))
    silent = context.read(path)
    assert silent.verdict().commercial_use == "unknown"
    assert "| data | not recorded | - |" in markdown(build([silent]))


@pytest.mark.parametrize("name", ["run.json", "recipe.yaml", "metrics.jsonl", "compute.json", "eval/test/scores.json"])
@pytest.mark.parametrize("content", [None, "", '{"half": ', "[1, 2]", "\x00\xff", "null"])
def test_half_written_runs_still_give_a_report(tmp_path: Path, name: str, content: str | None) -> None:
    path = make_run(tmp_path, n=6)
    (path / name).unlink()
    if content is not None:
        (path / name).write_bytes(content.encode("latin-1"))
    run = context.read(path)
    document = build([run])
    page, text = html(document), markdown(document)
    if content is None:
        assert f"{Path(name).name} is missing" in page
        assert any(section.title == "Incomplete" for section in document.sections)
    assert "Not for clinical use" in page
    assert "Not for clinical use" in text


def test_a_run_that_is_not_evaluated_yet_is_not_damaged(tmp_path: Path) -> None:
    path = make_run(tmp_path, n=6)
    shutil.rmtree(path / "eval")
    run = context.read(path)
    assert run.problems == []
    page = html(build([run]))
    assert "Not evaluated yet: run medvlm eval " in page
    assert "missing or damaged" not in page


def test_values_are_told_in_words(tmp_path: Path) -> None:
    path = make_run(tmp_path, n=6)
    facts = json.loads((path / "run.json").read_text())
    facts["model"] |= {"parts": {"vision_tower": "a/b", "language_model": None}, "resampled": True, "sizes": [1, 2]}
    (path / "run.json").write_text(json.dumps(facts))
    text = markdown(build([context.read(path)]))
    for said in ("vision tower a/b, language model -", "yes", "1, 2"):
        assert said in text
    assert "{'" not in text
    assert "True" not in text


def test_a_validation_is_told_once(tmp_path: Path) -> None:
    path = make_run(tmp_path, n=6)
    lines = (path / "metrics.jsonl").read_text().splitlines()
    last = next(line for line in reversed(lines) if "eval_loss" in line)
    before = markdown(build([context.read(path)]))
    (path / "metrics.jsonl").write_text("\n".join([*lines, last]) + "\n")
    after = markdown(build([context.read(path)]))
    tables = [part.split("Validation loss and what was spent")[1].split("\n#")[0] for part in (before, after)]
    assert tables[0] == tables[1]


def test_a_data_set_that_has_changed_since_is_not_told_as_the_runs_own(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    file = tmp_path / "data" / path.name / "manifest.json"
    manifest = json.loads(file.read_text())
    assert context.read(path).data[0].folder == file.parent
    changed = {"fingerprint": "ff" * 32, "command": "medvlm prepare pmc --license any", "drops": {"other": 9999}}
    file.write_text(json.dumps(manifest | changed))
    run = context.read(path)
    assert run.problems == [f"the data set at {file.parent} has changed since"]
    assert (run.data[0].folder, run.data[0].manifest) == (None, {})
    page = html(build([run]))
    assert "has changed since" in page
    assert "--license any" not in page
    assert "9,999" not in page


def test_the_command_to_reproduce_begins_the_run_anew(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    facts = json.loads((path / "run.json").read_text())
    facts["command"] = "medvlm finetune recipes/tiny.yaml --resume --set train.epochs=2"
    (path / "run.json").write_text(json.dumps(facts))
    text = markdown(build([context.read(path)]))
    assert "\nmedvlm finetune recipes/tiny.yaml --set train.epochs=2\n" in text
    assert f"\nmedvlm prepare pmc --out {tmp_path / 'data' / path.name}\n" in text


def test_truncated_predictions_are_counted(tmp_path: Path) -> None:
    path = make_run(tmp_path, n=9)
    file = path / "eval" / "test" / "predictions.jsonl"
    file.write_text(file.read_text()[:-20])
    run = context.read(path)
    assert len(run.evaluations[0].predictions) == 8
    assert run.problems == ["eval/test: predictions.jsonl: 1 damaged line left out"]


def test_the_data_sets_own_card_is_shown_without_its_front_matter(tmp_path: Path) -> None:
    path = make_run(tmp_path, n=3)
    card = tmp_path / "data" / path.name / "README.md"
    card.write_text(
        "---\nlicense: cc-by-4.0\n---\n\n# Phantom articles\n\n```\nmedvlm prepare pmc\n```\n" + "x" * 30_000
    )
    page = markdown(build([context.read(path)]))
    assert "The data card of Phantom articles:" in page
    assert "````markdown\n# Phantom articles\n" in page, "a fence longer than those within"
    assert "license: cc-by-4.0" not in page
    assert "more characters in README.md" in page
    card.write_bytes(b"\xff\xfe")
    assert markdown(build([context.read(path)]))


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"status": "running", "name": "x"}')
    document = build([context.read(tmp_path)])
    assert document.labels == ["running"]
    page = html(document)
    assert "not scored yet" in page
    assert "No training curve was recorded" in page


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from(["model", "data", "census", "license", "versions", "seed"]), JSON), JSON)
def test_any_json_gives_a_report(tmp_path_factory: pytest.TempPathFactory, facts: dict[str, Any], scores: Any) -> None:
    path = tmp_path_factory.mktemp("run")
    (path / "run.json").write_text(json.dumps(facts))
    (path / "compute.json").write_text(json.dumps(scores))
    (path / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": scores}) + "\n")
    (path / "eval" / "test").mkdir(parents=True)
    keys = ("rows", "comparisons", "by_task", "n", "limit", "decoding", "constant", "distinct_outputs", "signatures")
    (path / "eval" / "test" / "scores.json").write_text(json.dumps(dict.fromkeys(keys, scores)))
    columns = ("id", "prediction", "references", "group", "task", "choices", "answer_type")
    (path / "eval" / "test" / "predictions.jsonl").write_text(json.dumps(dict.fromkeys(columns, scores)) + "\n")
    run = context.read(path)
    document = build([run])
    assert html(document).encode()
    assert markdown(document).encode()
    assert json.dumps(as_json.content(document, [run], {}), allow_nan=False, ensure_ascii=False).encode()
