"""What keeps a score honest: the model without its images, how its texts look, and test samples seen in training."""

from __future__ import annotations

from collections.abc import Iterator

from medvlm.report.document import Block, Caution, Facts, Table, Text
from medvlm.report.scored import ROWS, Scored, Value, columns, name
from medvlm.report.values import listed, mapping, number, text, texts

ASU = "arXiv:2603.03437"
"""Where image sensitivity and visual reliance come from."""
SENSITIVITY = (
    "Image sensitivity is the share of answers that change when the picture is blank, or another sample's. Near 0 % "
    f"the picture hardly matters to what is written ({ASU})."
)
RELIANCE = (
    "Visual reliance is the score with the right picture minus the score with another sample's, on the same samples. "
    f"Where its interval holds 0, the right picture was not shown to help ({ASU})."
)
KEPT = (
    "Kept without image is the score on blank pictures over the score on the right ones. Near 100 % the answers come "
    f"from the questions and from habit: on VQA-RAD, models were found to keep 81 % of their accuracy ({ASU})."
)
DISTINCT = (
    "Distinct outputs tell a model that writes about each picture from one that repeats a template: one fixed report "
    "for every picture can outscore it in word overlap, and tells nothing about a patient."
)
LENGTH = (
    "Mean length beside the references': BLEU punishes texts that are shorter (its brevity penalty, Papineni et al. "
    "2002), CIDEr-D those of another length (arXiv:1411.5726); longer ones say more that can be wrong."
)


def control_blocks(scored: Scored) -> Iterator[Block]:
    """Yield the controls of one evaluation, each with a sentence on what it means."""
    controls = scored.controls
    if not controls:
        yield Text(
            "The model was not tried without its images, so nothing here shows that it looks at them: run medvlm eval "
            "with --controls 200 or --controls all."
        )
    else:
        yield Text(_which(scored))
        yield from _sensitivity(scored)
        yield from _control_scores(scored)
    yield from output_blocks(scored)


def _which(scored: Scored) -> str:
    controls = scored.controls
    size = "some" if controls.n is None else f"{controls.n:,}"
    of = "" if controls.of is None else f" of {controls.of:,}"
    return (
        f"The same model on the same {size}{of} samples with their own picture, a blank one, and another sample's. "
        "All numbers of this part are of these samples."
    )


_PICTURES = {"blank": "picture blank", "shuffled": "another's picture"}


def _sensitivity(scored: Scored) -> Iterator[Block]:
    shares = scored.controls.sensitivity.items()
    if shares:
        yield Facts([(f"answers that change, {_PICTURES.get(row, row)}", percent(share)) for row, share in shares])
        yield Text(SENSITIVITY)


def _control_scores(scored: Scored) -> Iterator[Block]:
    controls = scored.controls
    reliance = {one.key: one for one in controls.reliance}
    there = columns({**controls.rows, "reliance": dict.fromkeys(reliance, 0.0), "kept": controls.kept})
    keys = [key for key in there if key in scored.main] or there
    if not keys:
        return
    body = []
    for key in keys:
        own = [str(Value(controls.rows.get(row, {}).get(key))) for row in ("model", "blank", "shuffled")]
        found, kept = reliance.get(key), controls.kept.get(key)
        difference = [found.value.signed(), found.verdict or "-"] if found else ["-", "-"]
        body.append([name(key), *own, *difference, "-" if kept is None else percent(kept)])
    header = (
        "metric",
        "its own picture",
        "a blank picture",
        "another's picture",
        "visual reliance",
        "its own picture is",
        "kept without image",
    )
    yield Table(header, body, "Scores by the picture shown", numeric=frozenset({1, 2, 3, 4, 6}))
    if reliance:
        yield Text(RELIANCE)
    if controls.kept:
        yield Text(KEPT)


def output_blocks(scored: Scored) -> Iterator[Block]:
    """Yield how the texts of each row look."""
    body = []
    for row, found in scored.outputs.items():
        share = percent(found.distinct / found.n) if found.distinct is not None and found.n else "-"
        length = "-" if found.mean_words is None else f"{found.mean_words:.1f}"
        body.append([ROWS.get(row, row), _count(found.distinct), share, _count(found.empty), length])
    if not body:
        return
    if scored.reference_words is not None:
        body.append(["references", "-", "-", "-", f"{scored.reference_words:.1f}"])
    header = ("row", "distinct outputs", "distinct / n", "empty outputs", "mean words")
    yield Table(header, body, "Outputs", numeric=frozenset({1, 2, 3, 4}))
    yield Text(DISTINCT)
    if any(found.mean_words is not None for found in scored.outputs.values()):
        yield Text(LENGTH)


