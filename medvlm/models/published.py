"""Published dimensions of the bases that recipes name, so that `--dry-run` needs no network.

Sources: the config.json of each checkpoint on the Hugging Face Hub, and the papers they belong to: PaliGemma
(arXiv:2407.07726, table 1 and section 3.1), PaliGemma 2 (arXiv:2412.03555, table 1) with Gemma 2 (arXiv:2408.00118,
table 1), CLIP (arXiv:2103.00020, table 20), SigLIP (arXiv:2303.15343) with the So400m shape (arXiv:2305.13035), OPT
(arXiv:2205.01068, table 1), Llama 2 (arXiv:2307.09288), MPT (MosaicML, 2023), SmolLM2 (arXiv:2502.02737), Qwen 2.5
(arXiv:2412.15115, table 1), Mistral 7B (arXiv:2310.06825, table 1). The tests hold the numbers of parameters they give
against the published ones.
"""

from __future__ import annotations

from typing import Any

from medvlm.models.published_chat import CHAT_MODELS

_SO400M = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
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


def _gemma2(hidden: int, inner: int, layers: int, heads: int, groups: int, head: int, scalar: int) -> dict[str, Any]:
    return {
        "model_type": "gemma2",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": head,
        "query_pre_attn_scalar": scalar,
        "vocab_size": 257216,
    }


_GEMMA_2 = {
    "3b": _gemma2(2304, 9216, 26, 8, 4, 256, 256),
    "10b": _gemma2(3584, 14336, 42, 16, 8, 256, 256),
    "28b": _gemma2(4608, 36864, 46, 32, 16, 128, 144),
}


def _paligemma(text: dict[str, Any], image_size: int) -> dict[str, Any]:
    return {
        "model_type": "paligemma",
        "vision_config": {**_SO400M, "vision_use_head": False, "image_size": image_size},
        "text_config": dict(text),
        "projection_dim": text["hidden_size"],
        "hidden_size": text["hidden_size"],
        "image_token_index": 257152,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }


def _paligemmas() -> dict[str, dict[str, Any]]:
    """Return every PaliGemma there is: pretrained at three sizes, mixtures at two."""
    made = {}
    for kind, sizes in (("pt", (224, 448, 896)), ("mix", (224, 448))):
        for size in sizes:
            made[f"google/paligemma-3b-{kind}-{size}"] = _paligemma(_GEMMA_2B, size)
            for name, text in _GEMMA_2.items():
                made[f"google/paligemma2-{name}-{kind}-{size}"] = _paligemma(text, size)
    return made


def _tower(kind: str, hidden: int, layers: int, heads: int, inner: int, size: int, patch: int) -> dict[str, Any]:
    vision = {
        "model_type": f"{kind}_vision_model",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": size,
        "patch_size": patch,
    }
    # SigLIP's text tower is as wide and deep as its vision tower, CLIP's has a size of its own.
    wide = {
        key: vision[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    }
    # SigLIP's tokenizer has its only end token at 1; the defaults of transformers lie outside its vocabulary.
    text = {**wide, "bos_token_id": 1, "eos_token_id": 1} if kind == "siglip" else _clip_text(512, 8)
    return {"model_type": kind, "vision_config": vision, "text_config": {"model_type": f"{kind}_text_model", **text}}


def _clip_text(hidden: int, heads: int) -> dict[str, Any]:
    """Return CLIP's text tower: 12 layers and 77 positions in every size."""
    return {
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": 12,
        "num_attention_heads": heads,
    }


def _large_clip(size: int) -> dict[str, Any]:
    text = {"model_type": "clip_text_model", **_clip_text(768, 12)}
    return {**_tower("clip", 1024, 24, 16, 4096, size, 14), "text_config": text, "projection_dim": 768}


_TOWERS = {
    "openai/clip-vit-base-patch16": _tower("clip", 768, 12, 12, 3072, 224, 16),
    "openai/clip-vit-large-patch14": _large_clip(224),
    "openai/clip-vit-large-patch14-336": _large_clip(336),
    "google/siglip-base-patch16-224": _tower("siglip", 768, 12, 12, 3072, 224, 16),
    # 27 x 27 patches: the six pixels that 14 leaves of 384 are not seen.
    "google/siglip-so400m-patch14-384": _tower("siglip", 1152, 27, 16, 4304, 384, 14),
}


def _opt(hidden: int, layers: int, heads: int, embedded: int, norm_before: bool) -> dict[str, Any]:
    return {
        "model_type": "opt",
        "hidden_size": hidden,
        "ffn_dim": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "word_embed_proj_dim": embedded,
        "do_layer_norm_before": norm_before,
        "vocab_size": 50272,
        "max_position_embeddings": 2048,
    }


def _llama(
    kind: str, hidden: int, inner: int, layers: int, heads: int, groups: int, vocabulary: int, tied: bool, **more: Any
) -> dict[str, Any]:
    """Return a decoder of Llama's shape; `groups` are its key and value heads."""
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        **more,
    }


