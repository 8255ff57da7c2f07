"""How many floating-point operations training takes, by formula from the model's modules: no model is run.

Counted are matrix products, two operations a multiply-add: linear layers, the patch convolution, and attention's two
products over the full square of each example's true length (as arXiv:2204.02311, appendix B, and PyTorch's
`FlopCounterMode` count it). Backward is counted as autograd makes it: a weight's gradient where the weight is trained,
an input's gradient where anything before it is trained. Left out: norms, activations, softmax, the optimizer, padding,
and what DoRA computes of its weight norms.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from medvlm.models.components import output_layer, prefixes_of
from medvlm.recipe.models import Recipe

if TYPE_CHECKING:
    from medvlm.models.backbones.base import Backbone


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """Operations of one component: forward and backward, and the forward that checkpointing makes again."""

    forward: int = 0
    backward: int = 0
    recomputed: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.forward + other.forward, self.backward + other.backward, self.recomputed + other.recomputed)


@dataclasses.dataclass(frozen=True, slots=True)
class Flops:
    """Operations of training on a batch, component by component (vision_tower, projector, language_model, head)."""

    parts: Mapping[str, Work]

    @property
    def useful(self) -> int:
        """Return forward and backward of all components, recomputation not counted."""
        return sum(part.forward + part.backward for part in self.parts.values())

    @property
    def recomputed(self) -> int:
        """Return what activation checkpointing adds."""
        return sum(part.recomputed for part in self.parts.values())


@dataclasses.dataclass(slots=True)
class _Rates:
    """Operations a token of one component, and those a pair of tokens in its attention."""

    forward: int = 0
    backward: int = 0
    again: int = 0
    pair_forward: int = 0
    pair_backward: int = 0


class FlopModel:
    """Training operations of any batch, in constant time.

    Args:
        model: with its adapters and `requires_grad` set; on the meta device is enough.
        recipe: activation checkpointing, cached features.
        kind: the model's backbone.
    """

    def __init__(self, model: torch.nn.Module, recipe: Recipe, kind: type[Backbone]) -> None:
        config: Any = model.config
        self.kind, self.config = kind, config
        self.tower_tokens = _tower_tokens(model, kind) or kind.image_tokens_of(config)
        self.cached = any(part.cache_features for part in recipe.data)
        checkpointed = recipe.train.activation_checkpointing
        self.rates = _rates(model, kind, checkpointed)

    def training(self, lengths: Sequence[int], labels: int, images: int) -> Flops:
        """Return the operations of one training batch.

        Args:
            lengths: tokens of each example, image tokens included and padding not.
            labels: positions with a loss.
            images: pictures that pass the vision tower and projector; where nothing fixes their size, each counts as
                the largest that the family takes.
        """
        return self._made(self.kind.amounts(self.config, self.tower_tokens, lengths, labels, images))

    def _made(self, amounts: dict[str, tuple[int, int]]) -> Flops:
        if self.cached:
            amounts["vision_tower"] = (0, 0)
        parts: dict[str, Work] = {}
        for name, amount in amounts.items():
            component = _component(name)
            parts[component] = parts.get(component, Work()) + _work(self.rates.get(name, _Rates()), *amount)
        return Flops(parts)

    def batch(self, inputs: Mapping[str, torch.Tensor]) -> int:
        """Return the useful operations of training on what a backbone's `collate` or `collate_packed` made."""
        return self._made(self.kind.amounts_in(self.config, self.tower_tokens, inputs)).useful


def true_lengths(inputs: Mapping[str, torch.Tensor]) -> list[int]:
    """Return the tokens of every example in a batch, padded [B, T] or packed with a mask [R, 1, T, T]."""
    mask = inputs["attention_mask"]
    if mask.ndim == 2:
        lengths: list[int] = mask.sum(dim=1).tolist()
        return lengths
    found = []
    for row, seen in zip(inputs["position_ids"], mask[:, 0], strict=True):
        starts = torch.cat([torch.ones_like(row[:1], dtype=torch.bool), row.diff() != 1])
        ends = torch.cat([starts.nonzero()[1:, 0], starts.new_tensor([len(row)], dtype=torch.long)])
        # The last token of an example sees all of it; a token of padding is alone, with itself or nothing to see.
        spans = (ends - starts.nonzero()[:, 0]).tolist()
        saw = (seen[ends - 1] > 0 if seen.is_floating_point() else seen[ends - 1]).sum(dim=-1).tolist()
        found += [int(span) for span, width in zip(spans, saw, strict=True) if width >= span > 1]
    return found


def _work(rates: _Rates, tokens: int, pairs: int) -> Work:
    forward = rates.forward * tokens + rates.pair_forward * pairs
    backward = rates.backward * tokens + rates.pair_backward * pairs
    again = rates.again * tokens + (rates.pair_forward * pairs if rates.again else 0)
    return Work(forward, backward, again)


