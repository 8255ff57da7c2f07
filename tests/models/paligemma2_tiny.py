"""A tiny PaliGemma 2 of the real classes, saved as any checkpoint is."""

from __future__ import annotations

from pathlib import Path

SOFTCAP = 1.5
"""Of the logits; near their size here, so that capping them shows."""


def save_paligemma2(folder: Path) -> Path:
    """Save it with random weights, and return the folder."""
    import torch
    from transformers import Gemma2Config, PaliGemmaConfig, PaliGemmaForConditionalGeneration

    from medvlm.data.sources.phantom.base_grammar import vocabulary_corpus
    from medvlm.models import tiny

    tokenizer = tiny.tokenizer(vocabulary_corpus())
    base = tiny.config(-(-len(tokenizer) // 64) * 64, tokenizer.image_token_id)
    text = Gemma2Config(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        query_pre_attn_scalar=32,
        # Shorter than the 64 image tokens and a caption: local attention must not break the prefix.
        sliding_window=16,
        final_logit_softcapping=SOFTCAP,
        initializer_range=0.088,
        vocab_size=base.text_config.vocab_size,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    config = PaliGemmaConfig(
        vision_config=base.vision_config,
        text_config=text,
        projection_dim=128,
        hidden_size=128,
        image_token_index=tokenizer.image_token_id,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    PaliGemmaForConditionalGeneration(config).save_pretrained(folder)
    tiny.processor(tokenizer).save_pretrained(folder)
    return folder
