"""The options that the sources of `medvlm prepare` share, each declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from medvlm.cli.common import DebugOption, QuietOption

READ = "What to read"
CHOOSE = "What becomes a sample"
DATA_SET = "The data set"
RUN = "How it runs (the result is the same)"

RATIO = "0.8,0.1,0.1"

Input = Annotated[
    list[Path] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="PATH",
        help="What to read: repeat it for several.",
        show_default=False,
        rich_help_panel=READ,
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Folder of the data set.", rich_help_panel=DATA_SET)]
License = Annotated[
    str,
    typer.Option(
        "--license",
        help="What to admit: commercial, any, or SPDX ids separated by commas.",
        rich_help_panel=DATA_SET,
    ),
]
Split = Annotated[
    str,
    typer.Option(
        "--split",
        metavar="WAY",
        help="official (as published), by-image or by-group (patient, study or article, and shared pictures together); "
        "without it what 'medvlm prepare list' says.",
        show_default=False,
        rich_help_panel=DATA_SET,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="COLUMN=VALUE",
        help="Only samples with this value: language=en, modality=ct. Repeat it for several.",
        show_default=False,
        rich_help_panel=CHOOSE,
    ),
]
Phi = Annotated[
    str,
    typer.Option(
        "--phi",
        help="Look for identifiers of patients in the texts (extra medvlm\\[phi]): off, count, or strict (leave out).",
        rich_help_panel=CHOOSE,
    ),
]
Sections = Annotated[
    str, typer.Option("--sections", help="Of a report: findings, impression or both.", rich_help_panel=CHOOSE)
]
Views = Annotated[
    str,
    typer.Option(
        "--views",
        help="study (one sample with all its images; training looks at the first), each (one an image) or "
        "frontal (one frontal image).",
        rich_help_panel=CHOOSE,
    ),
]
Ratio = Annotated[
    str, typer.Option("--split-ratio", help="Shares of train, validation and test.", rich_help_panel=DATA_SET)
]
Seed = Annotated[
    int,
    typer.Option("--seed", help="Decides the split and, for phantoms, the pictures.", rich_help_panel=DATA_SET),
]
DropDuplicates = Annotated[
    bool,
    typer.Option(
        "--drop-duplicates",
        help="Leave out exact and near duplicates of an earlier picture; without it they are marked.",
        rich_help_panel=DATA_SET,
    ),
]
Push = Annotated[
    str | None,
    typer.Option(
        "--push",
        metavar="REPO",
        help="Upload the finished set to this dataset repository of the Hugging Face Hub (private).",
        show_default=False,
        rich_help_panel=DATA_SET,
    ),
]
PushThirdParty = Annotated[
    bool,
    typer.Option(
        "--push-third-party",
        help="Push pictures of third parties too, which are under no license of their own. Ask their owners first.",
        rich_help_panel=DATA_SET,
    ),
]
Public = Annotated[bool, typer.Option("--public", help="Make the pushed repository public.", rich_help_panel=DATA_SET)]
Workers = Annotated[
    int, typer.Option("--workers", min=0, help="Processes; 0 is one for each core.", rich_help_panel=RUN)
]
Engine = Annotated[
    str, typer.Option("--engine", help="local (processes here) or ray (extra medvlm\\[ray]).", rich_help_panel=RUN)
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="ADDRESS",
        help="A running Ray cluster; without it Ray starts here.",
        show_default=False,
        rich_help_panel=RUN,
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Read only part I of N (Slurm arrays: $SLURM_ARRAY_TASK_ID/N, from 0); then: medvlm prepare merge OUT.",
        show_default=False,
        rich_help_panel=RUN,
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace another data set that lies in --out.", rich_help_panel=RUN)
]


def words(option: str, *values: Any) -> list[str]:
    """Return an option and each of its values as words of a command line."""
    return [word for value in values for word in (option, str(value))]


Options = Mapping[str, tuple[Any, Any]]
"""Name of a parameter -> its declaration and its default."""

SPLITTING: Options = {
    "split": (Split, ""),
    "split_ratio": (Ratio, RATIO),
    "seed": (Seed, 0),
    "drop_duplicates": (DropDuplicates, False),
}
PUSHING: Options = {"push": (Push, None), "public": (Public, False)}
RUNNING: Options = {
    "workers": (Workers, 0),
    "engine": (Engine, "local"),
    "ray_address": (RayAddress, None),
    "shard": (Shard, None),
    "overwrite": (Overwrite, False),
    "quiet": (QuietOption, False),
    "debug": (DebugOption, False),
}


def with_options(command: Callable[..., None], options: Options) -> Callable[..., None]:
    """Return `command`, which takes keyword arguments, with `options` as the signature that Typer reads."""
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(name, kind, default=default, annotation=of) for name, (of, default) in options.items()
    ]
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    vars(command)["__signature__"] = inspect.Signature([context, *parameters])
    command.__annotations__ = {"ctx": typer.Context} | {name: of for name, (of, _) in options.items()}
    return command
