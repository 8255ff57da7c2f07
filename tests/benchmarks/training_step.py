"""(b) A training step at 448 px with the vocabulary of 257,216 words, batch 2: logits at labels against full logits.

python tests/benchmarks/training_step.py

Both ways run the same small PaliGemma (real classes, real vocabulary, 1024 image tokens) on the same batch, each in a
process of its own so that peak memory is its own. "plain" is the model's own call with labels, as transformers computes
the loss; "ours" keeps the logits of labelled positions only.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

STEPS = 5
VOCABULARY = 257216


def build() -> tuple[object, dict[str, object]]:
    """Return the model and one batch of two, the same in every process."""
    import torch
    from transformers import GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration, SiglipVisionConfig

    torch.manual_seed(0)
    vision = SiglipVisionConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, image_size=448,
        patch_size=14, vision_use_head=False, projection_dim=128,
    )  # fmt: skip
    text = GemmaConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1,
        head_dim=32, vocab_size=VOCABULARY,
    )  # fmt: skip
    model = PaliGemmaForConditionalGeneration(
        PaliGemmaConfig(
            vision_config=vision, text_config=text, projection_dim=128, hidden_size=128, image_token_index=257152
        )
    )
    prefix, suffix = 8, 56
    length = 1024 + prefix + suffix
    ids = torch.randint(300, 200000, (2, length))
    ids[:, :1024] = 257152
    types = torch.zeros_like(ids)
    types[:, 1024 + prefix :] = 1
    labels = torch.where(types == 1, ids, -100)
    keep = torch.zeros(ids.shape, dtype=torch.bool)
    keep[:, :-1] = labels[:, 1:] != -100
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": types,
        "labels": labels,
        "logits_to_keep": keep,
        "pixel_values": torch.randn(2, 3, 448, 448),
    }
    return model, batch


def measure(way: str) -> dict[str, float]:
    """Return loss, median seconds a step (forward and backward) and the peak above what the model itself takes."""
    import statistics

    from medvlm.train.loss import suffix_loss

    model, batch = build()
    labels = batch["labels"]
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "logits_to_keep")}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times, loss = [], None
    for _ in range(STEPS):
        model.zero_grad()
        started = time.perf_counter()
        if way == "plain":
            loss = model(**inputs, labels=labels, use_cache=False).loss
        else:
            logits = model(**inputs, logits_to_keep=batch["logits_to_keep"], use_cache=False).logits
            loss = suffix_loss(logits, labels)
        loss.backward()
        times.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "loss": float(loss),
        "seconds_a_step": round(statistics.median(times[1:]), 3),
        "peak_gb": round(peak / 1e6, 2),
        "peak_above_start_gb": round((peak - before) / 1e6, 2),
    }


def main() -> None:
    """Measure both ways and print their ratio."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    found = {}
    for way in ("plain", "ours"):
        done = subprocess.run([sys.executable, __file__, way], check=True, capture_output=True, text=True)
        found[way] = json.loads(done.stdout.splitlines()[-1])
    plain, ours = found["plain"], found["ours"]
    found["ratio"] = {
        "time": round(plain["seconds_a_step"] / ours["seconds_a_step"], 2),
        "peak": round(plain["peak_gb"] / ours["peak_gb"], 2),
        "peak_above_start": round(plain["peak_above_start_gb"] / max(0.01, ours["peak_above_start_gb"]), 2),
    }
    found["loss_difference"] = abs(plain["loss"] - ours["loss"])
    assert found["loss_difference"] < 1e-5, "the two losses differ"
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
