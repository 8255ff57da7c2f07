"""From run folders to report.html and report.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medvlm.errors import UsageError
from medvlm.io import stable_hash, write_text
from medvlm.report import html, markdown
from medvlm.report.build import build
from medvlm.report.context import RunContext, read
from medvlm.report.side_by_side import one_group
from medvlm.runs import RUNS, Run, group_of, groups


def folders(names: Sequence[str], siblings: bool = False) -> list[Path]:
    """Return the run folders that names stand for: a path, a folder under runs/, or the id of a group, for all of it.

    Args:
        names: as given at the command line.
        siblings: add the other runs of the groups that the named runs belong to.

    Raises:
        UsageError: a run stands alone, though its siblings are asked for.
    """
    known = groups()
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name) if Path(name).exists() or not (RUNS / name).is_dir() else RUNS / name
        members = known.get(name) if not path.exists() else None
        if members is None and siblings:
            id = group_of(Run(path).facts()).get("id")
            if id is None:
                raise UsageError(f"{name}: this run is no stage or variant of a recipe; leave out --group")
            members = known.get(id) or {"": Run(path)}
        found |= dict.fromkeys([path] if members is None else [run.path for run in members.values()])
    return list(found)


def write(runs: Sequence[Path], out: Path | None = None) -> list[Path]:
    """Write the report on one run or the comparison of several, and return the paths of the two files.

    Args:
        runs: run folders.
        out: the folder to write into; by default the run's own, or one beside the runs for several.

    Raises:
        InputError: one of them is no run.
    """
    # The same run under two names (runs/latest) is one run.
    distinct = {path.resolve(): path for path in runs}
    contexts = [read(path) for path in distinct.values()]
    document = build(contexts)
    folder = out or _folder(contexts)
    paths = [folder / "report.html", folder / "report.md"]
    for path, text in zip(paths, (html.render(document), markdown.render(document)), strict=True):
        write_text(path, text)
    return paths


def _folder(runs: Sequence[RunContext]) -> Path:
    """Return where a report goes by itself: into its run; for several, beside them, one folder for the same runs."""
    if len(runs) == 1:
        return runs[0].path
    parent = RUNS if RUNS.is_dir() else runs[0].path.parent
    if one_group(runs):
        return parent / f"{runs[0].group['id']}-report"
    # The names of many runs would not fit in one.
    return parent / f"comparison-{stable_hash(sorted(str(run.path.resolve()) for run in runs))[:8]}-report"
