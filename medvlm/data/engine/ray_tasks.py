"""Chunks read by Ray's workers, on this machine or on a cluster whose machines all see the output folder.

Ray starts a task anew where its worker or its machine dies; a chunk's files are whole or absent, so that does no harm.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator
from typing import Any

from medvlm.data.chunks import Done, Task, read_chunk
from medvlm.data.sources.base import Source
from medvlm.errors import AccessError, ResourceError

RETRIES = 4
"""So often is a chunk begun anew whose worker died."""

QUEUED = 2


def run(source: Source, tasks: Iterator[Task], workers: int, address: str | None = None) -> Iterator[Done]:
    """Read `tasks`; see `medvlm.data.engine.run`."""
    import ray

    mine = not ray.is_initialized()
    if mine:
        connect(ray, workers, address)
    try:
        yield from _read(ray, source, tasks, workers)
    finally:
        if mine:
            ray.shutdown()


def connect(ray: Any, workers: int, address: str | None, instead: str = "--engine local") -> None:
    """Start Ray here, or join the cluster at `address`, with as few words as it allows.

    Args:
        ray: the module.
        workers: CPUs that Ray may use where it is started here.
        address: of a cluster that is running.
        instead: how to do without, for the error.

    Raises:
        AccessError: no cluster answers, or Ray cannot be started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Without a GPU task Ray is about to leave the variable for devices alone, and says so.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is not None:
        _knock(address, instead)
    quiet = {"include_dashboard": False, "num_cpus": workers} if address is None else {"address": address}
    try:
        ray.init(**quiet, logging_level=logging.ERROR, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        place = f"no Ray cluster answers at {address}" if address else "Ray cannot be started here"
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise AccessError(f"{place} ({first}); start one with ray start --head, or use {instead}") from error


def _knock(address: str, instead: str) -> None:
    """Make sure that something listens at `address`: Ray itself would try for many minutes."""
    match = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)
    if match is None:
        return
    try:
        socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise AccessError(
            f"no Ray cluster answers at {address} ({error}); start one with ray start --head, or use {instead}"
        ) from error


def _read(ray: Any, source: Source, tasks: Iterator[Task], workers: int) -> Iterator[Done]:
    remote = ray.remote(num_cpus=1, max_retries=RETRIES)(read_chunk)
    shared = ray.put(source)
    window = QUEUED * max(workers, int(ray.cluster_resources().get("CPU", 1)))
    running: dict[Any, Task] = {}
    while True:
        while len(running) < window and (task := next(tasks, None)) is not None:
            running[remote.remote(shared, task)] = task
        if not running:
            return
        for reference in ray.wait(list(running))[0]:
            yield _result(ray, reference, running.pop(reference))


def _result(ray: Any, reference: Any, task: Task) -> Done:
    try:
        done: Done = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # Ray's own error is of both classes, and its text is a traceback of many lines.
        raise error.cause from error
    except ray.exceptions.RayError as error:
        units = task.units
        raise ResourceError(
            f"Ray gave up reading the units {units[0].name} to {units[-1].name} ({type(error).__name__}), most likely "
            "out of memory; use fewer with --workers"
        ) from error
    return done
