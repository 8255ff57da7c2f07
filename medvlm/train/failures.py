"""What ends a run early, and what to set then: memory that ran out, in whatever words, and a loss that diverged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from medvlm.errors import InputError, ResourceError
from medvlm.models.backbones import BACKBONES
from medvlm.recipe.models import Recipe
from medvlm.train.checkpoints import newest

_WORDS = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "is killed by signal: Killed",
)
"""torch's allocator on the CPU, libraries that allocate by themselves, and a worker that the system ended."""

FEWER = "each pair told from fewer others: another, easier task"
"""What a smaller batch is where a batch is its own contrast; accumulated gradients do not make up for it."""


def smaller(recipe: Recipe) -> str:
    """Return settings that take less memory than the recipe's, those that change no result first."""
    part = recipe.train
    found = []
    kind = BACKBONES.get(recipe.model.backbone)
    contrast = kind.output == "match"
    if part.batch_size > 1 and not contrast:
        size = part.batch_size // 2 if part.batch_size % 2 == 0 else 1
        times = part.gradient_accumulation * part.batch_size // size
        found.append(f"train.batch_size={size} with train.gradient_accumulation={times} (the same update)")
    if not part.activation_checkpointing:
        found.append("train.activation_checkpointing=true")
    if part.loss_chunk > 32 and kind.output == "text":
        found.append(f"train.loss_chunk={max(32, part.loss_chunk // 4)}")
    if part.optimizer not in ("adamw_8bit", "paged_adamw_8bit"):
        found.append("train.optimizer=paged_adamw_8bit")
    if kind.quantizable and recipe.quantization.mode == "none" and recipe.adapters.language_model.kind != "full":
        found.append("quantization.mode=nf4")
    if contrast and part.batch_size > 2:
        found.append(f"train.batch_size={part.batch_size // 2} ({FEWER})")
    now = f" than {recipe.model.image_size}" if recipe.model.image_size else ""
    found.append(f"a smaller model.image_size{now}")
    return "set " + ", ".join(found[:-1]) + (", or " if len(found) > 1 else "") + found[-1]


def diverged(step: int, what: str, half: bool, folder: Path) -> InputError:
    """Return the error of a run whose loss or gradient is no number any more.

    Args:
        step: at which.
        what: loss or gradient.
        half: it is in float16, whose numbers end at 65504.
        folder: of the run's checkpoints.
    """
    wider = ", or use model.dtype=bfloat16" if half else ""
    kept = f"; the last good checkpoint is {found}" if (found := newest(folder)) else ""
    return InputError(
        f"step {step}: the {what} is not a number; lower train.learning_rate or the adapters' own{wider}, and start "
        f"anew: with the same settings --resume would come to the same end{kept}"
    )


@contextlib.contextmanager
def memory_errors(hint: str) -> Iterator[None]:
    """Turn exhausted memory into one `ResourceError` that ends with `hint`, what to set."""
    try:
        yield
    except Exception as error:
        named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if named or any(words in str(error) for words in _WORDS):
            raise ResourceError(f"out of memory; {hint}") from error
        raise
