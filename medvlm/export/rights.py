"""What may be done with a tuned model, and what must go with it: verdict, notices, credits."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm.data import credits
from medvlm.errors import InputError, LicenseError
from medvlm.licenses import exported, expressions, policy, registry
from medvlm.licenses.policy import Verdict
from medvlm.licenses.registry import Entry
from medvlm.models.locate import locate
from medvlm.runs import Run, open_run

CREDITS = "attribution"
TERMS = "licenses"
NOTICE = "NOTICE"

# What each license asks to stand in a notice file, in its own words.
_NOTICES = {
    "licenseref-scancode-gemma-tou-2024-04-01": (
        "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
    ),
    "licenseref-hai-def": (
        "HAI-DEF is provided under and subject to the Health AI Developer Foundations Terms of Use found at "
        "https://developers.google.com/health-ai-developer-foundations/terms"
    ),
    "licenseref-scancode-llama-2-license-2023": (
        "Llama 2 is licensed under the LLAMA 2 Community License, Copyright (c) Meta Platforms, Inc. All Rights "
        "Reserved."
    ),
    **{
        f"licenseref-scancode-llama-{version}-license-2024": (
            f"Llama {version} is licensed under the Llama {version} Community License, Copyright © Meta Platforms, "
            "Inc. All Rights Reserved."
        )
        for version in ("3.1", "3.2", "3.3")
    },
    "licenseref-scancode-llama-4-license-2025": (
        "Llama 4 is licensed under the Llama 4 Community License, Copyright © Meta Platforms, Inc. All Rights Reserved."
    ),
    "licenseref-opt-175b": (
        "OPT-175B is licensed under the OPT-175B license, Copyright (c) Meta Platforms, Inc. All Rights Reserved."
    ),
    "licenseref-qwen-research": (
        "Qwen is licensed under the Qwen RESEARCH LICENSE AGREEMENT, Copyright (c) Alibaba Cloud. All Rights Reserved."
    ),
}

_HUB_IDS = {
    "licenseref-scancode-gemma-tou-2024-04-01": "gemma",
    "licenseref-scancode-llama-2-license-2023": "llama2",
    "licenseref-scancode-llama-3.1-license-2024": "llama3.1",
    "licenseref-scancode-llama-3.2-license-2024": "llama3.2",
    "licenseref-scancode-llama-3.3-license-2024": "llama3.3",
}
"""Names that the Hub has for a license (huggingface.co/docs/hub/repositories-licenses), beside SPDX's in lower case."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rights:
    """The verdict on a run, and what it comes from."""

    verdict: dict[str, Any]
    """As `medvlm.licenses.policy.Verdict`."""
    bases: dict[str, Entry | None]
    """What the recipe calls each part of the base -> its registry entry."""
    data: list[dict[str, Any]]
    """What run.json says of each data set, of earlier stages too."""

    @property
    def licenses(self) -> Counter[str]:
        """Count the rows of all data sets by license."""
        return licenses_of(self.data)

    @property
    def forbidden(self) -> str | None:
        """Return in one line why the model may not be shared, or None where it may, be it on conditions."""
        if self.verdict["may_share"] not in ("no", "unknown"):
            return None
        reasons = "; ".join(self.verdict["reasons"][:3]) or self.verdict["license"]
        return f"sharing this model is {_WORDS[self.verdict['may_share']]}: {reasons}"

    def notices(self) -> list[str]:
        """Return the notices that the licenses of base and data ask for."""
        return notices([*(entry.weights_license for entry in self.bases.values() if entry), *self.licenses])


def notices(licenses: Iterable[str]) -> list[str]:
    """Return what licenses want to stand in a notice file, each text once; an expression counts as all its parts."""
    keys = (key.lower() for license in licenses for key in expressions.symbols(license))
    return list(dict.fromkeys(_NOTICES[key] for key in keys if key in _NOTICES))


_WORDS = {"no": "forbidden", "unknown": "not known to be allowed"}


def of_run(run: Run) -> Rights:
    """Return the rights in a run's model, by today's registry and by what was recorded: the stricter holds.

    Unknown where an earlier stage is gone.

    Raises:
        InputError: as `data_of`.
    """
    found = stages(run)
    bases, data = bases_of(found), data_of(found)
    today = policy.verdict_of_parts(bases, licenses_of(data), gone=lost(found), unrecorded=unrecorded(found))
    return Rights(with_recorded(today, found).as_dict(), bases, data)


def of_export(facts: Mapping[str, Any]) -> Rights | None:
    """Return the rights in a model that `medvlm export` wrote, as they stood beside it when it was evaluated.

    None of any other model, and where the weights are not known to be those that `export.json` tells of.

    Args:
        facts: run.json of the baseline.
    """
    told, model = facts.get("exported"), facts.get("model")
    verdict = recorded(facts.get("license"))
    weights = model.get("weights") if isinstance(model, dict) else None
    found = weights.get("model") if isinstance(weights, dict) else None
    if verdict is None or not isinstance(told, dict) or not found or told.get("weights") != found:
        return None
    data = told.get("data")
    parts = [part for part in data if isinstance(part, dict)] if isinstance(data, list) else []
    return Rights(verdict.as_dict(), {}, parts)


