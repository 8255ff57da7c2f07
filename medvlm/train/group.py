"""Train the members of a recipe in order, each into a run folder of its own, and go on where they stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import gc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from medvlm.cli.common import Progress
from medvlm.data.mixture import Mixture
from medvlm.errors import InputError
from medvlm.licenses import policy, registry
from medvlm.models.locate import locate_parts
from medvlm.recipe.members import Members, differing
from medvlm.recipe.models import Recipe
from medvlm.recipe.resolve import recipe_hash
from medvlm.runs import FINISHED, Run, group_of, groups, open_run, unfinished

Bars = Callable[[str], AbstractContextManager[Progress]]


@dataclasses.dataclass(slots=True)
class Group:
    """Runs that belong together."""

    id: str
    runs: dict[str, Run]
    """Newest run of each member that was begun."""

    def finished(self, member: str) -> Run | None:
        """Return the member's run if it is finished."""
        run = self.runs.get(member)
        return run if run is not None and run.facts().get("status") == FINISHED else None


def train_members(members: Members, names: list[str], command: str, bars: Bars, *, resume: bool) -> Iterator[Run]:
    """Train the named members, yielding each run when it is finished; a stage starts from the one before it.

    Args:
        members: of the recipe.
        names: which of them, in order.
        command: what to record.
        bars: gives a member's name a progress bar.
        resume: go on with the newest group of the same recipes; its finished members are not trained again.

    Raises:
        InputError: there is nothing to go on with; a stage's start is missing; a member has no training rows.
        MedvlmError: what `train` raises; the members before keep their runs.
    """
    recipes = dict(members.members)
    # All are checked before the first is trained, which may take hours; bases first, since the loop imports torch.
    for name in names:
        locate_parts(recipes[name].model)
    from medvlm.train.loop import check_machine

    for name in names:
        check_machine(recipes[name])
        training_rows(recipes[name])
    group = _group(members, names, resume)
    left = [name for name in names if not (resume and group.finished(name))]
    if not left:
        raise InputError(f"{group.id}: all of it is finished; leave out --resume to train it again")
    for name in left:
        recipe = _from_stage_before(members, name, group)
        _forget_the_last()
        with bars(recipe.name) as bar:
            yield _train_one(members, name, recipe, group, command, bar, resume)


def _train_one(
    members: Members, name: str, recipe: Recipe, group: Group, command: str, bar: Progress, resume: bool
) -> Run:
    from medvlm.train.loop import Job, train

    mixture = training_rows(recipe)
    job = Job(
        recipe,
        locate_parts(recipe.model),
        mixture,
        Mixture(recipe.data, "validation", recipe.seed),
        command=command,
        license=rights(recipe, mixture.licenses()),
        group=_record(members, name, group),
    )
    begun = group.runs.get(name) if resume else None
    run = begun or Run.create(recipe.name)
    group.runs[name] = run
    return train(job, run, bar, resume=begun is not None)


