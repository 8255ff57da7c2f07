"""`medvlm eval` on runs of the tiny model: everything beside the scores, going on, baselines, comparisons."""

from __future__ import annotations

import json
import shlex
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest

from medvlm.cli import run
from medvlm.evaluate import baseline_run, predict
from medvlm.io import write_json
from medvlm.recipe.resolve import write_resolved
from medvlm.runs import Run


@pytest.fixture
def at_run(at_shelf: Path, adapter_run: Path) -> Path:
    """A working directory with data/pmc and a finished run of it as the latest."""
    return trained(at_shelf, adapter_run, "adapted")


def trained(folder: Path, adapter_run: Path, name: str) -> Path:
    path = folder / "runs" / name
    shutil.copytree(adapter_run, path)
    facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
    facts["data"][0]["fingerprint"] = "test-pmc"
    write_json(path / "run.json", facts)
    (folder / "runs" / "latest").unlink(missing_ok=True)
    (folder / "runs" / "latest").symlink_to(name)
    return path


def scores_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "eval" / "test" / "scores.json").read_text(encoding="utf-8"))
    return found


def no_model(*_: Any) -> Any:
    raise AssertionError("a model was loaded")


def test_a_run_is_scored_with_all_that_belongs_beside_it(at_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "--json", "s.json", "--quiet"]) == 0
    said = capsys.readouterr()
    found = scores_of(at_run)
    assert json.loads(Path("s.json").read_text(encoding="utf-8")) == found
    assert (found["schema"], found["n"], found["split"]) == (2, 6, "test")
    assert list(found["rows"]) == ["model", "base", "constant"]
    assert {"bleu_4", "rouge_l", "cider", "accuracy", "findings_micro_f1"} <= set(found["rows"]["model"])
    assert found["tasks"] == ["caption", "report", "vqa"]
    assert set(found["comparisons"]) == {"base", "constant"}
    assert (found["controls"]["n"], found["controls"]["of"]) == (6, 6)
    assert set(found["controls"]["rows"]) == {"model", "blank", "shuffled"}
    assert found["leakage"]["n"] == 6
    assert found["constant"]["vqa"] == "left lung"
    assert "6 samples are few: read the intervals, not the scores" in found["warnings"]
    for sentence in found["warnings"]:
        assert f"warning: {sentence}" in said.err
    own = [json.loads(line) for line in (at_run / "eval/test/predictions.jsonl").read_text("utf-8").splitlines()]
    blank = [
        json.loads(line) for line in (at_run / "eval/test/predictions-blank.jsonl").read_text("utf-8").splitlines()
    ]
    changed = sum(a["prediction"].strip() != b["prediction"].strip() for a, b in zip(own, blank, strict=True))
    assert found["controls"]["image_sensitivity"]["blank"] == pytest.approx(changed / 6)


def test_a_second_call_only_scores(at_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["eval", "--quiet"]) == 0
    first = scores_of(at_run)
    monkeypatch.setattr(predict, "load_tuned", no_model)
    monkeypatch.setattr("medvlm.models.load.load_base", no_model)
    assert run(["eval", "--quiet"]) == 0
    assert scores_of(at_run) == first
    assert (
        run(["eval", "--quiet", "--metrics", "bleu", "--tokenizer", "13a", "--case", "mixed", "--bootstrap", "0"]) == 0
    )
    again = scores_of(at_run)
    assert set(again["rows"]["model"]) - {"finding_accuracy"} == {"bleu_1", "bleu_2", "bleu_3", "bleu_4"}
    assert "tok:13a" in again["signatures"]["bleu"]
    assert again["bootstrap"] is None