def recorded(said: Any) -> Verdict | None:
    """Return the verdict that a run.json or export.json records; None where there is none that means anything."""
    if not isinstance(said, dict):
        return None
    use, share, license = (said.get(key) for key in ("commercial_use", "may_share", "license"))
    known = expressions.RESTRICTIVENESS
    if use not in known or share not in known or not isinstance(license, str):
        return None
    lists = (said.get(key) for key in ("obligations", "reasons", "forbids"))
    obligations, reasons, forbids = ([str(line) for line in one] if isinstance(one, list) else [] for one in lists)
    return Verdict(str(use), str(share), license, obligations, reasons, forbids=forbids)


def with_recorded(today: Verdict, runs: Iterable[Run]) -> Verdict:
    """Return the strictest of a verdict and those that runs recorded."""
    for run in runs:
        today = stricter(today, recorded(run.facts().get("license")))
    return today


def stricter(today: Verdict, stored: Verdict | None) -> Verdict:
    """Return the stricter of two verdicts, each right by itself; the obligations of both hold."""
    if stored is None:
        return today
    use = expressions.most_restrictive([stored.commercial_use, today.commercial_use])
    share = expressions.most_restrictive([stored.may_share, today.may_share])
    obligations = _joined(today.obligations, stored.obligations)
    for one in (today, stored):
        if (one.commercial_use, one.may_share) == (use, share):
            return dataclasses.replace(one, obligations=obligations)
    return dataclasses.replace(
        today,
        commercial_use=use,
        may_share=share,
        license=(stored if share != today.may_share else today).license,
        obligations=obligations,
        reasons=_joined(today.reasons, stored.reasons),
        forbids=_joined(today.forbids, stored.forbids),
    )


def _joined(first: list[str], second: list[str]) -> list[str]:
    return list(dict.fromkeys([*first, *second]))


def bases_of(runs: Iterable[Run]) -> dict[str, Entry | None]:
    """Return what the runs' recipes call each part of their bases -> its registry entry."""
    return {name: registry.of_model(name) for name in base_names(runs)}


def base_names(runs: Iterable[Run]) -> list[str]:
    """Return what the runs' recipes call each part of their bases, each once."""
    return list(dict.fromkeys(name for run in runs for name in run.recipe().model.parts.values()))


