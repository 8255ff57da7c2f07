"""What every source of `medvlm prepare` ends in: build the data set, show progress, print what was made."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.cli.common import progress, say, warn
from medvlm.cli.prepare_options import RATIO, words
from medvlm.errors import UsageError

if TYPE_CHECKING:
    from medvlm.data.prepare import Outcome
    from medvlm.data.sources.base import Source


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """The options that all sources share."""

    out: Path
    license: str
    split_ratio: str = RATIO
    seed: int = 0
    drop_duplicates: bool = False
    workers: int = 0
    engine: str = "local"
    ray_address: str | None = None
    shard: str | None = None
    overwrite: bool = False
    quiet: bool = False
    split: str = ""
    """"" where the source has no --split: by-group then."""

    def command(self, source_words: list[str]) -> str:
        """Return the command line with all that decides the result, and nothing else: the same set, the same card."""
        line = [*source_words, *words("--license", self.license), *words("--split-ratio", self.split_ratio)]
        line += words("--split", *filter(None, [self.split]))
        line += words("--seed", self.seed) + (["--drop-duplicates"] if self.drop_duplicates else [])
        return shlex.join(["medvlm", "prepare", *line])


def build_and_push(source: Any, options: Mapping[str, Any], source_words: list[str]) -> None:
    """Prepare the data set of a source of files with the options of its command line, and push it if that is asked.

    Args:
        source: a `FileSource`; `facts.split` is how it is split where --split is not given.
        options: name of each option -> its value.
        source_words: the command line with the source's own options.
    """
    given = {name: options[name] for name in (field.name for field in dataclasses.fields(Job)) if name in options}
    job = Job(**{**given, "split": options["split"] or source.facts.split})
    scan = words("--phi", options["phi"]) if options["phi"] != "off" else []
    line = [*source_words, *words("--only", *(options["only"] or ())), *scan]
    asked: dict[str, Any] = {"phi": options["phi"]} if scan else {}
    if source.only:
        asked["only"] = {column: sorted(values) for column, values in source.only.items()}
    outcome = build(source, job, line, asked | source.options())
    if outcome.left is None:
        upload(job.out, options["push"], options["public"], options.get("push_third_party", False))


def source_named(name: str, **settings: Any) -> Source:
    """Return the source of that name, made with its settings; only its own modules are loaded.

    Raises:
        UsageError: no such source.
    """
    from medvlm.data.sources import SOURCES

    return SOURCES.get(name)(**settings)


def build(
    source: Source,
    job: Job,
    source_words: list[str],
    options: Mapping[str, Any],
) -> Outcome:
    """Prepare the data set and print what was made; return the outcome. Uploading is for the caller.

    Args:
        source_words: the command line up to the options of `Job`.
        options: the source's own settings, for the manifest.
    """
    from medvlm.data.prepare import Settings, prepare
    from medvlm.data.splits import check_way, parse_ratios

    ratios, way = parse_ratios(job.split_ratio), check_way(job.split or "by-group")
    settings = Settings(job.license, ratios, job.seed, options, job.drop_duplicates, way)
    with progress("prepare", job.quiet) as bar:
        outcome = prepare(
            source,
            job.out,
            settings,
            command=job.command(source_words),
            workers=job.workers,
            overwrite=job.overwrite,
            advance=bar.update,
            engine=job.engine,
            address=job.ray_address,
            shard=_shard(job.shard),
        )
    report(outcome, job.out, job.quiet)
    return outcome


def _shard(text: str | None) -> tuple[int, int] | None:
    """Return (i, n) of "i/n".

    Raises:
        UsageError: it is not of that form, or i is not below n.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if match is None or int(match[1]) >= int(match[2]):
        raise UsageError(f'--shard "{text}" is not I/N with I from 0 to N-1; write it as 0/8')
    return int(match[1]), int(match[2])


def report(outcome: Outcome, out: Path, quiet: bool) -> None:
    """Print what was made, what changed, what is wrong with it and what to do next."""
    if outcome.left is not None:
        say(f"{out}: this shard is done, {outcome.left} chunks of all are left; then: medvlm prepare merge {out}")
    elif outcome.up_to_date:
        say(f"{out}: up to date ({outcome.manifest['counts']['samples']} samples)")
    else:
        _report_new(outcome, out, quiet)


