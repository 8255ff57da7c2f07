"""Stages and variants at the command line: each its own run, going on where it stopped, one line for each error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from medvlm.cli import run as medvlm
from medvlm.runs import Run, groups


def recipe(folder: Path, tiny: Path, **changes: Any) -> str:
    raw = {
        "name": "two",
        "model": {"id": str(tiny), "dtype": "float32"},
        "adapters": {"language_model": {"kind": "lora", "r": 4}, "projector": "full"},
        "data": [{"path": "data/pmc"}],
        "train": {"max_steps": 3, "batch_size": 4, "learning_rate": 1e-3, "eval_samples": 2, "trackers": []},
        **changes,
    }
    path = folder / "two.yaml"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return str(path)


STAGES = [
    {"name": "captions", "data": [{"path": "data/pmc", "tasks": ["caption"]}], "train": {"learning_rate": 5e-2}},
    {"name": "questions", "data": [{"path": "data/vqa-rad", "tasks": ["vqa"]}], "train": {"learning_rate": 1e-5}},
]
VARIANTS = [{"name": "proj", "adapters": {"language_model": {"kind": "frozen"}}}, {"name": "lora"}]


def runs(folder: Path) -> dict[str, Run]:
    """Return name -> run of all that was trained here."""
    found = [Run(path) for path in sorted((folder / "runs").glob("2*"))]
    return {run.facts()["name"]: run for run in found}


def trained(run: Run) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    (file,) = run.adapter.glob("*.safetensors")
    return load_file(file)


def fail(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = medvlm(["finetune", *words])
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert sum("error:" in line for line in lines) == 1
    return code, lines[-1]


def test_a_stage_starts_from_the_one_before(
    at_shelf: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert medvlm(["finetune", recipe(at_shelf, tiny_folder, stages=STAGES), "--quiet"]) == 0
    found = runs(at_shelf)
    assert set(found) == {"two-captions", "two-questions"}
    first, second = found["two-captions"], found["two-questions"]
    assert second.recipe().model.start == f"runs/{first.path.name}"
    group = first.facts()["group"]
    assert {key: group[key] for key in ("kind", "member", "members")} == {
        "kind": "stages",
        "member": "captions",
        "members": ["captions", "questions"],
    }
    assert second.facts()["group"] == {**group, "member": "questions"}
    # Adam moves a weight by about its learning rate a step: far in the first run, hardly from there in the second.
    before, after = trained(first), trained(second)
    assert before.keys() == after.keys()
    assert max(float(before[name].abs().max()) for name in before if "lora_B" in name) > 0.05
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert 0 < moved < 1e-3
    told = capsys.readouterr().out
    assert f"runs/{first.path.name}: 3 steps" in told


def test_the_second_stage_carries_the_licenses_of_both(at_shelf: Path, tiny_folder: Path) -> None:
    from medvlm.recipe import load_members
    from medvlm.train.group import rights

    members = load_members(recipe(at_shelf, "medvlm/tiny-base", stages=STAGES))
    own = {"path": "own", "licenses": {"CC0-1.0": 3}}
    alone = rights(members.members[1][1], [own])
    both = rights(members.members[1][1], [own], [{"path": "before", "licenses": {"CC-BY-NC-4.0": 1}}])
    assert (alone["commercial_use"], both["commercial_use"]) == ("yes", "no")


def test_resume_trains_only_what_is_left(at_shelf: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(at_shelf, tiny_folder, stages=STAGES)
    assert medvlm(["finetune", path, "--only", "captions", "--quiet"]) == 0
    first = runs(at_shelf)["two-captions"]
    finished = first.facts()["finished"]
    assert medvlm(["finetune", path, "--resume", "--quiet"]) == 0
    found = runs(at_shelf)
    assert set(found) == {"two-captions", "two-questions"}
    assert found["two-captions"].facts()["finished"] == finished
    assert len(groups()) == 1
    code, line = fail(capsys, path, "--resume")
    assert code == 3
    assert "all of it is finished" in line
    # What did not finish goes on in its own folder.
    second = found["two-questions"]
    second.record({**second.facts(), "status": "interrupted"})
    assert medvlm(["finetune", path, "--resume", "--quiet"]) == 0
    assert runs(at_shelf)["two-questions"].facts()["resumed"]
    # The later stage alone trains anew, beside the first.
    assert medvlm(["finetune", path, "--only", "questions", "--quiet"]) == 0
    assert len(list((at_shelf / "runs").glob("2*"))) == 3
    assert len(groups()) == 1


def test_variants_are_runs_of_their_own_and_are_compared(
    at_shelf: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert medvlm(["finetune", recipe(at_shelf, tiny_folder, variants=VARIANTS)]) == 0
    told = capsys.readouterr().out
    (group,) = groups()
    assert told.splitlines()[-1] == f"next: medvlm report {group}"
    found = runs(at_shelf)
    assert {run.recipe().model.start for run in found.values()} == {None}
    trains = {name: run.facts()["census"]["language_model"]["trainable"] > 0 for name, run in found.items()}
    assert trains == {"two-proj": False, "two-lora": True}
    assert medvlm(["report", group, "--quiet"]) == 0
    page = (at_shelf / "runs" / f"{group}-report" / "report.html").read_text(encoding="utf-8")
    assert "adapters.language_model.kind" in page
    assert "Training loss of all runs by step" in page


def test_the_plan_of_variants_begins_with_a_table(
    at_shelf: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert medvlm(["finetune", recipe(at_shelf, tiny_folder, variants=VARIANTS), "--dry-run"]) == 0
    told = capsys.readouterr().out.splitlines()
    header, proj, lora, differing = told[:4]
    assert header.split() == ["variant", "trained", "memory", "fits", "steps"]
    assert (proj.split()[0], lora.split()[0]) == ("proj", "lora")
    assert int(proj.split()[1].replace(",", "")) < int(lora.split()[1].replace(",", ""))
    assert differing.strip() == "adapters.language_model.kind: proj frozen, lora lora"
    limits = [line for line in told if line.startswith("  base model ")]
    assert len(limits) == len(set(limits)) == 1, "a reason is told once a group"


def test_the_plan_of_a_later_stage_says_where_it_starts(
    at_shelf: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(at_shelf, tiny_folder, stages=STAGES)
    for words in ([], ["--only", "questions"]):
        assert medvlm(["finetune", path, *words, "--dry-run"]) == 0
        told = capsys.readouterr().out
        assert told.count("starts from: ") == 1
        assert "starts from: stage captions, which goes before" in told.split("plan of ")[-1]
        assert "data licenses: CC0-1.0 (" in told.split("plan of ")[-1]
        assert max(map(len, told.splitlines())) <= 80 or str(at_shelf) in told


def test_what_cannot_be_is_told_in_one_line(
    at_shelf: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(at_shelf, tiny_folder, stages=STAGES)
    code, line = fail(capsys, path, "--only", "question")
    assert code == 2
    assert 'did you mean "questions"?' in line
    code, line = fail(capsys, path, "--only", "questions")
    assert code == 3
    assert "stage questions starts from captions, which is not trained" in line
    code, line = fail(capsys, path, "--resume")
    assert code == 3
    assert "leave out --resume" in line
    code, line = fail(capsys, path, "stages.questions.data.0.path=data/nothing")
    assert code == 3
    assert "data/nothing does not exist" in line
    assert not (at_shelf / "runs").exists(), "a later stage's mistake is told before the first is trained"


def test_a_start_that_is_named_is_pinned(at_shelf: Path, tiny_folder: Path) -> None:
    path = recipe(at_shelf, tiny_folder)
    assert medvlm(["finetune", path, "--quiet"]) == 0
    (first,) = runs(at_shelf).values()
    assert medvlm(["finetune", path, "model.start=runs/latest", "name=again", "--quiet"]) == 0
    again = runs(at_shelf)["again"]
    assert again.recipe().model.start == f"runs/{first.path.name}"


def test_variants_start_from_the_run_that_was_latest_before_the_first(at_shelf: Path, tiny_folder: Path) -> None:
    assert medvlm(["finetune", recipe(at_shelf, tiny_folder), "name=base", "--quiet"]) == 0
    base = runs(at_shelf)["base"]
    path = recipe(at_shelf, tiny_folder, variants=[{"name": "x"}, {"name": "y", "seed": 2}])
    assert medvlm(["finetune", path, "model.start=runs/latest", "--quiet"]) == 0
    found = runs(at_shelf)
    started = [found[name].facts()["start"] for name in ("two-x", "two-y")]
    assert [start["run"] for start in started] == [base.path.name] * 2
    # What stopped goes on from where it began, whatever is the latest now.
    stopped = found["two-x"]
    stopped.record({**stopped.facts(), "status": "interrupted"})
    shutil.rmtree(stopped.checkpoints)
    assert medvlm(["finetune", path, "model.start=runs/latest", "--resume", "--quiet"]) == 0
    assert set(runs(at_shelf)) == set(found)
    assert stopped.facts()["resumed"]
    assert stopped.recipe().model.start == f"runs/{base.path.name}"
    assert stopped.facts()["start"] == started[0]


def test_one_run_from_the_latest_is_resumed_when_another_is_the_latest(at_shelf: Path, tiny_folder: Path) -> None:
    path = recipe(at_shelf, tiny_folder)
    assert medvlm(["finetune", path, "name=base", "--quiet"]) == 0
    again = [path, "name=again", "model.start=runs/latest", "--quiet"]
    assert medvlm(["finetune", *again]) == 0
    run = runs(at_shelf)["again"]
    run.record({**run.facts(), "status": "interrupted"})
    start = run.facts()["start"]
    assert medvlm(["finetune", path, "name=other", "--quiet"]) == 0
    assert medvlm(["finetune", *again, "--resume"]) == 0
    assert run.facts()["status"] == "finished"
    assert run.facts()["start"] == start
    assert set(runs(at_shelf)) == {"base", "again", "other"}


def test_stages_with_a_common_start_follow_each_other(at_shelf: Path, tiny_folder: Path) -> None:
    assert medvlm(["finetune", recipe(at_shelf, tiny_folder), "name=base", "--quiet"]) == 0
    path = recipe(at_shelf, tiny_folder, stages=STAGES)
    assert medvlm(["finetune", path, "model.start=runs/latest", "--quiet"]) == 0
    found = runs(at_shelf)
    starts = [found[name].facts()["start"]["run"] for name in ("two-captions", "two-questions")]
    assert starts == [found["base"].path.name, found["two-captions"].path.name]


def test_resume_takes_the_group_that_stopped(at_shelf: Path, tiny_folder: Path) -> None:
    path = recipe(at_shelf, tiny_folder, variants=VARIANTS)
    assert medvlm(["finetune", path, "--quiet"]) == 0
    stopped = runs(at_shelf)["two-lora"]
    stopped.record({**stopped.facts(), "status": "interrupted"})
    assert medvlm(["finetune", path, "--only", "proj", "--quiet"]) == 0
    before = sorted((at_shelf / "runs").glob("2*"))
    assert len(groups()) == 2
    assert medvlm(["finetune", path, "--resume", "--quiet"]) == 0
    assert sorted((at_shelf / "runs").glob("2*")) == before
    assert stopped.facts()["status"] == "finished"
    # Nothing has stopped now; the newer group lacks a variant.
    assert medvlm(["finetune", path, "--resume", "--quiet"]) == 0
    assert len(list((at_shelf / "runs").glob("2*"))) == len(before) + 1
    assert all(len(members) == 2 for members in groups().values())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"data": [{"path": "data/pmc"}, {"path": "data/vqa-rad", "weight": 0.1}], "train": {"mix": "every_update"}},
            "train.mix: every_update: an update of 4 samples would hold 0.3",
        ),
        (
            {"data": [{"path": "data/unheld"}], "train": {"best": "cider"}},
            "train.best: 'cider': there are no validation rows",
        ),
        ({"train": {"batching": "packed"}}, "train.batching: packed: an example of up to "),
    ],
)
def test_what_a_later_variant_asks_of_its_data_is_checked_before_the_first(
    wrong: dict[str, Any],
    said: str,
    at_shelf: Path,
    shelf: Path,
    paligemma2_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (at_shelf / "data").unlink()
    shutil.copytree(shelf / "data", at_shelf / "data")
    shutil.copytree(shelf / "data" / "pmc", at_shelf / "data" / "unheld")
    next((at_shelf / "data" / "unheld" / "data").glob("validation-*")).unlink()
    path = recipe(at_shelf, paligemma2_folder, variants=[{"name": "right"}, {"name": "wrong", **wrong}])
    for more in ([], ["--dry-run"]):
        code, line = fail(capsys, path, *more)
        assert code == 3
        assert said in line
    assert not (at_shelf / "runs").exists()


def test_the_peak_of_memory_is_of_one_run(at_shelf: Path, tiny_folder: Path) -> None:
    held = bytearray(800_000_000)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    del held
    assert medvlm(["finetune", recipe(at_shelf, tiny_folder), "--quiet"]) == 0
    (run,) = runs(at_shelf).values()
    spent = json.loads((run.path / "compute.json").read_text(encoding="utf-8"))
    with open("/proc/self/status", encoding="ascii") as file:
        now = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))
    assert spent["peak_memory_bytes"] < now + 400_000_000


def test_what_only_the_base_shows_to_be_wrong_names_the_file(
    at_shelf: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(at_shelf, tiny_folder)
    for words in ([], ["--dry-run"]):
        code, line = fail(capsys, path, "adapters.language_model.modules=[nothing]", *words)
        assert code == 3
        assert line.startswith(f"medvlm: error: {path}: 1 problem: adapters.language_model.modules")
