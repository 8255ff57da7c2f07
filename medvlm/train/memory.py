"""How much memory training will take, part by part, before anything is loaded.

What stays is arithmetic: weights by their dtype, 4-bit weights with their constants as bitsandbytes stores them,
trained weights in float32 with gradients and optimizer states. What comes and goes (activations, logits, gradients as
they appear) is found by `memory_trace`: one step of the model's own code on tensors without contents.
`Estimate.tensors` stands for PyTorch's own count of allocated bytes; what a process takes beside them is in
`framework` and `ROUNDING`.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch

from medvlm.models import adapters, quantize
from medvlm.models.backbones import BACKBONES
from medvlm.models.components import Places, bare_name
from medvlm.models.load import attention
from medvlm.recipe.models import QuantizationPart, Recipe
from medvlm.train import memory_trace
from medvlm.train.memory_trace import Shape

if TYPE_CHECKING:
    from medvlm.models.backbones.base import Backbone

CUDA_CONTEXT = 600 * 1024**2
"""What CUDA and its libraries keep of a GPU beside tensors; between 0.4 and 0.8 GB by generation."""
PROCESS = 780 * 10**6
"""On the CPU: the interpreter with torch, transformers and datasets loaded (about 690 MB), and what oneDNN keeps of
compiled kernels and scratch. That was 35 to 50 MB in bfloat16 and grows with the number of different matrix shapes, so
it is not foreseen, only allowed for. Not in here: a checkpoint's file, mapped as long as a weight in its stored dtype
lives (pages the system takes back when it needs them), and holes in the heap (up to 40 MB seen with small batches)."""
ROUNDING = 0.05
"""Share of the whole that an allocator loses to rounding and gaps."""


TRACED_CHUNKS = 32
"""Chunks of the loss in the largest batch that is traced as it is."""


@dataclasses.dataclass(slots=True)
class Held:
    """Bytes that one component holds all the time."""

    weights: int = 0
    """Frozen ones, and 4-bit ones with their constants."""
    trained: int = 0
    """Adapters and whole components in training, float32."""
    gradients: int = 0
    optimizer: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """Peak memory of training in bytes."""

    components: Mapping[str, Held]
    activations: int
    """At the peak: what backward needs, and what is on its way."""
    logits: int
    """At the peak: a chunk of them with its derivative."""
    framework: int
    """The library's own; not in `tensors`."""

    @property
    def weights(self) -> int:
        """Return frozen weights, 4-bit ones included."""
        return sum(part.weights for part in self.components.values())

    @property
    def adapters(self) -> int:
        """Return weights in training."""
        return sum(part.trained for part in self.components.values())

    @property
    def gradients(self) -> int:
        """Return gradients of everything in training."""
        return sum(part.gradients for part in self.components.values())

    @property
    def optimizer(self) -> int:
        """Return the optimizer's states."""
        return sum(part.optimizer for part in self.components.values())

    @property
    def tensors(self) -> int:
        """Return the peak of all tensors: what `torch.cuda.max_memory_allocated` measures."""
        return self.weights + self.adapters + self.gradients + self.optimizer + self.activations + self.logits

    @property
    def total(self) -> int:
        """Return what the device must have."""
        return round(self.tensors * (1 + ROUNDING)) + self.framework


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """A model without weights, as training would have it."""

    model: Any
    kind: type[Backbone]
    quantized: list[str]
    """Bare names of the layers that would be 4-bit."""


def prepare(recipe: Recipe, config: Mapping[str, Any]) -> Prepared:
    """Return the recipe's model on the meta device, with its adapters.

    Args:
        recipe: what is trained.
        config: as `load.planned_config` returns it.
    """
    kind = BACKBONES.get(recipe.model.backbone)
    with torch.device("meta"):
        model: Any = kind.build(config)
    model.set_attn_implementation(attention(recipe, model.config))
    if not recipe.model.logit_softcapping:
        model.config.get_text_config().final_logit_softcapping = None
    model = model.to(getattr(torch, recipe.model.dtype))
    quantized = quantize.would_be_quantized(model, kind) if recipe.quantization.mode != "none" else []
    model = adapters.apply(model, recipe.adapters, kind)
    adapters.trainable_in_float32(model)
    model.train()
    return Prepared(model, kind, quantized)


