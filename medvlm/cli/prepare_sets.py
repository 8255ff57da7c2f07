"""`medvlm prepare NAME` for published data sets: one command each, all with the same options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm.cli import prepare_options as given
from medvlm.cli.common import say
from medvlm.cli.prepare_options import READ
from medvlm.cli.prepare_run import build_and_push
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


_OWN: dict[str, given.Options] = {
    "iu-xray": {"sections": (given.Sections, "both"), "views": (given.Views, "study")},
    "mimic-cxr": {"sections": (given.Sections, "both"), "views": (given.Views, "study")},
    "pmc-vqa": {"version": (Version, None), "licenses": (Licenses, None)},
}
"""Source -> its own options."""
_SHARED: given.Options = {
    "only": (given.Only, None),
    "phi": (given.Phi, "off"),
    "license": (given.License, "commercial"),
    **given.SPLITTING,
    **given.PUSHING,
    "push_third_party": (given.PushThirdParty, False),
    **given.RUNNING,
}


def commands() -> list[tuple[str, Callable[..., None]]]:
    """Return the command of each set."""
    return [(name, _command(name)) for name in SETS]


def _command(name: str) -> Callable[..., None]:
    own = _OWN.get(name, {})

    def command(ctx: typer.Context, **options: Any) -> None:
        _prepare(name, options, {key: _checked(key, options[key]) for key in own})

    command.__doc__ = (
        f"{SETS[name]}\n\nWhat to download and where it must lie: medvlm prepare list {name}\n\n"
        f"Example: medvlm prepare {name} --input {name.replace('-', '_')}/ --out data/{name}"
    )
    reading = {"input": (given.Input, None), "hub": (Hub, None)}
    return given.with_options(command, {**reading, **own, "out": (given.Out, Path(f"data/{name}")), **_SHARED})


_WORDS = {"sections": ("findings", "impression", "both"), "views": ("study", "each", "frontal"), "version": ("1", "2")}


def _checked(option: str, value: Any) -> Any:
    return one_of(f"--{option}", value, _WORDS[option]) if option in _WORDS and value is not None else value


def _prepare(name: str, options: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Find the input, build the data set and push it."""
    from medvlm.data.phi import Scanner
    from medvlm.data.sources import SOURCES

    input, hub = options["input"], options["hub"]
    if input and hub:
        raise UsageError("--input and --hub exclude one another; make a data set of each")
    kind: Any = SOURCES.get(name)
    scanner, only = Scanner(options["phi"]), parse_only(options["only"])
    own = {key: value for key, value in own.items() if value is not None}
    if input:
        inputs, words = list(input), [name, *given.words("--input", *input)]
    else:
        patterns = kind.hub_files_1 if own.get("version") == "1" else None
        folder, read = _fetched(kind.facts, hub, options["quiet"], patterns)
        inputs, words = [folder], [name, *given.words("--hub", read)]
    words += [word for key, value in own.items() for word in given.words(f"--{key}", value)]
    build_and_push(kind(inputs, scanner=scanner, only=only, **own), options, words)


def _fetched(facts: Facts, hub: str | None, quiet: bool, patterns: Sequence[str] | None) -> tuple[Path, str]:
    """Return the folder with the files of the Hub's repository, and its name with the commit.

    Raises:
        UsageError: the set is not on the Hub, so that --input is needed.
    """
    from medvlm.data.sources.hub_files import fetch

    repo = hub or facts.hub
    if repo is None:
        raise UsageError(f"prepare {facts.name} needs --input PATH: {facts.download}; --input takes {facts.layout}")
    say(f"no --input: reading {repo} from the Hub", quiet)
    folder, read = fetch(repo, facts, patterns=patterns)
    say(f"read {read} into {folder}", quiet)
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
