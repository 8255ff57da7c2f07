"""The options of `medvlm eval`, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WHAT, HOW, TEXT, SURE = "What is scored", "How answers are made", "How texts are compared", "How sure it is"

Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN...", help="Runs' folders; the newest finished run when left out. Several are compared."
    ),
]
Predictions = Annotated[
    list[Path] | None,
    typer.Option(
        "--predictions",
        help="Score this file instead: JSON lines of id, prediction, references, or JSON, CSV, TSV, COCO results. "
        "Given twice, the files are compared.",
        rich_help_panel=WHAT,
    ),
]
References = Annotated[
    Path | None,
    typer.Option(
        "--references",
        help="For --predictions: a file with the references, COCO annotations too.",
        rich_help_panel=WHAT,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="ID", help="Score a published model, untrained: a Hub id or a folder.", rich_help_panel=WHAT
    ),
]
Like = Annotated[
    str | None,
    typer.Option(
        "--like", metavar="RUN", help="For --model: data, prompts and decoding of this run or recipe.",
        rich_help_panel=WHAT,
    ),
]  # fmt: skip
Data = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="FOLDER", help="For --model: prepared data to answer about.", rich_help_panel=WHAT),
]
TrainedOn = Annotated[
    list[str] | None,
    typer.Option(
        "--trained-on", metavar="FOLDER", help="For --model: prepared data that it has seen, for leakage.",
        rich_help_panel=WHAT,
    ),
]  # fmt: skip
Split = Annotated[
    str | None,
    typer.Option("--split", help="train, validation or test; the recipe's own.", rich_help_panel=WHAT),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="At most so many rows, evenly spread.", rich_help_panel=WHAT)
]
Shots = Annotated[
    int | None,
    typer.Option(
        "--shots",
        min=0,
        help="Few-shot: so many answered training rows before each row; the recipe's own.",
        rich_help_panel=WHAT,
    ),
]
MaxImages = Annotated[
    int | None,
    typer.Option(
        "--max-images", min=1, help="At most so many pictures of a sample; the recipe's own.", rich_help_panel=WHAT
    ),
]
NoBase = Annotated[bool, typer.Option("--no-base", help="Leave the untuned base out.", rich_help_panel=WHAT)]
Controls = Annotated[
    str,
    typer.Option(
        "--controls",
        help="On how many samples the model is shown a blank and another's picture: a number, all or none.",
        rich_help_panel=WHAT,
    ),
]
ExcludeLeaked = Annotated[
    bool,
    typer.Option(
        "--exclude-leaked", help="Score without samples that the training data holds too.", rich_help_panel=WHAT
    ),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Samples generated at a time.", rich_help_panel=HOW)
]
EngineName = Annotated[str, typer.Option("--engine", help="transformers, or vllm (extra: vllm).", rich_help_panel=HOW)]
Workers = Annotated[
    int,
    typer.Option(
        "--workers", min=1, help="Copies of the model that answer side by side (extra: ray).", rich_help_panel=HOW
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray-address", help="Of a running Ray cluster, for --workers.", rich_help_panel=HOW),
]
Metrics = Annotated[
    str,
    typer.Option(
        "--metrics",
        help="Any of bleu, rouge, cider, vqa, findings, radgraph, chexbert, bertscore; auto takes what fits the data.",
        rich_help_panel=TEXT,
    ),
]
Tokenizer = Annotated[
    str, typer.Option("--tokenizer", help="ptb, 13a, whitespace or none.", rich_help_panel=TEXT)
]  # fmt: skip
Case = Annotated[str, typer.Option("--case", help="lower or mixed.", rich_help_panel=TEXT)]
Stem = Annotated[bool, typer.Option("--stem", help="Stem the words of ROUGE's F1.", rich_help_panel=TEXT)]
Negation = Annotated[
    str,
    typer.Option(
        "--negation",
        help="What says which findings a text denies: rules, or negspacy (extra: clinical).",
        rich_help_panel=TEXT,
    ),
]
Idf = Annotated[
    Path | None,
    typer.Option("--idf", help="File of document frequencies for CIDEr; else the references'.", rich_help_panel=TEXT),
]
SaveIdf = Annotated[
    Path | None,
    typer.Option(
        "--save-idf", metavar="FILE", help="Write the references' document frequencies there, for --idf.",
        rich_help_panel=TEXT,
    ),
]  # fmt: skip
Resamples = Annotated[
    int,
    typer.Option("--bootstrap", min=0, help="Resamples of the 95 % intervals; 0 for none.", rich_help_panel=SURE),
]
Groups = Annotated[
    str,
    typer.Option("--groups", metavar="COLUMN", help="What belongs together in resamples.", rich_help_panel=SURE),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of resamples and controls.", rich_help_panel=SURE)]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the scores there, unrounded.")]
AllColumns = Annotated[bool, typer.Option("--all-columns", help="Print every metric.")]
