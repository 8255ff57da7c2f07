"""Backbones in one table, and the shipped recipe that trains them in the same way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fabricated_run import make_group, make_run

from medvlm.evaluate.compare import compare
from medvlm.licenses import registry
from medvlm.recipe import load_members
from medvlm.recipe.members import differing
from medvlm.report import backbones, pairs, results, side_by_side
from medvlm.report.build import build
from medvlm.report.context import RunContext, read
from medvlm.report.document import Block, Chart, Table, Text
from medvlm.resources import shipped

KINDS = {
    "proj": ("paligemma", "text", 2.0),
    "proj-lora": ("vilt", "class", 4.0),
    "proj-vit": ("contrastive", "match", 3.0),
}


def change(path: Path, **of: Any) -> None:
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | of))


def group(tmp_path: Path) -> list[RunContext]:
    """Three runs of three backbones; the second scores best."""
    runs = []
    for folder, (backbone, output, cider) in zip(make_group(tmp_path), KINDS.values(), strict=True):
        told = json.loads((folder / "run.json").read_text())
        model = told["model"] | {"backbone": backbone, "output": output}
        census = {"vision_tower": {"total": 40, "trainable": 10}, "head": {"total": 1, "trainable": 1}}
        change(folder / "run.json", model=model, census=census)
        scores = folder / "eval" / "test" / "scores.json"
        rows = json.loads(scores.read_text())["rows"]
        rows["model"] = rows["model"] | {"cider": cider}
        intervals = {"model": {"cider": [cider - 0.5, cider + 0.5]}}
        change(scores, schema=2, rows=rows, intervals=intervals, bootstrap={"confidence": 0.95})
        runs.append(read(folder))
    return runs


def blocks(runs: list[RunContext]) -> list[Block]:
    return list(backbones.blocks(side_by_side.labels(runs), runs))


def table(found: list[Block]) -> list[dict[str, str]]:
    (block,) = (block for block in found if isinstance(block, Table))
    return [dict(zip(block.header, row, strict=True)) for row in block.rows]


def test_one_table_holds_what_each_is_how_well_it_does_and_what_it_cost(tmp_path: Path) -> None:
    runs = group(tmp_path)
    rows = table(blocks(runs))
    assert [row["run"] for row in rows] == ["proj-lora", "proj-vit", "proj", "best constant answer"], "the best first"
    assert [row["backbone"] for row in rows] == ["vilt", "contrastive", "paligemma", "-"]
    assert [row["answers"] for row in rows[:3]] == [
        "closed vocabulary",
        "best-matching training text",
        "generated text",
    ]
    assert [row["CIDEr"] for row in rows[:3]] == [
        "4.000 [3.50, 4.50]",
        "3.000 [2.50, 3.50]",
        "2.000 [1.50, 2.50]",
    ]
    first = rows[0]
    assert (first["parameters"], first["trained"]) == ("41", "11")
    assert (first["GFLOP"], first["seconds"], first["samples/s"], first["peak memory"]) == (
        "40,000",
        "118",
        "27.03",
        "1.50 GiB",
    )
    # OPT is for research only, whatever the tower allows.
    assert [row["commercial use"] for row in rows[:3]] == ["no"] * 3
    own = results.license_cells(runs[1], "model")
    assert [first[key] for key in results.LICENSE_HEADER] == own
    assert "unknown" not in own


def test_the_chart_says_the_same_in_the_same_order(tmp_path: Path) -> None:
    (chart,) = (block for block in blocks(group(tmp_path)) if isinstance(block, Chart))
    said = chart.text if hasattr(chart, "text") else str(chart)
    assert said.index("proj-lora 4.000") < said.index("proj-vit 3.000") < said.index("proj 2.000")


def test_the_constant_answer_stands_there_only_where_it_is_the_same(tmp_path: Path) -> None:
    runs = group(tmp_path)
    scores = runs[1].path / "eval" / "test" / "scores.json"
    told = json.loads(scores.read_text())["rows"]
    # One model has a metric of its own.
    change(scores, rows=told | {"constant": told["constant"] | {"t2i_r1": 0.1}})
    last = table(blocks([read(run.path) for run in runs]))[-1]
    assert (last["run"], last["CIDEr"]) == ("best constant answer", "0.6000")
    change(scores, rows=told | {"constant": told["constant"] | {"cider": 0.7}})
    assert table(blocks([read(run.path) for run in runs]))[-1]["run"] == "proj"


def test_only_runs_scored_on_the_same_samples_are_ranked(tmp_path: Path) -> None:
    runs = group(tmp_path)
    # The best of all, on five samples only; another on the validation split.
    ids = [row.id for row in runs[1].evaluations[0].predictions]
    change(runs[1].path / "eval" / "test" / "scores.json", n=5, scored_ids=ids[:5])
    found = blocks([read(run.path) for run in runs])
    ranked, apart = (block for block in found if isinstance(block, Table))
    (chart,) = (block for block in found if isinstance(block, Chart))
    first = [dict(zip(ranked.header, row, strict=True)) for row in ranked.rows]
    assert [row["run"] for row in first] == ["proj-vit", "proj", "best constant answer"]
    assert {(row["split"], row["n"]) for row in first} == {("test", str(len(ids)))}
    assert "proj-lora" not in chart.words
    (other,) = (dict(zip(apart.header, row, strict=True)) for row in apart.rows)
    assert (other["run"], other["split"], other["n"]) == ("proj-lora", "test", "5")
    (why,) = (block.text for block in found if isinstance(block, Text) and block.text.startswith("Not ranked"))
    assert f"({len(ids)} of test): proj-lora: 5 of test." in why
    (runs[0].path / "eval" / "test").rename(runs[0].path / "eval" / "validation")
    found = blocks([read(run.path) for run in runs])
    assert not [block for block in found if isinstance(block, Chart)], "three runs, three sets of samples"
    text = " ".join(block.text for block in found if isinstance(block, Text))
    assert "of validation" in text


def test_what_is_not_in_the_table_is_told(tmp_path: Path) -> None:
    runs = group(tmp_path)
    (runs[2].path / "eval" / "test" / "scores.json").unlink()
    scores = runs[1].path / "eval" / "test" / "scores.json"
    told = json.loads(scores.read_text())["rows"]
    change(scores, rows=told | {"constant": told["constant"] | {"cider": 0.7}})
    text = [block.text for block in blocks([read(run.path) for run in runs]) if isinstance(block, Text)]
    assert f"Not scored yet: proj-vit (run medvlm eval {runs[2].path})" in text
    comparison = build([read(run.path) for run in runs]).sections[1]
    assert Text(f"Not scored yet: run medvlm eval {runs[2].path}") in comparison.blocks
    assert any(line.startswith("The best constant answer is left out") for line in text)


def test_losses_of_several_kinds_are_told_apart(tmp_path: Path) -> None:
    section = side_by_side.section(group(tmp_path / "a"))
    said = [block.text for block in section.blocks if isinstance(block, Text)]
    (line,) = (one for one in said if one.startswith("Losses are not comparable between kinds of answers"))
    assert "generated text: proj; closed vocabulary: proj-lora; best-matching training text: proj-vit" in line
    charts = [
        block.words for block in section.blocks if isinstance(block, Chart) and " loss of all runs" in block.words
    ]
    assert len(charts) == 2
    assert all("not comparable between kinds of answers" in words for words in charts)
    alike = side_by_side.section([read(folder) for folder in make_group(tmp_path / "b")])
    assert "not comparable" not in str(alike.blocks)


def test_it_leads_the_comparison_of_backbones_alone(tmp_path: Path) -> None:
    runs = group(tmp_path / "a")
    captions = [block.caption for block in side_by_side.section(runs).blocks if isinstance(block, Table)]
    assert captions[0].startswith("Backbones: ")
    one = [read(folder) for folder in make_group(tmp_path / "b")]
    captions = [block.caption for block in side_by_side.section(one).blocks if isinstance(block, Table)]
    assert not any(caption.startswith("Backbones: ") for caption in captions)


def test_random_weights_are_told_as_such(tmp_path: Path) -> None:
    runs = group(tmp_path)
    (said,) = (block.text for block in blocks(runs) if isinstance(block, Text))
    assert "random weights" not in said
    for run in runs:
        change(run.path / "run.json", model=run.facts["model"] | {"id": "medvlm/tiny-random"})
    (said,) = (block.text for block in blocks([read(run.path) for run in runs]) if isinstance(block, Text))
    assert "All began with random weights" in said
    assert "says nothing of the published models" in said


def test_what_is_not_known_is_unknown(tmp_path: Path) -> None:
    runs = group(tmp_path)
    for run in runs[1:]:
        change(run.path / "run.json", census=None, model={"id": "x"})
        (run.path / "compute.json").write_text("{}")
        (run.path / "eval" / "test" / "scores.json").unlink()
        (run.path / "recipe.yaml").write_text("- no recipe")
    rows = {row["run"]: row for row in table(blocks([read(run.path) for run in runs]))}
    assert next(iter(rows)) == "proj", "what is not scored stands behind"
    lost = rows["proj-lora"]
    assert {lost[key] for key in ("backbone", "answers", "parameters", "GFLOP", "seconds")} == {"unknown"}
    assert lost["CIDEr"] == "-"


def test_more_runs_than_are_compared_two_by_two_are_compared_with_the_first(tmp_path: Path) -> None:
    made = [make_run(tmp_path, f"run{number:02}", 12, number, 2, same_samples=True) for number in range(13)]
    runs = [read(path) for path in made]
    (found,) = pairs.compared(runs).values()
    assert isinstance(found, dict)
    assert [(pair["a"], pair["b"]) for pair in found["pairs"]] == [(f"run{n:02}", "run00") for n in range(1, 13)]
    said = [block.text for block in pairs.section({"test": found}).blocks if isinstance(block, Text)]
    assert "each is compared with the first, run00" in said[0]
    # The numbers are those of the two alone; the correction is over the twelve.
    systems = {run.name: [vars_of(row) for row in run.evaluations[0].predictions] for run in (runs[5], runs[0])}
    alone = compare(systems, ["bleu"])["pairs"][0]["keys"]["bleu_4"]
    here = next(pair for pair in found["pairs"] if pair["a"] == "run05")["keys"]["bleu_4"]
    assert (here["difference"], here["low"], here["p"]) == (alone["difference"], alone["low"], alone["p"])
    assert here["p_holm"] >= alone["p_holm"]


def vars_of(row: Any) -> dict[str, Any]:
    return {**row.row, "id": row.id, "prediction": row.prediction, "references": row.references}


def test_the_shipped_recipe_differs_in_backbone_alone() -> None:
    members = load_members("compare_backbones")
    assert set(differing([recipe.model_dump(mode="json") for _, recipe in members.members])) == {
        "model.backbone",
        "model.id",
    }
    for name, recipe in members.members:
        assert str(recipe.model.id).startswith("medvlm/tiny-random"), name
        parts = recipe.adapters
        assert {parts.part(one).kind for one in ("vision_tower", "projector", "language_model", "head")} == {"full"}
        entry = registry.of_model(str(recipe.model.id))
        assert entry is not None
        assert entry.commercial_use == "yes"


def test_it_trains_every_backbone_there_is() -> None:
    from medvlm.models.backbones import BACKBONES
    from medvlm.models.backbones.generic_tiny import FAMILIES

    recipes = [recipe for _, recipe in load_members("compare_backbones").members]
    assert {recipe.model.backbone for recipe in recipes} == set(BACKBONES.names())
    families = {str(r.model.id).removeprefix("medvlm/tiny-random-") for r in recipes if r.model.backbone == "generic"}
    # SmolVLM is Idefics3's architecture.
    assert families == set(FAMILIES) - {"idefics3"}


@pytest.mark.slow
def test_some_steps_of_every_backbone_then_scores_and_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from medvlm.cli import run as medvlm

    monkeypatch.chdir(tmp_path)
    assert medvlm(["prepare", "pmc", "--quiet"]) == 0
    steps = ["train.max_steps=2", "train.batch_size=4", "train.eval_samples=4", "train.eval_every=2"]
    recipe = str(shipped("recipes") / "compare_backbones.yaml")
    assert medvlm(["finetune", recipe, *steps, "--quiet"]) == 0, capsys.readouterr().err
    runs = sorted(path for path in (tmp_path / "runs").iterdir() if not path.is_symlink())
    for run in runs:
        assert medvlm(["eval", str(run), "--limit", "6", "--controls", "2", "--quiet"]) == 0, capsys.readouterr().err
    found = [read(run) for run in runs]
    rows = table(blocks(found))
    members = load_members("compare_backbones")
    assert {row["run"] for row in rows} == {*members.names, "best constant answer"}
    for row in rows[:-1]:
        assert row["accuracy"] != "-"
        assert "unknown" not in {row[key] for key in ("backbone", "answers", "parameters", "GFLOP", "seconds")}, row
        assert row["commercial use"] in ("yes", "conditional"), row
    data = {json.dumps(run.facts["data"]) for run in found}
    assert len(data) == 1
