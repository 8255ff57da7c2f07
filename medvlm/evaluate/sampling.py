"""Drawing tokens so that an answer depends on its own picture, prompt and seed, not on what else is in the batch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class SeededDraw:
    """A logits processor that leaves one token a row possible, drawn from the nucleus; greedy search then takes it.

    `generate` draws for all rows from one stream of random numbers, so that an answer would change with its neighbors
    and with its place among them. Here every row has a stream of its own: one number in [0, 1) a step, looked up in the
    row's cumulative distribution. What is left of the neighbors is how padding rounds the logits; a draw that falls
    within that rounding of a border between two tokens may go to either.

    Args:
        keys: one text a row, which seeds its stream.
        temperature: logits are divided by it; above 0.
        top_p: the smallest set of tokens that holds so much probability is drawn from (arXiv:1904.09751).
    """

    def __init__(self, keys: Sequence[str], temperature: float, top_p: float) -> None:
        self.streams = [random.Random(key) for key in keys]
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores [B, V]: 0 at the drawn token, minus infinity elsewhere."""
        import torch

        sizes, order = torch.sort((scores.double() / self.temperature).softmax(-1), descending=True, stable=True)
        upto = sizes.cumsum(-1)
        # A token belongs to the nucleus where those before it do not yet hold top_p; the first always does.
        nucleus = sizes * (upto - sizes < self.top_p)
        upto = nucleus.cumsum(-1)
        numbers = torch.tensor([stream.random() for stream in self.streams], dtype=upto.dtype, device=upto.device)
        places = (upto <= (numbers * upto[:, -1])[:, None]).sum(-1, keepdim=True)
        last = (nucleus > 0).sum(-1, keepdim=True) - 1
        drawn = order.gather(-1, torch.minimum(places, last))
        return torch.full_like(scores, float("-inf")).scatter(-1, drawn, 0.0)
