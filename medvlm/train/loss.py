"""The loss on the suffix: cross-entropy in chunks, so that never more than a chunk's logits exist.

The model runs with its output layer standing aside: what that layer was given (the hidden states at label positions) is
taken, and its weights are applied here, a chunk of positions at a time. Where they are frozen, a chunk's gradient is
computed right after its loss, so that its logits are used twice and never kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

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
    keep = _kept(labels)
    targets = labels.roll(-1, dims=1)[keep]
    losses = functional.cross_entropy(_statistics(logits), targets, reduction="none", label_smoothing=smoothing)
    return _reduce(losses, keep.nonzero()[:, 0], len(labels), count, per_example)[0]


def forward_loss(
    model: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    *,
    count: torch.Tensor | int | None = None,
    per_example: bool = False,
    smoothing: float = 0.0,
    chunk: int = 256,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run the model and return its loss, the sum of token losses by example [E] and their counts [E].

    Args:
        model: a backbone's model, bare or wrapped (PEFT, autocast, data parallel); its `forward` is what is called.
        inputs: what `Backbone.collate` or `collate_packed` made; `labels` and `example_ids` are not for the model.
        count, per_example, smoothing: as for `suffix_loss`.
        chunk: label positions whose logits exist at one time.

    Returns:
        the loss with its graph; sums and counts detached, in the order of the examples.
    """
    labels, packed = inputs["labels"], inputs.get("example_ids")
    keep = _kept(labels)
    targets = labels.roll(-1, dims=1)[keep]
    owners = keep.nonzero()[:, 0] if packed is None else packed.roll(-1, dims=1)[keep]
    rest = {name: value for name, value in inputs.items() if name not in ("labels", "example_ids")}
    rest["attention_mask"] = _attended(model, rest["attention_mask"])
    losses = _token_losses(model, rest, keep, targets, smoothing, chunk)
    return _reduce(losses, owners, examples_in(inputs), count, per_example)


def examples_in(inputs: Mapping[str, torch.Tensor]) -> int:
    """Return the number of examples in a batch, packed or not."""
    if "example_ids" not in inputs:
        return len(inputs["labels"])
    pixels = inputs.get("pixel_values")
    # Rows that count their pictures hold several in each.
    if pixels is None or "image_counts" in inputs:
        return int(inputs["example_ids"].max()) + 1
    return len(pixels)


_HAND_ON = ("paligemma", "blip-2", "instructblip")
"""Models that hand a ready mask to their decoder as it is."""


def _attended(model: Any, mask: torch.Tensor) -> torch.Tensor:
    """Return the mask as the model's attention takes it.

    Where it is handed on as it is, eager attention adds it to its scores: a boolean one would add 1 where attended and
    hide nothing.
    """
    config = getattr(getattr(model, "module", model), "config", None)
    boolean = mask.dim() == 4 and mask.dtype == torch.bool
    if not boolean or getattr(config, "model_type", "") not in _HAND_ON:
        return mask
    if _text_config(model)._attn_implementation != "eager":
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, torch.finfo(torch.float32).min)


