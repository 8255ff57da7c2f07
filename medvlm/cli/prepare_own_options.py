"""The options of `medvlm prepare folder` and `medvlm prepare jsonl`, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medvlm.cli.prepare_options import CHOOSE, DATA_SET, READ, Options

COLUMNS = "What the columns mean (else guessed)"


def _column(meaning: str, help: str) -> Options:
    flag = f"--{meaning.replace('_', '-')}-column"
    option = typer.Option(flag, metavar="NAME", help=help, show_default=False, rich_help_panel=COLUMNS)
    return {f"{meaning}_column": (Annotated[str | None, option], None)}


OF_TABLES: Options = {
    **_column("image", "Names of image files; several in a row between ; or |."),
    **_column("text", "The caption or report to learn."),
    **_column("question", "The question."),
    **_column("answer", "The answer to learn."),
}
"""What the columns of a table mean."""
OF_RECORDS: Options = {
    **_column("group", "The patient or study: never on both sides of a split."),
    **_column("split", "The official split: train, validation or test."),
    **_column("license", "The license of each row."),
    **_column("id", "An id that no other row has."),
    **_column("modality", "What made the picture: ct, mri, radiograph ..."),
    **_column("organ", "The organ or part of the body."),
    **_column("question_type", "What the question is about."),
    **_column("answer_type", "open, closed or choice."),
    **_column("language", "The language of the texts: en, de ..."),
}
"""What columns of a table, or keys of a record, mean."""

Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="caption, vqa or report; without it what the columns suggest.",
        show_default=False,
        rich_help_panel=CHOOSE,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="llava, sharegpt, openai, paligemma or m3it; without it what the first records look like.",
        show_default=False,
        rich_help_panel=READ,
    ),
]
Context = Annotated[
    str,
    typer.Option(
        "--context",
        help="Of a turn: none (its question stands alone) or before (the turns before go into its prompt).",
        rich_help_panel=CHOOSE,
    ),
]
Sections = Annotated[
    str | None,
    typer.Option(
        "--sections",
        help="Of reports: findings, impression or both, cleaned; without it the text as it stands.",
        show_default=False,
        rich_help_panel=CHOOSE,
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="FOLDER",
        help="Where the names of images lead; without it looked for around the file.",
        show_default=False,
        rich_help_panel=READ,
    ),
]
DataLicense = Annotated[
    str | None,
    typer.Option(
        "--data-license",
        metavar="ID",
        help="Whose the data are: LicenseRef-own-data for your own that nobody else may have, or an SPDX id.",
        show_default=False,
        rich_help_panel=DATA_SET,
    ),
]
HashIds = Annotated[
    bool,
    typer.Option(
        "--hash-ids",
        help="Replace patients, ids and names of image files by stand-ins; needs --key.",
        rich_help_panel=DATA_SET,
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="The secret of --hash-ids, outside the data set; made if absent.",
        show_default=False,
        rich_help_panel=DATA_SET,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Take the guess as it is and do not ask.", rich_help_panel=READ)]
