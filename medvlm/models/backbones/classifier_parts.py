"""What the classifiers share in being loaded and made small: checks of weights, square pictures, tiny parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, BertTokenizer
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from transformers.utils import logging

from medvlm.errors import InputError
from medvlm.models import tiny
from medvlm.models.positions import image_tokens, resample_positions
from medvlm.models.tiny_tokenizers import rounded, wordpiece

TINY_SIZE = tiny.IMAGE_SIZE
TINY_PATCH = tiny.PATCH_SIZE

TINY_TRANSFORMER: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    # 1 / sqrt(hidden size), as in `models.tiny`.
    "initializer_range": 0.088,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
"""Dimensions of a tiny encoder, as BERT's configuration names them."""


def classifier(
    kind: Any, path: Path, options: Mapping[str, Any], seed: int, new: Sequence[str], **more: Any
) -> torch.nn.Module:
    """Return a model with the weights of a checkpoint that need not have a classifier.

    Args:
        kind: a PreTrainedModel's class.
        path: the checkpoint's folder.
        options: for `from_pretrained`; attention is always eager, there is no other.
        seed: of the weights that the checkpoint has not.
        new: prefixes of those that it may lack, or have in another size.
        more: further arguments of `from_pretrained`.

    Raises:
        InputError: it lacks others.
    """
    verbosity = logging.get_verbosity()
    # What a checkpoint has for its pretraining is reported at length, and meant to stay behind.
    logging.set_verbosity_error()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, facts = kind.from_pretrained(
                path,
                local_files_only=True,
                output_loading_info=True,
                **{**options, "attn_implementation": "eager"},
                **more,
            )
    finally:
        logging.set_verbosity(verbosity)
    left = sorted(name for name in facts["missing_keys"] if not name.startswith(tuple(new)))
    if left:
        raise InputError(f"model: {path} lacks weights ({left[0]}, ...); copy the checkpoint again")
    made: torch.nn.Module = model
    return made


def squares(side: int, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> Any:
    """Return an image processor that makes every picture a square, by bicubic resizing of its whole.

    Args:
        side: in pixels.
        mean: of the normalization; None is 0.5, as std.
        std: of the normalization.
    """
    more = {} if mean is None else {"image_mean": list(mean), "image_std": list(std or mean)}
    return ViTImageProcessorPil(size={"height": side, "width": side}, resample=3, **more)


def squares_as(path: Path, side: int) -> Any:
    """Return `squares` of this side, normalized as a checkpoint's image processor says."""
    images = AutoImageProcessor.from_pretrained(path, local_files_only=True, backend="pil")
    return squares(side, images.image_mean, images.image_std)


def processor(kind: Any, path: Path, side_of: Callable[[Any], int]) -> Any:
    """Return a checkpoint's processor that makes every picture a square.

    Args:
        kind: class of the processor.
        path: the checkpoint's folder.
        side_of: returns the square's side for the checkpoint's configuration.
    """
    config = AutoConfig.from_pretrained(path, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    return kind(squares_as(path, side_of(config)), tokenizer)


def resize_patches(embeddings: Any, image_size: int, patch_size: int) -> None:
    """Give embeddings of patches and a class token another image size, as FLAVA and ViLT have them.

    Args:
        embeddings: the module that holds `position_embeddings` [1, N, D], the class token's first.
        image_size: side of the square image in pixels.
        patch_size: side of a patch in pixels.

    Raises:
        RecipeError: the side is no multiple of the patch.
    """
    count = image_tokens(image_size, patch_size)
    old = embeddings.position_embeddings
    grid = resample_positions(old.data[0, 1:], image_size // patch_size)
    new = torch.cat([old.data[:, :1], grid[None]], dim=1)
    embeddings.position_embeddings = torch.nn.Parameter(new, requires_grad=old.requires_grad)
    embeddings.patch_embeddings.image_size = (image_size, image_size)
    embeddings.patch_embeddings.num_patches = count


def no_family(backbone: str, family: str | None) -> None:
    """Raise InputError where a family is named of a backbone that has just one."""
    if family is not None:
        raise InputError(f"model.id: medvlm/tiny-random-{family}: {backbone} has one form; expected medvlm/tiny-random")


def tiny_tokenizer() -> tuple[Any, int]:
    """Return a small BERT tokenizer, and how many embeddings it needs."""
    made = BertTokenizer(vocab=dict(_vocabulary()))
    return made, rounded(len(made))


@functools.cache
def _vocabulary() -> dict[str, int]:
    return wordpiece()


def begin_with_places(positions: torch.nn.Parameter, size: int, *, class_token: bool) -> None:
    """Let position embeddings [1, N, D] or [N, D] begin with sines and cosines of column and row."""
    waves = tiny.sinusoids(size // TINY_PATCH, positions.shape[-1])
    positions.data.view(-1, positions.shape[-1])[int(class_token) :].copy_(waves)
