"""The plan: checked against a device, reckoned in hours and money where they can be known, and told in lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medvlm.data.mixture import Mixture
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe
from medvlm.train.plan import ASSUMED_SHARE, Device, Plan, Texts, largest_batch, make_plan
from medvlm.train.plan_text import lines

H200 = Device("NVIDIA H200", "cpu", 141 * 10**9)
SMALL = Device("some processor", "cpu", 10**8)


def recipe_of(data: Path, dtype: str = "bfloat16", **changed: Any) -> Recipe:
    raw = {
        "name": "t",
        "model": {"id": "medvlm/tiny-base", "dtype": dtype},
        "data": [{"path": str(data)}],
        "train": {"batch_size": 2, "max_steps": 10, "gradient_accumulation": 3},
    }
    return check({**raw, **changed}, "t")


def plan_of(recipe: Recipe, device: Device) -> Plan:
    return make_plan(recipe, Mixture(recipe.data, "train", recipe.seed), device)


def test_hours_and_money_follow_from_work_and_peak(data_folder: Path) -> None:
    recipe = recipe_of(data_folder, compute={"price_per_hour": 4.0})
    plan = plan_of(recipe, H200)
    assert plan.samples == 10 * 2 * 3
    assert plan.flops == plan.flops_a_sample.useful * 60
    assert plan.hours == pytest.approx(plan.flops / (989.5e12 * ASSUMED_SHARE) / 3600)
    assert plan.money is not None
    assert plan.money["amount"] == pytest.approx(4.0 * plan.hours, abs=1e-4)
    assert plan.fits
    told = "\n".join(lines(plan, recipe))
    assert "fits NVIDIA H200" in told
    assert "an assumption" in told


def test_a_device_too_small_is_told_by_how_much_and_what_to_set(data_folder: Path) -> None:
    recipe = recipe_of(data_folder)
    plan = plan_of(recipe, SMALL)
    assert not plan.fits
    assert (plan.hours, plan.money) == (None, None)
    told = "\n".join(lines(plan, recipe))
    assert "does not fit some processor" in told
    assert "train.activation_checkpointing=true" in told
    assert "time: unknown for some processor" in told


def test_the_table_sums_up_its_rows(data_folder: Path) -> None:
    plan = plan_of(recipe_of(data_folder), H200)
    found = plan.memory
    parts = found.components.values()
    assert found.weights == sum(part.weights for part in parts) > 0
    static = found.weights + found.adapters + found.gradients + found.optimizer
    assert found.tensors == static + found.activations + found.logits
    assert found.adapters == 4 * sum(count.trainable for count in plan.census.values())


def test_the_largest_batch_is_padded_to_the_longest_or_packed_in_fewer_rows(data_folder: Path) -> None:
    texts = Texts(mean=20.0, longest=50, mean_labels=10.0, most_labels=30, found="counted")
    plain = largest_batch(recipe_of(data_folder, train={"batch_size": 4}), 100, texts)
    assert (plain.rows, plain.length, plain.labels, plain.images) == (4, 150, 30, 4)
    packed = largest_batch(recipe_of(data_folder, train={"batch_size": 4, "batching": "packed"}), 100, texts)
    assert (packed.rows, packed.length, packed.labels, packed.images) == (2, 300, 60, 4)
