"""A small CLIP and a small SigLIP with random weights, and tokenizers of their kinds."""

from __future__ import annotations

import functools
import math
from collections import Counter
from itertools import pairwise
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    SiglipProcessor,
)

from medvlm.errors import InputError
from medvlm.models.backbones import contrastive_loss
from medvlm.models.tiny import IMAGE_SIZE, PATCH_SIZE, sinusoids
from medvlm.models.tiny_tokenizers import VOCABULARY, corpus, rounded

_SMALL = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}


def made(image_size: int | None, family: str | None) -> tuple[torch.nn.Module, Any]:
    """Return model and processor.

    Args:
        image_size: side of the square image; None is 112 pixels.
        family: clip or siglip; None is clip.

    Raises:
        InputError: another family.
    """
    if family not in (None, "clip", "siglip"):
        raise InputError(f"model.id: medvlm/tiny-random-{family}: no such contrastive model; expected clip or siglip")
    side = image_size or IMAGE_SIZE
    model, processor = _siglip(side) if family == "siglip" else _clip(side)
    positions: Any = model.get_parameter("vision_model.embeddings.position_embedding.weight")
    grid = sinusoids(side // PATCH_SIZE, positions.shape[1])
    # A small tower that begins so sees where things are in a fraction of the steps; CLIP's class token is no place.
    positions.data[len(positions) - len(grid) :] = grid
    return model, processor


def _vision(side: int) -> dict[str, Any]:
    return {**_SMALL, "num_hidden_layers": 4, "image_size": side, "patch_size": PATCH_SIZE}


def _text(tokenizer: Any) -> dict[str, Any]:
    # SigLIP's tokenizer has no start token; what transformers takes for one lies outside this vocabulary.
    ids = {name: getattr(tokenizer, name) for name in ("eos_token_id", "pad_token_id")}
    ids["bos_token_id"] = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return {**_SMALL, "num_hidden_layers": 2, "vocab_size": rounded(len(tokenizer)), **ids}


def _clip(side: int) -> tuple[torch.nn.Module, Any]:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = clip_tokenizer()
    config = CLIPConfig(text_config=_text(tokenizer), vision_config=_vision(side), projection_dim=64)
    square = {"height": side, "width": side}
    images = CLIPImageProcessorPil(size=square, crop_size=square, do_center_crop=False)
    return CLIPModel(config), CLIPProcessor(images, tokenizer)


def _siglip(side: int) -> tuple[torch.nn.Module, Any]:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    tokenizer = siglip_tokenizer()
    model = SiglipModel(SiglipConfig(text_config=_text(tokenizer), vision_config=_vision(side)))
    # Its own code leaves both at 0.
    model.logit_scale.data.fill_(contrastive_loss.FIRST_SCALE)
    model.logit_bias.data.fill_(contrastive_loss.FIRST_BIAS)
    images = SiglipImageProcessorPil(size={"height": side, "width": side})
    return model, SiglipProcessor(images, tokenizer)


def clip_tokenizer() -> Any:
    """Return a CLIPTokenizer of the phantom's words: lower case, bytes, ends of words marked, 77 tokens."""
    vocabulary, merges = _clip_pieces()
    return CLIPTokenizer(vocab=dict(vocabulary), merges=list(merges), model_max_length=77)


@functools.cache
def _clip_pieces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return vocabulary and merges."""
    from tokenizers import pre_tokenizers

    # CLIP's own rules are those of an empty one.
    rules = CLIPTokenizer().backend_tokenizer
    words = Counter(
        word
        for text in corpus()
        for word, _ in rules.pre_tokenizer.pre_tokenize_str(rules.normalizer.normalize_str(text))
    )
    merges = _merges(words, VOCABULARY)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Any text can be written: each byte within a word and at its end.
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}{_END}" for letter in letters)]
    pieces += [first + second for first, second in merges]
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}, merges


_END = "</w>"


def _merges(words: Counter[str], most: int) -> list[tuple[str, str]]:
    """Return the merges of a byte-pair encoding (arXiv:1508.07909), the same on every call.

    The library's trainer numbers the ends of words as they happen to come, which differs from run to run.
    """
    spelled = {word: [*word[:-1], f"{word[-1]}{_END}"] for word in words}
    made: list[tuple[str, str]] = []
    while len(made) < most:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in spelled.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        made.append(best)
        for word, parts in spelled.items():
            spelled[word] = _joined(parts, best)
    return made


def _joined(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Return the parts with each occurrence of a pair made one."""
    found: list[str] = []
    for part in parts:
        if found and (found[-1], part) == pair:
            found[-1] += part
        else:
            found.append(part)
    return found


def siglip_tokenizer() -> Any:
    """Return a unigram tokenizer as SentencePiece's, of the phantom's words: lower case and no punctuation, 64 tokens.

    SigLIP's own class needs the sentencepiece package, which this one does without.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    blanks = pre_tokenizers.Metaspace(prepend_scheme="always")
    normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    seen = Counter(word for text in corpus() for word, _ in blanks.pre_tokenize_str(normalizer.normalize_str(text)))
    total = seen.total()
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = dict.fromkeys(["▁", *letters], math.log(1e-3 / total))
    pieces |= {word: math.log(count / total) for word, count in seen.most_common(VOCABULARY)}
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), *pieces.items()], 0))
    backend.normalizer, backend.pre_tokenizer = normalizer, blanks
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="</s>", pad_token="</s>", model_max_length=64
    )
