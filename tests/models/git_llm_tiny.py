"""Tiny models of the real classes that GIT-LLM is made of, and tokenizers of theirs, as checkpoints on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

CORPUS = [
    "a small nodule in the left lung. no pleural effusion is seen.",
    "##Instruction: Describe the picture. ##Question: which side? ##Answer: the right lower lobe",
    "a chest radiograph of a man with a red mark near the heart",
]
IMAGE_SIZE, PATCH = 28, 7
VOCABULARY = 448


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 30, 3), dtype=np.uint8))


def _byte_level(special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level BPE as GPT-2's, trained on the corpus."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    model = json.loads(bpe.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _sentencepiece() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A BPE over text whose blanks are U+2581, with bytes to fall back on, as LLaMA's."""
    import json

    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=["▁", *(chr(i) for i in range(33, 127))],
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    model = json.loads(bpe.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def tokenizer(kind: str) -> Any:
    """gpt2: one end token for all, no padding; opt: <pad>; qwen2: no start token; llama: SentencePiece, no padding."""
    import transformers

    if kind == "llama":
        vocab, merges = _sentencepiece()
        return transformers.LlamaTokenizer(vocab=vocab, merges=merges)
    if kind == "opt":
        vocab, merges = _byte_level(["<s>", "<pad>", "</s>", "<unk>"])
        return transformers.GPT2Tokenizer(
            vocab=vocab, merges=merges, bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>"
        )
    vocab, merges = _byte_level(["<|endoftext|>"])
    if kind == "qwen2":
        return transformers.Qwen2Tokenizer(vocab=vocab, merges=merges, bos_token=None)
    return transformers.GPT2Tokenizer(vocab=vocab, merges=merges)


_SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
_GROUPED = {**_SMALL, "num_key_value_heads": 2}
# The sliding window is shorter than the image block, so that its rim is tested too.
_SLIDING = {"sliding_window": 12}
_GEMMA = {**_GROUPED, **_SLIDING, "head_dim": 16, "query_pre_attn_scalar": 16}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "opt": (
        "OPTConfig",
        # As OPT-350m: embeddings narrower than the hidden states, and the norm after.
        {**_SMALL, "ffn_dim": 96, "word_embed_proj_dim": 32, "do_layer_norm_before": False},
    ),
    "llama": ("LlamaConfig", _GROUPED),
    "mistral": ("MistralConfig", {**_GROUPED, **_SLIDING}),
    "qwen2": ("Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3Config", {**_GROUPED, "head_dim": 16}),
    "gemma": ("GemmaConfig", {**_SMALL, "num_key_value_heads": 1, "head_dim": 16}),
    "gemma2": ("Gemma2Config", _GEMMA),
    "gemma3_text": ("Gemma3TextConfig", _GEMMA),
    "gpt_neox": ("GPTNeoXConfig", _SMALL),
    "gpt2": ("GPT2Config", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}),
    "mpt": ("MptConfig", {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 512}),
    "phi": ("PhiConfig", _SMALL),
    "phi3": ("Phi3Config", _GROUPED),
    "biogpt": ("BioGptConfig", _SMALL),
    "stablelm": ("StableLmConfig", _GROUPED),
    "falcon": ("FalconConfig", {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}),
    "smollm3": ("SmolLM3Config", _GROUPED),
    "olmo2": ("Olmo2Config", _GROUPED),
}


def text_config(family: str, vocabulary: int = VOCABULARY) -> Any:
    import transformers

    name, sizes = FAMILIES[family]
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return getattr(transformers, name)(**sizes, **ends, vocab_size=vocabulary)


def vision_config(kind: str = "clip") -> Any:
    import transformers

    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH,
    }
    return transformers.CLIPVisionConfig(**sizes) if kind == "clip" else transformers.SiglipVisionConfig(**sizes)


def model_of(family: str, attention: str = "sdpa") -> Any:
    """A GIT-LLM of a family; weights large enough that attention is far from flat and what leaks shows."""
    from medvlm.models.git_llm import GitLlmConfig, GitLlmForConditionalGeneration

    torch.manual_seed(0)
    config = GitLlmConfig(vision_config=vision_config(), text_config=text_config(family), image_token_id=VOCABULARY + 3)
    config._attn_implementation = attention
    model = GitLlmForConditionalGeneration(config).eval()
    sharpen(model)
    return model


def sharpen(model: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)


def save_text(folder: Path, family: str, kind: str) -> Path:
    """A language model's checkpoint with its tokenizer."""
    import transformers

    made = tokenizer(kind)
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(text_config(family, -(-len(made) // 32) * 32))
    sharpen(model)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def save_tower(folder: Path, kind: str = "clip", *, whole: bool = True) -> Path:
    """A CLIP or SigLIP checkpoint, text tower and all, or its image tower alone."""
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    name = "CLIP" if kind == "clip" else "Siglip"
    torch.manual_seed(2)
    vision = vision_config(kind)
    if whole:
        text = {**_SMALL, "vocab_size": 64, "max_position_embeddings": 16}
        config = getattr(transformers, f"{name}Config")(
            text_config=getattr(transformers, f"{name}TextConfig")(**text), vision_config=vision
        )
        model = getattr(transformers, f"{name}Model")(config)
    else:
        model = getattr(transformers, f"{name}VisionModel")(vision)
    model.save_pretrained(folder)
    if kind == "clip":
        side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=side).save_pretrained(folder)
    else:
        SiglipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}).save_pretrained(folder)
    return folder
