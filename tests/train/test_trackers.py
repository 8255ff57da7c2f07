"""Trackers: curves where they are promised, nothing on a network, and one line where a package is missing."""

from __future__ import annotations

import importlib.util
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from killing import lines, only_run, recipe_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medvlm.cli import run as medvlm


def settings(tiny: Path, data: Path, trackers: list[str]) -> dict[str, Any]:
    return {
        "name": "t",
        "model": {"id": str(tiny), "dtype": "float32"},
        "adapters": {"projector": {"kind": "full", "learning_rate": 1e-4}},
        "data": [{"path": str(data)}, {"path": f"{data}/."}],
        "train": {"batch_size": 4, "max_steps": 4, "eval_every": 2, "save_every": 2, "trackers": trackers},
    }


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("no_network")
def test_trackers_show_the_lines_of_metrics(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    # trackio is none of the test extra: it asks for an older pillow than the rest is tested with.
    with_trackio = importlib.util.find_spec("trackio") is not None
    raw = settings(tiny_folder, data_folder, ["tensorboard", "trackio"] if with_trackio else ["tensorboard"])
    assert medvlm(["finetune", recipe_file(tmp_path, raw), "--quiet"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 1
    run = only_run(tmp_path)
    logged = lines(run.path)
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()

    def curve(tag: str) -> list[Any]:
        return [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]

    training = [line for line in logged if "loss" in line]
    paths = [part["path"] for part in raw["data"]]
    assert curve("train/loss") == [(line["step"], line["loss"]) for line in training]
    assert curve("eval/loss") == [(line["step"], line["eval_loss"]) for line in logged if "eval_loss" in line]
    for path in paths:
        assert curve(f"train/loss/{path}") == [
            (line["step"], line["losses"][path]) for line in training if path in line["losses"]
        ]
    assert curve("train/learning_rate/projector") == [
        (line["step"], line["learning_rates"]["projector"]) for line in training
    ]
    assert {"train/samples_per_second", "train/flops"} <= set(events.Tags()["scalars"])
    # What is trained at ten times the other's rate stays so.
    assert all(
        line["learning_rates"]["projector"] == pytest.approx(10 * line["learning_rates"]["language_model"])
        for line in training
    )
    if not with_trackio:
        return
    if (database := next((tmp_path / "trackio").glob("*.db"), None)) is None:
        raise AssertionError("trackio wrote nothing")
    with sqlite3.connect(database) as rows:
        names = {name for (name,) in rows.execute("select run_name from metrics")}
    assert names == {run.path.name}


def test_a_missing_package_is_one_line_before_anything_is_made(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else find(name, *a))
    raw = settings(tiny_folder, data_folder, ["wandb"])
    assert medvlm(["finetune", recipe_file(tmp_path, raw)]) == 5
    assert "train.trackers: wandb needs an optional package: pip install 'medvlm[wandb]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