def _rates(model: torch.nn.Module, kind: type[Backbone], checkpointed: bool) -> dict[str, _Rates]:
    """Return the rates of every component (or part of one, see `Backbone.running`), walked in the order they run in."""
    config: Any = model.config
    members = {
        component: list(modules_of(model, kind, component))
        for component in ("vision_tower", "projector", "language_model", "head")
    }
    widths = kind.widths(config)
    rates: dict[str, _Rates] = {name: _Rates() for name in members}
    trained = _walk(kind.running(model, members), widths, rates)
    if checkpointed:
        # A component is computed again where its own output, or what it is made of, depends on anything trained.
        repeated = {_component(name) for name in widths}
        for name, part in rates.items():
            component = _component(name)
            part.again = part.forward if component in repeated and trained.get(component, False) else 0
    return rates


def _walk(
    modules: Sequence[tuple[str, str, torch.nn.Module]], widths: Mapping[str, int], rates: dict[str, _Rates]
) -> dict[str, bool]:
    """Add up the rates of all modules, and return component -> whether its output depends on anything trained.

    Args:
        modules: (name of the rates, name, module) in the order in which they run.
        widths: heads x head dimension of attention by name of the rates.
        rates: by name; filled here.
    """
    found = {name: module for _, name, module in modules}
    last = {(_component(rate), _parent(name)): _place(name) for rate, name, module in modules if _size(module)}
    entered: dict[tuple[str, str], bool] = {}
    after: dict[str, bool] = {}
    trained = False
    for rate, name, module in modules:
        if not rate:
            trained = False
            continue
        own = any(p.requires_grad for p in module.parameters(recurse=False))
        size = _size(module)
        if size:
            rates.setdefault(rate, _Rates())
            place, parent = _place(name), _parent(name)
            ends = place == last[_component(rate), parent]
            # Layers beside each other (query, key, value; gate, up) have the same input.
            before = trained if ends else entered.setdefault((rate, parent), trained)
            # A picture has no gradient, though CLIP's class token, which comes before, may be trained.
            before = before and not isinstance(module, torch.nn.Conv2d)
            rates[rate].forward += size
            rates[rate].backward += size * ((before or ".lora_B." in name) + own)
            if ends and "Attention" in type(found.get(parent)).__name__ and ".lora_" not in name:
                width = widths.get(rate, 0)
                rates[rate].pair_forward += 4 * width
                rates[rate].pair_backward += 8 * width * trained
        trained = trained or own
        after[_component(rate)] = trained
    return after


def _component(rate: str) -> str:
    return rate.partition("/")[0]


def _size(module: torch.nn.Module) -> int:
    """Return the operations a token of a module that is one matrix product, else 0."""
    if isinstance(module, torch.nn.Linear):
        return 2 * module.in_features * module.out_features
    if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
        return 2 * module.weight.numel()
    if type(module).__name__ == "Conv1D":
        return 2 * sum(weight.numel() for name, weight in module.named_parameters() if name == "weight")
    return 0


def modules_of(model: torch.nn.Module, kind: type[Backbone], component: str) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield the modules of a component by their full names; `head` is the output layer, wherever it lies."""
    head = _head_name(model)
    prefixes = prefixes_of(model, kind)
    for name, module in model.named_modules():
        # PEFT keeps the frozen original of a module it saves; SigLIP's pooling head is not used.
        if ".original_module" in name or ".vision_model.head" in name or ".vision_tower.head" in name:
            continue
        place = bare(_place(name))
        inside = "head" if head is not None and place == head else _prefixed(place, prefixes)
        if inside == component:
            yield name, module


def bare(name: str) -> str:
    """Return a module's name as the model without PEFT has it."""
    name = name.removeprefix("base_model.model.").replace(".base_layer", "")
    return re.sub(r"\.modules_to_save\.\w+", "", name)


def _prefixed(place: str, prefixes: Sequence[tuple[str, str]]) -> str | None:
    return next((name for prefix, name in prefixes if f"{place}.".startswith(prefix)), None)


def _head_name(model: torch.nn.Module) -> str | None:
    head = output_layer(model)
    return None if head is None else next((bare(name) for name, one in model.named_modules() if one is head), None)


def _place(name: str) -> str:
    """Return the full name of the layer that a module is or adapts."""
    return re.sub(r"\.(base_layer|lora_A\.\w+|lora_B\.\w+)$", "", name)


def _parent(name: str) -> str:
    """Return the name of the module that holds that layer."""
    return _place(name).rpartition(".")[0]


def _tower_tokens(model: torch.nn.Module, kind: type[Backbone]) -> int | None:
    """Return the tokens inside the vision tower: one a position embedding (CLIP's class token has one)."""
    for name, module in modules_of(model, kind, "vision_tower"):
        if isinstance(module, torch.nn.Embedding) and name.endswith("position_embedding"):
            return module.num_embeddings
        positions = getattr(module, "position_embeddings", None)
        # InternVL's and other towers after ViT's [1, N, D].
        if isinstance(positions, torch.nn.Parameter) and positions.dim() == 3:
            return positions.shape[1]
    return None