def base_data(names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the data sets that bases were trained on which medvlm exported; of any others nothing is known here.

    Args:
        names: of the bases, as recipes have them.
    """
    return distinct(part for name in names for part in exported.trained_on(Path(name).expanduser()))


def data_of(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Return what run.json says of each data set that the runs were trained on, each once; `unrecorded` names the rest.

    Raises:
        InputError: a run.json holds no list of data sets where it should, or tasks or counts that are none.
    """
    return distinct(part for run in runs for part in _data_sets(run))


def _data_sets(run: Run) -> Iterator[dict[str, Any]]:
    listed = run.facts().get("data") or []
    for part in listed if isinstance(listed, list) else [None]:
        known = isinstance(part, dict) and isinstance(part.get("path"), str)
        if not isinstance(part, dict) or not known or not isinstance(part.get("licenses") or {}, dict):
            raise InputError(f"{run.path}/run.json: damaged: data is no list of data sets; name another run")
        tasks = part.get("tasks") or []
        if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
            raise InputError(f"{run.path}/run.json: damaged: tasks of {part['path']} are no list; name another run")
        for license, count in (part.get("licenses") or {}).items():
            if not _is_count(count):
                raise InputError(f"{run.path}/run.json: damaged: {count!r} rows of {license}; name another run")
        yield part


def distinct(data: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return data sets, each once. Other tasks of the same folder are other rows, with licenses of their own.

    Args:
        data: what run.json says of each.
    """
    found: dict[str, dict[str, Any]] = {}
    for part in data:
        tasks = part.get("tasks")
        tasks = sorted(map(str, tasks)) if isinstance(tasks, list) else tasks
        rows = [part.get("fingerprint") or part.get("path"), tasks, part.get("licenses") or {}]
        found.setdefault(json.dumps(rows, sort_keys=True), dict(part))
    return list(found.values())


def unrecorded(runs: Iterable[Run]) -> list[str]:
    """Return the runs that do not say what they were trained on; each was trained on something."""
    return [str(run.path) for run in runs if not run.facts().get("data")]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def licenses_of(data: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Count the rows of data sets by license; rows whose license was not recorded are "unknown".

    Args:
        data: what run.json says of each.
    """
    total: Counter[str] = Counter()
    for part in data:
        said, rows = part.get("licenses"), part.get("rows")
        counts = {str(key): n for key, n in said.items() if _is_count(n)} if isinstance(said, dict) else {}
        # A data set that says nothing at all of its rows has some; so has a license with a count that is none.
        missing = (rows if _is_count(rows) else 0 if counts else 1) - sum(counts.values())
        damaged = len(said) - len(counts) if isinstance(said, dict) else 0
        total.update(counts)
        if max(missing, damaged) > 0:
            total["unknown"] += max(missing, damaged)
    return total


def stages(run: Run) -> list[Run]:
    """Return the run and those that it started from, as far as they are still there."""
    found, seen = [run], set[str]()
    while (start := found[-1].recipe().model.start) is not None and start not in seen:
        seen.add(start)
        try:
            found.append(open_run(start))
        except InputError:
            break
    return found


def lost(found: Sequence[Run]) -> list[str]:
    """Return the run that the earliest of a run's stages started from, if it is gone.

    Args:
        found: of `stages`.
    """
    start = found[-1].recipe().model.start
    # A run that starts, over others, from itself: none of them is gone.
    return [start] if start is not None and start not in [one.recipe().model.start for one in found[:-1]] else []


def check_push(rights: Rights, missing_credits: list[str]) -> None:
    """Make sure that the model may be passed on, and what must go with it does.

    Raises:
        LicenseError: it may not, or names that a license wants named are not at hand.
    """
    if rights.forbidden:
        raise LicenseError(f"not pushed: {rights.forbidden}")
    if missing_credits:
        raise LicenseError(f"not pushed: {missing_credits[0]}")


def card_license(verdict: dict[str, Any]) -> dict[str, str]:
    """Return the license as the front matter of a model card states it."""
    from medvlm.data.cards import HUB_LICENSES

    key = str(verdict["license"]).lower()
    known = _HUB_IDS.get(key) or (key if key in HUB_LICENSES else None)
    if known:
        return {"license": known}
    name = re.sub(r"[^a-z0-9.]+", "-", key).strip("-")
    if verdict["may_share"] == "unknown":
        name = "unknown"
    return {"license": "other", "license_name": name[:60].rstrip("-"), "license_link": "LICENSE.md"}


def write_credits(rights: Rights, folder: Path) -> list[str]:
    """Copy each data set's attribution file into the export; return what is missing and why it is needed, a line each.

    A file is wanted where a license asks for its authors' names (Creative Commons BY, for example).
    """
    missing = []
    copied = set[str]()
    for number, part in enumerate(rights.data):
        source, fingerprint = Path(part["path"]) / credits.NAME, str(part.get("fingerprint"))
        needed = [name for name in part.get("licenses") or {} if _asks_for_names(name)]
        if fingerprint in copied:
            continue
        if source.is_file() and _same(Path(part["path"]), fingerprint):
            copied.add(fingerprint)
            target = folder / CREDITS / f"{number}-{Path(part['path']).name}.tsv"
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target)
        elif needed:
            missing.append(
                f"{', '.join(needed)} asks for the names of authors, and {source} of the data that was trained on is "
                "not there; prepare the data set again with its settings"
            )
    return missing


def _asks_for_names(license: str) -> bool:
    return any("attribution file" in line for line in policy.verdict(None, {license: 1}).obligations)


def _same(folder: Path, fingerprint: str) -> bool:
    from medvlm.data.mixture import DataFolder

    try:
        return DataFolder.open(str(folder)).fingerprint() == fingerprint
    except InputError:
        return False


def write_terms(rights: Rights, folder: Path, public: Callable[[str], str] = str) -> None:
    """Write the notice file, and copy license texts that lie beside the base's weights.

    Args:
        rights: in the model.
        folder: of the export.
        public: takes out of a text what is not for others.
    """
    changed = "The weights were changed: this is a model fine-tuned with medvlm (Apache-2.0) from"
    names = ", ".join(rights.bases)
    lines = [f"{changed} {names}.", *rights.notices(), *rights.verdict["obligations"], rights.verdict["notice"]]
    (folder / NOTICE).write_text(public("\n\n".join(lines) + "\n"), encoding="utf-8")
    if card_license(rights.verdict)["license"] == "other":
        text = "\n\n".join([f"License: {rights.verdict['license']}.", *rights.verdict["reasons"], *lines[1:]])
        (folder / "LICENSE.md").write_text(public(text + "\n"), encoding="utf-8")
    for name in rights.bases:
        base = locate(name).path
        if base is not None and (base / CREDITS).is_dir():
            # Of an export of medvlm, whose data this model has learned from as well.
            kept = folder / TERMS / re.sub(r"[^\w.-]+", "-", public(name)).strip("-") / CREDITS
            shutil.copytree(base / CREDITS, kept)
        for text_file in sorted(base.iterdir()) if base is not None and base.is_dir() else []:
            if re.match(r"(?i)(licen[sc]e|notice|use_policy|copying)", text_file.name) and text_file.is_file():
                target = folder / TERMS / re.sub(r"[^\w.-]+", "-", public(name)).strip("-") / text_file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(text_file, target)