def percent(share: float) -> str:
    """Return a share as "81 %"."""
    return f"{100 * share:.0f} %" if abs(share) < 1e6 else f"{100 * share:.3g} %"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


_LEAKS = {
    "images_same": "samples with a picture of the training data, byte for byte",
    "images_near": "samples with nearly a picture of the training data (another size, format or crop)",
    "texts_same": "samples with a question and answer, or a long text, of the training data",
    "groups_shared": "samples of a patient, article or image group of the training data",
}


def leaked_count(scored: Scored) -> int | None:
    """Return how many test samples were found in the training data, None where nobody looked."""
    told = scored.leakage
    if not told:
        return None
    leaked = told.get("leaked")
    if isinstance(leaked, dict | list):
        return len(leaked)
    found = number(leaked)
    if found is None:
        found = max((number(told.get(key)) or 0.0 for key in _LEAKS), default=0.0)
    return int(found)


def leakage_blocks(scored: Scored) -> Iterator[Block]:
    """Yield what of the test samples was found in the training data."""
    told = scored.leakage
    if leaked_count(scored) is None:
        yield Text("Nobody looked whether test samples also lie in the training data.")
        return
    left_out = bool(mapping(scored.raw.get("with_leaked")))
    sentence = f"{leaked_in_words(scored)} {_LEFT_OUT if left_out else _LEAVE_OUT}"
    # Like cases are often described in like words; a picture that was trained on is known by heart.
    by_text = not any(number(told.get(key)) for key in _SEEN)
    if leaked_count(scored) and not left_out and not (by_text and number(told.get("texts_same"))):
        yield Caution(f"{sentence} The scores may be too good.")
    else:
        yield Text(sentence if leaked_count(scored) else leaked_in_words(scored))
    yield from map(Caution, texts(told.get("missing")))
    found = ((label, number(told.get(key))) for key, label in _LEAKS.items())
    counted = [[label, f"{value:,.0f}"] for label, value in found if value is not None]
    if counted:
        yield Table(("what is looked for", "samples"), counted, "Leakage", numeric=frozenset({1}))
    yield from _leaks_by_part(scored)
    yield from _without(scored)


_LEFT_OUT = "The scores leave out what was found."
_LEAVE_OUT = "medvlm eval --exclude-leaked scores without what was found."


def leaked_in_words(scored: Scored) -> str:
    """Return in a sentence how many test samples were found in the training data, and by what; "" where unknown."""
    told, count = scored.leakage, leaked_count(scored)
    if count is None:
        return ""
    n = number(told.get("n"))
    of = f" of {n:,.0f}" if n is not None else ""
    if number(told.get("train_rows")) == 0:
        return "There was no row of training data to compare the test samples with."
    if not count:
        return f"None{of} test samples was found in the training data."
    found = ((said, number(told.get(key))) for key, said in _BY.items())
    ways = ", ".join(f"{value:,.0f} by {said}" for said, value in found if value)
    samples, lie = "sample" if (n or count) == 1 else "samples", "lies" if count == 1 else "lie"
    return f"{count:,}{of} test {samples} also {lie} in the training data" + (f": {ways}." if ways else ".")


_SEEN = ("images_same", "images_near", "groups_shared")
_BY = {
    "images_same": "the same picture",
    "images_near": "nearly the same picture",
    "texts_same": "the same text, as like cases often have",
    "groups_shared": "the same patient, article or image group",
}


def _leaks_by_part(scored: Scored) -> Iterator[Block]:
    parts = list(map(mapping, listed(scored.leakage.get("parts"))))
    if len(parts) > 1:
        body = []
        for part in parts:
            values = [number(part.get(key)) for key in ("rows", *_LEAKS)]
            body.append([text(part.get("path")), *("-" if value is None else f"{value:,.0f}" for value in values)])
        header = ("trained on", "rows", "same picture", "nearly", "same text", "same group")
        yield Table(header, body, "Leakage by data set", numeric=frozenset(range(1, len(header))))


def _without(scored: Scored) -> Iterator[Block]:
    """Yield the scores with and without what leaked, where both were computed."""
    with_all = mapping(scored.raw.get("with_leaked"))
    rows = {row: mapping(values) for row, values in mapping(with_all.get("rows")).items()}
    if not rows:
        return
    body = [
        [ROWS.get(row, row), name(key), str(Value(number(values.get(key)))), str(scored.value(row, key))]
        for row, values in rows.items()
        for key in columns({row: values})
        if key in scored.main
    ]
    n = number(with_all.get("n"))
    header = ("row", "metric", f"all samples{'' if n is None else f', n = {n:,.0f}'}", "without what leaked")
    yield Text("The scores above leave out what leaked; with it they are:")
    yield Table(header, body, "Scores with and without what leaked", numeric=frozenset({2, 3}))
