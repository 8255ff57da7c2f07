"""(h) How time and memory of a training step grow with batch, sequence and vocabulary: medvlm against full logits.

python tests/benchmarks/training_growth.py     # writes results/training_growth.json and .svg

A small PaliGemma of the real classes (the tiny body of `training_peers.py`) with LoRA on its language model, in
float32; forward and backward on random tokens and pictures, 64 text tokens of which 48 have a label, each case in a
process of its own. One of the three grows while the others stay at batch 1, 448 px (1,024 image tokens) and 257,216
words. "medvlm" is `medvlm.train.loss.forward_loss`, "full logits" the model's own loss. The first step is left out of
the median. The largest case takes 14 GB.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

from training_setup import VOCABULARY, child, forget_peak, machine, memory, paligemma, table

RESULTS = Path(__file__).parent / "results"
WAYS = ("medvlm", "full logits")
PREFIX, SUFFIX = 16, 48


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes of a step."""

    batch: int = 1
    image_size: int = 448
    vocabulary: int = VOCABULARY


AXES: dict[str, list[Case]] = {
    "batch": [Case(batch=size) for size in (1, 2, 4)],
    "sequence": [Case(image_size=size) for size in (224, 448, 672)],
    "vocabulary": [Case(vocabulary=words) for words in (32_000, 128_000, VOCABULARY)],
}


def along(axis: str, case: Case) -> int:
    """Return the case's place on an axis: samples, tokens or words."""
    tokens = (case.image_size // 14) ** 2 + PREFIX + SUFFIX
    return {"batch": case.batch, "sequence": tokens, "vocabulary": case.vocabulary}[axis]


def step_of(case: Case, way: str) -> Any:
    """Return a function that runs forward and backward once."""
    import torch
    from gpu_models import inputs

    from medvlm.models import adapters
    from medvlm.models.backbones import BACKBONES
    from medvlm.recipe.models import AdaptersPart
    from medvlm.train.loss import forward_loss

    torch.manual_seed(0)
    kind = BACKBONES.get("paligemma")
    model: Any = adapters.apply(paligemma("tiny", case.image_size, case.vocabulary)[0], AdaptersPart(), kind)
    model.train()
    made = inputs(model, kind, case.batch, "cpu", seed=0, prefix=PREFIX, suffix=SUFFIX)

    def step() -> float:
        model.zero_grad()
        if way == "medvlm":
            loss = forward_loss(model, made)[0]
        else:
            loss = model(**{k: v for k, v in made.items() if k != "logits_to_keep"}, use_cache=False).loss
        loss.backward()
        return float(loss)

    return step


def measure(case: Case, way: str, steps: int) -> dict[str, float]:
    """Return the loss, the median seconds of a step, the peak, and the peak above what the model itself takes."""
    step = step_of(case, way)
    forget_peak()
    before = memory()[0]
    times = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        loss = step()
        times.append(time.perf_counter() - started)
    peak = memory()[1]
    seconds = statistics.median(times[1:])
    return {"loss": loss, "seconds": seconds, "peak_bytes": peak, "above_model_bytes": peak - before}


def plot(cases: list[dict[str, Any]]) -> str:
    """Return all charts as one SVG: time in the left column, memory in the right, an axis a row."""
    from medvlm.report.plots import Series, line_chart

    measures = (("seconds", "seconds a step", 1.0), ("above_model_bytes", "GB above the model's own", 1e9))
    words = {
        "batch": "samples a batch",
        "sequence": "tokens a sample",
        "vocabulary": "thousand words of the vocabulary",
    }
    width, height = 640, 280
    parts = []
    for row, axis in enumerate(AXES):
        for column, (key, label, unit) in enumerate(measures):
            here = [case for case in cases if case["axis"] == axis]
            scale = 1000 if axis == "vocabulary" else 1
            points = {way: [(one["at"] / scale, one[key] / unit) for one in here if one["way"] == way] for way in WAYS}
            lines = [Series(way, points[way]) for way in WAYS]
            chart = line_chart(f"{label} by {words[axis]}", lines, words[axis], label)
            place = f'<svg x="{column * width}" y="{row * height}" width="{width}" height="{height - 20}" '
            parts.append(chart.replace("<svg ", place, 1))
    style = (
        "svg{overflow:visible}text{font:13px sans-serif;fill:#1d2126}"
        ".grid{stroke:#d9dde2}polyline,line{fill:none;stroke-width:2}"
        ".grid{stroke-width:1}.l1{stroke:#0b62b8}.f1{fill:#0b62b8}.l2{stroke:#c4560a}.f2{fill:#c4560a}"
    )
    sides = f'width="{2 * width}" height="{3 * height}" viewBox="0 0 {2 * width} {3 * height}"'
    body = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {sides}><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'
    )


def show(cases: list[dict[str, Any]]) -> None:
    """Print a row a case, both ways side by side."""
    rows = []
    for ours, full in zip(cases[::2], cases[1::2], strict=True):
        pairs = [f"{ours['seconds']:.3f}", f"{full['seconds']:.3f}", f"{full['seconds'] / ours['seconds']:.1f}"]
        pairs += [f"{case['above_model_bytes'] / 1e9:.2f} GB" for case in (ours, full)]
        rows.append([ours["axis"], f"{ours['at']:,}", *pairs])
    heads = ("grows", "to", "medvlm, s", "full logits, s", "ratio", "medvlm, above the model", "full logits, above it")
    print(table(heads, rows))


def main() -> None:
    """Measure every case both ways, print the table, write JSON and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2, help="timed ones")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of training_growth.json and .svg")
    parser.add_argument("--axes", default=",".join(AXES), help="which grow")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        asked = json.loads(options.case)
        print(json.dumps(measure(Case(**asked["case"]), asked["way"], options.steps)))
        return
    cases, known = [], {}
    for axis in options.axes.split(","):
        for case in AXES[axis]:
            for way in WAYS:
                asked = json.dumps({"case": dataclasses.asdict(case), "way": way})
                if asked not in known:
                    known[asked] = json.loads(child(__file__, ["--case", asked, "--steps", str(options.steps)]))
                cases.append({"axis": axis, "at": along(axis, case), **json.loads(asked), **known[asked]})
    show(cases)
    worst = max(abs(ours["loss"] - full["loss"]) for ours, full in zip(cases[::2], cases[1::2], strict=True))
    assert worst < 1e-5, f"the losses differ by {worst}"
    options.out.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine(), "seed": 0, "n": options.steps, "largest_loss_difference": worst, "cases": cases}
    (options.out / "training_growth.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (options.out / "training_growth.svg").write_text(plot(cases), encoding="utf-8")


if __name__ == "__main__":
    main()
