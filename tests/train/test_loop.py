"""The loop on a tiny model of the real classes: the same loss as plain transformers, learning by heart, resuming."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from prepared import write_folder

from medvlm.cli import run as medvlm
from medvlm.models.backbones.base import Example
from medvlm.models.load import load_base
from medvlm.recipe.load import check
from medvlm.runs import Run, open_run
from medvlm.train.loss import suffix_loss


def settings(tiny: Path, data: Path, **train: Any) -> dict[str, Any]:
    return {
        "name": "t",
        "model": {"id": str(tiny), "dtype": "float32"},
        "quantization": {"mode": "nf4", "compute_dtype": "float32"},
        "adapters": {"language_model": {"kind": "lora", "r": 4}, "projector": "full"},
        "data": [{"path": str(data)}],
        "train": {"learning_rate": 1e-3, "batch_size": 4, "max_steps": 6, "save_every": 2, **train},
        "eval": {"max_new_tokens": 40},
    }


def recipe_file(folder: Path, raw: dict[str, Any]) -> str:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return str(path)


def losses(run: Path) -> dict[int, float]:
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def examples(seed: int = 0) -> list[Example]:
    from PIL import Image

    texts = ["a nodule", "a large left pleural effusion.", "no", "Findings: clear."]
    return [Example(Image.new("L", (40, 40), 60 * i).convert("RGB"), "caption en", t) for i, t in enumerate(texts)]


def test_token_mean_is_the_loss_of_transformers_with_full_logits(tiny_folder: Path) -> None:
    loaded = load_base(check(settings(tiny_folder, Path("d"), max_steps=1) | {"quantization": {"mode": "none"}}, "t"))
    inputs = loaded.backbone.collate(examples())
    keep = inputs.pop("logits_to_keep")
    plain = loaded.model(**inputs).loss
    labels = inputs.pop("labels")
    ours = suffix_loss(loaded.model(**inputs, logits_to_keep=keep).logits, labels)
    assert torch.allclose(ours, plain, atol=1e-6)


def test_example_mean_and_smoothing_against_a_slow_reference(tiny_folder: Path) -> None:
    loaded = load_base(check(settings(tiny_folder, Path("d")) | {"quantization": {"mode": "none"}}, "t"))
    inputs = loaded.backbone.collate(examples())
    labels = inputs.pop("labels")
    full = loaded.model(**{k: v for k, v in inputs.items() if k != "logits_to_keep"}).logits
    slow = []
    for row in range(len(labels)):
        terms = []
        for place in range(1, labels.shape[1]):
            if labels[row, place] != -100:
                chance = torch.log_softmax(full[row, place - 1], dim=-1)
                terms.append(-(0.9 * chance[labels[row, place]] + 0.1 * chance.mean()))
        slow.append(torch.stack(terms).mean())
    kept = loaded.model(**inputs).logits
    ours = suffix_loss(kept, labels, per_example=True, smoothing=0.1)
    assert torch.allclose(ours, torch.stack(slow).mean(), atol=1e-5)


@pytest.mark.parametrize("loss", ["token", "example"])
def test_accumulated_gradients_equal_one_large_batch(
    loss: str, tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = recipe_file(tmp_path, settings(tiny_folder, data_folder, max_steps=2, loss=loss))
    for batch, accumulation in ((8, 1), (2, 4)):
        assert (
            medvlm(["finetune", path, f"train.batch_size={batch}", f"train.gradient_accumulation={accumulation}"]) == 0
        )
    first, second = sorted(p for p in (tmp_path / "runs").iterdir() if not p.is_symlink())
    assert losses(first) == pytest.approx(losses(second), rel=2e-4)


def test_a_run_leaves_all_that_is_promised(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert medvlm(["finetune", recipe_file(tmp_path, settings(tiny_folder, data_folder))]) == 0
    run = open_run(None)
    assert (tmp_path / "runs" / "latest").resolve() == run.path.resolve()
    facts = run.facts()
    assert facts["status"] == "finished"
    assert facts["result"]["steps"] == 6
    assert facts["data"][0]["rows"] == 8
    assert facts["census"]["vision_tower"]["trainable"] == 0
    assert facts["model"]["image_tokens"] == 64
    assert {"torch", "transformers", "peft", "medvlm"} <= set(facts["versions"])
    assert sorted(losses(run.path)) == [1, 2, 3, 4, 5, 6]
    compute = json.loads((run.path / "compute.json").read_text(encoding="utf-8"))
    assert compute["samples"] == 24
    assert compute["peak_memory_bytes"] > 1e8
    assert (run.adapter / "adapter_model.safetensors").is_file()
    weights = (run.adapter / "adapter_config.json").read_text(encoding="utf-8")
    assert "multi_modal_projector" in weights
    assert "commercial use" in facts["license"]["reasons"][0] or facts["license"]["reasons"]


def test_eight_samples_are_learned_word_for_word_with_eos(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained whole, generation must reproduce each target and stop of itself."""
    monkeypatch.chdir(tmp_path)
    raw = settings(tiny_folder, data_folder, max_steps=150, batch_size=8, learning_rate=3e-3, save_every=200)
    raw |= {"quantization": {"mode": "none"}, "adapters": dict.fromkeys(("vision_tower", "projector"), "full")}
    raw["adapters"]["language_model"] = "full"
    assert medvlm(["finetune", recipe_file(tmp_path, raw), "--quiet"]) == 0
    assert medvlm(["eval", "--split", "train", "--metrics", "bleu", "--quiet"]) == 0
    lines = (open_run(None).evaluation("train") / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 8
    assert len({row["references"][0] for row in rows}) > 3
    for row in rows:
        assert row["prediction"] == row["references"][0]


def _start(path: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "medvlm", "finetune", path], cwd=folder, stderr=subprocess.PIPE, text=True
    )


