"""`combine`: prepare one data set of several, and what to tell of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm.data import request
from medvlm.data.index import REASONS, SHARED
from medvlm.data.merging.source import REPEATED, MergedSource
from medvlm.data.output import OutputFolder
from medvlm.data.prepare import Advance, Outcome, Settings, prepare
from medvlm.data.split_leakage import sentences, verdicts
from medvlm.data.write import ARTICLES
from medvlm.errors import InputError, UsageError
from medvlm.registry import nearest

WAYS = {"drop": "parts", "move": "parts-move", "refuse": "parts-refuse", "keep": "official"}
"""What to do with what is on two sides -> how the merged set is split."""


def combine(
    parts: Sequence[Path],
    out: Path,
    *,
    shared: str = "drop",
    license: str | None = None,
    drop_duplicates: bool = False,
    command: str = "",
    workers: int = 0,
    overwrite: bool = False,
    advance: Advance = lambda done, total: None,
) -> Outcome:
    """Merge prepared data sets into one in `out`; every sample stays on the side that it has in its part.

    Args:
        parts: their folders. Their order is that of the samples.
        out: made if absent; must be none of the parts.
        shared: what happens to samples of groups that share a picture (also nearly), a group's name or a DOI with a
            later split (train, validation, test), of the same or another part. "drop" leaves them out, so that every
            test set stays whole; "move" moves them to the later split; "refuse" is an error; "keep" lets them be.
        license: policy; by default that of the parts where they have the same, else "any".
        drop_duplicates: leave out samples whose image another group had first.
        command: for card and manifest.
        workers: processes; 0 means one for each core.
        overwrite: replace another data set of ours in `out`.
        advance: told (units done, units in all).

    Raises:
        UsageError: fewer than two parts, one twice, `out` is one of them, no such `shared`.
        InputError: a part is no data set or damaged, or `shared` is "refuse" and something is.
        ResourceError: the disk is full.
    """
    if shared not in WAYS:
        raise UsageError(f'unknown --shared "{shared}"{nearest(shared, WAYS)}; known: {", ".join(WAYS)}')
    if out.resolve() in {path.resolve() for path in parts}:
        raise UsageError(f"--out {out} is one of the data sets that are merged; choose another folder")
    source = MergedSource(parts)
    settings = _settings(source, shared, license, drop_duplicates)
    try:
        return prepare(source, out, settings, command=command, workers=workers, overwrite=overwrite, advance=advance)
    except InputError:
        if shared == "refuse":
            _clear(source, out, settings)
        raise


def _settings(source: MergedSource, shared: str, license: str | None, drop_duplicates: bool) -> Settings:
    policies = {str(part.manifest["settings"].get("license", "any")) for part in source.parts}
    policy = license or (policies.pop() if len(policies) == 1 else "any")
    parts = [[name, str(part.manifest["fingerprint"])] for name, part in zip(source.labels, source.parts, strict=True)]
    return Settings(policy, options={"parts": parts}, drop_duplicates=drop_duplicates, split=WAYS[shared])


def _clear(source: MergedSource, out: Path, settings: Settings) -> None:
    """Remove what was read for a set that is refused: else it would be in the way of another try."""
    folder = OutputFolder(out, request.fingerprint(source.name, settings.as_json(), source.describe()))
    if folder.mine.is_dir():
        with folder.locked():
            folder.discard()


def _by_part(path: Path) -> dict[str, Counter[str]]:
    """Return reason -> part ("1-name") -> how many records it left out, from the rows on units of input."""
    found: dict[str, Counter[str]] = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            for reason, count in row["rejects"].items():
                found.setdefault(reason, Counter())[row["unit"].partition("/")[0]] += count
    return found


def told(manifest: Mapping[str, Any], out: Path) -> Iterator[str]:
    """Yield what happened to samples that are in several parts or on two sides, one line each.

    Args:
        manifest: of the merged data set.
        out: its folder.
    """
    drops, way = manifest["drops"], manifest["settings"]["split"]
    where = _by_part(out / ARTICLES) if drops else {}
    for reason, words in (
        (REPEATED, "are in several parts and were taken once, held out where one part holds them out"),
        (REASONS[SHARED], "share a picture, group or article with a later split and were left out"),
    ):
        if drops.get(reason):
            parts = ", ".join(f"{name} {count:,}" for name, count in sorted(where[reason].items()))
            yield f"{drops[reason]:,} samples {words} ({parts})"
    if manifest["card"]["renamed"]:
        yield (
            f"{manifest['card']['renamed']:,} samples have their part's name before their id, since another sample of "
            "an earlier part has that id"
        )
    before = sentences(manifest["leakage"].get("official", {}), texts=False)
    for line in before if way in ("parts", "parts-move") else ():
        yield f"the parts' splits taken together share: {line}; those {'moved' if way == 'parts-move' else 'left out'}"
    for line, grave in verdicts(manifest["leakage"]["made"]):
        if grave:
            better = "; --shared drop keeps images and groups apart" if way == "official" else ""
            yield f"the split leaks: {line}{better}"
        else:
            yield f"sides of the split share texts alone: {line}"
