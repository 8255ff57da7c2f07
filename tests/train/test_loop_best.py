"""The best checkpoint: chosen by loss or by generated texts, kept, saved at the end; and training not disturbed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import lines, only_run, recipe_file
from safetensors.torch import load_file

from medvlm.cli import run as medvlm
from medvlm.evaluate.metrics import score
from medvlm.evaluate.predict import Predictor
from medvlm.train import checkpoints, setup
from medvlm.train.trainer import SuffixTrainer
from medvlm.train.validation import figure


def settings(tiny: Path, data: Path, **train: Any) -> dict[str, Any]:
    return {
        "name": "t",
        "model": {"id": str(tiny), "dtype": "float32"},
        "adapters": {"language_model": {"kind": "lora", "r": 4, "dropout": 0.2}},
        "data": [{"path": str(data)}],
        "train": {"learning_rate": 1e-3, "batch_size": 4, "max_steps": 6, "save_every": 5, "trackers": [], **train},
        "eval": {"max_new_tokens": 4, "temperature": 1.0},
    }


@pytest.mark.parametrize(
    ("values", "best"), [([0.1, 0.5, 0.2, 0.5, 0.4, 0.0], 2), ([0.0] * 6, 1), ([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], 6)]
)
def test_the_best_step_is_saved_and_the_earlier_of_equals(
    values: list[float],
    best: int,
    tiny_folder: Path,
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    waiting, weights = list(values), []

    def scripted(*_: Any) -> float:
        return waiting.pop(0)

    after = SuffixTrainer._determine_best_metric

    def note(self: SuffixTrainer, metrics: Any, trial: Any) -> bool:
        weights.append({n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad})
        return after(self, metrics, trial)

    monkeypatch.setattr(setup, "generated", lambda *_: [])
    monkeypatch.setattr(setup, "figure", scripted)
    monkeypatch.setattr(SuffixTrainer, "_determine_best_metric", note)
    raw = settings(tiny_folder, data_folder, best="accuracy", eval_every=1, keep_checkpoints=1)
    assert medvlm(["finetune", recipe_file(tmp_path, raw), "--quiet"]) == 0
    run = only_run(tmp_path)
    assert run.facts()["result"]["best"] == {"by": "accuracy", "step": best, "value": max(values)}
    validated = {line["step"]: line for line in lines(run.path) if "eval_loss" in line}
    assert [validated[step]["eval_accuracy"] for step in range(1, 7)] == values
    assert run.facts()["result"]["eval_loss"] == validated[best]["eval_loss"]
    saved = load_file(run.adapter / "adapter_model.safetensors")
    kept = {name.replace(".default", ""): value for name, value in weights[best - 1].items()}
    assert saved.keys() == kept.keys()
    assert all(torch.equal(saved[name], kept[name]) for name in saved)
    assert [checkpoints.step_of(path) for path in checkpoints.whole(run.checkpoints)] == sorted({best, 6})


def test_generating_and_validating_leave_training_as_it_was(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, and with a 4-bit model whose gradients a first forward in evaluation mode could spoil."""
    monkeypatch.chdir(tmp_path)
    found = []
    plain = SuffixTrainer._get_grad_norm

    def note(self: SuffixTrainer, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found[-1].append(gradients)
        return plain(self, model, grad_norm)

    monkeypatch.setattr(SuffixTrainer, "_get_grad_norm", note)
    for often in ({"best": "bleu4", "best_samples": 2, "eval_every": 1}, {"eval_every": 4}):
        raw = settings(tiny_folder, data_folder, max_steps=4, **often)
        raw["quantization"] = {"mode": "nf4", "compute_dtype": "float32"}
        found.append([])
        assert medvlm(["finetune", recipe_file(tmp_path, raw), "--quiet"]) == 0
    assert len(found[0]) == len(found[1]) == 4
    for one, other in zip(*found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_figure_is_that_of_the_texts_the_model_generates(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    plain = Predictor.answers

    def note(self: Predictor, *args: Any, **kwargs: Any) -> list[str]:
        assert self.recipe.eval.temperature == 0
        said.extend(plain(self, *args, **kwargs))
        return said[-len(args[0]) :]

    monkeypatch.setattr(Predictor, "answers", note)
    raw = settings(tiny_folder, data_folder, max_steps=2, best="rouge_l", best_samples=3, eval_every=2)
    assert medvlm(["finetune", recipe_file(tmp_path, raw), "--quiet"]) == 0
    run = only_run(tmp_path)
    from medvlm.data.mixture import Mixture

    recipe = run.recipe()
    texts = [str(text["target"]) for text in Mixture(recipe.data, "validation", recipe.seed).texts()]
    assert len(said) == 3
    possible = [score(["rouge"], said, [[t] for t in texts[:k] + texts[k + 1 :]]).values["rouge_l"] for k in range(4)]
    assert run.facts()["result"]["best"]["value"] in possible


def test_figures_by_hand() -> None:
    assert figure("accuracy", ["No.", "left lung", "a"], ["no", "Left  lung", "b"]) == pytest.approx(2 / 3)
    assert figure("bleu4", ["a b c d e"], ["a b c d e"]) == pytest.approx(1.0)
    assert figure("rouge_l", ["a b"], ["c d"]) == 0.0


def test_no_validation_rows_to_choose_by(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data_folder, tmp_path / "data")
    next((tmp_path / "data" / "data").glob("validation-*")).unlink()
    raw = settings(tiny_folder, Path("data"), best="loss")
    assert medvlm(["finetune", recipe_file(tmp_path, raw), "--quiet"]) == 3
    assert "there are no validation rows" in capsys.readouterr().err


def _checkpointed(tmp_path: Path, raw: dict[str, Any], best: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Script validation figures of which that of step `best` is the highest, of six; return the recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup, "generated", lambda *_: [])
    monkeypatch.setattr(setup, "figure", lambda *_: 0.0)
    after = SuffixTrainer._determine_best_metric

    def scripted(self: SuffixTrainer, metrics: Any, trial: Any) -> bool:
        metrics["eval_accuracy"] = 1.0 if self.state.global_step == best else 0.0
        return after(self, metrics, trial)

    monkeypatch.setattr(SuffixTrainer, "_determine_best_metric", scripted)
    return recipe_file(tmp_path, raw)


def test_a_best_checkpoint_that_is_gone_is_told_when_resuming(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    raw = settings(tiny_folder, data_folder, best="accuracy", eval_every=1, save_every=2, keep_checkpoints=1)
    path = _checkpointed(tmp_path, raw, 1, monkeypatch)
    plain = SuffixTrainer.training_step

    def stopped(self: SuffixTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return plain(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(SuffixTrainer, "training_step", stopped)
        assert medvlm(["finetune", path, "--quiet"]) == 130
    run = only_run(tmp_path)
    assert [checkpoints.step_of(found) for found in checkpoints.whole(run.checkpoints)] == [1, 4]
    (run.checkpoints / "checkpoint-1").rename(tmp_path / "aside")
    capsys.readouterr()
    assert medvlm(["finetune", path, "--resume", "--quiet"]) == 3
    assert "checkpoint-1: the best checkpoint so far is gone; put it back" in capsys.readouterr().err
    (tmp_path / "aside").rename(run.checkpoints / "checkpoint-1")
    assert medvlm(["finetune", path, "--resume", "--quiet"]) == 0
    assert run.facts()["result"]["best"]["step"] == 1


def test_a_best_checkpoint_that_is_gone_at_the_end_leaves_the_last_weights(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    raw = settings(tiny_folder, data_folder, best="accuracy", eval_every=1, keep_checkpoints=1)
    path = _checkpointed(tmp_path, raw, 1, monkeypatch)
    last: dict[str, torch.Tensor] = {}
    plain = SuffixTrainer.train

    def lost(self: SuffixTrainer, *args: Any, **kwargs: Any) -> Any:
        found = plain(self, *args, **kwargs)
        last.update({n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad})
        shutil.rmtree(Path(self.args.output_dir) / "checkpoint-1")
        return found

    monkeypatch.setattr(SuffixTrainer, "train", lost)
    assert medvlm(["finetune", path, "--quiet"]) == 0
    assert "checkpoint-1: the best checkpoint by accuracy is gone" in capsys.readouterr().err
    run = only_run(tmp_path)
    result = run.facts()["result"]
    assert "best" not in result
    validated = [line["eval_loss"] for line in lines(run.path) if "eval_loss" in line]
    assert result["eval_loss"] == validated[-1]
    saved = load_file(run.adapter / "adapter_model.safetensors")
    assert saved.keys() == {name.replace(".default", "") for name in last}
    assert all(torch.equal(saved[name.replace(".default", "")], value) for name, value in last.items())
