"""BLIP-2 and InstructBLIP in small, with random weights: real classes, and tokenizers of the real kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medvlm.models import tiny, tiny_tokenizers

if TYPE_CHECKING:
    import torch

    from medvlm.models.backbones.base import Backbone

_SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
# As in the tiny PaliGemma: 1 / sqrt(hidden size). The tower's own default, 1e-10, is for weights that are loaded.
_SPREAD = {"initializer_range": 0.088}
_BLOCKS = {**_SIZES, **_SPREAD}


def made(kind: type[Backbone], image_size: int | None, *, instructed: bool) -> tuple[torch.nn.Module, Any]:
    """Return model and processor.

    Args:
        kind: whose `build` makes the model.
        image_size: side of the square image; None is the tiny base's.
        instructed: InstructBLIP with LLaMA's decoder, else BLIP-2 with OPT's.
    """
    size = image_size or tiny.IMAGE_SIZE
    tokenizer = _llama_tokenizer() if instructed else _opt_tokenizer()
    processor = _processor(tokenizer, size, instructed=instructed)
    model: Any = kind.build(_config(processor, size, instructed=instructed))
    positions = model.vision_model.embeddings.position_embedding
    positions.data[0, 1:].copy_(tiny.sinusoids(size // tiny.PATCH_SIZE, positions.shape[2]))
    # Left at zero, as for a checkpoint, all queries would stay the same.
    model.query_tokens.data.normal_()
    return model, processor


def _opt_tokenizer() -> Any:
    """Return OPT's kind: byte-level, `</s>` at start and end."""
    from transformers import GPT2Tokenizer

    vocab, merges = tiny_tokenizers.byte_level(["<s>", "<pad>", "</s>", "<unk>"])
    names = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    return GPT2Tokenizer(vocab=vocab, merges=merges, **names)


def _llama_tokenizer() -> Any:
    """Return Vicuna's kind as InstructBLIP has it: `</s>` at start and end, `[PAD]` added."""
    from transformers import LlamaTokenizer

    vocab, merges = tiny_tokenizers.sentencepiece(["<unk>", "<s>", "</s>"])
    tokenizer = LlamaTokenizer(vocab=vocab, merges=merges, bos_token="</s>", unk_token="</s>")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    return tokenizer


def _processor(tokenizer: Any, image_size: int, *, instructed: bool) -> Any:
    from transformers import BertTokenizer, Blip2Processor, InstructBlipProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    images = BlipImageProcessorPil(size={"height": image_size, "width": image_size})
    if not instructed:
        return Blip2Processor(images, tokenizer, num_query_tokens=32)
    reader = BertTokenizer(vocab=tiny_tokenizers.wordpiece())
    return InstructBlipProcessor(images, tokenizer, reader, num_query_tokens=32)


def _config(processor: Any, image_size: int, *, instructed: bool) -> dict[str, Any]:
    name = "instructblip" if instructed else "blip_2"
    tokenizer = processor.tokenizer
    image = tokenizer.convert_tokens_to_ids("<image>")
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # BLIP-2 ends an answer with the line.
        "eos_token_id": tokenizer.eos_token_id if instructed else tokenizer.convert_tokens_to_ids("Ċ"),
    }
    text = {
        **_BLOCKS,
        **ends,
        "model_type": "llama" if instructed else "opt",
        "num_hidden_layers": 4,
        "vocab_size": tiny_tokenizers.rounded(len(tokenizer)),
        "max_position_embeddings": 1024,
    }
    if not instructed:
        text |= {"ffn_dim": 256, "word_embed_proj_dim": 128, "dropout": 0.0, "init_std": 0.088}
    reader = getattr(processor, "qformer_tokenizer", None)
    former = {
        **_BLOCKS,
        "model_type": f"{name}_qformer",
        "num_hidden_layers": 2,
        "vocab_size": 64 if reader is None else tiny_tokenizers.rounded(len(reader)),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    tower = {**_BLOCKS, "num_hidden_layers": 4, "image_size": image_size, "patch_size": tiny.PATCH_SIZE}
    return {
        "model_type": "instructblip" if instructed else "blip-2",
        "vision_config": {**tower, "model_type": f"{name}_vision_model"},
        "qformer_config": former,
        "text_config": text,
        "num_query_tokens": 32,
        "image_token_index": image,
        "initializer_range": 0.088,
    }