def upload(out: Path, repo: str | None, public: bool, third_party: bool = False) -> None:
    """Push a finished data set to the Hub, if a repository is named."""
    if repo:
        from medvlm.data.push import push

        say(f"pushed to {push(out, repo, private=not public, third_party=third_party)}")


def _report_new(outcome: Outcome, out: Path, quiet: bool) -> None:
    from medvlm.data.cards import known_problems, summary

    if outcome.chunks_resumed:
        say(f"went on from an earlier run: {outcome.chunks_resumed} chunks were done", quiet)
    if outcome.update is not None:
        say("since the last run: " + ", ".join(f"{count} {what}" for what, count in outcome.update.items()))
    for line in summary(outcome.manifest, str(out)):
        say(line)
    for problem in known_problems(outcome.manifest["card"]):
        say(f"note: {problem}", quiet)
    _warn_of_leakage(outcome.manifest, quiet)
    _tell_what_lacks(outcome.manifest)
    _warn_of_empty_splits(outcome.manifest)
    recipe, usual = _recipe_for(outcome.manifest)
    place = "" if out == Path(usual) else f" data.0.path={shlex.quote(str(out))}"
    say(f"next: medvlm finetune recipes/{recipe}.yaml{place}", quiet)


def _recipe_for(manifest: Mapping[str, Any]) -> tuple[str, str]:
    """Return a shipped recipe that takes such data, and the folder where it looks for them."""
    tasks = manifest["counts"]["task"]
    if not manifest["synthetic"] and tasks.get("vqa"):
        return "paligemma448_vqa", "data/vqa-rad"
    if not manifest["synthetic"] and tasks.get("report"):
        return "paligemma448_report", "data/pmc"
    return "tiny" if manifest["synthetic"] else "paligemma448", "data/pmc"


def _warn_of_leakage(manifest: Mapping[str, Any], quiet: bool) -> None:
    """Say what the sides of the split share, and what those of the published one do where it was not taken."""
    from medvlm.data.split_leakage import sentences, verdicts

    leakage, way = manifest["leakage"], manifest["settings"]["split"]
    which = "official split" if way == "official" else "split"
    for line, grave in verdicts(leakage["made"]):
        if grave:
            better = "; --split by-group keeps images and groups apart" if way == "official" else ""
            warn(f"the {which} leaks: {line}{better}")
        else:
            say(f"note: sides of the {which} share texts alone: {line}", quiet)
    if way != "official":
        for line in sentences(leakage.get("official", {})):
            say(f"note: sides of the official split share: {line}; this one goes {way.replace('-', ' ')}", quiet)


def _tell_what_lacks(manifest: Mapping[str, Any]) -> None:
    """Say how many records have no picture and where to get it, and how many texts seem to hold identifiers."""
    from medvlm.data.sources.pictures import NO_FILE

    lacking, place = manifest["drops"].get(NO_FILE, 0), manifest["card"].get("pictures_from")
    if lacking and place:
        warn(f"{lacking:,} records have no picture; download {place}")
    found = {kind: n for kind, n in manifest["counts"]["identifiers"].items() if kind not in ("none", "none stated")}
    if found:
        told = ", ".join(f"{kind} ({count:,})" for kind, count in list(found.items())[:5])
        warn(f"{sum(found.values()):,} texts hold what looks like identifiers: {told}; --phi strict leaves them out")


def _warn_of_empty_splits(manifest: Mapping[str, Any]) -> None:
    """Say which splits were to have a share and got no sample."""
    from medvlm.data.splits import SPLITS

    counts = manifest["counts"]["split"]
    filled = " or ".join(split for split in ("test", "validation", "train") if counts.get(split))
    official = manifest["settings"]["split"] == "official"
    for split, share in zip(SPLITS, manifest["settings"]["split_ratio"], strict=True):
        if official and not counts.get(split):
            say(f"note: the official split has no {split} part here; medvlm eval --split takes {filled}")
        elif share and not counts.get(split):
            warn(
                f"no sample fell into {split}: more groups, another --seed or another --split-ratio would change that; "
                f"medvlm eval --split takes {filled}"
            )