def test_controls_and_base_can_be_left_out_and_it_is_said(at_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "--controls", "none", "--no-base", "--metrics", "bleu", "--quiet"]) == 0
    found = scores_of(at_run)
    assert list(found["rows"]) == ["model", "constant"]
    assert found["controls"] is None
    assert "left out (--controls none)" in capsys.readouterr().err
    assert not (at_run / "eval/test/predictions-blank.jsonl").exists()
    assert run(["eval", "--controls", "2", "--no-base", "--metrics", "bleu", "--quiet"]) == 0
    assert (scores_of(at_run)["controls"]["n"], scores_of(at_run)["controls"]["of"]) == (2, 6)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--idf", "none.json"], 3),
        (["--tokenizer", "words"], 2),
        (["--case", "upper"], 2),
        (["--engine", "x"], 2),
        (["--groups", "doctor"], 3),
        (["--json", "data"], 2),
    ],
)
def test_wrong_settings_are_said_before_any_model_is_loaded(
    words: list[str], code: int, at_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict, "load_tuned", no_model)
    assert run(["eval", *words, "--quiet"]) == code
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_base_that_changed_since_is_refused(
    at_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = json.loads((at_run / "run.json").read_text(encoding="utf-8"))
    facts["model"]["weights"]["model"] = "other"
    write_json(at_run / "run.json", facts)
    monkeypatch.setattr(predict, "load_tuned", no_model)
    assert run(["eval", "--quiet"]) == 3
    assert "other weights than when this run was trained" in capsys.readouterr().err


def test_the_model_is_loaded_once_and_gone_before_its_base(at_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned, plain = predict.load_tuned, predict.load_plain
    loaded: list[Any] = []

    def one(*given: Any) -> Any:
        found = tuned(*given)
        loaded.append(weakref.ref(found.model))
        return found

    def other(*given: Any) -> Any:
        assert [model() for model in loaded] == [None]
        return plain(*given)

    monkeypatch.setattr(predict, "load_tuned", one)
    monkeypatch.setattr(predict, "load_plain", other)
    assert run(["eval", "--metrics", "bleu", "--quiet"]) == 0
    assert len(loaded) == 1


def test_the_seed_decides_whose_picture_is_shown(at_run: Path) -> None:
    from medvlm.data.mixture import Mixture
    from medvlm.evaluate.shown import Pictures
    from medvlm.recipe.models import DataPart

    mixture = Mixture([DataPart(path="data/pmc")], "test", 0)

    def owners(seed: int) -> list[str | None]:
        pictures = Pictures(mixture, "shuffled", seed)
        return [pictures.of(place).of for place in range(len(mixture))]

    seed = next(seed for seed in range(1, 99) if owners(seed) != owners(0))
    assert run(["eval", "--metrics", "bleu", "--no-base", "--seed", str(seed), "--quiet"]) == 0
    lines = (at_run / "eval/test/predictions-shuffled.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["picture_of"] for line in lines] == owners(seed)


def test_controls_are_chosen_among_what_is_scored(at_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medvlm.evaluate import leakage

    def half(_: Any, mixture: Any, places: list[int], *__: Any) -> leakage.Leakage:
        ids = [mixture.text(place)["id"] for place in places]
        return leakage.Leakage(6, 24, {name: ["same image"] for name in ids[:3]}, [], [])

    monkeypatch.setattr(leakage, "of_run", half)
    assert run(["eval", "--metrics", "bleu", "--no-base", "--exclude-leaked", "--controls", "3", "--quiet"]) == 0
    found = scores_of(at_run)
    assert (found["n"], found["controls"]["n"], found["controls"]["of"]) == (3, 3, 3)
    assert found["with_leaked"]["n"] == 6


def test_the_command_that_a_report_names_gives_the_same_scores(at_run: Path) -> None:
    from medvlm.report.context import read
    from medvlm.report.reproduce import commands

    words = ["--metrics", "rouge", "--stem", "--case", "mixed", "--limit", "4", "--seed", "3", "--groups", "finding"]
    assert run(["eval", *words, "--controls", "2", "--bootstrap", "40", "--no-base", "--quiet"]) == 0
    first = scores_of(at_run)
    assert run(["eval", "--metrics", "bleu", "--controls", "none", "--quiet"]) == 0
    assert scores_of(at_run) != first
    write_json(at_run / "eval/test/scores.json", first)
    (line,) = (line for line in commands(read(at_run)) if line.startswith("medvlm eval"))
    assert run([*shlex.split(line)[1:], "--quiet"]) == 0
    again = scores_of(at_run)
    assert {**again, "settings": None} == {**first, "settings": None}


def test_an_interrupt_leaves_nothing_half_written(at_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = predict.Predictor.answers
    calls: list[int] = []

    def dies(self: Any, *given: Any) -> list[str]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answers(self, *given)

    monkeypatch.setattr(predict.Predictor, "answers", dies)
    words = ["eval", "--controls", "none", "--no-base", "--metrics", "bleu", "--quiet"]
    assert run(words) == 130
    folder = at_run / "eval/test"
    assert not (folder / "scores.json").exists()
    assert not (folder / "predictions.jsonl").exists()
    assert run(words) == 0
    # Three batches of two in all: the two that were done are not done again.
    assert len(calls) == 4
    assert scores_of(at_run)["n"] == 6


def test_two_runs_are_compared(
    at_run: Path, at_shelf: Path, adapter_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = trained(at_shelf, adapter_run, "other")
    words = ["eval", "adapted", "other", "--controls", "none", "--no-base", "--metrics", "rouge", "--json", "c.json"]
    assert run([*words, "--quiet"]) == 0
    found = json.loads(Path("c.json").read_text(encoding="utf-8"))
    assert (found["schema"], found["n"], found["runs"]) == (2, 6, ["adapted", "other"])
    assert found["rows"]["adapted"] == found["rows"]["other"] == pytest.approx(scores_of(other)["rows"]["model"])
    assert "adapted and other do not clearly differ in ROUGE-L: +.000" in capsys.readouterr().out
    assert run(["eval", "adapted", "runs/adapted", "--quiet"]) == 2
    assert "named twice" in capsys.readouterr().err


def test_runs_that_do_not_compare_are_refused_before_any_answer(
    at_run: Path,
    at_shelf: Path,
    adapter_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = trained(at_shelf, adapter_run, "other")
    for folder, task in ((at_run, "caption"), (other, "vqa")):
        recipe = Run(folder).recipe()
        part = recipe.eval.model_copy(update={"tasks": [task]})
        write_resolved(recipe.model_copy(update={"eval": part}), folder / "recipe.yaml")
    monkeypatch.setattr("medvlm.evaluate.engines.load", no_model)
    assert run(["eval", "adapted", "other", "--quiet"]) == 3
    assert "adapted, other: no sample in common" in capsys.readouterr().err


def test_a_published_model_becomes_a_run_of_its_own(
    at_run: Path, at_shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "--model", "medvlm/tiny-base", "--like", "runs/adapted", "--controls", "2", "--metrics", "bleu"]
    assert run([*words, "--quiet"]) == 0
    assert "what this model was trained on is not known" in capsys.readouterr().err
    (made,) = (path for path in (at_shelf / "runs").iterdir() if "baseline" in path.name)
    facts = json.loads((made / "run.json").read_text(encoding="utf-8"))
    assert (facts["kind"], facts["status"]) == ("baseline", "finished")
    assert facts["license"]["commercial_use"] in ("yes", "no", "conditional", "unknown")
    assert (at_shelf / "runs" / "latest").resolve() == at_run
    baseline = scores_of(made)
    assert list(baseline["rows"]) == ["model", "constant"]
    assert baseline["leakage"] is None
    # It answers as the untuned base of the run does.
    assert run(["eval", "--controls", "none", "--metrics", "bleu", "--quiet"]) == 0
    assert scores_of(at_run)["rows"]["base"] == baseline["rows"]["model"]
    monkeypatch.setattr("medvlm.models.load.load_base", no_model)
    assert run([*words, "--quiet"]) == 0
    assert sum("baseline" in path.name for path in (at_shelf / "runs").iterdir()) == 1
    capsys.readouterr()
    assert run([*words, "--exclude-leaked", "--quiet"]) == 2
    assert "what this model was trained on is not known; name the data with --trained-on" in capsys.readouterr().err


def test_a_baseline_keeps_the_revision_of_the_same_model_only(at_shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline_run, "_backbone", lambda _: "paligemma")
    recipe = {"name": "r", "model": {"id": "a/b", "revision": "abc"}, "data": [{"path": "data/pmc"}]}
    Path("r.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    assert baseline_run._recipe("a/b", "r.yaml", []).model.revision == "abc"
    assert baseline_run._recipe("a/c", "r.yaml", []).model.revision is None


def test_a_baseline_of_another_architecture_is_refused(
    at_shelf: Path, capsys: pytest.CaptureFixture[str], tiny_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {"model_type": "bert"}
    write_json(folder / "config.json", config)
    assert run(["eval", "--model", str(folder), "--data", "data/pmc", "--quiet"]) == 3
    assert "a model of type bert, which medvlm does not load" in capsys.readouterr().err
    assert not (at_shelf / "runs").exists()


def test_known_training_data_of_a_baseline_is_looked_through(at_shelf: Path) -> None:
    words = ["eval", "--model", "medvlm/tiny-base", "--data", "data/pmc", "--split", "train", "--limit", "4"]
    words += ["--trained-on", "data/vqa-rad", "--controls", "none", "--metrics", "bleu", "--quiet"]
    assert run(words) == 0
    (made,) = (path for path in (at_shelf / "runs").iterdir() if "baseline" in path.name)
    found = json.loads((made / "eval" / "train" / "scores.json").read_text(encoding="utf-8"))
    # The two folders hold the same samples.
    assert found["leakage"]["leaked"] == found["n"] == 4
    assert run([*words, "--exclude-leaked"]) == 3


def test_a_report_tells_of_the_predictions_that_were_scored_alone(
    at_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medvlm.evaluate import leakage
    from medvlm.report.context import read

    words = ["eval", "--metrics", "bleu", "--controls", "none", "--no-base", "--quiet"]
    assert run(words) == 0
    assert "scored_ids" not in scores_of(at_run)
    (whole,) = read(at_run).evaluations
    assert len(whole.predictions) == 6
    assert run([*words, "--limit", "2"]) == 0
    (some,) = read(at_run).evaluations
    assert (
        [row.id for row in some.predictions]
        == scores_of(at_run)["scored_ids"]
        == [whole.predictions[place].id for place in (0, 3)]
    )

    def first(_: Any, mixture: Any, places: list[int], *__: Any) -> leakage.Leakage:
        return leakage.Leakage(6, 24, {mixture.text(places[0])["id"]: ["same image"]}, [], [])

    monkeypatch.setattr(leakage, "of_run", first)
    assert run([*words, "--exclude-leaked"]) == 0
    (clean,) = read(at_run).evaluations
    assert [row.id for row in clean.predictions] == [row.id for row in whole.predictions[1:]]


def test_the_command_of_a_baseline_can_be_called_again(
    at_run: Path, at_shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(at_shelf / "data/pmc", at_shelf / "my data")
    words = ["eval", "--model", "medvlm/tiny-base", "--data", "my data", "--limit", "2", "--controls", "none"]
    monkeypatch.setattr("sys.argv", ["medvlm", *words])
    assert run([*words, "--quiet"]) == 0
    (made,) = (path for path in (at_shelf / "runs").iterdir() if "baseline" in path.name)
    command = json.loads((made / "run.json").read_text(encoding="utf-8"))["command"]
    assert shlex.split(command) == ["medvlm", *words]


def test_an_export_is_told_by_what_stands_beside_it(
    at_run: Path, at_shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from medvlm.report.context import read

    assert run(["export", "runs/adapted", "--merge", "--out", "merged", "--quiet"]) == 0
    words = ["eval", "--model", "merged", "--data", "data/pmc", "--limit", "2", "--controls", "none", "--quiet"]
    capsys.readouterr()
    assert run(words) == 0
    assert "is not known" not in capsys.readouterr().err
    (made,) = (path for path in (at_shelf / "runs").iterdir() if "baseline" in path.name)
    assert json.loads((made / "run.json").read_text(encoding="utf-8"))["trained_on"] == ["data/pmc"]
    assert scores_of(made)["leakage"]["n"] == 2
    told, trained = read(made).verdict(), read(at_run).verdict()
    assert (
        (told.commercial_use, told.may_share) == (trained.commercial_use, trained.may_share) != ("unknown", "unknown")
    )
    # Where nothing stands beside the weights, nothing is known of them.
    (at_shelf / "merged" / "export.json").unlink()
    assert run(words) == 0
    assert "what this model was trained on is not known" in (said := capsys.readouterr().err)
    assert "pass --trained-on FOLDER" in said
    other = max(path for path in (at_shelf / "runs").iterdir() if "baseline" in path.name and path != made)
    assert read(other).verdict().commercial_use == "unknown"
