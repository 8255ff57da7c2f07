"""One model over several devices: whole on each (DDP), or in parts (FSDP2); and whole again for files.

The loss is computed inside the outermost module's forward pass, so that what spreads the model sees all of the work:
the output layer, whose weights our loss takes by itself, is then at hand as a whole, and its gradient is summed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, distribute_tensor

from medvlm.train.devices import Devices

Losses = Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


class LossOf(torch.nn.Module):
    """A model whose forward pass gives its loss.

    Args:
        model: the model itself; it keeps its names.
        losses: as `Backbone.losses`.
    """

    def __init__(self, model: torch.nn.Module, losses: Losses) -> None:
        super().__init__()
        self.module = model
        self.losses = losses

    def forward(
        self, inputs: Mapping[str, torch.Tensor], options: Mapping[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the loss, the sums of token losses by example [E] and their counts [E]."""
        loss, sums, counts = self.losses(self.module, inputs, **options)
        return loss + left_out(self.module, inputs), sums, counts


def left_out(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | float:
    """Return 0 times every trained weight for a batch without pictures, so that all of them have a gradient.

    FSDP2 sums gradients that are there on all devices; and an optimizer moves what has a gradient of 0 by its momentum
    and leaves alone what has none, so that weights would depend on which examples share a batch.
    """
    if "pixel_values" in inputs or not torch.is_grad_enabled():
        return 0.0
    trained = [p for p in model.parameters() if p.requires_grad and not isinstance(p, DTensor)]
    return sum((0.0 * parameter.sum() for parameter in trained), 0.0)


def spread(
    model: torch.nn.Module, losses: Losses, here: Devices, device: torch.device, layers: Sequence[torch.nn.Module]
) -> torch.nn.Module:
    """Return what computes `model`'s loss on all devices, in step; `model` keeps its parameters' names.

    Args:
        model: with adapters, the same in every process.
        losses: as `Backbone.losses`.
        here: this process; its `sharding` says how.
        device: of this process.
        layers: of the decoder, which FSDP2 shares one by one.
    """
    outer = LossOf(model, losses)
    if here.sharding == "fsdp2":
        return _in_parts(outer, here, device, layers)
    _same_everywhere(model)
    return torch.nn.parallel.DistributedDataParallel(
        outer,
        device_ids=[device.index] if device.type == "cuda" else None,
        # A batch without pictures, or without a task, leaves a component unused on one device and not on another.
        find_unused_parameters=True,
        forward_sync_buffers=False,
        # All have loaded the same base; what is trained has just been made equal.
        init_sync=False,
    )


def _same_everywhere(model: torch.nn.Module) -> None:
    """Give every process the first one's trained weights."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            dist.broadcast(parameter.data, src=0)


def _in_parts(outer: LossOf, here: Devices, device: torch.device, layers: Sequence[torch.nn.Module]) -> torch.nn.Module:
    """Shard each layer of the decoder by itself, and the rest together; 4-bit bytes stay whole.

    The tower is of the rest: a device whose batch has no picture does not run it, and all devices gather the weights
    of a layer in step, or wait for ever.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard

    _same_everywhere(outer)
    options: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (here.count,)),
        "ignored_params": {p for p in outer.parameters() if not p.is_floating_point()},
    }
    if here.offload:
        options["offload_policy"] = CPUOffloadPolicy()
    # What lies inside comes first.
    for layer in reversed(layers):
        fully_shard(layer, reshard_after_forward=here.reshard, **options)
    _gradients_from_the_start(outer.module)
    # Embeddings and output layer are used at both ends of a step, so they stay whole in between.
    fully_shard(outer, reshard_after_forward=False, **options)
    return outer


