"""`medvlm licenses check`: what follows for a run's model, a recipe's, a model trained on a data set, or a system.

The rules are `policy`'s, the facts those of the registry and of the prepared data today. A data set that is not
prepared yet is unknown, and so is a run that is gone. Bookkeeping, not legal advice.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.errors import InputError, LicenseError, UsageError
from medvlm.licenses import expressions, policy, registry, terms
from medvlm.licenses.policy import Input, Verdict
from medvlm.licenses.refs import resolve
from medvlm.registry import nearest
from medvlm.runs import RUNS, Run, open_run

if TYPE_CHECKING:
    from medvlm.recipe.models import Recipe

REQUIREMENTS = {"commercial": "commercial_use", "share": "may_share"}


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What follows for one model."""

    name: str
    what: str
    """The model in words."""
    verdict: Verdict
    inputs: list[Input]
    notices: list[str]
    """Texts that a notice file must hold."""


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """What follows for a target."""

    target: str
    kind: str
    """run, recipe, data set or system."""
    findings: list[Finding]
    """One; of a recipe with stages or variants one each, in order."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "target": self.target,
            "kind": self.kind,
            "notice": policy.NOT_LEGAL_ADVICE,
            "findings": [
                {
                    "name": finding.name,
                    "what": finding.what,
                    **finding.verdict.as_dict(),
                    "notices": finding.notices,
                    "inputs": [dataclasses.asdict(item) for item in finding.inputs],
                    "texts": texts(finding),
                }
                for finding in self.findings
            ],
        }


def check(target: str) -> Check:
    """Return what follows for a target.

    Args:
        target: the folder of a run or of a prepared data set, a recipe's file or name, a run's name under `runs/`, or
            a name or hub id of the license registry.

    Raises:
        InputError: a run or data set is damaged or unfinished.
        RecipeError: the recipe is wrong.
        UsageError: nothing has that name.
    """
    path = Path(target)
    # `os.path` takes a name that no file system takes (too long, say) for one that is not there.
    if os.path.isfile(path / "run.json"):
        return Check(target, "run", [_of_run(open_run(target))])
    if os.path.isfile(path / "manifest.json"):
        return Check(target, "data set", [_of_data(path)])
    if os.path.isdir(path):
        raise InputError(f"{target}: neither a run (no run.json) nor a prepared data set (no manifest.json)")
    if path.suffix in (".yaml", ".yml") or target in _recipes():
        return Check(target, "recipe", list(_of_recipe(target)))
    if os.path.isdir(RUNS / target):
        return Check(target, "run", [_of_run(open_run(target))])
    entry = registry.find(target)
    if entry is None:
        known = [*_recipes(), *(e.name for e in registry.load()), *(id for e in registry.load() for id in e.hub_ids)]
        raise UsageError(
            f'"{target}" is no run, recipe, data set or system of the registry{nearest(target, known)}; '
            "name a folder, a recipe, or what `medvlm licenses` lists"
        )
    return Check(target, "system", [_of_entry(entry)])


def require(found: Check, need: str, accept_conditions: bool = False) -> None:
    """Make sure that every model of a check may be used commercially, or shared.

    Args:
        found: what was checked.
        need: "commercial" or "share".
        accept_conditions: "conditional" is enough.

    Raises:
        LicenseError: one may not; the message names the input that decides.
        UsageError: no such need.
    """
    if need not in REQUIREMENTS:
        known = ", ".join(REQUIREMENTS)
        raise UsageError(f'--require "{need}" is unknown{nearest(need, REQUIREMENTS)}; known: {known}')
    enough = ("yes", "conditional") if accept_conditions else ("yes",)
    for finding in found.findings:
        answer = getattr(finding.verdict, REQUIREMENTS[need])
        if answer not in enough:
            why = [*finding.verdict.forbids, *finding.verdict.reasons, finding.verdict.license][0]
            more = "; --accept-conditions takes conditional for enough" if answer == "conditional" else ""
            words = {"commercial": "commercial use", "share": "sharing"}[need]
            raise LicenseError(f"{finding.name}: {words} is {answer}: {why}{more}")


def texts(finding: Finding) -> dict[str, str]:
    """Return license id -> title and address of its text, for the ids that SPDX does not list."""
    found = (resolve(key) for item in finding.inputs for key in item.keys)
    return {one.id: f"{one.title}, {one.address}" for one in found if one is not None}


def lines(found: Check) -> Iterator[str]:
    """Yield the check in words, a line each."""
    for finding in found.findings:
        verdict = finding.verdict
        yield f"{finding.name}: {finding.what}"
        yield f"  commercial use  {verdict.commercial_use}"
        yield f"  may be shared   {verdict.may_share}"
        yield f"  license         {verdict.license}"
        yield from _listed("forbidden by", verdict.forbids or ["nothing on record"])
        yield from _listed("obligations", verdict.obligations or ["none on record"])
        yield from _listed("to stand in NOTICE", finding.notices)
        yield from _listed("why, and what is open", verdict.reasons)
        yield from _listed("license texts", [f"{id}: {text}" for id, text in texts(finding).items()])
    yield policy.NOT_LEGAL_ADVICE


def _listed(title: str, items: list[str]) -> Iterator[str]:
    if items:
        yield f"  {title}"
        yield from (f"    - {item}" for item in items)


def _recipes() -> list[str]:
    from medvlm.resources import shipped

    return [path.stem for path in sorted(shipped("recipes").glob("*.yaml"))]


def _finding(name: str, what: str, items: list[Input], conflicts: list[str], licenses: Iterable[str]) -> Finding:
    from medvlm.export.rights import notices

    return Finding(name, what, policy.decide(items, conflicts), items, notices(licenses))


def _of_parts(
    name: str,
    parts: Mapping[str, registry.Entry | None],
    data: Mapping[str, int] | None,
    not_prepared: Sequence[str] = (),
    gone: Iterable[str] = (),
    unrecorded: Sequence[str] = (),
) -> Finding:
    """Return what follows for the model made of the parts and trained on the data."""
    items = policy.inputs(parts, data, not_prepared, gone, unrecorded)
    what = ("the model as it is: " if data is None else "a model fine-tuned from ") + " + ".join(parts)
    licenses = [*(entry.weights_license for entry in parts.values() if entry), *(data or {})]
    return _finding(name, what, items, policy.conflicts(parts), licenses)


def _of_run(run: Run) -> Finding:
    from medvlm.export.rights import Rights, licenses_of, lost, of_export, of_run, stages, unrecorded

    name, facts = str(run.path), run.facts()
    rights: Rights | None
    if facts.get("kind") == "baseline":
        named = facts.get("model", {}).get("parts") or run.recipe().model.parts
        rights, parts = of_export(facts), {name: registry.of_model(name) for name in named.values()}
        if rights is None:
            return _of_parts(name, parts, None)
        items = [] if not rights.data else policy.inputs({}, licenses_of(rights.data))
        what = f"the model as it is, exported by medvlm: {' + '.join(parts)}"
        return Finding(name, what, Verdict(**rights.verdict), items, rights.notices())
    found, rights = stages(run), of_run(run)
    finding = _of_parts(name, rights.bases, rights.licenses, gone=lost(found), unrecorded=unrecorded(found))
    return dataclasses.replace(finding, verdict=Verdict(**rights.verdict))


def _of_recipe(target: str) -> Iterator[Finding]:
    from medvlm.export.rights import bases_of, data_of, distinct, licenses_of, unrecorded, with_recorded
    from medvlm.recipe import load_members

    members = load_members(target)
    recipes: list[Recipe] = []
    for name, recipe in members.members:
        recipes = [*recipes, recipe] if members.kind == "stages" else [recipe]
        runs, gone = _starts(recipes)
        data, missing = _data_of(recipes)
        parts = {part: registry.of_model(part) for one in recipes for part in one.model.parts.values()}
        counts = licenses_of(distinct([*data, *data_of(runs)]))
        finding = _of_parts(name, parts | bases_of(runs), counts, missing, gone, unrecorded(runs))
        yield dataclasses.replace(finding, verdict=with_recorded(finding.verdict, runs))


def _starts(recipes: Iterable[Recipe]) -> tuple[list[Run], list[str]]:
    """Return the runs that recipes start from, and those before them; and the names of those that are not there."""
    from medvlm.export.rights import lost, stages

    runs, gone = list[Run](), list[str]()
    for start in dict.fromkeys(recipe.model.start for recipe in recipes if recipe.model.start is not None):
        try:
            found = stages(open_run(start))
        except InputError:
            gone.append(start)
            continue
        runs += found
        gone += lost(found)
    return runs, list(dict.fromkeys(gone))


def _data_of(recipes: Iterable[Recipe]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what run.json would say of the training data that is prepared, and the paths of what is not."""
    from medvlm.data.mixture import Mixture
    from medvlm.recipe.models import MixturePart

    prepared, missing = list[dict[str, Any]](), list[str]()
    for recipe in recipes:
        for part in recipe.data:
            if (Path(part.path) / "manifest.json").is_file():
                prepared += Mixture([part], "train", recipe.seed, how=MixturePart(streaming=True)).facts()
            else:
                missing.append(part.path)
    return prepared, list(dict.fromkeys(missing))


