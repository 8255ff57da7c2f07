"""Streamed rows: every place once, few row groups at a time; a run that was killed ends as if it had not been."""

from __future__ import annotations

import itertools
import os
import random
import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import at_call, die, in_child, lines, only_run, recipe_file
from prepared import write_folder
from safetensors.torch import load_file

from medvlm.cli import run as medvlm
from medvlm.data.mixture import Mixture
from medvlm.data.sources.phantom.base_grammar import base_samples
from medvlm.errors import InputError
from medvlm.recipe.models import DataPart, MixturePart
from medvlm.train import batches, group
from medvlm.train.batches import Streamed
from medvlm.train.trainer import SuffixTrainer

STEPS = 8


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=30),
    st.integers(1, 7),
    st.integers(1, 9),
    st.integers(0, 5),
    st.integers(0, 3),
)
def test_a_stream_visits_every_place_once_a_few_blocks_at_a_time(
    sizes: list[int], window: int, size: int, seed: int, epoch: int
) -> None:
    starts = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    blocks = [range(low, high) for low, high in itertools.pairwise(starts)]
    owner = {place: number for number, block in enumerate(blocks) for place in block}
    with patch.object(batches, "WINDOW", window):
        sampler = Streamed(blocks, size, seed)
        sampler.set_epoch(epoch)
        found = list(sampler)
        assert found == list(sampler)
    assert len(found) == len(sampler) == -(-starts[-1] // size)
    assert all(len(batch) == size for batch in found[:-1])
    order = [place for batch in found for place in batch]
    assert sorted(order) == list(range(starts[-1]))
    # Each block's places come within one window of `window` blocks.
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for at, place in enumerate(order):
        first.setdefault(owner[place], at)
        last[owner[place]] = at
    for at in range(len(order)):
        assert sum(first[number] <= at <= last[number] for number in first) <= window


def test_the_order_depends_on_seed_and_epoch() -> None:
    blocks = [range(start, start + 10) for start in range(0, 2000, 10)]

    def order(seed: int, epoch: int) -> list[int]:
        sampler = Streamed(blocks, 8, seed)
        sampler.set_epoch(epoch)
        return [place for batch in sampler for place in batch]

    orders = [order(seed, epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(one) for one in orders}) == 4
    assert order(1, 1) == orders[1]
    # Neither the places of a block nor the blocks keep to their order.
    assert sum(abs(one - other) == 1 for one, other in itertools.pairwise(orders[0])) < 100


def cut(folder: Path, rows: int) -> Path:
    """Write the shards of a data set again in row groups of so many rows."""
    for path in (folder / "data").iterdir():
        pq.write_table(pq.read_table(path), path, row_group_size=rows, use_dictionary=False, compression="NONE")
    return folder


@pytest.fixture
def sets(tmp_path: Path) -> list[dict[str, Any]]:
    """Two data sets of several row groups: sixteen rows, and four that a temperature brings up."""
    listed = [next(s for s in base_samples(5, i) if s.prompt == "keywords") for i in range(24)]
    large = write_folder(tmp_path / "large", {"train": listed[:16], "validation": listed[20:]})
    small = write_folder(tmp_path / "small", {"train": listed[16:20], "validation": listed[20:]})
    return [{"path": str(cut(large, 3))}, {"path": str(cut(small, 2))}]


def recipe(tiny: Path, data: list[dict[str, Any]], mixture: dict[str, Any], **train: Any) -> dict[str, Any]:
    return {
        "name": "t",
        "model": {"id": str(tiny), "dtype": "float32"},
        "adapters": {"language_model": {"kind": "lora", "r": 4, "dropout": 0.3}, "projector": "full"},
        "data": data,
        "mixture": mixture,
        "train": {
            "learning_rate": 1e-3, "batch_size": 2, "max_steps": STEPS, "eval_every": 5, "save_every": 2,
            "gradient_accumulation": 2, "trackers": [], **train,
        },
    }  # fmt: skip


def _trained(folder: Path) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor], dict[str, Any]]:
    run = only_run(folder)
    return lines(run.path), load_file(run.path / "adapter" / "adapter_model.safetensors"), run.facts()


