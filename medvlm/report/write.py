"""From run folders to report.html, report.md and report.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medvlm.errors import UsageError
from medvlm.io import check_plain, stable_hash, write_json, write_text
from medvlm.registry import nearest
from medvlm.report import as_json, gallery, html, markdown, pairs, side_by_side
from medvlm.report.build import CASES, NOT_CLINICAL, build
from medvlm.report.context import RunContext, read
from medvlm.runs import RUNS, Run, group_of, groups

FORMS = ("html", "md", "json")


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


def write(
    runs: Sequence[Path],
    out: Path | None = None,
    forms: Sequence[str] = FORMS,
    each: int = CASES,
    *,
    looked: int = 0,
    advance: Callable[[int, int], Any] | None = None,
) -> list[Path]:
    """Write the report on one run or the comparison of several, and return the paths of the files.

    Args:
        runs: run folders.
        out: the folder to write into; by default the run's own, or one beside the runs for several.
        forms: of `FORMS`.
        each: how many best, median and worst cases are shown.
        looked: under so many cases of each run stands where its model looks, which loads it.
        advance: told how many of those are done, of how many.

    Raises:
        InputError: one of them is no run, or its model is to be looked into and cannot be loaded.
        UsageError: no form, or an unknown one; `out` is a file, or holds a folder or device
            in place of one of the files.
    """
    if not forms:
        raise UsageError(f"no format named; known: {', '.join(FORMS)}")
    for form in forms:
        if form not in FORMS:
            raise UsageError(f'--format "{form}" is unknown{nearest(form, FORMS)}; known: {", ".join(FORMS)}')
    if out is not None and not next(path for path in (out, *out.absolute().parents) if path.exists()).is_dir():
        raise UsageError(f"--out {out}: is no folder, or lies in none; name another folder")
    if out is not None:
        for form in forms:
            check_plain(out / f"report.{form}", "--out")
    # The same run under two names (runs/latest) is one run.
    distinct = {path.resolve(): path for path in runs}
    contexts = side_by_side.order([read(path) for path in distinct.values()])
    comparisons = pairs.compared(contexts) if len(contexts) > 1 else {}
    look = gallery.Looker(looked, looked * len(contexts), advance) if looked else None
    document = build(contexts, each, comparisons, look)
    folder = out or _folder(contexts)
    paths = []
    for form in dict.fromkeys(forms):
        paths.append(folder / f"report.{form}")
        if form == "json":
            write_json(paths[-1], as_json.content(document, contexts, comparisons, NOT_CLINICAL))
        else:
            write_text(paths[-1], (html if form == "html" else markdown).render(document))
    return paths


def _folder(runs: Sequence[RunContext]) -> Path:
    """Return where a report goes by itself: into its run; for several, beside them, one folder for the same runs."""
    if len(runs) == 1:
        return runs[0].path
    parent = RUNS if RUNS.is_dir() else runs[0].path.parent
    if side_by_side.one_group(runs):
        return parent / f"{runs[0].group['id']}-report"
    # The names of many runs would not fit in one.
    return parent / f"comparison-{stable_hash(sorted(str(run.path.resolve()) for run in runs))[:8]}-report"
