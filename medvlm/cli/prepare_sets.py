"""`medvlm prepare NAME` for published data sets: one command each, all with the same options."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm.cli import prepare_options as given
from medvlm.cli.common import DebugOption, QuietOption, say
from medvlm.cli.prepare_options import READ
from medvlm.cli.prepare_run import Job, build, upload
from medvlm.errors import UsageError

if TYPE_CHECKING:
    from medvlm.data.sources.facts import Facts

SETS = {
    "vqa-rad": "Clinicians' questions about radiology images (VQA-RAD).",
    "slake": "Questions about CT, MRI and X-ray images, in English and Chinese (SLAKE).",
    "path-vqa": "Questions about pathology images (PathVQA).",
    "pmc-vqa": "Multiple-choice questions made from figures of PMC (PMC-VQA).",
    "roco": "Captions of radiology figures of PMC (ROCO).",
    "rocov2": "Captions and concepts of radiology figures of PMC (ROCOv2).",
    "iu-xray": "Chest X-ray reports of Indiana University (Open-i).",
    "mimic-cxr": "Chest X-ray reports of MIMIC-CXR; credentialed access, local files only.",
    "m3it": "Instructions on images of many tasks (M3IT).",
}
"""Source -> its line in `medvlm prepare --help`."""

Hub = Annotated[
    str | None,
    typer.Option(
        "--hub",
        metavar="REPO[@REVISION]",
        help="Read this dataset repository of the Hugging Face Hub, another one whole; without --input the usual one.",
        show_default=False,
        rich_help_panel=READ,
    ),
]
Licenses = Annotated[
    Path | None,
    typer.Option(
        "--licenses",
        metavar="FILE",
        help="PMC's file list (oa_file_list.csv): the license of each article.",
        show_default=False,
        rich_help_panel=READ,
    ),
]
Version = Annotated[
    str | None,
    typer.Option(
        "--version",
        help="1 (whole figures) or 2 (single panels); without it the one that --input holds, from the Hub 2.",
        show_default=False,
        rich_help_panel=READ,
    ),
]


_READING: dict[str, tuple[Any, Any]] = {"input": (given.Input, None), "hub": (Hub, None)}
_OWN: dict[str, dict[str, tuple[Any, Any]]] = {
    "iu-xray": {"sections": (given.Sections, "both"), "views": (given.Views, "study")},
    "mimic-cxr": {"sections": (given.Sections, "both"), "views": (given.Views, "study")},
    "pmc-vqa": {"version": (Version, None), "licenses": (Licenses, None)},
}
"""Source -> its own options."""
_SHARED: dict[str, tuple[Any, Any]] = {
    "only": (given.Only, None),
    "phi": (given.Phi, "off"),
    "license": (given.License, "commercial"),
    "split": (given.Split, ""),
    "split_ratio": (given.Ratio, given.RATIO),
    "seed": (given.Seed, 0),
    "drop_duplicates": (given.DropDuplicates, False),
    "push": (given.Push, None),
    "public": (given.Public, False),
    "push_third_party": (given.PushThirdParty, False),
    "workers": (given.Workers, 0),
    "engine": (given.Engine, "local"),
    "ray_address": (given.RayAddress, None),
    "shard": (given.Shard, None),
    "overwrite": (given.Overwrite, False),
    "quiet": (QuietOption, False),
    "debug": (DebugOption, False),
}


def commands() -> list[tuple[str, Callable[..., None]]]:
    """Return the command of each set."""
    return [(name, _command(name)) for name in SETS]


def _command(name: str) -> Callable[..., None]:
    """Return the command of a set: Typer reads its options from the signature, which is put together here."""
    own = _OWN.get(name, {})

    def command(**options: Any) -> None:
        shared = {key: options.pop(key) for key in ("only", "phi", "push", "public", "push_third_party")}
        options.pop("debug")
        settings = {key: options.pop(key) for key in own}
        reading = options.pop("input"), options.pop("hub")
        _prepare(name, Job(**options), *reading, shared, {key: _checked(key, value) for key, value in settings.items()})

    options = _READING | own | {"out": (given.Out, Path(f"data/{name}"))} | _SHARED
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(key, kind, default=value, annotation=of) for key, (of, value) in options.items()]
    vars(command)["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {key: of for key, (of, _) in options.items()}
    command.__doc__ = (
        f"{SETS[name]}\n\nWhat to download and where it must lie: medvlm prepare list {name}\n\n"
        f"Example: medvlm prepare {name} --input {name.replace('-', '_')}/ --out data/{name}"
    )
    return command


_WORDS = {"sections": ("findings", "impression", "both"), "views": ("study", "each", "frontal"), "version": ("1", "2")}


def _checked(option: str, value: Any) -> Any:
    return one_of(f"--{option}", value, _WORDS[option]) if option in _WORDS and value is not None else value


def _prepare(
    name: str, job: Job, input: Sequence[Path] | None, hub: str | None, shared: dict[str, Any], own: dict[str, Any]
) -> None:
    """Find the input, build the data set and push it."""
    from medvlm.data.phi import Scanner
    from medvlm.data.sources import SOURCES

    if input and hub:
        raise UsageError("--input and --hub exclude one another; make a data set of each")
    kind: Any = SOURCES.get(name)
    facts: Facts = kind.facts
    job = dataclasses.replace(job, split=job.split or facts.split)
    only, phi = parse_only(shared["only"]), shared["phi"]
    own = {key: value for key, value in own.items() if value is not None}
    if input:
        inputs, words = list(input), [name, *given.words("--input", *input)]
    else:
        folder, read = _fetched(facts, hub, job, kind.hub_files_1 if own.get("version") == "1" else None)
        inputs, words = [folder], [name, *given.words("--hub", read)]
    words += [word for key, value in own.items() for word in given.words(f"--{key}", value)]
    words += [*given.words("--only", *(shared["only"] or ())), *(given.words("--phi", phi) if phi != "off" else [])]
    options: dict[str, Any] = {"phi": phi} if phi != "off" else {}
    options |= {"only": {column: sorted(values) for column, values in only.items()}} if only else {}
    source = kind(inputs, scanner=Scanner(phi), only=only, **own)
    outcome = build(source, job, words, options | source.options())
    if outcome.left is None:
        upload(job.out, shared["push"], shared["public"], shared["push_third_party"])


def _fetched(facts: Facts, hub: str | None, job: Job, patterns: Sequence[str] | None) -> tuple[Path, str]:
    """Return the folder with the files of the Hub's repository, and its name with the commit.

    Raises:
        UsageError: the set is not on the Hub, so that --input is needed.
    """
    from medvlm.data.sources.hub_files import fetch

    repo = hub or facts.hub
    if repo is None:
        raise UsageError(f"prepare {facts.name} needs --input PATH: {facts.download}; --input takes {facts.layout}")
    say(f"no --input: reading {repo} from the Hub", job.quiet)
    folder, read = fetch(repo, facts, patterns=patterns)
    say(f"read {read} into {folder}", job.quiet)
    return folder, read


def parse_only(only: Sequence[str] | None) -> dict[str, set[str]]:
    """Return column -> values of the words of --only.

    Raises:
        UsageError: a word is not COLUMN=VALUE, or there is no such column.
    """
    from medvlm.data.sample import COLUMNS
    from medvlm.registry import nearest

    chosen: dict[str, set[str]] = {}
    for word in only or ():
        column, equals, value = word.partition("=")
        if not equals or not value:
            raise UsageError(f'--only "{word}" is not COLUMN=VALUE; write it as --only language=en')
        if column not in COLUMNS:
            raise UsageError(f'--only: no column "{column}"{nearest(column, COLUMNS)}; known: {", ".join(COLUMNS)}')
        chosen.setdefault(column, set()).add(value)
    return chosen


def one_of(option: str, value: str, known: Sequence[str]) -> str:
    """Return `value` if it is one of `known`.

    Raises:
        UsageError: it is not.
    """
    from medvlm.registry import nearest

    if value not in known:
        raise UsageError(f'unknown {option} "{value}"{nearest(value, known)}; known: {", ".join(known)}')
    return value
