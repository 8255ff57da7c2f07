"""A run folder with its data set, as training and evaluation leave them, made from nothing for the report's tests."""

from __future__ import annotations

import io
import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

FINDINGS = ("nodule", "effusion", "cardiomegaly", "pneumothorax", "none")
HOSTILE = (
    "<script>alert(1)</script> \"'`| [x](javascript:alert(1)) <img src=x onerror=alert(2)>\n# no heading\n```\x00\ud800"
)


def picture(number: int) -> bytes:
    """Return a small gray PNG that differs by number."""
    image = Image.radial_gradient("L").rotate(37 * number).resize((200, 160 + 8 * (number % 9)))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def sentence(finding: str, side: str) -> str:
    return "No acute finding." if finding == "none" else f"There is a {finding} on the {side} side."


def write_data(folder: Path, split: str, ids: list[str]) -> None:
    """Write one shard with the columns that a gallery reads, and a manifest."""
    (folder / "data").mkdir(parents=True)
    images = [{"bytes": picture(number), "path": f"{number}.png"} for number in range(len(ids))]
    columns = {
        "id": ids,
        "image": images,
        "license": ["CC-BY-4.0"] * len(ids),
        "license_evidence": ["https://creativecommons.org/licenses/by/4.0/"] * len(ids),
        "doi": [None] * len(ids),
        "source": ["phantom"] * len(ids),
    }
    pq.write_table(pa.table(columns), folder / "data" / f"{split}-00000-of-00001.parquet", row_group_size=16)
    manifest = {
        "card": {"title": "Phantom articles", "known_problems": ["No patient was imaged."], "homepage": None},
        "synthetic": True,
        "fingerprint": "cd" * 32,
        "command": "medvlm prepare pmc",
        "counts": {
            "samples": 2040,
            "split": {"train": 1600, "validation": 200, "test": 240},
            "groups_by_split": {"train": 400, "validation": 50, "test": 60},
            "license": {"CC-BY-4.0": 1700, "CC0-1.0": 340},
            "modality": {"xray": 1020, "ct": 1020},
        },
        "drops": {"license forbids commercial use": 120, "no image file": 3},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def rows(n: int, seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    found = []
    for number in range(n):
        finding, side = chance.choice(FINDINGS), chance.choice(("left", "right"))
        said = sentence(finding, side) if chance.random() < 0.6 else sentence(chance.choice(FINDINGS), side)
        found.append(
            {
                "id": f"PMC{number:05d}/fig1/-/caption/0",
                "prediction": said,
                "references": [sentence(finding, side)],
                "group": f"PMC{number:05d}",
                "task": "caption",
                "prompt": "What does the radiograph show?" if number % 3 == 0 else "",
                "finding": finding,
            }
        )
    return found


def scores(n: int) -> dict[str, Any]:
    def values(bleu: float, cider: float, finding: float) -> dict[str, float]:
        keys = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_1", "rouge_2", "rouge_l", "rouge_l_f1")
        return {key: bleu - 0.03 * i for i, key in enumerate(keys)} | {"cider": cider, "finding_accuracy": finding}

    table = {
        "model": values(0.61, 2.9, 0.74),
        "base": values(0.22, 0.1, 0.05),
        "constant": values(0.41, 0.6, 0.2),
        "blank": values(0.43, 0.71, 0.22),
    }

    def minus(difference: float) -> dict[str, Any]:
        return {"cider": {"difference": difference, "low": difference - 0.3, "high": difference + 0.3}}

    return {
        "schema": 1,
        "n": n,
        "split": "test",
        "rows": table,
        "signatures": {"bleu": "bleu:4|tok:ptb", "cider": "cider:d|tok:ptb|idf:references"},
        "by_task": {"caption": {"n": n, "rows": table}},
        "comparisons": {"base": minus(2.8), "constant": minus(2.3), "blank": minus(2.19)},
        "distinct_outputs": {"model": 31, "base": 9, "constant": 1, "blank": 2},
        "empty_predictions": {"model": 0, "base": 4, "constant": 0, "blank": 0},
        "constant": {"caption": "There is a nodule on the left side."},
        "decoding": {"max_new_tokens": 64, "do_sample": False, "num_beams": 1},
        "split_hash": "9f" * 32,
        "limit": None,
    }


def facts(name: str, data: Path) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": name,
        "status": "finished",
        "command": "medvlm finetune recipes/tiny.yaml",
        "started": "2026-01-01T12:00:00+00:00",
        "finished": "2026-01-01T12:04:00+00:00",
        "recipe_hash": "ab" * 32,
        "seed": 0,
        "versions": {"medvlm": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "model": {"id": "medvlm/tiny-base", "revision": None, "image_size": 112, "image_tokens": 64},
        "census": {
            "vision_tower": {"total": 812_000, "trainable": 0, "quantized": 600_000},
            "projector": {"total": 9_000, "trainable": 9_000, "quantized": 0},
            "language_model": {"total": 1_300_000, "trainable": 42_000, "quantized": 900_000},
        },
        "data": [
            {
                "path": str(data),
                "fingerprint": "cd" * 32,
                "rows": 1600,
                "weight": 1.0,
                "licenses": {"CC-BY-4.0": 1360, "CC0-1.0": 240},
                "synthetic": True,
                "title": "Phantom articles",
            }
        ],
        "result": {"train_loss": 0.91, "steps": 200},
    }


def make_run(root: Path, name: str = "20260101-120000-tiny", n: int = 60, seed: int = 0) -> Path:
    """Write `root`/runs/`name` and `root`/data/`name`; return the run's folder."""
    run, data = root / "runs" / name, root / "data" / name
    (run / "eval" / "test").mkdir(parents=True)
    predictions = rows(n, seed)
    write_data(data, "test", [row["id"] for row in predictions])
    (run / "run.json").write_text(json.dumps(facts(name, data)))
    (run / "recipe.yaml").write_text("name: tiny\nmodel:\n  id: medvlm/tiny-base\ntrain:\n  learning_rate: 0.001\n")
    chance = random.Random(seed)
    lines = []
    for step in range(1, 201):
        loss = 0.5 + 3 * math.exp(-step / 40) + chance.gauss(0, 0.06)
        rate = 1e-3 * min(step / 10, 0.5 * (1 + math.cos(math.pi * step / 200)))
        lines.append({"step": step, "epoch": step / 100, "loss": loss, "learning_rate": rate, "step_seconds": 0.4})
        if step % 50 == 0:
            lines.append({"step": step, "eval_loss": loss + 0.08})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    compute = {
        "device": "cpu (2 threads)",
        "seconds": 118.4,
        "samples": 3200,
        "tokens": 409_600,
        "samples_per_second": 27.03,
        "tokens_per_second": 3459.4,
        "peak_memory_bytes": 1_610_612_736,
        "steps": 200,
    }
    (run / "compute.json").write_text(json.dumps(compute))
    (run / "eval" / "test" / "scores.json").write_text(json.dumps(scores(n)))
    write_predictions(run, predictions)
    return run


def write_predictions(run: Path, predictions: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in predictions)
    (run / "eval" / "test" / "predictions.jsonl").write_text(text)


def make_group(
    root: Path, kind: str = "variants", names: tuple[str, ...] = ("proj", "proj-lora", "proj-vit")
) -> list[Path]:
    """Write the runs of one recipe's stages or variants: other learning rates, losses by data set, known costs."""
    paths = []
    for place, name in enumerate(names):
        path = make_run(root, f"2026010{place + 1}-120000-exp-{name}", n=6, seed=place)
        told = json.loads((path / "run.json").read_text())
        told["group"] = {"id": "20260101-120000-exp", "kind": kind, "member": name, "members": list(names), "hash": "h"}
        told["model"] = {
            "id": "openai/clip-vit-base-patch16 + facebook/opt-350m",
            "parts": {"vision_tower": "openai/clip-vit-base-patch16", "language_model": "facebook/opt-350m"},
        }
        (path / "run.json").write_text(json.dumps(told))
        rate = 10.0 ** -(place + 2)
        (path / "recipe.yaml").write_text(
            f"name: exp-{name}\nmodel:\n  id: medvlm/tiny-base\n  start: runs/{place}\n"
            f"train:\n  learning_rate: {rate}\n  epochs: 1\n  batch_size: 4\n  gradient_accumulation: 1\n"
        )
        lines = []
        for step in range(1, 41):
            loss = 1 + place + 2 / step
            totals = {"samples": 4 * step, "tokens": 400 * step, "flops": 10**12 * step}
            parts = {"data/pmc": loss + 0.5, "data/vqa-rad": loss - 0.5}
            lines.append({"step": step, "loss": loss, "losses": parts, **totals})
            if step % 10 == 0:
                # The second validation is the best.
                held = loss + abs(step - 20) / 100
                lines.append(
                    {"step": step, "eval_loss": held, "losses": {"data/pmc": held, "data/vqa-rad": held + 1}, **totals}
                )
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        spent = json.loads((path / "compute.json").read_text()) | {
            "flops": 4 * 10**13,
            "share_of_peak": 0.451 if place else None,
            "peak_tflops": 989.5 if place else None,
            "energy": {"joules": 3.6e6, "kwh": 1.0, "co2_kg": 0.4} if place else {"kwh": None, "unknown": "no counter"},
            "money": {"amount": 2.5, "currency": "EUR", "price_per_hour": 4.0} if place else None,
        }
        (path / "compute.json").write_text(json.dumps(spent))
        paths.append(path)
    return paths
