"""The peak memory of one training step, found without running it: the model's own code on tensors without contents.

PyTorch's fake tensors have shapes, dtypes and devices but no data, so a step of any size takes seconds and no memory.
Every storage is counted from its making to its end, by what it is for; what a kernel takes inside itself is not seen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from medvlm.models.components import output_layer
from medvlm.models.features import skip_tower
from medvlm.recipe.models import Recipe
from medvlm.train.loss import FrozenHeadLoss, Post

if TYPE_CHECKING:
    from medvlm.models.backbones.base import Backbone


class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of living storages by phase, and keeps the highest sum.

    Args:
        model: whose parameters and buffers are not counted, but whose gradients are, apart.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase = "activations"
        self.now: dict[str, int] = {"activations": 0, "logits": 0, "gradients": 0}
        self.peak = dict(self.now)
        """At the moment of the highest sum, gradients included."""
        self.busiest = dict(self.now)
        """At the moment of the highest sum of the others."""
        self._phases: dict[int, str] = {}
        self._known = {_key(tensor) for tensor in [*model.parameters(), *model.buffers()]}
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._is_gradient)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor)
        return made

    def _count(self, tensor: torch.Tensor) -> None:
        key = _key(tensor)
        if key in self._known or key in self._phases:
            return
        storage = tensor.untyped_storage()
        self._phases[key] = self.phase
        self.now[self.phase] += storage.nbytes()
        weakref.finalize(storage, self._freed, key, storage.nbytes())
        if sum(self.now.values()) > sum(self.peak.values()):
            self.peak = dict(self.now)
        if _others(self.now) > _others(self.busiest):
            self.busiest = dict(self.now)

    def _freed(self, key: int, size: int) -> None:
        self.now[self._phases.pop(key)] -= size

    def _is_gradient(self, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        key = _key(parameter.grad)
        phase = self._phases.get(key)
        if phase in ("activations", "logits"):
            size = parameter.grad.untyped_storage().nbytes()
            self.now[phase] -= size
            self.now["gradients"] += size
            self._phases[key] = "gradients"


def _others(bytes_of: dict[str, int]) -> int:
    return bytes_of["activations"] + bytes_of["logits"]


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@contextlib.contextmanager
def fused() -> Iterator[None]:
    """Send scaled dot-product attention to a fused kernel, which keeps no attention matrix; a GPU has one as well.

    Tensors without contents would go through plain matrix products. Replaced by hand: a torch function mode is not
    active where checkpointing runs a layer again.
    """
    original = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = _attention
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = original


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Return what scaled dot-product attention returns, by the fused kernel."""
    aten: Any = torch.ops.aten
    if enable_gqa:
        copies = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(copies, 1), value.repeat_interleave(copies, 1)
    if attn_mask is not None:
        attn_mask = attn_mask.to(query.dtype)
    made = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, is_causal, attn_mask=attn_mask)
    result: torch.Tensor = made[0]
    return result


