"""Where curves are shown: TensorBoard, Weights & Biases, Trackio, each by transformers' own callback.

Nothing leaves the machine unless asked for: TensorBoard writes into the run's folder, Trackio into its own local data
base (TRACKIO_DIR moves it), W&B into the run's folder, offline until the environment's WANDB_MODE says otherwise
(`wandb sync RUN/wandb/offline-*` sends it later).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from medvlm.errors import MissingExtraError
from medvlm.recipe.models import Recipe


def check(recipe: Recipe) -> None:
    """Raise where a tracker of the recipe is not installed.

    Raises:
        MissingExtraError: with the pip line.
    """
    for name in recipe.train.trackers:
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(f"train.trackers: {name}", name)


def callbacks(recipe: Recipe, folder: Path, start: int) -> list[TrainerCallback]:
    """Return the callbacks of the recipe's trackers.

    Args:
        recipe: which trackers.
        folder: of the run; its name is the run's name in every tracker.
        start: the step of the checkpoint that training goes on from; what was shown of later ones is dropped where
            the tracker can do that.
    """
    makers: dict[str, Callable[[], TrainerCallback]] = {
        "tensorboard": lambda: _tensorboard(folder, start),
        "wandb": lambda: _wandb(folder),
        "trackio": _trackio,
    }
    return [makers[name]() for name in dict.fromkeys(recipe.train.trackers)]


PROJECT = "medvlm"


def _tensorboard(folder: Path, start: int) -> TrainerCallback:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    # Events of steps after the checkpoint are hidden, not shown twice.
    purge = start + 1 if start else None
    return TensorBoardCallback(SummaryWriter(str(folder / "tensorboard"), purge_step=purge))


def _wandb(folder: Path) -> TrainerCallback:
    from transformers.integrations import WandbCallback

    resolved = folder.resolve()
    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_PROJECT", PROJECT)
    os.environ.setdefault("WANDB_SILENT", "true")
    # One folder is one run, also when it is resumed, and also when several are trained by one process.
    os.environ.update(
        WANDB_DIR=str(resolved), WANDB_RUN_ID=resolved.name, WANDB_NAME=resolved.name, WANDB_RESUME="allow"
    )

    class Callback(WandbCallback):  # type: ignore[misc]
        """Closes its run at the end, so that a process's next one has its own."""

        def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            super().on_train_end(args, state, control, **more)
            self._wandb.finish()

    return Callback()


def _trackio() -> TrainerCallback:
    from transformers.integrations import TrackioCallback

    class Callback(TrackioCallback):  # type: ignore[misc]
        """Keeps its messages, written by `print`, out of the command's output."""

        def setup(self, args: Any, state: Any, model: Any, **more: Any) -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                super().setup(args, state, model, **more)

        def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                super().on_train_end(args, state, control, **more)

    return Callback()
