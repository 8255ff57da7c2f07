"""From run folders to report.html and report.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medvlm.io import write_text
from medvlm.report import html, markdown
from medvlm.report.build import build
from medvlm.report.context import read


def write(runs: Sequence[Path], out: Path | None = None) -> list[Path]:
    """Write the report on one run or the comparison of several, and return the paths of the two files.

    Args:
        runs: run folders.
        out: the folder to write into; by default the run's own, or the working directory for several.

    Raises:
        InputError: one of them is no run.
    """
    # The same run under two names (runs/latest) is one run.
    distinct = {path.resolve(): path for path in runs}
    contexts = [read(path) for path in distinct.values()]
    document = build(contexts)
    folder = out or (contexts[0].path if len(contexts) == 1 else Path())
    paths = [folder / "report.html", folder / "report.md"]
    for path, text in zip(paths, (html.render(document), markdown.render(document)), strict=True):
        write_text(path, text)
    return paths
