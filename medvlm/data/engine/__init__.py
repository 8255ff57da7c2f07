"""Who reads the chunks: worker processes of this machine (`local`) or a Ray cluster (`ray`). The bytes are the same."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator

from medvlm.data.chunks import Done, Task
from medvlm.data.sources.base import Source
from medvlm.errors import MissingExtraError, UsageError
from medvlm.registry import nearest

ENGINES = ("local", "ray")


def check(engine: str, address: str | None = None) -> None:
    """Make sure that an engine can be had, before any work is done.

    Raises:
        UsageError: no such engine, or an address for one that takes none.
        MissingExtraError: Ray is not installed.
    """
    if engine not in ENGINES:
        raise UsageError(f'unknown --engine "{engine}"{nearest(engine, ENGINES)}; known: {", ".join(ENGINES)}')
    if address is not None and engine != "ray":
        raise UsageError("a cluster's address goes with --engine ray")
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise MissingExtraError("--engine ray", "ray")


def run(
    source: Source, tasks: Iterable[Task], count: int, workers: int, engine: str = "local", address: str | None = None
) -> Iterator[Done]:
    """Read `count` chunks and yield each that is done, in any order.

    Args:
        workers: processes at most.
        engine: local or ray.
        address: of a Ray cluster that is running; None starts one on this machine.

    Raises:
        AccessError: the source cannot fetch a chunk, or there is no cluster at `address`.
        ResourceError: the disk is full, or workers died again and again.
    """
    if engine == "ray":
        from medvlm.data.engine import ray_tasks

        return ray_tasks.run(source, iter(tasks), min(workers, count), address)
    from medvlm.data.engine import local

    return local.run(source, iter(tasks), min(workers, count))
