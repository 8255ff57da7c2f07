"""`medvlm eval`: generate what is missing, score it, print the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medvlm.cli.common import DebugOption, QuietOption, progress, say, warn

LABELS = {
    "model": "model",
    "base": "base, untuned",
    "constant": "constant answer",
    "blank": "model, blank images",
    "predictions": "predictions",
}


def register(app: typer.Typer) -> None:
    """Add the verb to the app."""
    app.command("eval")(evaluate)


def evaluate(
    run: Annotated[str | None, typer.Argument(help="A run's folder; the newest finished run when left out.")] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions", help='Score this JSONL instead: {"id", "prediction", "references": [...]} a line.'
        ),
    ] = None,
    metrics: Annotated[str, typer.Option("--metrics", help="Any of bleu, rouge, cider.")] = "bleu,rouge,cider",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the scores there, unrounded.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="train, validation or test; the recipe's own.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many rows, evenly spread.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Samples generated at a time.")] = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Score a run beside its untuned base, the best constant answer, and itself on blank images.

    Example: medvlm eval --metrics bleu,rouge,cider --json scores.json
    """
    from medvlm.errors import UsageError
    from medvlm.evaluate.metrics import parse_metrics

    names = parse_metrics(metrics)
    if predictions is not None:
        if run is not None:
            raise UsageError("name a run or --predictions FILE, not both")
        table = _score_file(predictions, names)
    else:
        if split not in (None, "train", "validation", "test"):
            raise UsageError(f'--split "{split}": expected train, validation or test')
        from medvlm.evaluate.evaluation import Settings, evaluate_run
        from medvlm.runs import open_run

        found = open_run(run)
        settings = Settings(names, split, limit, batch_size)
        table = evaluate_run(found, settings, lambda label: progress(label, quiet))
        say(f"{found.path}, {table['split']} split", quiet)
    _print_table(table)
    for name, count in table["empty_predictions"].items():
        if count:
            warn(
                f"{LABELS.get(name, name)}: {count} of {table['n']} predictions are empty; they are scored as they are"
            )
    if json_file is not None:
        from medvlm.io import write_json

        keys = ("schema", "n", "rows", "signatures", "comparisons", "by_task")
        write_json(json_file, {key: table[key] for key in keys if table.get(key)})
        say(f"scores: {json_file}", quiet)


def _score_file(path: Path, names: list[str]) -> dict[str, Any]:
    from medvlm.evaluate.metrics import score
    from medvlm.evaluate.predictions_file import read

    rows = read(path)
    found = score(names, [row.prediction for row in rows], [row.references for row in rows])
    return {
        "schema": 1,
        "n": found.n,
        "rows": {"model": found.values},
        "signatures": found.signatures,
        "empty_predictions": {"model": found.empty},
    }


def _print_table(table: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    keys = list(table["rows"]["model"])
    shown = Table(title=f"scores, n = {table['n']}", title_justify="left")
    shown.add_column("row", no_wrap=True)
    for key in keys:
        shown.add_column(key.replace("finding_accuracy", "finding acc."), justify="right", no_wrap=True)
    for name, values in table["rows"].items():
        shown.add_row(LABELS.get(name, name), *(f"{values[key]:.4f}" for key in keys))
    # Wide enough for every column: a table in a log must not be cut.
    console = Console()
    Console(width=max(console.width, 24 + 13 * len(keys))).print(shown)
    for name, metrics in table.get("comparisons", {}).items():
        for metric, interval in metrics.items():
            say(
                f"model minus {LABELS[name]}: {metric} {interval['difference']:+.4f} "
                f"[{interval['low']:+.4f}, {interval['high']:+.4f}] (95 %, bootstrap over groups)"
            )
            if interval["low"] <= 0:
                warn(f"the model does not clearly beat the row «{LABELS[name]}» in {metric}")
    for metric, signature in table["signatures"].items():
        say(f"{metric}: {signature}")