def _wait_for_step(folder: Path, step: int) -> Path:
    for _ in range(600):
        found = list((folder / "runs").glob("*/metrics.jsonl"))
        if found and step in losses(found[0].parent):
            return found[0].parent
        time.sleep(0.1)
    raise AssertionError("training did not reach the step")


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_resumed_after_a_kill_the_losses_are_those_of_an_uninterrupted_run(
    signal_number: int, tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = settings(tiny_folder, data_folder, max_steps=30, save_every=2, eval_every=5)
    path = recipe_file(tmp_path, raw)
    process = _start(path, tmp_path)
    run = _wait_for_step(tmp_path, 7)
    process.send_signal(signal_number)
    _, stderr = process.communicate(timeout=60)
    reached = max(losses(run))
    assert reached < 30
    facts = Run(run).facts()
    if signal_number == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted; what is done is kept" in stderr
        assert facts["status"] == "interrupted"
    else:
        assert facts["status"] == "running"
    # An unfinished run is never the one that is evaluated.
    assert medvlm(["eval", str(run)]) == 3
    assert medvlm(["finetune", path, "--resume", "--quiet"]) == 0
    resumed = losses(run)
    assert Run(run).facts()["status"] == "finished"
    os.rename(tmp_path / "runs", tmp_path / "first")
    assert medvlm(["finetune", path, "--quiet"]) == 0
    assert losses(open_run(None).path) == resumed
    assert sorted(resumed) == list(range(1, 31))


@pytest.mark.parametrize("kinds", [("full", "full"), ("full", "frozen"), ("frozen", "lora")])
def test_every_kind_of_training_resumes_from_its_checkpoint(
    kinds: tuple[str, str], tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by hand after two of six steps, a run goes on as if it had not been."""
    monkeypatch.chdir(tmp_path)
    projector, language_model = kinds
    raw = settings(tiny_folder, data_folder, save_every=2)
    raw |= {"quantization": {"mode": "none"}, "adapters": {"projector": projector, "language_model": language_model}}
    path = recipe_file(tmp_path, raw)
    assert medvlm(["finetune", path, "--quiet"]) == 0
    whole = open_run(None)
    expected = losses(whole.path)
    # Back to the state that a kill after step two leaves behind.
    for later in (4, 6):
        shutil.rmtree(whole.checkpoints / f"checkpoint-{later}", ignore_errors=True)
    assert medvlm(["finetune", path, "--quiet", "train.keep_checkpoints=3"]) == 0
    run = open_run(None)
    for later in (4, 6):
        shutil.rmtree(run.checkpoints / f"checkpoint-{later}")
    run.record(run.facts() | {"status": "running"})
    assert medvlm(["finetune", path, "--resume", "--quiet", "train.keep_checkpoints=3"]) == 0
    assert losses(run.path) == expected
    assert json.loads((run.path / "compute.json").read_text(encoding="utf-8"))["samples"] == 24
    # Once more when the last step is done already: nothing is trained again.
    run.record(run.facts() | {"status": "running"})
    assert medvlm(["finetune", path, "--resume", "--quiet", "train.keep_checkpoints=3"]) == 0
    assert run.facts()["result"]["steps"] == 6
    assert losses(run.path) == expected
    assert "--resume" not in run.facts()["command"]


def test_two_processes_never_train_into_one_folder(tmp_path: Path) -> None:
    from medvlm.errors import InputError

    with Run(tmp_path).owned(), pytest.raises(InputError, match="another process"), Run(tmp_path).owned():
        pass


def test_uneven_micro_batches_weigh_every_example_alike(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = recipe_file(tmp_path, settings(tiny_folder, data_folder, max_steps=1, loss="example", eval_every=1))
    for batch, accumulation in ((8, 1), (3, 3)):
        assert (
            medvlm(["finetune", path, f"train.batch_size={batch}", f"train.gradient_accumulation={accumulation}"]) == 0
        )
    runs = sorted(p for p in (tmp_path / "runs").iterdir() if not p.is_symlink())
    first, second = ([json.loads(x) for x in (r / "metrics.jsonl").read_text().splitlines()] for r in runs)
    assert first[0]["loss"] == pytest.approx(second[0]["loss"], rel=1e-5)
    assert first[1]["eval_loss"] == pytest.approx(second[1]["eval_loss"], rel=1e-5)


def test_data_changed_since_training_is_refused(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data_folder, tmp_path / "data")
    path = recipe_file(tmp_path, settings(tiny_folder, Path("data"), max_steps=1))
    assert medvlm(["finetune", path, "--quiet"]) == 0
    manifest = tmp_path / "data" / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("test-", "other-"), encoding="utf-8")
    assert medvlm(["eval", "--quiet"]) == 3
    assert "has changed since" in capsys.readouterr().err


def test_a_truncated_picture_in_a_worker_is_one_line(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from medvlm.data.sample import Image
    from medvlm.data.sources.phantom.base_grammar import base_samples

    monkeypatch.chdir(tmp_path)
    listed = [next(iter(base_samples(5, i))) for i in range(4)]
    listed[2].image = Image(listed[2].image.data[:900], "cut.jpg")
    write_folder(tmp_path / "data", {"train": listed})
    path = recipe_file(tmp_path, settings(tiny_folder, Path("data"), max_steps=1, workers=1))
    assert medvlm(["finetune", path, "--quiet"]) == 3
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"medvlm: error: {listed[2].id}: the image cannot be read")
    assert len(error) < 300


def test_nothing_to_resume(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert medvlm(["finetune", recipe_file(tmp_path, settings(tiny_folder, data_folder)), "--resume"]) == 3
    assert "no unfinished run" in capsys.readouterr().err


def test_a_diverged_run_stops_with_the_reason(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = settings(tiny_folder, data_folder, learning_rate=1e30, max_steps=20, warmup=0.0)
    assert medvlm(["finetune", recipe_file(tmp_path, raw), "--quiet"]) == 3
    error = capsys.readouterr().err
    assert "the loss is not a number" in error or "the gradient is not a number" in error
    # It is in float32 already, and would diverge again.
    assert "bfloat16" not in error
    assert "start anew" in error
    (run,) = (p for p in (tmp_path / "runs").iterdir())
    assert Run(run).facts()["status"] == "failed"
    assert not (tmp_path / "runs" / "latest").exists()
    assert medvlm(["eval", str(run)]) == 3
    assert "this run failed and has no model (step " in capsys.readouterr().err


def test_dry_run_trains_nothing(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert medvlm(["finetune", "recipes/paligemma448.yaml", f"data.0.path={data_folder}", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    # arXiv:2407.07726: a 3B model of a 400M tower and Gemma 2B; the reference counts 2.36 M in the projector.
    assert "2,361,344" in said
    total = int(next(line for line in said.splitlines() if line.strip().startswith("all")).split()[1].replace(",", ""))
    assert 2.9e9 < total < 2.95e9
    assert "1024 image tokens" in said
    assert "commercial use conditional" in said


@pytest.mark.parametrize(
    ("path", "said"), [("nowhere", "does not exist; run `medvlm prepare"), (".", "holds no manifest.json")]
)
def test_data_that_is_not_there(
    path: str, said: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert medvlm(["finetune", recipe_file(tmp_path, settings(tiny_folder, Path(path)))]) == 3
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1
