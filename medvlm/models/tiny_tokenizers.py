"""Small tokenizers of the kinds that published models have, trained on the phantom's words, for the tiny models."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

VOCABULARY = 1024
"""Learned pieces beside letters, bytes and special tokens."""


def corpus() -> Iterable[str]:
    """Return the texts that the embedded sample's grammar can make."""
    from medvlm.data.sources.phantom.base_grammar import vocabulary_corpus

    return vocabulary_corpus()


def byte_level(special: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return vocabulary and merges of a byte-level BPE, as GPT-2's, OPT's, Qwen's and SmolLM's are.

    Args:
        special: tokens that get the first ids.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY + len(special) + 256,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    return _vocabulary_and_merges(bpe)


def sentencepiece(special: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return vocabulary and merges of a BPE over text whose blanks are U+2581, bytes to fall back on, as LLaMA's.

    Args:
        special: tokens that get the first ids; `<unk>` is among them.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY + len(special) + 256,
        special_tokens=[*special, *(f"<0x{i:02X}>" for i in range(256))],
        initial_alphabet=["▁", *(chr(i) for i in range(33, 127))],
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    return _vocabulary_and_merges(bpe)


def wordpiece(special: Sequence[str] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")) -> dict[str, int]:
    """Return the vocabulary of a lower-case WordPiece, as BERT's (arXiv:1810.04805).

    Args:
        special: tokens that get the first ids.
    """
    from tokenizers import normalizers, pre_tokenizers

    # Whole words, not trained pieces: the trainer of WordPiece orders ties by chance, and a model that is made again
    # needs the same tokenizer.
    lower, split = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter(word for text in corpus() for word, _ in split.pre_tokenize_str(lower.normalize_str(text)))
    common = sorted(words, key=lambda word: (-words[word], word))[:VOCABULARY]
    # Whole and within a word, so that any text of these can be written.
    letters = [chr(number) for number in range(33, 127) if not chr(number).isupper()]
    tokens = [*special, *letters, *(f"##{letter}" for letter in letters), *common]
    return {token: place for place, token in enumerate(dict.fromkeys(tokens))}


def _vocabulary_and_merges(bpe: Any) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(bpe.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def rounded(size: int) -> int:
    """Return a vocabulary's size rounded up to 64, so that its matrices stay aligned (and bitsandbytes takes them)."""
    return -(-size // 64) * 64
