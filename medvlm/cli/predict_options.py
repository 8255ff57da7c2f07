"""The options of `medvlm predict`, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ASK, HOW = "What is asked", "How it is decoded (by default as the run's recipe says)"

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A finished run's folder or name, or `latest`.")]
Images = Annotated[
    list[Path],
    typer.Argument(metavar="IMAGE...", help="PNG, JPEG or TIFF files (16-bit gray too), or folders of them."),
]
Prompt = Annotated[str, typer.Option("--prompt", help="The question.", rich_help_panel=ASK)]
TaskName = Annotated[
    str | None,
    typer.Option("--task", help="caption, vqa or report: which template of the run's recipe.", rich_help_panel=ASK),
]
Language = Annotated[str, typer.Option("--language", help="For a template with {language}.", rich_help_panel=ASK)]
Together = Annotated[
    bool,
    typer.Option(
        "--together",
        help="Ask once about all pictures, views of one study, instead of about each by itself; for models that take "
        "several.",
        rich_help_panel=ASK,
    ),
]
Examples = Annotated[
    Path | None,
    typer.Option(
        "--examples",
        help='Few-shot: JSON lines of {"prompt", "answer", "image"}, put before the question as far as there is room. '
        "A model that takes several pictures sees each example's (a path from the file's folder, or a list of them); "
        "others get the texts only.",
        rich_help_panel=ASK,
    ),
]
Rationale = Annotated[
    bool,
    typer.Option("--rationale", help="Ask for a rationale, then for the answer given it.", rich_help_panel=ASK),
]
RationalePrompt = Annotated[
    str | None,
    typer.Option("--rationale-prompt", help="Wording of the first, with {prompt} in it.", rich_help_panel=ASK),
]
AnswerPrompt = Annotated[
    str | None,
    typer.Option("--answer-prompt", help="Of the second, with {prompt} and {rationale}.", rich_help_panel=ASK),
]
ImpressionPrompt = Annotated[
    str | None,
    typer.Option(
        "--impression-prompt",
        help="A question that asks for the impression where a report states none; without it: not stated.",
        rich_help_panel=ASK,
    ),
]
PrefixTokens = Annotated[
    int | None,
    typer.Option(
        "--max-prefix-tokens",
        min=1,
        help="Room for prompt and examples, if more than the recipe's.",
        rich_help_panel=ASK,
    ),
]
Beams = Annotated[int | None, typer.Option("--beams", min=1, help="Beam search with so many.", rich_help_panel=HOW)]
Temperature = Annotated[
    float | None, typer.Option("--temperature", min=0, help="Draw tokens; 0 takes the likeliest.", rich_help_panel=HOW)
]
TopP = Annotated[
    float | None,
    typer.Option("--top-p", help="Draw from the fewest tokens that hold so much probability.", rich_help_panel=HOW),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", min=0, help="Of what is drawn. An answer depends on it, picture and prompt.", rich_help_panel=HOW
    ),
]
NewTokens = Annotated[int | None, typer.Option("--max-new-tokens", min=1, help="Longest answer.", rich_help_panel=HOW)]
BatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, help="Pictures at a time.", rich_help_panel=HOW)]
RUNS = "Who answers (the answers are the same but for rounding)"
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        help="transformers, or vllm (extra medvlm\\[vllm]; merged or published PaliGemma models).",
        rich_help_panel=RUNS,
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        min=1,
        help="Copies of the model, each on a GPU of its own, through Ray where more than one (extra medvlm\\[ray]).",
        rich_help_panel=RUNS,
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="ADDRESS",
        help="A running Ray cluster, for several machines; without it Ray starts here.",
        show_default=False,
        rich_help_panel=RUNS,
    ),
]
Format = Annotated[str, typer.Option("--format", help="What is printed: text, json (a line each) or report.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="Also keep JSON lines there; called again, it goes on from them.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin --out anew if it holds other predictions.")]