def _of_data(path: Path) -> Finding:
    """Return what follows for a model trained on a prepared data set, whatever its base."""
    from medvlm.data.mixture import DataFolder, Rows

    folder = DataFolder.open(str(path))
    counts: Counter[str] = Counter()
    for split in ("train", "validation", "test"):
        counts += Rows(folder, split, streaming=True).licenses()
    items = [
        dataclasses.replace(item, label=item.label.removeprefix("training ")) for item in policy.inputs({}, counts)
    ]
    what = f"a model trained on it, as far as its data decide ({sum(counts.values()):,} rows)"
    return _finding(str(path), what, items, [], counts)


def _of_entry(entry: registry.Entry) -> Finding:
    if entry.kind != "data":
        return _of_parts(entry.name, {entry.name: entry}, None)
    license = entry.data_license or ""
    share = expressions.most_restrictive(terms.of(key, "data").share for key in terms.chosen(license, "data"))
    items = [Input("data", f"data set {entry.name}", license, expressions.commercial_use(license), share)]
    if (entry.commercial_use, entry.may_share) != ("yes", "yes"):
        remark = entry.note.get("data_license", "")
        items.append(
            Input(
                "entry", f"registry entry {entry.name}", "taken together", entry.commercial_use, entry.may_share, remark
            )
        )
    what = "a model trained on it, as far as its data decide; `check` of the prepared folder counts its rows"
    return _finding(entry.name, what, items, policy.conflicts({entry.name: entry}), [license])