_LANGUAGE_MODELS = {
    "facebook/opt-350m": _opt(1024, 24, 16, 512, norm_before=False),
    "facebook/opt-6.7b": _opt(4096, 32, 32, 4096, norm_before=True),
    "meta-llama/Llama-2-7b-hf": _llama("llama", 4096, 11008, 32, 32, 32, 32000, False, max_position_embeddings=4096),
    "mosaicml/mpt-7b": {
        "model_type": "mpt",
        "d_model": 4096,
        "n_heads": 32,
        "n_layers": 32,
        "expansion_ratio": 4,
        "max_seq_len": 2048,
        "vocab_size": 50432,
        "no_bias": True,
        "attn_config": {"model_type": "", "alibi": True, "alibi_bias_max": 8},
    },
    "HuggingFaceTB/SmolLM2-135M": _llama("llama", 576, 1536, 30, 9, 3, 49152, True, max_position_embeddings=8192),
    "HuggingFaceTB/SmolLM2-360M": _llama("llama", 960, 2560, 32, 15, 5, 49152, True, max_position_embeddings=8192),
    "HuggingFaceTB/SmolLM2-1.7B": _llama("llama", 2048, 8192, 24, 32, 32, 49152, True, max_position_embeddings=8192),
    "Qwen/Qwen2.5-0.5B": _llama("qwen2", 896, 4864, 24, 14, 2, 151936, True),
    "Qwen/Qwen2.5-1.5B": _llama("qwen2", 1536, 8960, 28, 12, 2, 151936, True),
    "Qwen/Qwen2.5-7B": _llama("qwen2", 3584, 18944, 28, 28, 4, 152064, False),
    "mistralai/Mistral-7B-v0.1": _llama("mistral", 4096, 14336, 32, 32, 8, 32000, False, sliding_window=4096),
    "mistralai/Mistral-7B-v0.3": _llama("mistral", 4096, 14336, 32, 32, 8, 32768, False, sliding_window=None),
}


def _git(size: str, image_size: int) -> dict[str, Any]:
    """Return a GIT (arXiv:2205.14100, section 3.1): CLIP's tower of that size, and always the same decoder."""
    base = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    large = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    tower = {**base, "patch_size": 16} if size == "base" else {**large, "patch_size": 14}
    return {
        "model_type": "git",
        "vision_config": {"model_type": "git_vision_model", **tower, "image_size": image_size},
        **base,
        "num_hidden_layers": 6,
        "vocab_size": 30522,
        "max_position_embeddings": 1024,
        "bos_token_id": 101,
        "eos_token_id": 102,
        "pad_token_id": 0,
    }


def _gits() -> dict[str, dict[str, Any]]:
    """Return the GITs for single pictures; those for questions take larger ones."""
    made = {}
    for size, larger in (("base", 480), ("large", 420)):
        for task in ("", "-coco", "-textcaps", "-vqav2", "-textvqa"):
            made[f"microsoft/git-{size}{task}"] = _git(size, larger if "vqa" in task else 224)
    return made


