"""What every backbone shares: token lists as padded or packed rows, pictures as tensors, tokens as texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from medvlm.data import pixels
from medvlm.models.backbones.base import IGNORED, Example

Tokens = Sequence[int]


def pad_rows(prefixes: Sequence[Tokens], suffixes: Sequence[Tokens], pad: int) -> dict[str, torch.Tensor]:
    """Return training rows, padded on the right.

    Returns:
        input_ids, attention_mask, labels [B, T] (labels unshifted, `IGNORED` off the suffix), logits_to_keep [B, T]
        bool (True where the next token has a label).
    """
    length = max(len(prefix) + len(suffix) for prefix, suffix in zip(prefixes, suffixes, strict=True))
    ids = torch.full((len(prefixes), length), pad)
    attention = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for row, (prefix, suffix) in enumerate(zip(prefixes, suffixes, strict=True)):
        start, end = len(prefix), len(prefix) + len(suffix)
        ids[row, :end] = torch.tensor([*prefix, *suffix])
        attention[row, :end] = 1
        labels[row, start:end] = ids[row, start:end]
    return {"input_ids": ids, "attention_mask": attention, "labels": labels, "logits_to_keep": kept(labels)}


def pad_prompts(prefixes: Sequence[Tokens], pad: int) -> dict[str, torch.Tensor]:
    """Return rows to generate from, padded on the left: input_ids, attention_mask [B, T]."""
    length = max(map(len, prefixes))
    ids = torch.full((len(prefixes), length), pad)
    attention = torch.zeros_like(ids)
    for row, prefix in enumerate(prefixes):
        ids[row, length - len(prefix) :] = torch.tensor(list(prefix))
        attention[row, length - len(prefix) :] = 1
    return {"input_ids": ids, "attention_mask": attention}


def kept(labels: torch.Tensor) -> torch.Tensor:
    """Return [B, T] bool: True where the next token has a label, which is where a logit is needed."""
    keep = torch.zeros(labels.shape, dtype=torch.bool)
    keep[:, :-1] = labels[:, 1:] != IGNORED
    return keep


@dataclasses.dataclass(frozen=True, slots=True)
class Packed:
    """Rows that hold several examples each, and in which order the rows take them."""

    inputs: dict[str, torch.Tensor]
    """input_ids, labels, position_ids, example_ids [R, T], logits_to_keep [R, T] bool, attention_mask [R, 1, T, T] bool
    (True where attended); example_ids are -1 off the labels."""
    order: list[int]
    """Numbers of the examples, row by row: the order that pixel values must have."""


def pack_rows(
    prefixes: Sequence[Tokens],
    suffixes: Sequence[Tokens],
    blocks: Sequence[int],
    *,
    pad: int,
    pack_tokens: int | None,
    first_position: int = 0,
) -> Packed:
    """Return the examples in few rows, blind to each other.

    Args:
        prefixes: token lists without labels, image tokens in front.
        suffixes: token lists with labels.
        blocks: how many tokens from each example's first on attend in both directions: the whole prefix for a
            prefix-LM, the image tokens alone for GIT. All others are causal, so the block does not see them.
        pad: token at the end of rows that are not full; it sees only itself, and nothing sees it.
        pack_tokens: most tokens of a row; None is twice the longest example. A longer example has a row alone.
        first_position: position id of each example's first token.
    """
    lengths = [len(prefix) + len(suffix) for prefix, suffix in zip(prefixes, suffixes, strict=True)]
    rows = first_fit(lengths, pack_tokens or 2 * max(lengths))
    width = max(sum(lengths[number] for number in row) for row in rows)
    shape = (len(rows), width)
    ids = torch.full(shape, pad)
    labels = torch.full(shape, IGNORED)
    positions = torch.full(shape, first_position)
    numbers = torch.full(shape, -1)
    mask = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)
    for row, members in enumerate(rows):
        start = 0
        for number in members:
            label, end = start + len(prefixes[number]), start + lengths[number]
            ids[row, start:end] = torch.tensor([*prefixes[number], *suffixes[number]])
            labels[row, label:end] = ids[row, label:end]
            positions[row, start:end] += torch.arange(end - start)
            numbers[row, label:end] = number
            mask[row, start:end, start:end] = _block_mask(end - start, blocks[number])
            start = end
    inputs = {
        "input_ids": ids,
        "attention_mask": mask[:, None],
        "position_ids": positions,
        "labels": labels,
        "logits_to_keep": kept(labels),
        "example_ids": numbers,
    }
    return Packed(inputs, [number for row in rows for number in row])


def _block_mask(length: int, block: int) -> torch.Tensor:
    """Return the causal mask [length, length], its first `block` tokens seeing each other whole."""
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    mask[:block, :block] = True
    return mask


def first_fit(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Return rows of numbers whose lengths sum to at most `room`: longest first, each into the first row that has room.

    First-fit decreasing needs at most 11/9 of the fewest possible rows plus 6/9 (Dósa 2007).
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        place = next((row for row, left in enumerate(free) if lengths[number] <= left), None)
        if place is None:
            rows.append([number])
            free.append(room - lengths[number])
        else:
            rows[place].append(number)
            free[place] -= lengths[number]
    return rows


def pixel_values(image_processor: Any, examples: Sequence[Example]) -> torch.Tensor:
    """Return what the model takes of the pictures [B, 3, S, S], or what a cache holds of them.

    In a DataLoader's worker it may be 8 bits [B, 3, S, S], or [B, 1, S, S] where no picture has color: a quarter or a
    twelfth of the memory that has to be made and sent for each batch. `finished` gives the values.
    """
    kept = [example.pixels for example in examples if example.pixels is not None]
    if len(kept) == len(examples) and kept[0].dtype != torch.uint8:
        return torch.stack(kept)
    fast = pixels.of(image_processor)
    if fast is None:
        images = [example.image for example in examples]
        values: torch.Tensor = image_processor(images, return_tensors="pt")["pixel_values"]
        return values
    records = [fast.bytes_of(one.image) if one.pixels is None else one.pixels.numpy() for one in examples]
    if torch.utils.data.get_worker_info() is None:
        return torch.from_numpy(fast.batch(records))
    channels = 1 if all(map(pixels.is_gray, records)) else 3
    return torch.from_numpy(np.stack([record[:channels] for record in records]))


def finished(image_processor: Any, values: torch.Tensor) -> torch.Tensor:
    """Return the pixel values [B, (M,) 3, S, S] of what `pixel_values` gave, on the device that it is on."""
    if values.dtype != torch.uint8:
        return values
    if values.dim() == 5:
        # Rows of several pictures each.
        flat = finished(image_processor, values.flatten(0, 1))
        return flat.reshape(*values.shape[:2], *flat.shape[1:])
    fast = pixels.of(image_processor)
    if fast is None:
        # The processor's own values are of 8 bits.
        return values
    if values.device.type == "cpu":
        return torch.from_numpy(fast.batch([np.broadcast_to(one, (3, *one.shape[1:])) for one in values.numpy()]))
    return looked_up(torch.from_numpy(fast.table).to(values.device), values)


def looked_up(table: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return the numbers [B, 3, S, S] that a table [3, 256] gives for 8 bits [B, 1 or 3, S, S]."""
    channels = [values[:, min(channel, values.shape[1] - 1)].long() for channel in range(3)]
    return torch.stack([table[channel][own] for channel, own in enumerate(channels)], dim=1)


def answer_gap(tokens: Callable[[str], list[int]]) -> str:
    """Return what stands before an answer so that its tokens are those it has within running text.

    SentencePiece puts a blank before every text by itself; byte-level tokenizers must be given one.

    Args:
        tokens: gives the tokens of a text, none added.
    """
    joint, colon = tokens(": a"), tokens(":")
    return " " if joint == colon + tokens(" a") and joint != colon + tokens("a") else ""


def texts(tokenizer: Any, tokens: torch.Tensor) -> list[str]:
    """Return the texts of generated tokens [B, T], special tokens and outer blanks removed."""
    found = tokenizer.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [text.strip() for text in found]