@contextlib.contextmanager
def fake(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Make tensors without contents of a model's on the meta device, and stay among such for the time of the block.

    They call themselves the CPU's wherever training will be: plans are then the same on every machine, and need no GPU.
    """
    with FakeTensorMode():
        made: dict[int, torch.nn.Parameter] = {}
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    if id(parameter) not in made:
                        empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
                        made[id(parameter)] = torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)
                    module._parameters[name] = made[id(parameter)]
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")
        yield model


class _FourBit(torch.autograd.Function):
    """A 4-bit layer's product: the weights are unpacked for it, forward and backward, and not kept."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return values [..., in] by weight [out, in]."""
        # Held beside the context, not saved: it is a parameter.
        ctx.weight = weight
        return values @ torch.empty_like(weight, dtype=values.dtype).t()

    @staticmethod
    def backward(ctx: Any, slopes: torch.Tensor) -> Any:
        """Return the gradient for the values."""
        return slopes @ torch.empty_like(ctx.weight, dtype=slopes.dtype), None


def unpacks(module: Any, compute: torch.dtype) -> None:
    """Make a linear layer compute as a 4-bit one does."""

    def forward(values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = _FourBit.apply(values.to(compute), module.weight)  # type: ignore[no-untyped-call]
        if module.bias is not None:
            found = found + module.bias.to(compute)
        return found.to(values.dtype)

    module.forward = forward


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """One batch: `rows` of `length` tokens, image tokens included, `labels` in a row with a loss, `images` pictures."""

    rows: int
    length: int
    labels: int
    images: int
    features: bool = False
    """The pictures come as cached features of the vision tower."""


def step(model: Any, recipe: Recipe, kind: type[Backbone], shape: Shape, tracker: Tracker) -> None:
    """Make one fake training step, forward and backward; `model` is inside `fake`."""
    device = next(model.parameters()).device
    mixed = recipe.model.dtype != "float32"
    if kind.output != "text":
        with torch.autocast(device.type, dtype=getattr(torch, recipe.model.dtype), enabled=mixed):
            loss = kind.fake_loss(model, shape, device)
        loss.backward()  # type: ignore[no-untyped-call]
        return
    head = output_layer(model)
    hidden: list[torch.Tensor] = []

    def stand_in(values: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        hidden.append(values)
        return values[..., :1]

    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, dtype=getattr(torch, recipe.model.dtype), enabled=mixed))
        inputs = kind.fake_inputs(model, shape, device)
        head.forward = stand_in
        model(**inputs, use_cache=False)
        del head.forward
    tracker.phase = "logits"
    loss = _loss(model, head, hidden.pop(), recipe)
    tracker.phase = "activations"
    loss.backward()  # type: ignore[no-untyped-call]


def embedded_inputs(kind: type[Backbone], model: Any, shape: Shape, device: torch.device) -> dict[str, Any]:
    """Return embeddings with the pictures in them, mask, positions and the places of the labels."""
    tokens = kind.image_tokens_of(model.config)
    vision = model.config.vision_config
    side = vision.image_size
    if shape.features:
        skip_tower(model, kind)
        pictures = torch.empty(shape.images, tokens, vision.hidden_size, device=device, dtype=model.dtype)
    else:
        pictures = torch.empty(shape.images, 3, side, side, device=device)
    found = model.get_image_features(pictures)
    found = found if isinstance(found, torch.Tensor) else found.pooler_output
    words = shape.rows * shape.length - shape.images * tokens
    text = model.get_input_embeddings()(torch.zeros(1, words, dtype=torch.long, device=device))
    embeds = torch.cat([found.reshape(1, -1, found.shape[-1]).to(text.dtype), text], dim=1)
    shapes = (shape.rows, 1, shape.length, shape.length)
    eager = model.config.get_text_config()._attn_implementation == "eager"
    return {
        "inputs_embeds": embeds.reshape(shape.rows, shape.length, -1),
        "attention_mask": torch.zeros(shapes, device=device, dtype=torch.float32 if eager else torch.bool),
        "position_ids": torch.zeros(shapes[0], shape.length, dtype=torch.long, device=device),
        "logits_to_keep": torch.zeros(shape.labels, dtype=torch.long, device=device),
    }


def _loss(model: Any, head: Any, hidden: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Return the chunked loss as `medvlm.train.loss` computes it."""
    rows = hidden.reshape(-1, hidden.shape[-1])
    targets = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    smoothing, chunk = recipe.train.label_smoothing, recipe.train.loss_chunk
    if not any(p.requires_grad for p in head.parameters()):
        cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        weight = head.weight
        losses: torch.Tensor = FrozenHeadLoss.apply(  # type: ignore[no-untyped-call]
            rows.to(weight.dtype), targets, weight, head.bias, Post(cap=cap), smoothing, chunk
        )
        return losses.sum()

    def losses_of(some: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        mixed = recipe.model.dtype != "float32"
        with torch.autocast(some.device.type, dtype=getattr(torch, recipe.model.dtype), enabled=mixed):
            logits = head(some)
        found: torch.Tensor = torch.nn.functional.cross_entropy(logits.float(), wanted, label_smoothing=smoothing)
        return found

    starts = range(0, len(rows), chunk)
    return torch.stack(
        [
            checkpoint(
                losses_of,
                rows[i : i + chunk],
                targets[i : i + chunk],
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for i in starts
        ]
    ).sum()
