"""How an update is cut among devices: each example once an epoch, and the same updates for any number of devices."""

from __future__ import annotations

import os
import signal
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medvlm.errors import InputError, RecipeError
from medvlm.models.backbones.base import Example
from medvlm.models.load import load_base
from medvlm.recipe.load import check
from medvlm.train import callbacks, loop, mixing
from medvlm.train.arguments import accumulation, updates
from medvlm.train.batches import Batches, Chance, Shared, Streamed
from medvlm.train.devices import ONE, Devices
from medvlm.train.mixing import FILLER, CountingCollator, EveryUpdate, Numbered


def sampler(kind: str, count: int, size: int, accumulation: int) -> Any:
    if kind == "shuffled":
        return Chance(count, size, 7)
    if kind == "streamed":
        return Streamed([range(start, min(count, start + 5)) for start in range(0, count, 5)], size, 7)
    if kind == "every_update":
        return EveryUpdate([0] * count, ["one"], size, accumulation, 7)
    return Batches([place % 11 for place in range(count)], size, kind, 7)  # type: ignore[arg-type]


KINDS = st.sampled_from(["shuffled", "grouped", "packed", "streamed", "every_update"])


@settings(deadline=None, max_examples=150)
@given(
    kind=KINDS,
    count=st.integers(1, 90),
    batch=st.integers(1, 5),
    steps=st.integers(1, 4),
    begun=st.integers(1, 4),
    now=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
def test_all_devices_together_visit_each_place_once_in_the_updates_of_the_run(
    kind: str, count: int, batch: int, steps: int, begun: int, now: int, epoch: int
) -> None:
    whole = sampler(kind, count, batch * begun, steps)
    whole.set_epoch(epoch)
    batches = list(whole)
    updates = [list(chain(*batches[start : start + steps])) for start in range(0, len(batches), steps)]
    shares = [Shared(whole, steps, batch, rank, now) for rank in range(now)]
    for share in shares:
        share.set_epoch(epoch)
    passes = [list(share) for share in shares]
    assert {len(own) for own in passes} == {len(share) for share in shares}, "one device would wait for ever"
    assert all(0 < len(own) <= batch for device in passes for own in device)
    each = -(-steps * begun // now)
    found = []
    for start in range(0, len(passes[0]), each):
        places = [place for device in passes for own in device[start : start + each] for place in own]
        found.append(sorted(place for place in places if place >= 0))
    assert found == [sorted(update) for update in updates]
    assert sorted(place for update in found for place in update) == list(range(count))


@given(count=st.integers(1, 60), batch=st.integers(1, 5), epoch=st.integers(0, 3), seed=st.integers(0, 2**31))
def test_several_devices_shuffle_as_the_trainer_does_on_one(count: int, batch: int, epoch: int, seed: int) -> None:
    theirs = SeedableRandomSampler(range(count), data_seed=seed)
    theirs.set_epoch(epoch)
    ours = Chance(count, batch, seed)
    ours.set_epoch(epoch)
    assert [place for own in ours for place in own] == list(theirs)
    assert len(list(ours)) == len(ours)


def test_an_example_that_only_keeps_step_is_counted_nowhere() -> None:
    examples: Any = ["a", "b"]
    numbered = Numbered(examples)
    numbered.part = lambda index: 0  # type: ignore[method-assign]
    collator: Any = SimpleNamespace(
        backbone=SimpleNamespace(output="text", true_lengths=lambda _: [3], labels_in=lambda _: 2)
    )
    collator = type("C", (), {"backbone": collator.backbone, "__call__": lambda self, got: {"x": torch.ones(1)}})()
    counting = CountingCollator(collator, lambda _: 5)
    assert numbered[~1] == ("b", FILLER)
    assert counting([numbered[~1]])["held"].samples == counting([numbered[~1]])["held"].labels == 0
    assert counting([numbered[1]])["held"].labels == 2


def test_an_example_that_only_keeps_step_is_held_against_none() -> None:
    torch.manual_seed(0)
    loaded = load_base(contrastive())
    plain = type("Plain", (), {"backbone": loaded.backbone, "__call__": lambda _, got: loaded.backbone.collate(got)})
    counting: Any = CountingCollator(plain())
    example = Example(Image.new("RGB", (60, 60)), "what?", "a nodule")
    inputs = counting([(example, FILLER)])
    inputs.pop("held")
    loss, sums, _ = loaded.backbone.losses(loaded.model.train(), inputs)
    assert (loss.item(), len(sums)) == (0, 0)
    loss.backward()  # type: ignore[no-untyped-call]
    # All devices wait for each other's gradients.
    gradients = [weight.grad for weight in loaded.model.parameters() if weight.requires_grad]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


@pytest.mark.parametrize(("begun", "now", "passes"), [(1, 1, 3), (2, 1, 6), (1, 2, 2), (2, 4, 2), (4, 2, 6)])
def test_an_update_keeps_its_samples_on_other_devices(begun: int, now: int, passes: int) -> None:
    raw = {"name": "t", "model": {"id": "x"}, "data": [{"path": "d"}], "train": {"gradient_accumulation": 3}}
    assert accumulation(check(raw, "t"), begun, now) == passes


def test_more_devices_make_fewer_updates() -> None:
    train = {"gradient_accumulation": 2, "batch_size": 4, "epochs": 3}
    recipe = check({"name": "t", "model": {"id": "x"}, "data": [{"path": "d"}], "train": train}, "t")
    assert [updates(recipe, 100, count) for count in (1, 2, 4)] == [39, 21, 12]


def contrastive(**train: Any) -> Any:
    model = {"id": "medvlm/tiny-random-clip", "backbone": "contrastive"}
    return check({"name": "t", "model": model, "data": [{"path": "d"}], "train": train}, "t")


@pytest.mark.parametrize("sharding", ["fsdp2", "deepspeed"])
def test_a_contrast_is_not_shared_in_parts(sharding: str) -> None:
    loop.check_sharding(contrastive(), "ddp")
    with pytest.raises(
        RecipeError, match=r"^[^\n]*model\.backbone: 'contrastive': [^\n]*expected --devices alone[^\n]*$"
    ):
        loop.check_sharding(contrastive(), sharding)


def test_a_contrast_goes_on_with_as_many_devices() -> None:
    then = {"devices": {"count": 1, "begun": 2, "sharding": "none"}}
    with pytest.raises(InputError, match=r"12 pairs .* --devices 2, or start a new run with train\.batch_size=12$"):
        loop._check_devices(then, True, contrastive(batch_size=6))
    loop._check_devices({"devices": {**then["devices"], "count": 2}}, True, contrastive(batch_size=6))


def test_a_contrast_needs_two_pairs() -> None:
    rows: Any = [1, 2, 3]
    mixing.check_mixture(contrastive(batch_size=1), rows, rows, devices=2)
    with pytest.raises(RecipeError, match=r"train\.batch_size: 1: a pair alone .*expected 2"):
        mixing.check_mixture(contrastive(batch_size=1), rows, rows, devices=1)


def test_one_device_joins_nothing() -> None:
    assert ONE.total([3, 4]) == [3, 4]
    assert ONE.joined(["a"]) == ["a"]
    assert ONE.from_first(lambda: 5) == 5
    assert ONE.any(True)
    assert not ONE.any(False)
    assert Devices(1, 3).part([0, 1, 2, 3, 4]) == [1, 4]


def test_a_ctrl_c_while_the_others_are_awaited_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[bool] = []

    def anyone(own: bool) -> bool:
        said.append(own)
        # It comes when this process has said that it was asked nothing, the first time.
        if len(said) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return own

    monkeypatch.setattr(callbacks, "here", lambda: SimpleNamespace(any=anyone))
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    with callbacks.Interrupt(quiet=True) as interrupt:
        interrupt.on_step_end(None, None, control)
        assert not control.should_training_stop, "the others go on, and would be waited for for ever"
        interrupt.on_step_end(None, None, control)
    assert said == [False, True]
    assert control.should_training_stop
    assert control.should_save


def test_the_first_ctrl_c_of_all_is_no_second_one_where_it_comes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "here", lambda: SimpleNamespace(any=lambda own: True))
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    with callbacks.Interrupt(quiet=True) as interrupt:
        interrupt.on_step_end(None, None, control)
        assert interrupt.asked
        # While the checkpoint is written.
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
