"""Rows a second: predictions in sorted batches with a KV cache against one `generate` a row, as a plain loop has it.

python tests/benchmarks/predict_throughput.py [--rows 64] [--size 224] [--tokens 32] [--full]

Both ways ask the same model the same questions in one process and must give the same answers. The model has PaliGemma's
own classes; on a CPU a small body at the real image size (256 image tokens at 224 px), with `--full` and a GPU the
published 3B dimensions with random weights. The plain loop uses transformers' own processor and KV cache, so that what
is measured is batching and sorting, not the cache.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

WORDS = ("nodule", "mass", "is", "there", "in", "the", "left", "right", "upper", "lower", "lung", "what", "size")


def build(size: int, full: bool) -> Any:
    """Return a loaded model with random weights, the tiny base's tokenizer and pictures of `size` pixels."""
    import torch
    from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

    from medvlm.models.backbones.paligemma import PaliGemmaBackbone
    from medvlm.models.load import Loaded
    from medvlm.models.published import PUBLISHED
    from medvlm.models.tiny import random_model

    torch.manual_seed(0)
    small, processor = random_model()
    config = small.config.to_dict()
    if full:
        config = dict(PUBLISHED["google/paligemma-3b-pt-224"]) | {"image_token_index": config["image_token_index"]}
    else:
        body = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4}
        config["vision_config"] |= body | {"projection_dim": 256}
        config["text_config"] |= body | {"num_key_value_heads": 1, "head_dim": 64}
        config |= {"hidden_size": 256, "projection_dim": 256}
    model = PaliGemmaForConditionalGeneration(PaliGemmaConfig.from_dict(config))
    model.generation_config = small.generation_config
    PaliGemmaBackbone.resize(model, processor, size)
    tokens = PaliGemmaBackbone.image_tokens_of(model.config)
    backbone = PaliGemmaBackbone(processor, image_tokens=tokens, max_prefix_tokens=128, max_suffix_tokens=128)
    return Loaded(model, processor, backbone, {})


class Questions:
    """Rows with a picture each and prompts of 4 to 60 words, as questions and few-shot prompts are."""

    def __init__(self, count: int, size: int) -> None:
        import random

        chance = random.Random(0)
        lengths = [chance.choice([4, 8, 8, 12, 20, 60]) for _ in range(count)]
        self.prompts = [" ".join(chance.choices(WORDS, k=length)) for length in lengths]
        self.pictures = [Image.effect_noise((size, size), 60 + place).convert("RGB") for place in range(count)]

    def text(self, place: int) -> dict[str, Any]:
        """Return a row's text columns."""
        return {"id": str(place), "task": "vqa", "prompt": self.prompts[place], "target": "", "language": "en"}

    def texts(self) -> list[dict[str, Any]]:
        """Return those of all rows."""
        return [self.text(place) for place in range(len(self.prompts))]

    def image(self, place: int) -> Image.Image:
        """Return a row's picture."""
        return self.pictures[place]


def plain(predictor: Any, rows: Questions, recipe: Any) -> list[str]:
    """Answer row by row, with nothing but transformers."""
    import torch

    from medvlm.train.collate import prefix

    processor, model = predictor.loaded.processor, predictor.model
    answers = []
    for place, text in enumerate(rows.texts()):
        asked = f"<image>{prefix(text, recipe.prompts)}"
        inputs = processor(text=asked, images=rows.image(place), return_tensors="pt").to(predictor.device)
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=recipe.eval.max_new_tokens, do_sample=False)
        new = made[0, inputs["input_ids"].shape[1] :]
        answers.append(processor.decode(new, skip_special_tokens=True).strip())
    return answers


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return rows a second of both ways, their ratio, and in how many rows the answers differ."""
    import torch

    from medvlm.cli.common import progress
    from medvlm.evaluate.predict import Predictor, predict_rows
    from medvlm.recipe.load import check

    values = {
        "name": "benchmark",
        "model": {"id": "medvlm/tiny-base", "dtype": "float32"},
        "data": [{"path": "none"}],
        "text": {"max_prefix_tokens": 128},
        "eval": {"batch_size": arguments.batch, "max_new_tokens": arguments.tokens},
    }
    recipe = check(values, "benchmark")
    predictor = Predictor(build(arguments.size, arguments.full), recipe)
    rows = Questions(arguments.rows, arguments.size)
    # The first call pays for what is made once.
    predictor.answers([rows.image(0)], ["warm up"])
    seconds, cpu = {}, {}
    began, used = time.perf_counter(), time.process_time()
    expected = plain(predictor, rows, recipe)
    seconds["plain"], cpu["plain"] = time.perf_counter() - began, time.process_time() - used
    with tempfile.TemporaryDirectory() as folder, progress("predict", quiet=True) as bar:
        began, used = time.perf_counter(), time.process_time()
        given = (range(arguments.rows), recipe, lambda: predictor, Path(folder) / "p.jsonl", bar)
        found = predict_rows(rows, *given, fingerprint="f")  # type: ignore[arg-type]
        seconds["ours"], cpu["ours"] = time.perf_counter() - began, time.process_time() - used
    differing = sum(row["prediction"] != text for row, text in zip(found, expected, strict=True))
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "rows": arguments.rows,
        "batch_size": arguments.batch,
        "image_size": arguments.size,
        "new_tokens": arguments.tokens,
        "parameters": sum(p.numel() for p in predictor.model.parameters()),
        "cpu_seconds": {way: round(taken, 1) for way, taken in cpu.items()},
        "rows_a_second": {way: round(arguments.rows / taken, 2) for way, taken in seconds.items()},
        "ratio": round(seconds["plain"] / seconds["ours"], 2),
        "ratio_of_cpu_time": round(cpu["plain"] / cpu["ours"], 2),
        "answers_that_differ": differing,
        "distinct_answers": len(set(expected)),
    }


def main() -> None:
    """Measure, print, and fail where the answers differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--full", action="store_true", help="the published 3B dimensions, for a GPU")
    found = measure(parser.parse_args())
    print(json.dumps(found, indent=2))
    assert not found["answers_that_differ"], "batches answer otherwise than single rows"


if __name__ == "__main__":
    main()
