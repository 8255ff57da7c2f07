"""Two processes with batch B train as one with batch 2 B: losses, gradient norms, weights; and others go on with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import text_only
import torch
from prepared import write_folder
from safetensors.torch import load_file
from two_devices import train_on_two

from medvlm.cli import run as medvlm
from medvlm.data.sources.phantom.base_grammar import base_samples
from medvlm.runs import Run, open_run

sys.path.append(str(Path(__file__).resolve().parent.parent / "models"))
from git_llm_tiny import save_text, save_tower

TIMES = ("step_seconds", "seconds", "samples_per_second")
CLOSE = 1e-4


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirteen pictures for training, so that an epoch's last update leaves a device without one; five to validate."""
    listed = [next(s for s in base_samples(5, i) if s.prompt == "keywords") for i in range(20)]
    folder = tmp_path_factory.mktemp("odd") / "phantoms"
    return write_folder(folder, {"train": listed[:13], "validation": listed[13:18], "test": listed[18:]})


@pytest.fixture(scope="module")
def git_parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("git")
    save_tower(folder / "tower", "clip")
    save_text(folder / "llm", "llama", "llama")
    return {
        "backbone": "git_llm",
        "vision_tower": str(folder / "tower"),
        "language_model": str(folder / "llm"),
    }


def recipe(model: Mapping[str, Any], data: Path, *, nf4: bool = False, batch: int = 2, **train: Any) -> dict[str, Any]:
    four_bits = {"mode": "nf4", "compute_dtype": "float32", "storage": "float32"}
    fixed = {"learning_rate": 1e-2, "max_steps": 4, "gradient_accumulation": 2, "save_every": 2, "eval_every": 2}
    return {
        "name": "t",
        "model": {"dtype": "float32", **model},
        "quantization": four_bits if nf4 else {"mode": "none"},
        "adapters": {"language_model": {"kind": "lora", "r": 4}, "projector": "full"},
        "data": [{"path": str(data)}],
        "train": {**fixed, "batch_size": batch, "trackers": [], **train},
        "eval": {"max_new_tokens": 6, "batch_size": 2},
    }


