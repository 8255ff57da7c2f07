"""Two contrasts of pictures and texts: softmax as CLIP (arXiv:2103.00020), sigmoid as SigLIP (arXiv:2303.15343).

Every picture of a batch is held against every text of it, those of other processes included. Where picture and text of
two different rows belong together all the same (the same text, or the same picture, twice in the batch), the pair is no
negative: it is left out.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import torch
from torch import distributed
from torch.nn import functional

Kind = Literal["softmax", "sigmoid"]

LARGEST_SCALE = math.log(100.0)
"""Of CLIP's learned temperature, so that cosines are never multiplied by more than 100 (arXiv:2103.00020, section 2.5).
"""

FIRST_SCALE, FIRST_BIAS = math.log(10.0), -10.0
"""Where SigLIP's temperature and bias begin (arXiv:2303.15343, section 3.2): almost all pairs are no match."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pairs:
    """Rows of pictures and texts that belong together.

    Attributes:
        images, texts: [B, D], of length 1.
        image_keys, text_keys: [B] integers, equal where pictures or texts are.
    """

    images: torch.Tensor
    texts: torch.Tensor
    image_keys: torch.Tensor
    text_keys: torch.Tensor


def contrast(pairs: Pairs, kind: Kind, scale: torch.Tensor, bias: torch.Tensor | None, *, spread: bool) -> torch.Tensor:
    """Return the loss of each of this process' rows [B], in float32.

    Softmax: the mean of the cross-entropies of its picture among all texts and of its text among all pictures.
    Sigmoid: the sum over all pictures of its text's binary losses, so that the mean over rows is the paper's.

    Args:
        pairs: of this process.
        kind: which of the two.
        scale: by what cosines are multiplied.
        bias: what is added to them, sigmoid only; None is 0.
        spread: hold them against the rows of all other processes too, which must call this at the same time.
    """
    images, texts = pairs.images.float(), pairs.texts.float()
    image_keys, text_keys, first = pairs.image_keys, pairs.text_keys, 0
    every_image, every_text, every_image_key, every_text_key = images, texts, image_keys, text_keys
    if spread and several():
        sizes = _sizes(images)
        first = sum(sizes[: distributed.get_rank()])
        every_image, every_image_key = gathered(images, sizes), _joined(image_keys, sizes)
        every_text_key = _joined(text_keys, sizes)
        every_text = gathered(texts, sizes) if kind == "softmax" else texts
    own = first + torch.arange(len(images), device=images.device)
    alike = (text_keys[:, None] == every_text_key) | (image_keys[:, None] == every_image_key)
    # A row's own pair is the one that is right.
    alike[torch.arange(len(own), device=own.device), own] = False
    scale = scale.float()
    if kind == "sigmoid":
        shift = 0.0 if bias is None else bias.float()
        return _sigmoid(texts @ every_image.T * scale + shift, own, alike)
    losses = [_softmax(a @ b.T * scale, own, alike) for a, b in ((images, every_text), (texts, every_image))]
    return (losses[0] + losses[1]) / 2


def _softmax(logits: torch.Tensor, own: torch.Tensor, alike: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.masked_fill(alike, -math.inf), own, reduction="none")


def _sigmoid(logits: torch.Tensor, own: torch.Tensor, alike: torch.Tensor) -> torch.Tensor:
    right = torch.arange(logits.shape[1], device=own.device) == own[:, None]
    found = functional.logsigmoid(torch.where(right, logits, -logits))
    return -found.masked_fill(alike, 0.0).sum(dim=1)


def several() -> bool:
    """Return True where several processes train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def gathered(values: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Return the rows [N, D] of all processes in their order; gradients find their way back to each.

    Args:
        values: [B, D] of this process.
        sizes: rows of each process.
    """
    found: torch.Tensor = _Gather.apply(values, sizes)  # type: ignore[no-untyped-call]
    return found


class _Gather(torch.autograd.Function):
    """Rows of all processes; backward sums over processes what each made of this one's rows."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        """Return [N, D] of [B, D]."""
        ctx.sizes = sizes
        return _joined(values, sizes)

    @staticmethod
    def backward(ctx: Any, slopes: torch.Tensor) -> Any:
        """Return the gradient for the rows of this process."""
        total = slopes.contiguous().clone()
        distributed.all_reduce(total)
        rank = distributed.get_rank()
        start = sum(ctx.sizes[:rank])
        return total[start : start + ctx.sizes[rank]], None


def _sizes(values: torch.Tensor) -> list[int]:
    """Return how many rows each process has."""
    own = torch.tensor([len(values)], device=values.device)
    found = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(found, own)
    return [int(size) for size in found]


def _joined(values: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Return the rows of all processes [N, ...]; they are sent padded, since some backends want equal sizes."""
    padded = values.new_zeros(max(sizes), *values.shape[1:])
    padded[: len(values)] = values.detach()
    found = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(found, padded)
    return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)])
