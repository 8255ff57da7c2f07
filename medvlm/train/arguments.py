"""The recipe's training part in the Trainer's words, and how many updates it makes."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import TrainingArguments

from medvlm.recipe.models import Recipe
from medvlm.runs import Run
from medvlm.train.devices import here


def updates_an_epoch(recipe: Recipe, rows: int, devices: int = 1) -> int:
    """Return how many optimizer updates see every row once, on so many devices."""
    batches = math.ceil(rows / (recipe.train.batch_size * devices))
    return max(1, math.ceil(batches / recipe.train.gradient_accumulation))


def updates(recipe: Recipe, rows: int, devices: int = 1) -> int:
    """Return how many optimizer updates the recipe makes on so many devices."""
    if recipe.train.max_steps is not None:
        return recipe.train.max_steps
    return math.ceil(recipe.train.epochs * updates_an_epoch(recipe, rows, devices))


def accumulation(recipe: Recipe, begun: int, devices: int) -> int:
    """Return how many passes an update takes.

    Args:
        recipe: `train.batch_size` is of one device and one pass, also where there are now fewer or more devices.
        begun: devices that the run began with: its updates keep the samples that they had.
        devices: that it has now.
    """
    return math.ceil(recipe.train.gradient_accumulation * begun / devices)


def optimizer_name(recipe: Recipe) -> str:
    """Return the Trainer's name of the optimizer."""
    name = recipe.train.optimizer
    if name == "paged_adamw_8bit" and not torch.cuda.is_available():
        # Pages move between a GPU's memory and the main one; without a GPU there is nothing to move.
        name = "adamw_8bit"
    return {"adamw": "adamw_torch", "adamw_fused": "adamw_torch_fused"}.get(name, name)


def arguments(recipe: Recipe, run: Run, rows: int, validate: bool, begun: int = 1) -> Any:
    """Return the TrainingArguments of a run.

    Args:
        recipe: what to do.
        run: where checkpoints go.
        rows: training rows an epoch.
        validate: there are validation rows.
        begun: devices that the run began with.
    """
    part = recipe.train
    steps = updates(recipe, rows, begun)
    made: Any = TrainingArguments(
        output_dir=str(run.checkpoints),
        run_name=run.path.name,
        project="medvlm",
        trackio_static_space_id=False,
        per_device_train_batch_size=part.batch_size,
        per_device_eval_batch_size=part.batch_size,
        gradient_accumulation_steps=accumulation(recipe, begun, here().count),
        learning_rate=part.learning_rate,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(part.schedule, part.schedule),
        warmup_steps=round(part.warmup * steps),
        max_steps=steps,
        weight_decay=part.weight_decay,
        max_grad_norm=part.clip,
        optim=optimizer_name(recipe),
        logging_strategy="steps",
        logging_steps=part.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validate else "no",
        eval_steps=min(part.eval_every or updates_an_epoch(recipe, rows, begun), steps),
        save_strategy="steps",
        save_steps=part.save_every or max(1, math.ceil(steps / 10)),
        metric_for_best_model=None if part.best == "none" else part.best,
        greater_is_better=None if part.best == "none" else part.best != "loss",
        bf16=recipe.model.dtype == "bfloat16",
        fp16=recipe.model.dtype == "float16",
        use_cpu=not torch.cuda.is_available(),
        seed=recipe.seed,
        data_seed=recipe.seed,
        dataloader_num_workers=part.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        prediction_loss_only=True,
        label_names=["labels"],
        report_to="none",
        disable_tqdm=True,
        activation_checkpointing=part.activation_checkpointing or None,
    )
    # One process has one device: torch's DataParallel, which would take all that are in sight, is not meant.
    made._n_gpu = min(1, made.n_gpu)
    return made
