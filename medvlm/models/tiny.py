"""The tiny base: real PaliGemma classes with about 1.3 M parameters, and a tokenizer of its own.

`medvlm/tiny-random` is this architecture with random weights; `recipes/tiny_base.yaml` trains it, and
`python -m medvlm.models.tiny RUN` packs the result as `medvlm/tiny-base`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.errors import InputError
from medvlm.resources import PACKAGE

if TYPE_CHECKING:
    import torch

IMAGE_SIZE = 112
PATCH_SIZE = 14
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
IMAGE_TOKEN = "<image>"
LOCATION_TOKENS = [f"<loc{i:04d}>" for i in range(1024)]
SEGMENT_TOKENS = [f"<seg{i:03d}>" for i in range(128)]
BPE_VOCABULARY = 1024
INITIAL = 0.088
"""Spread of random weights at width 128, 1 / sqrt(128).

The usual 0.02 suits widths in the thousands; here it would leave attention flat for long."""


def tokenizer(corpus: Iterable[str]) -> Any:
    """Return a GemmaTokenizer trained on `corpus`, with PaliGemma's special, location and segment tokens.

    Bytes stand in for whatever the corpus did not hold, so that any text can be written and read back.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import GemmaTokenizer

    byte_tokens = [f"<0x{i:02X}>" for i in range(256)]
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    bpe.normalizer = normalizers.Replace(" ", "▁")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("▁", "merged_with_next"),
            # Punctuation, digits and line ends never merge with words, as in Gemma's own vocabulary.
            pre_tokenizers.Split(Regex(r"\n|[0-9]|[^\w\s▁]"), "isolated"),
        ]
    )
    letters = [chr(i) for i in range(32, 127)] + ["\n", "▁"]
    trainer = trainers.BpeTrainer(
        vocab_size=BPE_VOCABULARY + len(SPECIAL) + 256,
        special_tokens=SPECIAL + byte_tokens,
        initial_alphabet=letters,
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    import json

    model = json.loads(bpe.to_str())["model"]
    made = GemmaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    made.add_tokens([AddedToken(token, normalized=False) for token in LOCATION_TOKENS + SEGMENT_TOKENS])
    made.add_special_tokens({"additional_special_tokens": [AddedToken(IMAGE_TOKEN, normalized=False, special=True)]})
    made.image_token = IMAGE_TOKEN
    made.image_token_id = made.convert_tokens_to_ids(IMAGE_TOKEN)
    return made


def config(vocabulary: int, image_token_id: int, image_size: int = IMAGE_SIZE) -> Any:
    """Return the PaliGemmaConfig of the tiny architecture.

    Every linear layer's inputs are multiples of 64 and outputs of 32, which bitsandbytes' CPU kernels need.
    """
    from transformers import GemmaConfig, PaliGemmaConfig, SiglipVisionConfig

    vision = SiglipVisionConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=image_size,
        patch_size=PATCH_SIZE,
        vision_use_head=False,
        projection_dim=128,
    )
    text = GemmaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        initializer_range=INITIAL,
        vocab_size=vocabulary,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    return PaliGemmaConfig(
        vision_config=vision,
        text_config=text,
        projection_dim=128,
        hidden_size=128,
        image_token_index=image_token_id,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )


def processor(made: Any, image_size: int = IMAGE_SIZE) -> Any:
    """Return a PaliGemmaProcessor around the tokenizer `made`."""
    from transformers import PaliGemmaProcessor
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    images = SiglipImageProcessorPil(size={"height": image_size, "width": image_size})
    images.image_seq_length = (image_size // PATCH_SIZE) ** 2
    return PaliGemmaProcessor(images, made)


def random_model(image_size: int | None = None) -> tuple[torch.nn.Module, Any]:
    """Return the untrained tiny model (weights from torch's current seed) and its processor."""
    from transformers import PaliGemmaForConditionalGeneration

    from medvlm.data.sources.phantom.base_grammar import vocabulary_corpus

    made = tokenizer(vocabulary_corpus())
    size = image_size or IMAGE_SIZE
    # Rounded up to 64 so that the tied output layer stays aligned.
    vocabulary = -(-len(made) // 64) * 64
    model = PaliGemmaForConditionalGeneration(config(vocabulary, made.image_token_id, size))
    positions = model.get_parameter("model.vision_tower.embeddings.position_embedding.weight")
    positions.data.copy_(sinusoids(size // PATCH_SIZE, positions.shape[1]))
    return model, processor(made, size)


def sinusoids(side: int, width: int) -> torch.Tensor:
    """Return position embeddings [side², width]: sines and cosines of column and row.

    A small tower that begins with them sees where things are in a fraction of the steps (two-dimensional sinusoids as
    in arXiv:2205.01580, with wave lengths that suit a grid of 8 x 8).
    """
    import torch

    frequencies = 100.0 ** -(torch.arange(width // 4) / (width // 4))
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    across = columns.flatten()[:, None] * frequencies
    down = rows.flatten()[:, None] * frequencies
    return torch.cat([across.sin(), across.cos(), down.sin(), down.cos()], dim=1)


def pack(run: Path, target: Path = PACKAGE / "models" / "tiny_base") -> None:
    """Copy a finished run's model to `target` in bfloat16: half the size, same answers.

    Raises:
        InputError: the run did not train a whole model.
    """
    import torch
    from transformers import PaliGemmaForConditionalGeneration

    source = run / "model"
    if not (source / "model.safetensors").is_file():
        raise InputError(f"{run}: no model/model.safetensors; train it with recipes/tiny_base.yaml first")
    target.mkdir(parents=True, exist_ok=True)
    PaliGemmaForConditionalGeneration.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
