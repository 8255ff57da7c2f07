"""Train the members of a recipe in order, each into a run folder of its own, and go on where they stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from medvlm.cli.common import Progress, warn
from medvlm.data.mixture import Mixture
from medvlm.errors import InputError, MedvlmError
from medvlm.licenses import policy, registry
from medvlm.models.locate import locate_parts
from medvlm.recipe.members import Members
from medvlm.recipe.models import Recipe
from medvlm.recipe.resolve import recipe_hash
from medvlm.runs import FINISHED, RUNS, Run, group_of, groups, open_run, unfinished

Bars = Callable[[str], AbstractContextManager[Progress]]
Facts = Mapping[str, Any]
"""What run.json says of a data set."""
LATEST = ("latest", "runs/latest")


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
        RecipeError: a member's rows do not do for what its recipe asks of them, as `check_mixture` says.
        MedvlmError: what `train` raises; the members before keep their runs.
    """
    # All are checked before the first is trained, which may take hours; bases first, since the loop imports torch.
    for name in names:
        locate_parts(dict(members.members)[name].model)
    from medvlm.train import devices

    here = devices.begin()
    check_members(members, names, here.sharding, None if resume else here.count, tell=here.count == 1)
    group, started = here.from_first(lambda: _beginning(members, names, resume))
    for name in started:
        recipe = _from_stage_before(members, name, started[name], group)
        _forget_the_last()
        with bars(recipe.name) as bar:
            yield _train_one(members, name, recipe, group, command, bar, resume)


def check_members(members: Members, names: list[str], sharding: str, devices: int | None, *, tell: bool = True) -> None:
    """Raise where one of the members cannot be trained; none has been loaded or begun.

    Args:
        members: of the recipe.
        names: which of them.
        sharding: how several devices would share the model.
        devices: how many there are; None for runs that go on.
        tell: warn of rows that are never seen.

    Raises:
        MedvlmError: as `train_members`.
    """
    recipes = dict(members.members)
    for name in names:
        locate_parts(recipes[name].model)
    from medvlm.train.loop import check_machine, check_sharding

    for name in names:
        check_machine(recipes[name])
        check_sharding(recipes[name], sharding)
        rows = _checked_rows(recipes[name], devices)[0]
        if tell:
            _tell_unseen(recipes[name], rows)


def _beginning(members: Members, names: list[str], resume: bool) -> tuple[Group, dict[str, Recipe]]:
    """Return the group and the recipes that are left to be trained in it, each with its start."""
    group = _group(members, names, resume)
    left = [name for name in names if not (resume and group.finished(name))]
    if not left:
        raise InputError(f"{group.id}: all of it is finished; leave out --resume to train it again")
    # Before the first is trained, after which `runs/latest` is another run.
    return group, {name: _with_start(members, name, group.runs.get(name) if resume else None) for name in left}


def _train_one(
    members: Members, name: str, recipe: Recipe, group: Group, command: str, bar: Progress, resume: bool
) -> Run:
    from medvlm.train.devices import here
    from medvlm.train.loop import Job, train

    begun = group.runs.get(name) if resume else None
    mixture, validation = _checked_rows(recipe, None if begun else here().count)
    job = Job(
        recipe,
        locate_parts(recipe.model),
        mixture,
        validation,
        command=command,
        license=rights(recipe, mixture.facts()),
        group=_record(members, name, group),
    )
    run = begun or here().from_first(lambda: Run.create(recipe.name))
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
    mixture = Mixture(recipe.data, "train", recipe.seed, how=recipe.mixture)
    if not len(mixture):
        paths = ", ".join(part.path for part in recipe.data)
        raise InputError(f"data: no training rows in {paths}; check data.tasks and the data set's splits")
    return mixture


def _checked_rows(recipe: Recipe, devices: int | None = 1) -> tuple[Mixture, Mixture]:
    """Return the training and the validation mixture.

    Raises:
        InputError: as `training_rows`.
        RecipeError: as `check_mixture`.
    """
    from medvlm.train.mixing import check_mixture

    validation = Mixture(recipe.data, "validation", recipe.seed, how=recipe.mixture)
    mixtures = training_rows(recipe), validation
    check_mixture(recipe, *mixtures, devices=devices)
    return mixtures


def _tell_unseen(recipe: Recipe, mixture: Mixture) -> None:
    """Print one line on stderr where rows are in no epoch: the plan tells of them, but not everybody asks for it."""
    left_out = [(share.path, share.rows - share.seen, share.rows) for share in mixture.shares()]
    told = [f"{count:,} of the {rows:,} rows of {path}" for path, count, rows in left_out if count]
    if told:
        warn(f"{recipe.name}: never seen, by the weight or cap: {', '.join(told)}")


