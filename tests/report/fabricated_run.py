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


def questions(n: int, seed: int) -> list[dict[str, Any]]:
    """Return answered questions, two thirds closed; of three answers one is wrong."""
    chance = random.Random(seed)
    found = []
    for number in range(n):
        finding, side = chance.choice(FINDINGS[:4]), chance.choice(("left", "right"))
        closed = number % 3 != 0
        right = chance.choice(("yes", "no")) if closed else f"the {side} side"
        wrong = {"yes": "no", "no": "yes"}.get(right, "the left side" if side == "right" else "the right side")
        found.append(
            {
                "id": f"VQA{number:05d}",
                "prediction": right if chance.random() < 0.67 else wrong,
                "references": [right],
                "group": f"patient{number // 2:05d}",
                "task": "vqa",
                "prompt": f"Is there a {finding}?" if closed else f"Where is the {finding}?",
                "answer_type": "closed" if closed else "open",
                "question_type": "presence" if closed else "position",
                "modality": "xray" if number % 2 else "ct",
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


CAPTION_KEYS = (
    "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_1", "rouge_2", "rouge_l", "rouge_l_f1", "cider", "cider_unclipped",
    "findings_micro_f1", "findings_macro_f1", "findings_five_f1", "findings_five_macro_f1", "findings_sides",
)  # fmt: skip
VQA_KEYS = ("accuracy", "closed_accuracy", "open_accuracy", "open_f1", "open_recall")
SIGNATURES = {
    "bleu": "bleu:4|tok:ptb|case:lower|refs:1|smooth:none|medvlm:0.1.0",
    "rouge": "rouge|l:tok=ptb,case=lower,beta=1.2|refs:1|medvlm:0.1.0",
    "cider": "cider-d|n:4|sigma:6|idf:references(n=60)|tok:ptb|case:lower|refs:1|medvlm:0.1.0",
}


def scores_of_two(n: int, task: str = "caption") -> dict[str, Any]:
    """Return scores.json of schema 2, whose numbers are chosen, not measured.

    Args:
        n: number of samples; 0 for an evaluation of nothing.
        task: caption or vqa.
    """
    keys = CAPTION_KEYS if task == "caption" else VQA_KEYS
    levels = {"model": 0.61, "base": 0.22, "constant": 0.41}

    def values(level: float) -> dict[str, float]:
        found = {key: round(level - 0.01 * place, 4) for place, key in enumerate(keys)}
        return {key: 5 * value if key.startswith("cider") else value for key, value in found.items()}

    def around(value: float) -> list[float]:
        return [round(value - 0.04, 4), round(value + 0.05, 4)]

    def minus(row: str) -> dict[str, Any]:
        mine, other = values(levels["model"]), values(levels[row])
        return {
            key: {
                "difference": mine[key] - other[key],
                "low": mine[key] - other[key] - 0.06,
                "high": mine[key] - other[key] + 0.07,
                "p": 0.0001,
                "p_holm": 0.0002,
            }
            for key in keys
        }

    table = {row: values(level) for row, level in levels.items()}
    shown = {"model": values(0.6), "blank": values(0.3), "shuffled": values(0.24)}
    size = min(n, 200)
    parts = [("modality", "xray", n // 2), ("modality", "ct", n - n // 2), ("normal", "abnormal", n - n // 5)]
    return {
        "schema": 2,
        "n": n,
        "groups": -(-n // 2),
        "split": "test",
        "split_hash": "9f" * 32,
        "limit": None,
        "engine": "transformers",
        "decoding": {"max_new_tokens": 64, "do_sample": False, "num_beams": 1},
        "constant": {task: "There is a nodule on the left side." if task == "caption" else "yes"},
        "constant_search": {task: {"tried": 40, "distinct": 40}},
        "rows": table,
        "intervals": {row: {key: around(value) for key, value in own.items()} for row, own in table.items()},
        "bootstrap": {"resamples": 1000, "seed": 0, "confidence": 0.95, "groups": -(-n // 2)},
        "signatures": SIGNATURES if task == "caption" else {"vqa": "vqa|norm:vqa|medvlm:0.1.0"},
        "comparisons": {"base": minus("base"), "constant": minus("constant")},
        "by_task": {},
        "controls": {
            "n": size,
            "of": n,
            "seed": 0,
            "rows": shown,
            "image_sensitivity": {"blank": 0.84, "shuffled": 0.91},
            "visual_reliance": {
                key: {"difference": shown["model"][key] - shown["shuffled"][key], "low": 0.06, "high": 2.1, "p": 0.001}
                for key in keys
            },
            "kept_without_image": dict.fromkeys(keys, 0.5),
        },
        "outputs": {
            "model": {"n": n, "distinct": min(n, 31), "empty": 0, "mean_words": 7.6},
            "base": {"n": n, "distinct": min(n, 9), "empty": min(n, 4), "mean_words": 3.2},
            "constant": {"n": n, "distinct": min(n, 1), "empty": 0, "mean_words": 8.0},
        },
        "references": {"n": n, "distinct": min(n, 9), "mean_words": 7.3},
        "slices": [
            {
                "column": column,
                "value": value,
                "n": count,
                "groups": -(-count // 2),
                "rows": {
                    row: {key: [own - 0.02 * place, own - 0.05 - place, own + 0.05] for key, own in values_of.items()}
                    for row, values_of in table.items()
                },
            }
            for place, (column, value, count) in enumerate(parts)
        ],
        "slices_left_out": [{"column": "normal", "value": "normal", "n": n // 5}],
        "leakage": {"n": n, "images_same": 1, "images_near": 2, "texts_same": 3, "groups_shared": 0, "leaked": 4},
        "warnings": [f"4 of {n} samples are in the training data too, as pictures or as texts"],
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


def make_run(
    root: Path,
    name: str = "20260101-120000-tiny",
    n: int = 60,
    seed: int = 0,
    schema: int = 1,
    task: str = "caption",
    same_samples: bool = False,
) -> Path:
    """Write `root`/runs/`name` and `root`/data/`name`; return the run's folder.

    Args:
        root: folder to write into.
        name: of the run.
        n: number of predictions, each with an image.
        seed: of predictions and losses.
        schema: of scores.json.
        task: caption, or vqa (schema 2).
        same_samples: only the predictions differ between seeds, so that runs answer the same samples.
    """
    run, data = root / "runs" / name, root / "data" / name
    (run / "eval" / "test").mkdir(parents=True)
    make = rows if task == "caption" else questions
    predictions = make(n, seed)
    if same_samples:
        given = [row["prediction"] for row in predictions]
        predictions = [row | {"prediction": said} for row, said in zip(make(n, 0), given, strict=True)]
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
    told = scores(n) if schema == 1 else scores_of_two(n, task)
    (run / "eval" / "test" / "scores.json").write_text(json.dumps(told))
    write_predictions(run, predictions)
    return run


def make_baseline(root: Path, name: str = "20260103-120000-published", n: int = 60, seed: int = 3) -> Path:
    """Write the run of a model as it was published: evaluated, but nothing trained."""
    run = make_run(root, name, n, seed, schema=2, same_samples=True)
    told = json.loads((run / "run.json").read_text())
    for key in ("census", "result", "seed"):
        del told[key]
    told |= {"kind": "baseline", "command": "medvlm eval --model google/paligemma-3b-pt-224"}
    told["model"] = {"id": "google/paligemma-3b-pt-224", "revision": None}
    told["data"][0] |= {"rows": 0, "licenses": {}}
    (run / "run.json").write_text(json.dumps(told))
    for file in ("metrics.jsonl", "compute.json"):
        (run / file).unlink()
    table = json.loads((run / "eval" / "test" / "scores.json").read_text())
    del table["rows"]["base"], table["comparisons"]["base"], table["outputs"]["base"], table["leakage"]
    table["warnings"] = ["what this model was trained on is not known"]
    (run / "eval" / "test" / "scores.json").write_text(json.dumps(table))
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