@pytest.mark.parametrize("batching", ["packed", pytest.param("shuffled", marks=pytest.mark.slow)])
def test_killed_at_any_step_and_with_any_workers(
    batching: str, tiny_folder: Path, sets: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streamed without workers and never killed, against a worker and killed twice, in the middle of epochs."""
    monkeypatch.setattr(batches, "WINDOW", 3)
    mixture = {"streaming": True, "temperature": 2.0}
    folders = tmp_path / "whole", tmp_path / "killed"
    for folder, workers in zip(folders, (0, 1), strict=True):
        folder.mkdir()
        os.chdir(folder)
        path = recipe_file(folder, recipe(tiny_folder, sets, mixture, batching=batching, workers=workers))
        if workers:
            chance = random.Random(batching)
            for number in range(2):
                resume = ["--resume"] if number else []
                # Twelve batches an epoch, two an update.
                at = chance.randint(3, 2 * STEPS // 2 - 2)
                prepare = at_call(SuffixTrainer, "training_step", at, lambda *_, **__: die())
                assert in_child(["finetune", path, "--quiet", *resume], prepare) == -signal.SIGKILL
            assert medvlm(["finetune", path, "--resume", "--quiet"]) == 0
        else:
            assert medvlm(["finetune", path, "--quiet"]) == 0
    whole, killed = (_trained(folder) for folder in folders)
    assert killed[0] == whole[0]
    assert killed[0][-1]["step"] == STEPS
    assert killed[2]["result"] == whole[2]["result"]
    assert killed[2]["data"] == whole[2]["data"]
    assert [part["weight"] for part in killed[2]["data"]] == [1, 2]
    assert whole[1].keys() == killed[1].keys()
    assert all(torch.equal(whole[1][name], killed[1][name]) for name in whole[1])


@pytest.mark.parametrize("cache", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_streamed_or_in_memory_the_same_rows_are_learned_from(
    cache: bool, tiny_folder: Path, sets: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the order differs: with one batch of all rows an epoch the losses are the same but for rounding."""
    monkeypatch.delenv("MEDVLM_CACHE", raising=False)
    losses = []
    for streaming in (False, True):
        folder = tmp_path / f"streaming-{streaming}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        data = [{**part, "cache_pixels": cache} for part in sets]
        raw = recipe(tiny_folder, data, {"streaming": streaming}, batch_size=20, gradient_accumulation=1, max_steps=3)
        raw["adapters"]["language_model"]["dropout"] = 0.0
        assert medvlm(["finetune", recipe_file(folder, raw), "--quiet"]) == 0
        losses.append([line["loss"] for line in lines(only_run(folder).path) if "loss" in line])
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


@pytest.mark.parametrize(
    ("change", "told"), [({"cap": 5, "weight": 2}, "11 of the 16 rows of PATH"), ({"weight": 2}, None)]
)
def test_rows_that_are_never_seen_are_told_before_training(
    change: dict[str, Any],
    told: str | None,
    tiny_folder: Path,
    sets: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: Any) -> None:
        raise InputError("far enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(group, "_train_one", stop)
    path = recipe_file(tmp_path, recipe(tiny_folder, [sets[0] | change, sets[1]], {}))
    assert medvlm(["finetune", path, "--quiet"]) == 3
    found = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning:")]
    words = [f"warning: t: never seen, by the weight or cap: {told.replace('PATH', sets[0]['path'])}"] if told else []
    assert found == words


def test_a_stream_goes_through_its_row_groups_once_an_epoch(sets: list[dict[str, Any]]) -> None:
    mixture = Mixture([DataPart(**part) for part in sets], "train", 0, how=MixturePart(streaming=True))
    read = []
    for rows in mixture.rows:
        shards = rows._shards
        plain = shards.texts
        shards.texts = lambda group, plain=plain, name=rows.folder.path.name: (  # type: ignore[method-assign]
            read.append((name, group)),
            plain(group),
        )[1]
    with patch.object(batches, "WINDOW", 2):
        for batch in Streamed(mixture.blocks(), 4, 0):
            for place in batch:
                mixture.text(place)
    assert sorted(read) == [*(("large", group) for group in range(6)), ("small", 0), ("small", 1)]
