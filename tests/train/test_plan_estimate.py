"""The plan: checked against a device, reckoned in hours and money where they can be known, and told in lines."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from medvlm.data.mixture import Mixture
from medvlm.models.load import planned_config
from medvlm.recipe.load import check, merge
from medvlm.recipe.models import Recipe
from medvlm.train import memory, memory_trace
from medvlm.train.memory_trace import Shape
from medvlm.train.plan import ASSUMED_SHARE, Device, Plan, Texts, largest_batch, make_plan
from medvlm.train.plan_text import lines
from medvlm.train.remedies import size

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


def text_of(plan: Plan, recipe: Recipe) -> str:
    """The plan in one line, as its lines are broken for a terminal; none of them is too wide for it."""
    told = lines(plan, recipe, {"commercial_use": "yes", "may_share": "yes"})
    assert max(map(len, told)) <= 80
    return " ".join(" ".join(told).split())


def test_hours_and_money_follow_from_work_and_peak(data_folder: Path) -> None:
    recipe = recipe_of(data_folder, compute={"price_per_hour": 4.0})
    plan = plan_of(recipe, H200)
    assert plan.samples == 10 * 2 * 3
    assert plan.flops == plan.flops_a_sample.useful * 60
    assert plan.hours == pytest.approx(plan.flops / (989.5e12 * ASSUMED_SHARE) / 3600)
    assert plan.money is not None
    assert plan.money["amount"] == pytest.approx(4.0 * plan.hours, abs=1e-4)
    assert plan.fits
    told = text_of(plan, recipe)
    assert "fits NVIDIA H200" in told
    assert "an assumption" in told


def test_a_device_too_small_is_told_by_how_much_and_what_to_set(data_folder: Path) -> None:
    recipe = recipe_of(data_folder)
    plan = plan_of(recipe, SMALL)
    assert not plan.fits
    assert (plan.hours, plan.money) == (None, None)
    told = text_of(plan, recipe)
    assert "does not fit some processor" in told
    assert "even train.batch_size=1, train.activation_checkpointing=true and quantization.mode=nf4 would take" in told
    assert "time: unknown for some processor" in told


def test_pictures_that_keep_their_size_are_said_to_be_taken_for_the_largest(data_folder: Path) -> None:
    recipe = recipe_of(data_folder)
    plan = plan_of(recipe, H200)
    assert not plan.largest_pictures
    assert "as large as the model takes" not in text_of(plan, recipe)
    assert "as large as the model takes" in text_of(dataclasses.replace(plan, largest_pictures=True), recipe)


WIDE = {"batch_size": 60, "gradient_accumulation": 2, "loss_chunk": 64}


def assignments(mend: str) -> dict[str, Any]:
    """What a proposal sets, as a recipe holds it."""
    found: dict[str, Any] = {}
    for part, key, value in re.findall(r"(\w+)\.(\w+)=(\S+?),?(?= |$)", mend):
        found.setdefault(part, {})[key] = yaml.safe_load(value)
    return found


@pytest.mark.parametrize(
    ("share", "batching"),
    [
        (0.5, "shuffled"),
        *(
            pytest.param(share, batching, marks=pytest.mark.slow)
            for share, batching in ((0.9, "shuffled"), (0.2, "shuffled"), (0.9, "packed"), (0.2, "packed"))
        ),
    ],
)
def test_what_is_proposed_makes_it_fit_and_takes_what_is_said(data_folder: Path, share: float, batching: str) -> None:
    recipe = recipe_of(data_folder, train={**WIDE, "batching": batching})
    prepared = memory.prepare(recipe, planned_config(recipe))
    whole, least = plan_of(recipe, H200).memory, memory.standing(recipe, prepared, "cpu").total
    device = Device("some processor", "cpu", round(least + share * (whole.total - least)))
    plan = plan_of(recipe, device)
    assert not plan.fits
    assert plan.remedies
    assert not plan_of(recipe, H200).remedies
    for mend in plan.remedies:
        changed = check(merge(recipe.model_dump(), assignments(mend)), "t")
        again = plan_of(changed, device)
        assert again.fits, mend
        assert mend.endswith(f"would take {size(again.memory.total)}")
    batch = assignments(plan.remedies[0])["train"]
    assert batch["batch_size"] * batch["gradient_accumulation"] == 120, "the same update"


def test_a_smaller_contrast_is_proposed_last_and_as_what_it_is(data_folder: Path) -> None:
    model = {"id": "medvlm/tiny-random-clip", "backbone": "contrastive"}
    recipe = recipe_of(data_folder, model=model, train={"batch_size": 64})
    prepared = memory.prepare(recipe, planned_config(recipe))
    whole, least = plan_of(recipe, H200).memory, memory.standing(recipe, prepared, "cpu").total
    told = plan_of(recipe, Device("some processor", "cpu", round((whole.total + least) / 2))).remedies
    assert not any("same update" in one for one in told)
    assert "(each pair told from fewer others: another, easier task) would take" in told[-1]


def test_nothing_is_proposed_that_does_not_help(data_folder: Path) -> None:
    recipe = recipe_of(data_folder, train={"batch_size": 1, "activation_checkpointing": True})
    device = Device("some processor", "cpu", 10**8)
    (told,) = plan_of(recipe, device).remedies
    assert told.startswith("even quantization.mode=nf4 would take")
    assert told.endswith("take a smaller model or a larger device")


def test_a_full_fine_tuning_has_no_adapters_to_tell_of(data_folder: Path) -> None:
    recipe = recipe_of(data_folder, adapters={"language_model": "full"})
    told = text_of(plan_of(recipe, H200), recipe)
    assert "LoRA" not in told
    assert "4 bits" not in told


@pytest.mark.parametrize(
    "train",
    [
        pytest.param({}, id="plain"),
        pytest.param({"gradient_accumulation": 3}, id="accumulated"),
        pytest.param({"activation_checkpointing": True}, id="checkpointed"),
    ],
)
@pytest.mark.parametrize("images", [1, 2], ids=["a picture a row", "packed"])
def test_a_large_batch_is_estimated_as_it_would_be_traced(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, train: dict[str, Any], images: int
) -> None:
    recipe = recipe_of(data_folder, train={"loss_chunk": 4, **train})
    shape = Shape(rows=64, length=160, labels=12, images=64 * images)

    def estimate() -> memory.Estimate:
        return memory.estimate(recipe, memory.prepare(recipe, planned_config(recipe)), shape, "cpu")

    short = estimate()
    monkeypatch.setattr(memory, "TRACED_CHUNKS", 10**6)
    whole = estimate()
    assert short.activations == pytest.approx(whole.activations, rel=0.01)
    assert short.logits == pytest.approx(whole.logits, rel=0.01)
    assert short.total == pytest.approx(whole.total, rel=0.01)


def test_the_plan_of_a_huge_batch_takes_no_longer(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []
    step = memory_trace.step

    def counted(model: Any, recipe: Any, kind: Any, shape: Shape, tracker: Any) -> None:
        traced.append(shape.rows * shape.labels / recipe.train.loss_chunk)
        step(model, recipe, kind, shape, tracker)

    monkeypatch.setattr(memory_trace, "step", counted)
    plan = plan_of(recipe_of(data_folder, train={"batch_size": 100_000}), Device("large", "cpu", 10**18))
    assert plan.batch.rows == 100_000
    assert sum(traced) <= 2 * memory.TRACED_CHUNKS
    assert plan.memory.total > 10**11


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


def test_the_rates_told_are_those_of_what_is_trained(data_folder: Path) -> None:
    adapters = {"language_model": {"kind": "lora", "learning_rate": 2e-4}, "projector": "full"}
    train = {"learning_rate": 3e-5, "max_steps": 10}
    told = {}
    for name, parts in {"both": adapters, "one": {**adapters, "projector": "frozen"}}.items():
        recipe = recipe_of(data_folder, adapters=parts, train=train)
        told[name] = text_of(plan_of(recipe, H200), recipe)
    assert "learning rate 3e-05 (projector) and 0.0002 (language_model), cosine" in told["both"]
    assert "learning rate 0.0002, cosine" in told["one"]


def test_bytes_of_logits_that_say_nothing_are_left_out(data_folder: Path) -> None:
    recipe = recipe_of(data_folder)
    plan = plan_of(recipe, H200)
    for logits, told in ((4, False), (2_500_000, True)):
        plan.memory = dataclasses.replace(plan.memory, logits=logits)
        assert ("logits 2.5 MB" in text_of(plan, recipe)) is told
        assert ("logits" in text_of(plan, recipe)) is told
    assert "(a plan; nothing is run)" in text_of(plan, recipe)
