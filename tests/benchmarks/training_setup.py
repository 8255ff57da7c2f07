"""What the training benchmarks share: small PaliGemmas with the real vocabulary, a data set, a process's memory."""

from __future__ import annotations

import itertools
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Where `write_folder` of the tests lies, which writes what `medvlm prepare` would.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

VOCABULARY = 257216
"""Of PaliGemma (arXiv:2407.07726)."""

BODIES: dict[str, dict[str, dict[str, int]]] = {
    "tiny": {
        "vision": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4},
        "text": {
            "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 1, "head_dim": 32,
        },
    },
    "500m": {
        "vision": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4},
        "text": {
            "hidden_size": 1024, "intermediate_size": 6144, "num_hidden_layers": 24, "num_attention_heads": 8,
            "num_key_value_heads": 1, "head_dim": 128,
        },
    },
}  # fmt: skip
"""Dimensions by name; "500m" has 510 M parameters in its decoder's layers, the 263 M of the vocabulary apart."""


def paligemma(body: str, image_size: int = 448, vocabulary: int = VOCABULARY) -> tuple[Any, Any]:
    """Return an untrained PaliGemma of the real classes and its processor; the seed is the caller's.

    The tokenizer is the tiny base's: its words take the first ids, and the rest of the vocabulary is never the answer,
    but costs what it costs.
    """
    from transformers import PaliGemmaForConditionalGeneration

    from medvlm.data.sources.phantom.base_grammar import vocabulary_corpus
    from medvlm.models import tiny

    made = tiny.tokenizer(vocabulary_corpus())
    config = tiny.config(vocabulary, made.image_token_id, image_size)
    sizes = BODIES[body]
    for part, name in ((config.vision_config, "vision"), (config.text_config, "text")):
        for key, value in sizes[name].items():
            setattr(part, key, value)
    width = sizes["text"]["hidden_size"]
    config.text_config.initializer_range = width**-0.5
    config.projection_dim = config.hidden_size = config.vision_config.projection_dim = width
    return PaliGemmaForConditionalGeneration(config), tiny.processor(made, image_size)


def save_base(folder: Path, body: str, image_size: int, dtype: str) -> int:
    """Write the model as any checkpoint is, seed 0; return how many parameters its decoder's layers have."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        model, processor = paligemma(body, image_size)
    finally:
        torch.set_default_dtype(before)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return sum(p.numel() for name, p in model.named_parameters() if ".language_model.layers." in name)


def write_data(folder: Path, rows: int) -> None:
    """Write a data set of so many rows: the embedded sample's phantoms with captions, questions and reports."""
    from prepared import write_folder

    from medvlm.data.sample import Sample
    from medvlm.data.sources.phantom.source import read_article

    found = (sample for index in itertools.count() for sample in read_article(0, index))
    samples = list(itertools.islice((one for one in found if isinstance(one, Sample)), rows))
    write_folder(folder, {"train": samples})


def memory() -> tuple[int, int]:
    """Return what the process holds now, and the most since `forget_peak`, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    kilobytes = {name: int(value) for name, value in re.findall(r"(VmRSS|VmHWM):\s+(\d+)", status)}
    return kilobytes["VmRSS"] * 1024, kilobytes["VmHWM"] * 1024


def forget_peak() -> None:
    """Begin the peak anew, so that what loading took is not counted as a step's."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def child(script: str, arguments: Sequence[str]) -> str:
    """Run a way in a process of its own and return the last line it printed; its errors are shown."""
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(
        [sys.executable, script, *arguments], env={**os.environ, **quiet}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return done.stdout.strip().splitlines()[-1]


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    found = {}
    for name in ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "liger_kernel"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    } | found


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return rows as a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
