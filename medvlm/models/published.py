"""Published dimensions of the bases our recipes name, so that `--dry-run` needs no network.

Source: the configuration files of the checkpoints, as described in arXiv:2407.07726 (table 1 and section 3.1):
SigLIP-So400m/14 tower, linear projector, Gemma-2B decoder with a vocabulary of 257,216.
"""

from __future__ import annotations

from typing import Any

_VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
    "vision_use_head": False,
}
_GEMMA_2B = {
    "model_type": "gemma",
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "vocab_size": 257216,
}


def _paligemma(image_size: int) -> dict[str, Any]:
    return {
        "model_type": "paligemma",
        "vision_config": {**_VISION, "image_size": image_size},
        "text_config": dict(_GEMMA_2B),
        "projection_dim": 2048,
        "hidden_size": 2048,
        "image_token_index": 257152,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }


PUBLISHED: dict[str, dict[str, Any]] = {f"google/paligemma-3b-pt-{size}": _paligemma(size) for size in (224, 448, 896)}
