"""Chunks read by this process at first, and by a pool of worker processes where there is much to do."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection

from medvlm.data.chunks import Done, Task, read_chunk
from medvlm.data.sources.base import Source
from medvlm.errors import ResourceError

ALONE_S = 1.0
"""Seconds of work before worker processes are started: about what starting them costs."""

QUEUED = 2
"""Chunks handed out for each worker, so that none waits for this process."""

ATTEMPTS = 2
"""So often may a worker die over one chunk that it reads alone."""


def run(source: Source, tasks: Iterator[Task], workers: int) -> Iterator[Done]:
    """Read `tasks`; see `medvlm.data.engine.run`."""
    began = time.monotonic()
    for task in tasks:
        if workers > 1 and time.monotonic() - began >= ALONE_S:
            yield from _in_pool(source, itertools.chain([task], tasks), workers)
            return
        yield read_chunk(source, task)


_source_here: Source


def _start_worker(source: Source) -> None:
    """Ready a worker process: keep the source, leave Ctrl-C to the parent, and end when the parent does."""
    global _source_here
    _source_here = source
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def follow() -> None:
            connection.wait([sentinel])
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def _read_there(task: Task) -> Done:
    return read_chunk(_source_here, task)


def _in_pool(source: Source, tasks: Iterator[Task], workers: int) -> Iterator[Done]:
    """Read `tasks` in worker processes; those that a dying worker left are read again, one by one.

    One by one, since the death of any worker ends the pool: only so is it known whose chunk it was.
    """
    again: deque[Task] = deque()
    deaths: Counter[str] = Counter()
    while True:
        running: dict[Future[Done], Task] = {}
        pool, before = _pool(source, workers), {child.pid for child in multiprocessing.active_children()}
        try:
            while _hand_out(pool, running, again, tasks, workers):
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    done = future.result()
                    del running[future]
                    yield done
            pool.shutdown()
            return
        except BrokenProcessPool as error:
            _stop(pool, before)
            _count_death(list(running.values()), deaths, error)
            again.extendleft(reversed(running.values()))
        except BaseException:
            _stop(pool, before)
            raise


def _pool(source: Source, workers: int) -> ProcessPoolExecutor:
    # "spawn": a fork of a process with threads (progress bar, arrow) may hang.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (source,))


def _hand_out(
    pool: ProcessPoolExecutor,
    running: dict[Future[Done], Task],
    again: deque[Task],
    tasks: Iterator[Task],
    workers: int,
) -> bool:
    """Submit chunks until enough are under way; return whether any is."""
    while len(running) < (1 if again else QUEUED * workers):
        task = again[0] if again else next(tasks, None)
        if task is None:
            break
        try:
            running[pool.submit(_read_there, task)] = task
        except BrokenProcessPool:
            if not again:
                again.append(task)
            raise
        if again:
            again.popleft()
            break
    return bool(running)


def _count_death(left: list[Task], deaths: Counter[str], error: BaseException) -> None:
    if len(left) == 1:
        deaths[left[0].name] += 1
        if deaths[left[0].name] >= ATTEMPTS:
            units = left[0].units
            raise ResourceError(
                f"a worker process died twice over the units {units[0].name} to {units[-1].name}, most likely out of "
                "memory; use fewer with --workers"
            ) from error


def _stop(pool: ProcessPoolExecutor, before: set[int | None]) -> None:
    """End a pool and its processes at once."""
    pool.shutdown(wait=False, cancel_futures=True)
    for child in multiprocessing.active_children():
        if child.pid not in before:
            with contextlib.suppress(OSError):
                child.terminate()
                child.join(5)