def doubled(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe that does on one device what `raw` does on two."""
    return {**raw, "train": {**raw["train"], "batch_size": 2 * raw["train"]["batch_size"]}}


def alone(folder: Path, raw: dict[str, Any], *options: str) -> Run:
    """Train on one device in `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert medvlm(["finetune", "recipe.yaml", "--quiet", *options]) == 0
    return open_run(None, folder / "runs")


def of(folder: Path, name: str) -> Run:
    return open_run(None, folder / name / "runs")


def log(run: Run) -> list[dict[str, Any]]:
    text = (run.path / "metrics.jsonl").read_text(encoding="utf-8")
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in text.splitlines()]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {name: value for path in run.adapter.glob("*.safetensors") for name, value in load_file(path).items()}


def assert_same(one: Run, two: Run) -> None:
    """Raise where the two runs differ by more than `CLOSE` in anything logged or trained."""
    ours, theirs = log(one), log(two)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for first, second in zip(ours, theirs, strict=True):
        assert {k: v for k, v in first.items() if k != "epoch"} == pytest.approx(
            {k: v for k, v in second.items() if k != "epoch"}, rel=CLOSE, abs=CLOSE
        )
    held, got = weights(one), weights(two)
    assert held.keys() == got.keys()
    for name, value in held.items():
        assert torch.allclose(value, got[name], atol=CLOSE, rtol=CLOSE), name
        assert value.dtype == got[name].dtype


def sealed_files(run: Run) -> list[set[str]]:
    return [{path.name for path in folder.iterdir()} for folder in sorted(run.checkpoints.iterdir())]


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, odd_folder: Path, git_parts: dict[str, str]
) -> tuple[Path, dict[str, dict[str, Any]]]:
    """Trainings by two processes, all in one start; and their recipes."""
    folder = tmp_path_factory.mktemp("two")
    base = {"id": str(tiny_folder)}
    recipes = {
        # The last step is logged out of turn.
        "ddp": recipe(base, odd_folder, best="accuracy", best_samples=3, log_every=3),
        "fsdp2-nf4": recipe(base, odd_folder, nf4=True, loss="example", best="accuracy", best_samples=3),
        "ddp-git": recipe(git_parts, odd_folder, batching="grouped", loss="example"),
        "fsdp2-git": recipe(git_parts, odd_folder, batching="packed"),
        "ddp-clip": recipe({"backbone": "contrastive", "id": "medvlm/tiny-random-clip", "image_size": 56}, odd_folder),
        "fsdp2-stopped": recipe(base, odd_folder, max_steps=5, batching="grouped"),
    }
    stops = {"fsdp2-stopped": {"stop": 3}}
    trainings = {
        name: {"sharding": name.split("-")[0], "recipe": raw, **stops.get(name, {})} for name, raw in recipes.items()
    }
    train_on_two(folder, trainings)
    return folder, recipes


@pytest.mark.parametrize("name", ["ddp", "fsdp2-nf4", "ddp-git", "fsdp2-git", "ddp-clip"])
def test_two_devices_train_as_one_with_the_doubled_batch(
    trained: tuple[Path, dict[str, dict[str, Any]]], name: str, tmp_path: Path
) -> None:
    folder, recipes = trained
    one, two = alone(tmp_path, doubled(recipes[name])), of(folder, name)
    assert_same(one, two)
    assert sealed_files(one) == sealed_files(two), "a checkpoint of two devices is one of one device"
    spent = json.loads((two.path / "compute.json").read_text(encoding="utf-8"))
    alike = json.loads((one.path / "compute.json").read_text(encoding="utf-8"))
    assert spent["devices"] == 2
    assert [spent[key] for key in ("samples", "tokens", "flops")] == [
        alike[key] for key in ("samples", "tokens", "flops")
    ]
    assert spent["device_hours"] == pytest.approx(2 * spent["hours"], abs=2e-6)


@pytest.mark.slow
def test_one_device_goes_on_where_two_that_shared_the_model_stopped(
    trained: tuple[Path, dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    folder, recipes = trained
    raw = recipes["fsdp2-stopped"]
    stopped = Run(next((folder / "fsdp2-stopped" / "runs").glob("2*")))
    assert stopped.facts()["status"] == "interrupted"
    assert stopped.facts()["devices"] == {"count": 2, "begun": 2, "sharding": "fsdp2"}
    assert [path.name for path in sorted(stopped.checkpoints.iterdir())] == ["checkpoint-2", "checkpoint-3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "fsdp2-stopped")
        assert medvlm(["finetune", "recipe.yaml", "--quiet", "--resume"]) == 0
    assert_same(alone(tmp_path, doubled(raw)), of(folder, "fsdp2-stopped"))


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_two_devices_go_on_where_one_stopped(
    sharding: str, tmp_path: Path, tiny_folder: Path, odd_folder: Path
) -> None:
    raw = recipe({"id": str(tiny_folder)}, odd_folder, batch=3, gradient_accumulation=1, max_steps=7)
    whole = alone(tmp_path / "whole", raw)
    alone(tmp_path / "part", {**raw, "train": {**raw["train"], "save_every": 4}})
    begun = of(tmp_path, "part")
    # As a training that was killed after step 4 leaves it.
    facts = begun.facts()
    begun.record({**facts, "status": "running"})
    for path in begun.checkpoints.iterdir():
        if path.name != "checkpoint-4":
            (path / "whole.json").unlink()
    changed = {**raw, "train": {**raw["train"], "save_every": 4}}
    train_on_two(tmp_path, {"part": {"sharding": sharding, "recipe": changed, "resume": True}})
    assert_same(whole, of(tmp_path, "part"))
    assert of(tmp_path, "part").facts()["devices"] == {"count": 2, "begun": 1, "sharding": sharding}


@pytest.mark.slow
def test_a_classifier_and_git_train_on_two_devices_as_on_one(tmp_path: Path, odd_folder: Path) -> None:
    asked = [next(s for s in base_samples(5, i) if s.task == "vqa") for i in range(20)]
    questions = write_folder(tmp_path / "asked", {"train": asked[:13], "validation": asked[13:18], "test": asked[18:]})
    vilt = recipe({"backbone": "vilt", "id": "medvlm/tiny-random"}, questions)
    vilt["data"][0]["tasks"] = ["vqa"]
    vilt["text"] = {"max_prefix_tokens": 30}
    git = recipe({"backbone": "git", "id": "medvlm/tiny-random"}, odd_folder)
    whole = {"vision_tower": "full", "language_model": "full", "head": "full"}
    recipes = {"vilt": {**vilt, "adapters": whole}, "git": {**git, "adapters": {**whole, "projector": "full"}}}
    train_on_two(tmp_path, {name: {"sharding": "ddp", "recipe": raw} for name, raw in recipes.items()})
    for name, raw in recipes.items():
        assert_same(alone(tmp_path / f"{name}-alone", doubled(raw)), of(tmp_path, name))


@pytest.mark.slow
@pytest.mark.parametrize("adapted", ["projector", "tower"])
def test_devices_with_and_without_pictures_keep_in_step(
    adapted: str, tmp_path: Path, odd_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One example a pass: some devices have no picture at all where others have one.
    raw = recipe({"backbone": "generic", "id": "medvlm/tiny-random-smolvlm"}, odd_folder, batch=1)
    if adapted == "tower":
        raw["adapters"]["vision_tower"] = {"kind": "lora", "r": 2}
    before = {"recipe": raw, "before": "text_only:without_some_pictures"}
    train_on_two(tmp_path, {name: {"sharding": name, **before} for name in ("ddp", "fsdp2")})
    text_only.without_some_pictures(monkeypatch)
    one = alone(tmp_path / "one", doubled(raw))
    assert_same(one, of(tmp_path, "ddp"))
    assert_same(one, of(tmp_path, "fsdp2"))
