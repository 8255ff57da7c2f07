"""Published dimensions of chat models, for `medvlm.models.published`.

Sources: the config.json of each checkpoint on the Hugging Face Hub, and the articles: Qwen2.5-VL (arXiv:2502.13923,
table 1), Idefics3 (arXiv:2408.12637) and SmolVLM (arXiv:2504.05299), Gemma 3 (arXiv:2503.19786, table 1) and MedGemma
(arXiv:2507.05201), LLaVA-1.5 (arXiv:2310.03744), IDEFICS (arXiv:2306.16527, appendix). Ids of special tokens have no
weights, so a plan does not depend on them. The tests hold the numbers of parameters against the published ones.
"""

from __future__ import annotations

from typing import Any


def _decoder(kind: str, hidden: int, inner: int, layers: int, heads: int, groups: int, words: int) -> dict[str, Any]:
    """Return a decoder of Llama's shape; `groups` are its key and value heads."""
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": words,
    }


def _qwen(hidden: int, inner: int, layers: int, heads: int, groups: int, words: int, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "qwen2_5_vl",
        "tie_word_embeddings": tied,
        "vision_config": {
            "model_type": "qwen2_5_vl_vision",
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": hidden,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        "text_config": {
            **_decoder("qwen2_5_vl_text", hidden, inner, layers, heads, groups, words),
            "tie_word_embeddings": tied,
            "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1_000_000.0},
        },
    }


def _siglip(kind: str, size: str, image_size: int, patch: int) -> dict[str, Any]:
    """Return a SigLIP tower: So400m (arXiv:2305.13035) or base."""
    hidden, inner, layers, heads = {"so400m": (1152, 4304, 27, 16), "base": (768, 3072, 12, 12)}[size]
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": image_size,
        "patch_size": patch,
    }


def _smolvlm(tower: dict[str, Any], text: dict[str, Any], scale: int) -> dict[str, Any]:
    # The first SmolVLMs are of Idefics3's type.
    return {
        "model_type": "idefics3",
        "vision_config": tower,
        "text_config": {**text, "tie_word_embeddings": False},
        "scale_factor": scale,
        "tie_word_embeddings": False,
    }


def _gemma3(hidden: int, inner: int, layers: int, heads: int, groups: int, head: int) -> dict[str, Any]:
    return {
        "model_type": "gemma3",
        "mm_tokens_per_image": 256,
        "vision_config": {**_siglip("siglip_vision_model", "so400m", 896, 14), "vision_use_head": False},
        "text_config": {
            **_decoder("gemma3_text", hidden, inner, layers, heads, groups, 262208),
            "head_dim": head,
            "sliding_window": 1024,
        },
    }


def _llava(hidden: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    tower = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    return {
        "model_type": "llava",
        "vision_config": {"model_type": "clip_vision_model", **tower, "image_size": 336, "patch_size": 14},
        "text_config": _decoder("llama", hidden, inner, layers, heads, heads, 32064),
    }


_IDEFICS_9B: dict[str, Any] = {
    # Llama 7B is transformers' default here.
    "model_type": "idefics",
    "additional_vocab_size": 2,
    "cross_layer_interval": 4,
    "qk_layer_norms": True,
    "use_resampler": True,
    "perceiver_config": {
        "use_resampler": True,
        "resampler_depth": 6,
        "resampler_head_dim": 96,
        "resampler_n_heads": 16,
        "resampler_n_latents": 64,
        "qk_layer_norms_perceiver": True,
    },
    "vision_config": {
        "model_type": "idefics_vision",
        "embed_dim": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
    },
}

_SMOLLM2_135M = _decoder("llama", 576, 1536, 30, 9, 3, 49280)
_SMOLLM2_360M = _decoder("llama", 960, 2560, 32, 15, 5, 49280)
_SMOLLM2_1B = _decoder("llama", 2048, 8192, 24, 32, 32, 49155)
_GEMMA3_4B = _gemma3(2560, 10240, 34, 8, 4, 256)

CHAT_MODELS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen(2048, 11008, 36, 16, 2, 151936, True),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen(3584, 18944, 28, 28, 4, 152064, False),
    "HuggingFaceTB/SmolVLM-256M-Instruct": _smolvlm(_siglip("idefics3_vision", "base", 512, 16), _SMOLLM2_135M, 4),
    "HuggingFaceTB/SmolVLM-500M-Instruct": _smolvlm(_siglip("idefics3_vision", "base", 512, 16), _SMOLLM2_360M, 4),
    "HuggingFaceTB/SmolVLM-Instruct": _smolvlm(_siglip("idefics3_vision", "so400m", 384, 14), _SMOLLM2_1B, 3),
    "google/gemma-3-4b-it": _GEMMA3_4B,
    "google/medgemma-4b-it": _GEMMA3_4B,
    "llava-hf/llava-1.5-7b-hf": _llava(4096, 11008, 32, 32),
    "HuggingFaceM4/idefics-9b": _IDEFICS_9B,
    "HuggingFaceM4/idefics-9b-instruct": _IDEFICS_9B,
}