def _forget_the_last() -> None:
    """Free what the member before held, and begin the peak of memory anew: compute.json is of one run."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    # Linux takes "5" as the wish to begin the process's own peak anew (proc_pid_clear_refs(5)).
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def _record(members: Members, name: str, group: Group) -> dict[str, Any] | None:
    """Return what run.json says of the group."""
    if members.kind == "single":
        return None
    return {"id": group.id, "kind": members.kind, "member": name, "members": members.names, "hash": members.hash}


def training_rows(recipe: Recipe) -> Mixture:
    """Return the training mixture.

    Raises:
        InputError: it is empty, or a data set is missing or damaged.
    """
    mixture = Mixture(recipe.data, "train", recipe.seed)
    if not len(mixture):
        paths = ", ".join(part.path for part in recipe.data)
        raise InputError(f"data: no training rows in {paths}; check data.tasks and the data set's splits")
    return mixture


def _group(members: Members, names: list[str], resume: bool) -> Group:
    """Return the group to go on with, or a new one."""
    nothing = f"no unfinished run of {members.name} with these settings; leave out --resume to start one"
    if members.kind == "single":
        begun = unfinished(recipe_hash(_pinned(members.members[0][1]))) if resume else None
        if resume and begun is None:
            raise InputError(nothing)
        return Group(members.name, {names[0]: begun} if begun else {})
    known = {
        id: runs
        for id, runs in groups().items()
        if group_of(next(iter(runs.values())).facts()).get("hash") == members.hash
    }
    if resume and not known:
        raise InputError(nothing)
    # A later stage alone joins the group of the stage that it starts from.
    if known and (resume or (members.kind == "stages" and members.names[0] not in names)):
        id = next(iter(known))
        return Group(id, known[id])
    stem = f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{members.name}"
    taken = groups()
    return Group(next(id for n in range(1, 1000) if (id := stem if n == 1 else f"{stem}-{n}") not in taken), {})


def _from_stage_before(members: Members, name: str, group: Group) -> Recipe:
    """Return the member's recipe with the run that it starts from filled in.

    Raises:
        InputError: the stage before is not trained, or the run that the recipe names is not finished.
    """
    recipe = dict(members.members)[name]
    place = members.names.index(name)
    if members.kind != "stages" or place == 0 or recipe.model.start is not None:
        return _pinned(recipe)
    before = members.names[place - 1]
    run = group.finished(before)
    if run is None:
        raise InputError(
            f"stage {name} starts from {before}, which is not trained; leave out --only, or set "
            f"stages.{name}.model.start=RUN"
        )
    return _starting_from(recipe, str(run.path))


def _pinned(recipe: Recipe) -> Recipe:
    """Return the recipe with a start such as `runs/latest`, or a run's bare name, as the folder that it stands for."""
    if recipe.model.start is None:
        return recipe
    run = open_run(None if recipe.model.start in ("latest", "runs/latest") else recipe.model.start)
    return _starting_from(recipe, str(run.path))


def _starting_from(recipe: Recipe, start: str) -> Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"start": start})})


def rights(recipe: Recipe, data: Mapping[str, int], before: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return what may be done with the tuned model: of all parts of its base and all data of all its stages.

    Args:
        recipe: names the base, and the run that it starts from.
        data: training rows by license.
        before: those of stages that are not trained yet, for a plan.
    """
    total = Counter(data) + Counter(before or {})
    names = list(recipe.model.parts.values())
    start, seen = recipe.model.start, set[str]()
    while start is not None and start not in seen:
        seen.add(start)
        run = open_run(start)
        for part in run.facts().get("data", []):
            total += Counter(part.get("licenses", {}))
        earlier = run.recipe().model
        names += earlier.parts.values()
        start = earlier.start
    return policy.verdict_of_parts({name: registry.find(name) for name in names}, total).as_dict()


def plan_members(members: Members, names: list[str]) -> Iterator[tuple[str, Recipe, Any, dict[str, Any]]]:
    """Yield the name, recipe, `Plan` and license verdict of each member; nothing is trained or downloaded."""
    from medvlm.train.plan import make_plan

    before: Counter[str] = Counter()
    for name in names:
        recipe = dict(members.members)[name]
        mixture = training_rows(recipe)
        plan = make_plan(recipe, mixture)
        yield name, recipe, plan, rights(_pinned(recipe), mixture.licenses(), before)
        if members.kind == "stages":
            before += Counter(mixture.licenses())


def variant_table(planned: Sequence[tuple[str, Recipe, Any]]) -> list[str]:
    """Return lines that set the variants' plans side by side: what differs, and what each trains."""
    from medvlm.train.plan_text import size

    rows = differing([recipe.model_dump(mode="json") for _, recipe, _ in planned])
    lines = [["variant", "trained", "4-bit", "memory", "steps", *rows]]
    for place, (name, _, plan) in enumerate(planned):
        trained, quantized = (sum(getattr(c, k) for c in plan.census.values()) for k in ("trainable", "quantized"))
        values = ["-" if row[place] is None else str(row[place]) for row in rows.values()]
        lines.append([name, f"{trained:,}", f"{quantized:,}", size(plan.memory.total), f"{plan.steps:,}", *values])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
