"""Ways of training that are saved, loaded and merged: what a recipe says of its adapters."""

from __future__ import annotations

from typing import Any

NF4 = {"mode": "nf4", "compute_dtype": "float32"}
WAYS: dict[str, dict[str, Any]] = {
    "lora": {"language_model": {"kind": "lora", "r": 4}},
    "dora": {"language_model": {"kind": "dora", "r": 4}, "projector": "full"},
    "mixed": {
        "language_model": {"kind": "rslora", "r": 4, "modules": ["q_proj"]},
        "vision_tower": {"kind": "lora", "r": 2, "alpha": 3},
        "projector": "full",
        "head": "full",
    },
    "head_lora": {"language_model": "frozen", "head": {"kind": "lora", "r": 4}, "projector": "full"},
    "decoder": {"language_model": "full", "vision_tower": {"kind": "lora", "r": 2}},
    "whole": {"language_model": "full", "projector": "full"},
}