def _q_former(kind: str, text: dict[str, Any], image_token: int, image_size: int = 224) -> dict[str, Any]:
    """Return a BLIP-2 or InstructBLIP: ViT-g of EVA-CLIP, 32 queries of a Q-Former, and a language model."""
    name = "blip_2" if kind == "blip-2" else kind
    vision = {
        "model_type": f"{name}_vision_model",
        "hidden_size": 1408,
        "intermediate_size": 6144,
        "num_hidden_layers": 39,
        "num_attention_heads": 16,
        "image_size": image_size,
        "patch_size": 14,
    }
    former = {"model_type": f"{name}_qformer", "vocab_size": 30522 if kind == "blip-2" else 30523}
    return {
        "model_type": kind,
        "vision_config": vision,
        "qformer_config": former,
        "text_config": text,
        "num_query_tokens": 32,
        "image_token_index": image_token,
    }


def _q_formers() -> dict[str, dict[str, Any]]:
    """Return those whose language model only decodes.

    The Hub's copies have a row for `<image>`, and rows up to a multiple of 64. An OPT of BLIP-2 ends with a line
    (token 50118), as it was trained to.
    """
    grown = {"vocab_size": 50304, "eos_token_id": 50118}
    small = {**_opt(2560, 32, 32, 2560, norm_before=True), **grown}
    large = {**_opt(4096, 32, 32, 4096, norm_before=True), **grown}
    vicuna = {"max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2}
    return {
        "Salesforce/blip2-opt-2.7b": _q_former("blip-2", small, 50265),
        "Salesforce/blip2-opt-2.7b-coco": _q_former("blip-2", small, 50265, 364),
        "Salesforce/blip2-opt-6.7b": _q_former("blip-2", large, 50265),
        "Salesforce/blip2-opt-6.7b-coco": _q_former("blip-2", large, 50265, 364),
        "Salesforce/instructblip-vicuna-7b": _q_former(
            "instructblip", _llama("llama", 4096, 11008, 32, 32, 32, 32064, False, **vicuna), 32000
        ),
        "Salesforce/instructblip-vicuna-13b": _q_former(
            "instructblip", _llama("llama", 5120, 13824, 40, 40, 40, 32064, False, **vicuna), 32000
        ),
    }


# ViLT (arXiv:2102.03334), VisualBERT (arXiv:1908.03557) and LXMERT (arXiv:1908.07490) have the width of BERT-base, the
# encoders of FLAVA (arXiv:2112.04482) that of ViT-B/16. What is not said is the default of transformers.
_CLASSIFIERS: dict[str, dict[str, Any]] = {
    "dandelin/vilt-b32-mlm": {"model_type": "vilt", "image_size": 384, "patch_size": 32, "max_position_embeddings": 40},
    "uclanlp/visualbert-vqa-coco-pre": {"model_type": "visual_bert", "visual_embedding_dim": 2048},
    "unc-nlp/lxmert-base-uncased": {
        "model_type": "lxmert",
        "l_layers": 9,
        "x_layers": 5,
        "r_layers": 5,
        "visual_feat_dim": 2048,
        "visual_pos_dim": 4,
    },
    "facebook/flava-full": {
        "model_type": "flava",
        "image_config": {"image_size": 224, "patch_size": 16, "num_hidden_layers": 12},
        "text_config": {"num_hidden_layers": 12, "vocab_size": 30522},
        "multimodal_config": {"num_hidden_layers": 6},
    },
}

PUBLISHED: dict[str, dict[str, Any]] = {
    **_paligemmas(),
    **_TOWERS,
    **_LANGUAGE_MODELS,
    **_gits(),
    **_q_formers(),
    **_CLASSIFIERS,
    **CHAT_MODELS,
}
