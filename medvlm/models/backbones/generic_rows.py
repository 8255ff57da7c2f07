"""Inputs of one prompt, [1, ...], made longer by its answer and like others, so that they make a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Inputs = dict[str, torch.Tensor]


def by_token(row: Inputs) -> set[str]:
    """Return the names of what a row has for each of its tokens, [1, T, ...]."""
    shape = row["input_ids"].shape
    # A picture's values could be as many as tokens by chance, so those are told by name.
    return {
        name for name, value in row.items() if value.shape[:2] == shape and not name.startswith(("pixel", "image_grid"))
    }


def continued(row: Inputs, answer: list[int]) -> Inputs:
    """Return the inputs [1, ...] of one prompt with its answer behind it."""
    made = dict(row)
    for name in by_token(row):
        value = row[name]
        if name == "input_ids":
            more = torch.tensor([answer])
        elif name == "attention_mask":
            more = torch.ones(1, len(answer), dtype=value.dtype)
        elif name.endswith("_mask") and value.dim() > 2:
            # Which pictures a token sees: in an answer, as in generation, those that the prompt's last token sees.
            more = value[:, -1:].expand(-1, len(answer), *value.shape[2:])
        else:
            more = torch.zeros(1, len(answer), *value.shape[2:], dtype=value.dtype)
        made[name] = torch.cat([value, more], dim=1)
    return made


def padded(value: torch.Tensor, length: int, fill: int, left: bool) -> torch.Tensor:
    """Return [1, T, ...] as [1, length, ...]."""
    rest = value.new_full((1, length - value.shape[1], *value.shape[2:]), fill)
    return torch.cat([rest, value] if left else [value, rest], dim=1)


def same_shape(values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return tensors padded with 0 to the largest of each dimension but the first."""
    sizes = [max(lengths) for lengths in zip(*(value.shape[1:] for value in values), strict=True)]
    made = []
    for value in values:
        whole = value.new_zeros(value.shape[0], *sizes)
        whole[tuple(slice(0, size) for size in value.shape)] = value
        made.append(whole)
    return made