def _gradients_from_the_start(model: Any) -> None:
    """Have gradients reach the first layer of the decoder also where nothing before it is trained.

    FSDP2 sums a layer's gradients when those of its inputs are there. Without a picture, what goes into the first layer
    would have none, and that device would come to sum in another order than the rest.
    """

    def begin(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if output.requires_grad or not torch.is_grad_enabled():
            return output
        return output.detach().requires_grad_(True) * 1

    embeddings = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    if embeddings is not None:
        embeddings.register_forward_hook(begin)


def is_sharded(model: torch.nn.Module) -> bool:
    """Return True where parts of the weights lie on other devices."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def full(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor as a whole; where it is sharded, all processes must call it."""
    if hasattr(value, "ds_id"):
        with _gathered([value]):
            return value.detach().clone()
    return value.full_tensor() if isinstance(value, DTensor) else value


def put(parameter: torch.Tensor, value: torch.Tensor) -> None:
    """Copy a whole value into a parameter, or its part of it; all processes must call it."""
    if hasattr(parameter, "ds_id"):
        with _gathered([parameter], changed=True), torch.no_grad():
            parameter.copy_(value)
        return
    with torch.no_grad():
        if isinstance(parameter, DTensor):
            parameter.copy_(_parted(value, parameter))
        else:
            parameter.copy_(value)


def _parted(value: torch.Tensor, like: DTensor) -> Any:
    device = torch.device(like.device_mesh.device_type)
    parted: Any = distribute_tensor(value.to(device), like.device_mesh, like.placements)
    return parted.to(like.device)


def _gathered(parameters: Sequence[torch.Tensor], changed: bool = False) -> Any:
    """Return a context in which parameters that DeepSpeed's stage 3 has shared are whole; by `changed`, from rank 0."""
    import deepspeed

    return deepspeed.zero.GatheredParameters(list(parameters), modifier_rank=0 if changed else None)


@contextlib.contextmanager
def head_at_hand(model: Any) -> Iterator[None]:
    """Hold the output layer whole for our loss, which takes its weights by itself, under DeepSpeed's stage 3."""
    inner = getattr(model, "module", model)
    head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    parted = [p for p in head.parameters() if hasattr(p, "ds_id")] if head is not None else []
    with _gathered(parted) if parted else contextlib.nullcontext():
        yield


def fold(outer: Any) -> None:
    """Give the weights of the outermost part back, which a forward pass without a backward one leaves whole."""
    if hasattr(outer, "reshard"):
        outer.reshard()


@contextlib.contextmanager
def unfolded(outer: Any) -> Iterator[None]:
    """Hold the outermost part's weights whole, for passes that begin inside of it, such as generation."""
    if not hasattr(outer, "unshard"):
        yield
        return
    outer.unshard()
    try:
        yield
    finally:
        outer.reshard()


def optimizer_state(optimizer: Any) -> dict[str, Any]:
    """Return the optimizer's state as one device would have it; all processes must call it."""
    state = optimizer.state_dict()
    whole = {
        key: {name: full(value).cpu() if isinstance(value, DTensor) else value for name, value in held.items()}
        for key, held in state["state"].items()
    }
    return {**state, "state": whole}


def part_optimizer_state(optimizer: Any) -> None:
    """Share a whole state that was loaded among the processes, as the parameters are; all must call it."""
    state: dict[Any, dict[str, Any]] = optimizer.state
    for parameter, held in state.items():
        if not isinstance(parameter, DTensor):
            continue
        for name, value in held.items():
            if type(value) is torch.Tensor and value.shape == parameter.shape:
                held[name] = _parted(value, parameter)


@contextlib.contextmanager
def whole(model: torch.nn.Module, keep: bool) -> Iterator[None]:
    """Put whole tensors, in main memory, in the place of sharded ones; all processes must enter.

    Args:
        model: is not trained with afterwards.
        keep: this process needs the tensors; others only help to gather them.
    """
    frozen_too = not hasattr(model, "peft_config")
    for module in model.modules():
        held: list[tuple[str, Any]] = list(module._parameters.items())
        for name, parameter in held:
            parted = isinstance(parameter, DTensor) or hasattr(parameter, "ds_id")
            if parted and (parameter.requires_grad or frozen_too):
                gathered = full(parameter).detach()
                if keep:
                    made = torch.nn.Parameter(gathered.cpu(), requires_grad=parameter.requires_grad)
                    module._parameters[name] = made
    yield
