"""The devices of one training: which of its processes this is, and what all of them sum up to.

Every process runs the same program. Whoever starts them (`medvlm.train.launch`, `accelerate launch`, torchrun) says in
the environment which one this is; `begin` joins them. With one process everything here is what it would be without.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist

from medvlm.train import launch

T = TypeVar("T")
Sharding = Literal["none", "ddp", "fsdp2", "deepspeed"]

PATIENCE = datetime.timedelta(hours=24)
"""How long a process waits for the others: until the slowest has written a checkpoint or generated its texts."""


@dataclasses.dataclass(frozen=True, slots=True)
class Devices:
    """This process among those of the training."""

    rank: int = 0
    count: int = 1
    sharding: Sharding = "none"
    """none: one device; ddp: each holds the whole model; fsdp2, deepspeed: each holds a part."""
    reshard: bool = True
    """fsdp2: give a layer's weights back after its forward pass, and gather them again for the backward pass."""
    offload: bool = False
    """fsdp2: keep the parts in main memory."""

    @property
    def first(self) -> bool:
        """Return True for the one process that prints and writes."""
        return self.rank == 0

    def total(self, values: Sequence[int]) -> list[int]:
        """Return the sum of each value over all processes; all must call it."""
        return self._reduced(values, torch.int64, dist.ReduceOp.SUM)

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return the sum of each value over all processes; all must call it."""
        return self._reduced(values, torch.float64, dist.ReduceOp.SUM)

    def most(self, value: int) -> int:
        """Return the largest value of all processes; all must call it."""
        return int(self._reduced([value], torch.int64, dist.ReduceOp.MAX)[0])

    def any(self, value: bool) -> bool:
        """Return True where it is so in any process; all must call it."""
        return bool(self.most(int(value)))

    def _reduced(self, values: Sequence[Any], dtype: torch.dtype, how: Any) -> list[Any]:
        if self.count == 1:
            return list(values)
        held = torch.tensor(list(values), dtype=dtype, device=_device())
        dist.all_reduce(held, op=how)
        found: list[Any] = held.tolist()
        return found

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what the first process makes; the others wait for it."""
        if self.count == 1:
            return make()
        held: list[Any] = [make() if self.first else None]
        dist.broadcast_object_list(held, src=0, device=_device())
        made: T = held[0]
        return made

    def part(self, places: Sequence[T]) -> Sequence[T]:
        """Return every `count`-th of the places, this process's own."""
        return places[self.rank :: self.count]

    def joined(self, own: Sequence[T]) -> list[T]:
        """Return what all processes made of their `part`, in the order of the whole; all must call it."""
        if self.count == 1:
            return list(own)
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, list(own))
        size = sum(map(len, parts))
        return [parts[place % self.count][place // self.count] for place in range(size)]

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.count > 1:
            self.most(0)


ONE = Devices()
_here = ONE


def here() -> Devices:
    """Return this process's place, as `begin` found it."""
    return _here


def started_together() -> bool:
    """Return True where a launcher started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def begin() -> Devices:
    """Join the other processes, if there are any, and return this one's place; a second call changes nothing."""
    global _here
    if not started_together() or _here.count > 1:
        return _here
    from accelerate import PartialState

    launch.check_environment(os.environ)
    sharding = _sharding()
    gpu = torch.cuda.is_available()
    state = PartialState(cpu=not gpu, timeout=PATIENCE)
    _here = Devices(
        rank=state.process_index,
        count=state.num_processes,
        sharding=sharding,
        reshard=os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false",
        offload=os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true",
    )
    return _here


def end() -> None:
    """Part from the other processes."""
    global _here
    if _here.count > 1 and dist.is_initialized():
        dist.destroy_process_group()
    _here = ONE


def _sharding() -> Sharding:
    """Return how the launcher wants the model spread, and keep FSDP to ourselves: accelerate knows it on GPUs only."""
    if os.environ.pop("ACCELERATE_USE_FSDP", "false").lower() == "true":
        return "fsdp2"
    return "deepspeed" if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true" else "ddp"


def _device() -> torch.device:
    """Return where the process group's tensors lie."""
    on_gpu = torch.cuda.is_available() and "nccl" in str(dist.get_backend())
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
