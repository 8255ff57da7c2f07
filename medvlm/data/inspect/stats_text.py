"""Statistics as lines to print: aligned tables, the largest numbers first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medvlm.data.inspect.show import plain
from medvlm.data.write import NOT_STATED

MOST = 12
"""So many values of a column are shown; of the others their number."""
_WIDE = 40


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """Yield the statistics that `stats.gather` returns as lines."""
    yield plain(f"{told['title']}  [{told['path']}]: {told['samples']:,} samples")
    splits = list(told["splits"])
    for name, counts in told["counts"].items():
        if set(counts) - {NOT_STATED}:
            yield from _table(name, splits, counts, told["samples"])
    absent = [name for name, counts in told["counts"].items() if not set(counts) - {NOT_STATED}]
    if absent:
        yield f"none stated: {', '.join(absent)}"
    if "by" in told:
        yield from _by(told["by"], splits, told["samples"])
    yield from _lengths(told)
    if "answers" in told:
        yield from _answers(told["answers"])
    if "pictures" in told:
        yield from _pictures(told["pictures"])
    yield from _shared(told["shared"])


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a table: the first column to the left, numbers to the right."""
    cells = [[plain(cell) for cell in row] for row in (header, *rows)]
    cells = [[_short(row[0]), *row[1:]] for row in cells]
    widths = [max(len(row[at]) for row in cells) for at in range(len(header))]
    for row in cells:
        rest = "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        yield f"  {row[0]:<{widths[0]}}{rest}".rstrip()


def _short(text: str) -> str:
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 1]}…"


def _table(name: str, splits: Sequence[str], counts: Mapping[str, Mapping[str, int]], total: int) -> Iterator[str]:
    yield ""
    rows = [_row(value, splits, found, total) for value, found in counts.items()]
    if len(rows) > MOST + 1:
        rest = list(counts.values())[MOST:]
        summed = {split: sum(found.get(split, 0) for found in rest) for split in splits}
        rows = [*rows[:MOST], _row(f"({len(rest)} more)", splits, summed, total)]
    yield from _rows((name, *splits, "all", "share"), rows)


def _row(value: str, splits: Sequence[str], counts: Mapping[str, int], total: int) -> list[str]:
    own = sum(counts.values())
    return [value, *(f"{counts.get(split, 0):,}" for split in splits), f"{own:,}", f"{own / max(1, total):.1%}"]


def _by(told: Mapping[str, Any], splits: Sequence[str], total: int) -> Iterator[str]:
    yield ""
    header = (told["column"], *splits, "all", "share", "words: median", "p95", "most common answer", "of test")
    rows = []
    for value, found in told["values"].items():
        best = found["constant"] or {"answer": "", "share": {}}
        share = f"{best['share']['test']:.1%}" if "test" in best["share"] else ""
        spoken = [str(found["words"][key]) for key in ("median", "p95")]
        rows.append([*_row(value, splits, found["samples"], total), *spoken, _short(best["answer"]), share])
    yield from _rows(header, rows)


def _lengths(told: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    keys = ("min", "median", "p95", "max")
    rows = [[task, *(f"{found[key]:,}" for key in keys)] for task, found in told["words"].items()]
    yield from _rows(("words of a target", *keys), rows)
    known = [
        f"{split} {found['words']:,}" + (f" ({found['not_in_train']:,} not in train)" if split != "train" else "")
        for split, found in told["vocabulary"].items()
    ]
    yield f"  different words: {' · '.join(known)}"


def _answers(told: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    rows = [[one["answer"], f"{one['count']:,}", f"{one['share']:.1%}"] for one in told["most_common"]]
    yield from _rows((f"answers to {told['questions']:,} questions", "samples", "share"), rows)
    best = told["constant"]
    shares = " · ".join(f"{split} {share:.1%}" for split, share in best["share"].items())
    yield plain(f'  always answering "{_short(best["answer"])}" would be right: {shares}')


def _pictures(told: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    keys = ("min", "median", "p95", "max")
    rows = [[name, *(f"{told[name][key]:,}" for key in keys)] for name in ("width", "height", "bytes") if told[name]]
    yield from _rows((f"{told['different']:,} different pictures", *keys), rows)
    for name, words in (("formats", "formats"), ("modes", "modes"), ("a_sample", "pictures of a sample")):
        yield f"  {words}: " + " · ".join(f"{value} {count:,}" for value, count in told[name].items())


def _shared(told: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Yield a line for each two splits: what the second one has that the first one has too."""
    if not told:
        return
    yield ""
    rows = []
    for pair, found in told.items():
        near = f"{found['near_images']:,}" if "near_images" in found else "not counted"
        images = f"{found['images']:,} of {found['of_images']:,}"
        texts = f"{found['texts']:,} of {found['of_samples']:,}"
        rows.append([pair.replace("/", " and "), images, near, texts, f"{found['repeats']:,}", f"{found['groups']:,}"])
    yield from _rows(("shared by", "images", "nearly alike", "texts", "image and text", "groups"), rows)
