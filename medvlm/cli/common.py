"""What every verb shares: the flags --quiet and --debug, progress on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Protocol

import typer


class _State:
    debug = False


state = _State()


def _set_debug(value: bool) -> bool:
    state.debug = state.debug or value
    return value


QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]
DebugOption = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of an error.", callback=_set_debug, is_eager=True),
]


def say(text: str, quiet: bool = False) -> None:
    """Print one plain line on stdout; nothing when `quiet`."""
    if not quiet:
        print(text, flush=True)


def warn(text: str) -> None:
    """Print one line on stderr that begins with "warning:", even under --quiet."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


class Progress(Protocol):
    """Told by long work how far it is."""

    silent: bool
    """Nothing is shown, and nothing else said meanwhile."""

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show that `done` of `total` units are done; `note` is a short remark such as a loss."""
        ...


class _Silent:
    silent = True

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        return


class _Lines:
    """For logs and pipes: a plain line now and then instead of a moving bar."""

    silent = False

    def __init__(self, label: str, every: float = 10.0) -> None:
        self.label, self.every, self.last = label, every, time.monotonic()

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            of = f"/{total}" if total else ""
            print(f"{self.label}: {done}{of}{'  ' + note if note else ''}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(label: str, quiet: bool = False) -> Iterator[Progress]:
    """Give a progress bar on stderr: a moving one on a terminal, plain lines elsewhere, nothing when `quiet`."""
    if quiet:
        yield _Silent()
    elif not sys.stderr.isatty():
        yield _Lines(label)
    else:
        with _bar(label) as bar:
            yield bar


@contextlib.contextmanager
def _bar(label: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
    )
    # What is printed meanwhile is let past the bar, but only on a terminal: a pipe must get what is printed.
    with RichProgress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty()) as rich:
        task = rich.add_task(label, total=None, note="")

        class Bar:
            silent = False

            def update(self, done: int, total: int | None = None, note: str = "") -> None:
                rich.update(task, completed=done, total=total, note=note)

        yield Bar()
