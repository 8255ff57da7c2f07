"""The contrast against transformers' own losses, slow loops, and one process with the rows of two."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed, multiprocessing

from medvlm.models.backbones.contrastive_loss import Kind, Pairs, contrast

SCALE, BIAS = torch.tensor(2.0), torch.tensor([-1.5])


def drawn(rows: int, seed: int = 0, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    made = [torch.nn.functional.normalize(torch.randn(rows, width), dim=-1) for _ in range(2)]
    return made[0], made[1]


def apart(rows: int) -> torch.Tensor:
    return torch.arange(rows)


def slow(pairs: Pairs, kind: Kind, scale: float, bias: float) -> list[float]:
    """The losses by the definition, one number at a time; pairs that are alike are no negatives."""
    n = len(pairs.images)
    alike = [
        [
            a != b and bool(pairs.text_keys[a] == pairs.text_keys[b] or pairs.image_keys[a] == pairs.image_keys[b])
            for b in range(n)
        ]
        for a in range(n)
    ]
    cosine = [[sum(float(x) * float(y) for x, y in zip(p, t, strict=True)) for t in pairs.texts] for p in pairs.images]
    found = []
    for i in range(n):
        if kind == "softmax":
            row = sum(math.exp(scale * cosine[i][j]) for j in range(n) if not alike[i][j])
            column = sum(math.exp(scale * cosine[j][i]) for j in range(n) if not alike[i][j])
            own = scale * cosine[i][i]
            found.append((math.log(row) - own + math.log(column) - own) / 2)
        else:
            found.append(
                sum(
                    math.log1p(math.exp(-(1 if i == j else -1) * (scale * cosine[j][i] + bias)))
                    for j in range(n)
                    if not alike[i][j]
                )
            )
    return found


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_every_loss_is_that_of_the_definition(kind: Kind, data: Any) -> None:
    rows = data.draw(st.integers(1, 7))
    images, texts = drawn(rows, data.draw(st.integers(0, 99)))
    keys = st.lists(st.integers(0, 3), min_size=rows, max_size=rows).map(torch.tensor)
    pairs = Pairs(images, texts, data.draw(keys), data.draw(keys))
    found = contrast(pairs, kind, SCALE, BIAS, spread=False)
    assert found.tolist() == pytest.approx(slow(pairs, kind, 2.0, -1.5), abs=1e-5)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_a_row_twice_is_no_negative_of_itself(kind: Kind) -> None:
    images, texts = drawn(4)
    once = contrast(Pairs(images, texts, apart(4), apart(4)), kind, SCALE, BIAS, spread=False)
    again = torch.tensor([0, 1, 2, 3, 0])
    keys = apart(5)
    # The same text below another picture, and the same picture with another text.
    same_text = contrast(Pairs(images[again], texts[again], keys, again), kind, SCALE, BIAS, spread=False)
    same_image = contrast(Pairs(images[again], texts[again], again, keys), kind, SCALE, BIAS, spread=False)
    unmasked = contrast(Pairs(images[again], texts[again], keys, keys), kind, SCALE, BIAS, spread=False)
    # Row 0 is held against the same three others as without its double; with the double as a negative it is not.
    assert torch.allclose(same_text[0], once[0])
    assert torch.allclose(same_image[0], once[0])
    assert not torch.allclose(unmasked[0], once[0])


def test_a_batch_of_one_text_has_nothing_to_tell_apart() -> None:
    images, texts = drawn(3)
    one = torch.zeros(3, dtype=torch.long)
    assert contrast(Pairs(images, texts, apart(3), one), "softmax", SCALE, None, spread=False).tolist() == [0, 0, 0]


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_equal_to_the_loss_of_transformers(family: str) -> None:
    from medvlm.models.backbones.contrastive_tiny import made

    torch.manual_seed(3)
    model, processor = made(28, family)
    inputs = processor.tokenizer(["a nodule", "no finding", "left lung"], padding="max_length", return_tensors="pt")
    pixels = torch.randn(3, 3, 28, 28)
    theirs = model(input_ids=inputs["input_ids"], pixel_values=pixels, return_loss=True)
    pairs = Pairs(theirs.image_embeds, theirs.text_embeds, apart(3), apart(3))
    kind: Kind = "sigmoid" if family == "siglip" else "softmax"
    ours = contrast(pairs, kind, model.logit_scale.exp(), getattr(model, "logit_bias", None), spread=False).mean()
    assert ours.item() == pytest.approx(theirs.loss.item(), abs=1e-5)


CASES: list[tuple[Kind, list[int]]] = [("softmax", [4, 4]), ("sigmoid", [4, 4]), ("softmax", [5, 2])]


def _process(rank: int, folder: str) -> None:
    """Take this process' share of each case's rows through a layer; write the gradients of a data-parallel step."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = []
    for kind, sizes in CASES:
        loss, layer, scale, bias = _shared(kind, sizes, rank)
        (loss * len(sizes) / sum(sizes)).backward()
        slopes = [layer.weight.grad, scale.grad, *([bias.grad] if kind == "sigmoid" else [])]
        for slope in slopes:
            distributed.all_reduce(slope)
            slope /= len(sizes)
        total = loss.detach().clone()
        distributed.all_reduce(total)
        found.append((total / sum(sizes), slopes))
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    distributed.destroy_process_group()


def _shared(kind: Kind, sizes: list[int], rank: int | None) -> tuple[Any, Any, Any, Any]:
    """Return the summed loss of a process' rows, all rows' where `rank` is None, and what is trained."""
    images, texts = drawn(sum(sizes), 7)
    torch.manual_seed(1)
    layer = torch.nn.Linear(8, 8, bias=False)
    scale, bias = torch.nn.Parameter(torch.tensor(1.0)), torch.nn.Parameter(torch.tensor([-0.5]))
    start = 0 if rank is None else sum(sizes[:rank])
    rows = slice(start, sum(sizes) if rank is None else start + sizes[rank])
    # Row 1 and the last, in another process, have the same text.
    text_keys = apart(sum(sizes))
    text_keys[-1] = 1
    embedded = torch.nn.functional.normalize(layer(images[rows]), dim=-1)
    pairs = Pairs(
        embedded, torch.nn.functional.normalize(layer(texts[rows]), dim=-1), apart(sum(sizes))[rows], text_keys[rows]
    )
    return contrast(pairs, kind, scale.exp(), bias, spread=rank is not None).sum(), layer, scale, bias


def test_two_processes_equal_one_with_the_rows_of_both(tmp_path: Path) -> None:
    multiprocessing.spawn(_process, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    for (kind, sizes), (total, slopes) in zip(CASES, torch.load(tmp_path / "found.pt"), strict=True):
        loss, layer, scale, bias = _shared(kind, sizes, None)
        (loss / sum(sizes)).backward()
        assert total.item() == pytest.approx(loss.item() / sum(sizes), abs=1e-6)
        wanted = [layer.weight.grad, scale.grad, *([bias.grad] if kind == "sigmoid" else [])]
        for one, other in zip(slopes, wanted, strict=True):
            assert torch.allclose(one, other, atol=1e-6)