def estimate(recipe: Recipe, prepared: Prepared, shape: Shape, device: str | None = None) -> Estimate:
    """Return the peak memory of a training step.

    Args:
        recipe: dtype, quantization, optimizer, checkpointing, size of the loss's chunks.
        prepared: from `prepare`; it is used up, its tensors have no contents of any kind afterwards.
        shape: the largest batch.
        device: "cpu" or "cuda", None is what there is: what is kept beside tensors, and how the optimizer steps.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = prepared.model
    components = _held(recipe, prepared)
    gradients = sum(part.gradients for part in components.values())
    _compute_in_four_bits(prepared, recipe.quantization)
    # Accumulated gradients are there while the next batch is computed; else they come as activations go.
    accumulated = recipe.train.gradient_accumulation > 1
    peak = _peak(recipe, prepared, shape, "busiest" if accumulated else "peak")
    if accumulated:
        peak["gradients"] = gradients
    idle = max(0, sum(peak.values()) - gradients)
    # While the optimizer steps, all gradients are there and no activations.
    stepping = _while_stepping(recipe, model, device)
    logits = min(peak["logits"], idle)
    return Estimate(
        components,
        activations=max(idle - logits, stepping - logits),
        logits=logits,
        framework=CUDA_CONTEXT if device == "cuda" else PROCESS,
    )


def standing(recipe: Recipe, prepared: Prepared, device: str) -> Estimate:
    """Return the memory without activations and logits, which no run goes below; nothing is traced."""
    return Estimate(_held(recipe, prepared), 0, 0, framework=CUDA_CONTEXT if device == "cuda" else PROCESS)


def _peak(recipe: Recipe, prepared: Prepared, shape: Shape, moment: Literal["peak", "busiest"]) -> dict[str, int]:
    """Return bytes by phase at the peak; of a large batch by what two smaller ones take.

    The chunks of the loss are many in a large batch, and a trace takes time for each. Beyond some of them everything
    grows linearly: each row adds its activations, and no more than one chunk of logits is there.
    """
    few = max(2, TRACED_CHUNKS * recipe.train.loss_chunk // shape.labels)
    if shape.rows <= few:
        return _traced(recipe, prepared, shape, moment)
    images = math.ceil(shape.images / shape.rows)
    low, high = (
        _traced(recipe, prepared, dataclasses.replace(shape, rows=rows, images=rows * images), moment)
        for rows in (few // 2, few)
    )
    times = (shape.rows - few) / (few - few // 2)
    return {name: max(0, round(high[name] + times * (high[name] - low[name]))) for name in high}


def _traced(recipe: Recipe, prepared: Prepared, shape: Shape, moment: Literal["peak", "busiest"]) -> dict[str, int]:
    """Return bytes by phase at the peak of a step, traced."""
    with memory_trace.fake(prepared.model) as model:
        if recipe.train.activation_checkpointing:
            with warnings.catch_warnings():
                # transformers marks an attribute that it sets itself as one that goes.
                warnings.simplefilter("ignore", FutureWarning)
                model.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})  # type: ignore[operator]
        tracker = memory_trace.Tracker(model)
        with memory_trace.fused(), tracker:
            memory_trace.step(model, recipe, prepared.kind, shape, tracker)
    return dict(tracker.busiest if moment == "busiest" else tracker.peak)


def _held(recipe: Recipe, prepared: Prepared) -> dict[str, Held]:
    """Return component -> the bytes of its weights, gradients and optimizer states."""
    places = Places(prepared.model, prepared.kind)
    packed = set(prepared.quantized)
    held: dict[str, Held] = {}
    for name, parameter in prepared.model.named_parameters():
        part = held.setdefault(places.component(name), Held())
        size = parameter.numel()
        if parameter.requires_grad:
            part.trained += 4 * size
            part.gradients += 4 * size
            part.optimizer += optimizer_bytes(size, recipe.train.optimizer)
        elif bare_name(name).removesuffix(".weight") in packed and name.endswith(".weight"):
            part.weights += four_bit_bytes(size, recipe.quantization.double)
        else:
            part.weights += size * parameter.element_size()
    return held


def four_bit_bytes(weights: int, double: bool) -> int:
    """Return the bytes of one NF4 layer as bitsandbytes stores it (arXiv:2305.14314, section 3).

    Two weights a byte, a constant for each 64 of them (float32, or 8 bits with a float32 for each 256 constants), and
    the tables of 16 and 256 float32 values.
    """
    blocks = math.ceil(weights / 64)
    constants = blocks + 4 * math.ceil(blocks / 256) + 4 * 256 + 4 if double else 4 * blocks
    return math.ceil(weights / 2) + constants + 4 * 16


def optimizer_bytes(weights: int, optimizer: str) -> int:
    """Return the bytes of AdamW's two states for one tensor.

    In 8 bits (arXiv:2110.02861) each state has a float32 constant for every 256 values; bitsandbytes leaves tensors
    under 4096 values in float32.
    """
    if "8bit" not in optimizer or weights < 4096:
        return 8 * weights
    return 2 * weights + 8 * math.ceil(weights / 256)


def _compute_in_four_bits(prepared: Prepared, part: QuantizationPart) -> None:
    """Let the layers that would be 4-bit compute as such."""
    packed = set(prepared.quantized)
    for name, module in prepared.model.named_modules():
        if isinstance(module, torch.nn.Linear) and bare_name(name) in packed and ".lora_" not in name:
            memory_trace.unpacks(module, getattr(torch, part.compute_dtype))


def _while_stepping(recipe: Recipe, model: torch.nn.Module, device: str) -> int:
    """Return what the optimizer's step takes beside states: torch's multi-tensor AdamW makes one copy of everything."""
    sizes = [4 * p.numel() for p in model.parameters() if p.requires_grad]
    if device == "cuda" and recipe.train.optimizer == "adamw":
        return sum(sizes)
    return 2 * max(sizes, default=0)