def _group(members: Members, names: list[str], resume: bool) -> Group:
    """Return the group to go on with, or a new one.

    To go on with is the newest one with a run that stopped, else the newest with one that was not begun.
    """
    nothing = f"no unfinished run of {members.name} with these settings; leave out --resume to start one"
    if members.kind == "single":
        begun = _begun(members.members[0][1]) if resume else None
        if resume and begun is None:
            raise InputError(nothing)
        return Group(members.name, {names[0]: begun} if begun else {})
    known = {
        id: Group(id, runs)
        for id, runs in groups().items()
        if group_of(next(iter(runs.values())).facts()).get("hash") == members.hash
    }
    if resume and not known:
        raise InputError(nothing)
    # A later stage alone joins the group of the stage that it starts from.
    if known and (resume or (members.kind == "stages" and members.names[0] not in names)):
        found = list(known.values())
        stopped = [one for one in found if any(name in one.runs and not one.finished(name) for name in names)]
        missing = [one for one in found if not all(map(one.finished, names))]
        return (stopped or missing or found)[0] if resume else found[0]
    stem = f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{members.name}"
    taken = groups()
    return Group(next(id for n in range(1, 1000) if (id := stem if n == 1 else f"{stem}-{n}") not in taken), {})


def _begun(recipe: Recipe) -> Run | None:
    """Return the newest run of a recipe that did not finish; `runs/latest` may have been another run when it began."""
    if recipe.model.start not in LATEST:
        return unfinished(recipe_hash(_pinned(recipe)))
    for path in sorted(RUNS.iterdir(), reverse=True) if RUNS.is_dir() else []:
        with contextlib.suppress(MedvlmError):
            run = Run(path)
            facts = run.facts()
            then = _starting_from(recipe, run.recipe().model.start)
            if facts.get("status") != FINISHED and facts.get("recipe_hash") == recipe_hash(then):
                return run
    return None


def _stage_before(members: Members, name: str) -> str | None:
    """Return the stage whose run this one starts from; None where the recipe names a run for it, or it is the first."""
    place = members.names.index(name)
    if members.kind != "stages" or place == 0:
        return None
    recipes = dict(members.members)
    before = members.names[place - 1]
    # The same start in both is the common part's, so it is where the first begins.
    return before if recipes[name].model.start in (None, recipes[before].model.start) else None


def _with_start(members: Members, name: str, begun: Run | None) -> Recipe:
    """Return the member's recipe with a start that it names as a folder; what was begun keeps the one it began with."""
    recipe = dict(members.members)[name]
    if begun is not None:
        return _starting_from(recipe, begun.recipe().model.start)
    return recipe if _stage_before(members, name) else _pinned(recipe)


def _from_stage_before(members: Members, name: str, recipe: Recipe, group: Group) -> Recipe:
    """Return the recipe with the run of the stage before as its start, if it starts from that.

    Raises:
        InputError: the stage before is not trained.
    """
    before = _stage_before(members, name)
    if before is None:
        return recipe
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
    run = open_run(None if recipe.model.start in LATEST else recipe.model.start)
    return _starting_from(recipe, str(run.path))


def _starting_from(recipe: Recipe, start: str | None) -> Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"start": start})})


def rights(recipe: Recipe, data: Iterable[Facts], before: Iterable[Facts] = ()) -> dict[str, Any]:
    """Return what may be done with the tuned model: of all parts of its base and all data of all its stages.

    Args:
        recipe: names the base, and the run that it starts from.
        data: what `Mixture.facts` says of the training data.
        before: the same of stages that are not trained yet, for a plan.
    """
    from medvlm.export.rights import bases_of, data_of, distinct, licenses_of, lost, stages, unrecorded, with_recorded

    found = stages(open_run(recipe.model.start)) if recipe.model.start is not None else []
    total = licenses_of(distinct([*data, *before, *data_of(found)]))
    parts = {name: registry.of_model(name) for name in recipe.model.parts.values()} | bases_of(found)
    gone = lost(found) if found else []
    today = policy.verdict_of_parts(parts, total, gone=gone, unrecorded=unrecorded(found))
    return with_recorded(today, found).as_dict()


def plan_members(
    members: Members, names: list[str], devices: int = 1
) -> Iterator[tuple[str, Recipe, Any, dict[str, Any]]]:
    """Yield the name, recipe, `Plan` and license verdict of each member; nothing is trained or downloaded."""
    from medvlm.train.plan import make_plan

    before: list[Facts] = []
    for name in names:
        recipe = dict(members.members)[name]
        mixture, _ = _checked_rows(recipe, devices)
        plan = make_plan(recipe, mixture, devices=devices)
        yield name, recipe, plan, rights(_pinned(recipe), mixture.facts(), before)
        if members.kind == "stages":
            before += mixture.facts()