def _text_config(model: Any) -> Any:
    config: Any = getattr(getattr(model, "module", model), "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _kept(labels: torch.Tensor) -> torch.Tensor:
    """Return [B, T] bool: True where the next token has a label."""
    keep = labels.roll(-1, dims=1) != IGNORED
    keep[:, -1] = False
    return keep


def _reduce(
    losses: torch.Tensor, owners: torch.Tensor, examples: int, count: torch.Tensor | int | None, per_example: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    counts = torch.bincount(owners, minlength=examples)
    sums = losses.new_zeros(examples).index_add_(0, owners, losses.detach())
    if not per_example:
        return losses.sum() / (count if count is not None else losses.numel()), sums, counts
    weights = (1.0 / counts.clamp(min=1)).to(losses)[owners]
    return (losses * weights).sum() / (count if count is not None else examples), sums, counts


def _statistics(logits: torch.Tensor) -> torch.Tensor:
    """Return logits in at least float32: their sum over a vocabulary would be lost in half precision."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@dataclasses.dataclass(frozen=True, slots=True)
class Post:
    """What a model does with the output layer's result: first scaled, then capped softly to ±cap."""

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits that the model itself would give."""
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


def _candidates(model: torch.nn.Module) -> Iterator[Post]:
    """Yield what a model's configuration lets expect behind the output layer, under the names the families use."""
    text = _text_config(model)
    scales = [1.0]
    for name in ("logit_scale", "logits_scaling", "lm_head_multiplier"):
        value = getattr(text, name, None)
        if isinstance(value, (int, float)) and value:
            scales += [float(value), 1.0 / float(value)]
    cap = getattr(text, "final_logit_softcapping", None)
    for scale in scales:
        yield Post(scale)
        if cap:
            yield Post(scale, float(cap))


_POSTS: weakref.WeakKeyDictionary[torch.nn.Module, tuple[list[Post], Post | None]] = weakref.WeakKeyDictionary()
"""Output layer -> (what could stand behind it, what the model was seen to do with its result; None if unknown)."""
_PROBE = (-80.0, -20.0, -5.0, -1.0, -0.25, 0.5, 1.0, 3.0, 10.0, 40.0)


def _token_losses(
    model: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    keep: torch.Tensor,
    targets: torch.Tensor,
    smoothing: float,
    chunk: int,
) -> torch.Tensor:
    """Return the cross-entropy of every labelled token [N]."""
    # Data-parallel wrappers keep the model as `module`; it is still their forward that is called.
    inner: Any = getattr(model, "module", model)
    head: Any = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    candidates = list(_candidates(model))
    known, post = _POSTS.get(head, (None, None)) if head is not None else (None, None)
    first = known != candidates
    if head is not None and (first or post is not None):
        random = _random_state() if first else None
        with _aside(head) as seen:
            outputs = model(**inputs, use_cache=False)
        if first:
            post = _recognize(outputs.logits, candidates) if seen.calls == 1 else None
            _POSTS[head] = candidates, post
        if post is not None and seen.hidden is not None:
            return _chunked(head, _at(seen.hidden, keep), targets, post, smoothing, chunk, seen.autocast)
        if random is not None:
            _restore(random)
    # What is done behind the output layer is not known: let the model itself compute its logits at the labels.
    logits = _at(model(**inputs, use_cache=False).logits, keep)
    return functional.cross_entropy(_statistics(logits), targets, reduction="none", label_smoothing=smoothing)


def _at(values: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Return the values [N, D] where `keep` [B, T] is true, of a model that gives just those or all [B, T, D]."""
    if values.dim() == 3 and values.shape[:2] == keep.shape:
        return values[keep]
    return values.reshape(-1, values.shape[-1])


@dataclasses.dataclass(slots=True)
class _Seen:
    """What the output layer was called with."""

    hidden: torch.Tensor | None = None
    calls: int = 0
    autocast: torch.dtype | None = None


@contextlib.contextmanager
def _aside(head: torch.nn.Module) -> Iterator[_Seen]:
    """Make `head` keep its input and return a few probing numbers a position in place of its logits."""
    seen = _Seen()

    def stand_in(hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        kind = hidden.device.type
        seen.hidden = hidden
        seen.calls += 1
        seen.autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return hidden.new_tensor(_PROBE).expand(*hidden.shape[:-1], len(_PROBE))

    own = head.__dict__.get("forward")
    head.__dict__["forward"] = stand_in
    try:
        yield seen
    finally:
        if own is None:
            del head.__dict__["forward"]
        else:
            head.__dict__["forward"] = own


def _recognize(given: Any, candidates: list[Post]) -> Post | None:
    """Return which of the candidates made `given` of the probing numbers; None if it was something else."""
    if not isinstance(given, torch.Tensor) or given.shape[-1] != len(_PROBE) or given.numel() == 0:
        return None
    rows = given.detach().double().cpu().reshape(-1, len(_PROBE))
    if not bool((rows == rows[0]).all()):
        return None
    probe = torch.tensor(_PROBE, dtype=torch.float64)
    errors = [float(((post(probe) - rows[0]) / post(probe)).abs().max()) for post in candidates]
    best = min(range(len(candidates)), key=errors.__getitem__)
    # A few roundings of half precision, 2^-8 each; a cap of 30 alters the probe of 80 by more than half of it.
    return candidates[best] if errors[best] < 2**-6 else None


def _random_state() -> tuple[torch.Tensor, list[torch.Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _restore(state: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


def _chunked(
    head: Any,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    post: Post,
    smoothing: float,
    chunk: int,
    autocast: torch.dtype | None,
) -> torch.Tensor:
    """Return the cross-entropy [N] of `hidden` [N, D] behind `head`."""
    if type(head) is torch.nn.Linear and not any(p.requires_grad for p in head.parameters()):
        dtype = autocast or head.weight.dtype
        weight, bias = head.weight.to(dtype), None if head.bias is None else head.bias.to(dtype)
        losses: torch.Tensor = FrozenHeadLoss.apply(  # type: ignore[no-untyped-call]
            hidden.to(dtype), targets, weight, bias, post, smoothing, chunk
        )
        return losses

    def losses_of(rows: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        with torch.autocast(rows.device.type, dtype=autocast, enabled=autocast is not None):
            logits = head(rows)
        return functional.cross_entropy(post(_statistics(logits)), wanted, reduction="none", label_smoothing=smoothing)

    parts = [(hidden[i : i + chunk], targets[i : i + chunk]) for i in range(0, len(hidden), chunk)]
    if not torch.is_grad_enabled():
        return torch.cat([losses_of(rows, wanted) for rows, wanted in parts])
    made = [checkpoint(losses_of, rows, wanted, use_reentrant=False) for rows, wanted in parts]
    return torch.cat([part for part in made if part is not None])


class FrozenHeadLoss(torch.autograd.Function):
    """Cross-entropy [N] behind a frozen linear layer, with the gradient for its input found on the way forward.

    Position i's loss depends on hidden state i only, so the gradient kept for the way back is [N, D].
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        post: Post,
        smoothing: float,
        chunk: int,
    ) -> torch.Tensor:
        """Return the losses of `hidden` [N, D] for `targets` [N] with `weight` [V, D]."""
        wanted = hidden.requires_grad
        losses = torch.empty(len(hidden), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
        gradient = torch.empty_like(hidden) if wanted else None
        for start in range(0, len(hidden), chunk):
            rows = slice(start, start + chunk)
            logits = _statistics(functional.linear(hidden[rows], weight, bias))
            losses[rows], slope = _loss_and_slope(logits, targets[rows], post, smoothing, wanted)
            if gradient is not None and slope is not None:
                gradient[rows] = slope.to(weight.dtype) @ weight
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slopes: torch.Tensor) -> Any:
        """Return the gradient for the hidden states."""
        (gradient,) = ctx.saved_tensors
        return (slopes.unsqueeze(1) * gradient).to(gradient.dtype), None, None, None, None, None, None


def _loss_and_slope(
    logits: torch.Tensor, targets: torch.Tensor, post: Post, smoothing: float, wanted: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return losses [n] and, if wanted, their derivatives by the output layer's result [n, V]; `logits` is used up."""
    bent = None
    if post.scale != 1.0:
        logits.mul_(post.scale)
    if post.cap is not None:
        logits = bent = logits.div_(post.cap).tanh_()
        logits = bent * post.cap
    places = targets.unsqueeze(1)
    logits.sub_(logits.amax(dim=1, keepdim=True))
    picked = logits.gather(1, places).squeeze(1)
    mean = logits.mean(dim=1) if smoothing else None
    total = logits.exp_().sum(dim=1, keepdim=True)
    level = total.log().squeeze(1)
    losses = level - picked
    if mean is not None:
        losses = (1 - smoothing) * losses + smoothing * (level - mean)
    if not wanted:
        return losses, None
    slope = logits.div_(total)
    if smoothing:
        slope.sub_(smoothing / slope.shape[1])
    slope.scatter_add_(1, places, torch.full_like(places, -(1.0 - smoothing), dtype=slope.dtype))
    if bent is not None:
        slope.mul_(bent.square_().neg_().add_(1.0))
    return losses, slope.mul_(post.scale) if post.scale != 1.0 else slope
