"""The loss on the suffix: token mean or per-example mean, with label smoothing, over just the kept logits."""

from __future__ import annotations

import torch
from torch.nn import functional

from medvlm.models.backbones.base import IGNORED


def suffix_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    count: torch.Tensor | int | None = None,
    per_example: bool = False,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the cross-entropy of next tokens in float32.

    Args:
        logits: [N, V], one row for each position whose next token has a label, in row-major order.
        labels: [B, T] unshifted; `IGNORED` where there is no loss.
        count: by what the sum is divided: the tokens (with `per_example` the examples) in all micro-batches of an
            update; those at hand when None.
        per_example: mean over examples of each one's mean over tokens (as big_vision takes it), else mean over tokens
            (as transformers does).
        smoothing: share of the probability spread over the vocabulary.
    """
    shifted = labels[:, 1:]
    kept = shifted != IGNORED
    losses = functional.cross_entropy(logits.float(), shifted[kept], reduction="none", label_smoothing=smoothing)
    if not per_example:
        return losses.sum() / (count if count is not None else losses.numel())
    counts = kept.sum(dim=1)
    weights = (1.0 / counts.clamp(min=1)).to(losses).repeat_interleave(counts)
    return (losses * weights).sum() / (count if count is not None else len(labels))
