"""From a job to a Trainer that is ready: model with adapters, data, batches, trackers, what the best is chosen by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from medvlm.cli.common import Progress
from medvlm.data.mixture import Mixture
from medvlm.errors import RecipeError
from medvlm.evaluate.predict import Predictor
from medvlm.io import sha256_file, stable_hash
from medvlm.models import adapters, load, trained
from medvlm.models.backbones import BACKBONES
from medvlm.models.backbones.base import IGNORED, Backbone
from medvlm.models.backbones.classifier import ClassifierBackbone
from medvlm.models.load import Loaded
from medvlm.models.locate import Located
from medvlm.recipe.models import Recipe
from medvlm.runs import Run, open_run
from medvlm.train import callbacks, checkpoints, few_shot, trackers
from medvlm.train.arguments import arguments
from medvlm.train.batches import Batches, Chance, Shared, Streamed, lengths
from medvlm.train.collate import Collator, Examples, prefix
from medvlm.train.compute import Meter
from medvlm.train.devices import here
from medvlm.train.flops import FlopModel
from medvlm.train.mixing import CountingCollator, EveryUpdate, Numbered, part_names
from medvlm.train.trainer import SuffixTrainer
from medvlm.train.validation import figure, generated, greedy, sample


@dataclasses.dataclass(slots=True)
class Job:
    """One run to be trained: everything is checked and loaded before its folder is made."""

    recipe: Recipe
    located: Mapping[str, Located]
    train: Mixture
    validation: Mixture
    command: str
    license: dict[str, Any]
    group: dict[str, Any] | None = None
    """Of which stages or variants it is one: id, kind, member, members, hash."""


def prepare(
    job: Job, run: Run, facts: dict[str, Any], interrupt: callbacks.Interrupt, show: Progress, checkpoint: Path | None
) -> tuple[Loaded, SuffixTrainer]:
    """Load the model, wrap it, and set the Trainer up; what there is to say of it goes into `facts`."""
    recipe = job.recipe
    kind = BACKBONES.get(recipe.model.backbone)
    torch.manual_seed(recipe.seed)
    loaded = load.load_base(recipe, job.located)
    places = sample(len(job.validation), recipe.train.eval_samples, recipe.seed)
    _fit(job, run, loaded, facts, resumed=checkpoint is not None)
    _check_figure(job, loaded, places)
    caches = _caches(job, loaded, kind, show, places)
    loaded.model = _wrapped(recipe, loaded, kind, facts, checkpoint)
    facts["model"] = loaded.facts
    facts["census"] = {n: dataclasses.asdict(count) for n, count in adapters.census(loaded.model, kind).items()}
    shots = few_shot.trained_with(job.train, recipe, loaded)
    examples = Examples(job.train, recipe.prompts, cache=caches, few_shot=shots)
    held_out = Examples(job.validation, recipe.prompts, places, caches, shots)
    packed = recipe.train.batching == "packed"
    start = checkpoints.step_of(checkpoint) if checkpoint else 0
    go_on = callbacks.GoOn()
    logs = []
    if here().first:
        logs = [
            callbacks.StepLog(run.path / "metrics.jsonl", start, show),
            *trackers.callbacks(recipe, run.path, start),
        ]
    trainer = SuffixTrainer(
        model=loaded.model,
        args=arguments(recipe, run, len(job.train), bool(places), facts["devices"]["begun"]),
        train_dataset=Numbered(examples),
        eval_dataset=Numbered(held_out) if places else None,
        data_collator=CountingCollator(
            Collator(loaded.backbone, packed, recipe.train.pack_tokens), FlopModel(loaded.model, recipe, kind).batch
        ),
        callbacks=[go_on, callbacks.Bounded(loaded.backbone), *logs, interrupt],
        recipe=recipe,
        mixture=job.train,
        validation=job.validation,
        meter=Meter(recipe, run.path),
        batches=_batches(recipe, examples, loaded, facts["devices"]["begun"]),
        figure=_figure(job, loaded, shots),
        checkpoint=checkpoint,
    )
    go_on.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return loaded, trainer


def _fit(job: Job, run: Run, loaded: Loaded, facts: dict[str, Any], *, resumed: bool) -> None:
    """Let the backbone take what it must know of the training rows, and keep it beside the run."""
    kind = type(loaded.backbone)
    if kind.fit is Backbone.fit:
        return
    if resumed:
        trained.restore_fitted(loaded, run)
        return
    earlier = None
    if job.recipe.model.start is not None:
        start = open_run(job.recipe.model.start)
        trained.check_start(start, job.recipe)
        earlier = trained.fitted_of(start, kind)
    pairs = [(prefix(text, job.recipe.prompts), str(text["target"])) for text in job.train.texts()]
    fitted = loaded.backbone.fit(loaded.model, pairs, earlier)
    facts["fitted"] = stable_hash(fitted)
    if here().first:
        run.keep_fitted(fitted)


def _check_figure(job: Job, loaded: Loaded, places: Sequence[int]) -> None:
    """Raise where the best checkpoint is to be chosen by a loss that no validation row has.

    Raises:
        RecipeError: says what to set.
    """
    backbone = loaded.backbone
    if job.recipe.train.best != "loss" or not isinstance(backbone, ClassifierBackbone):
        return
    if all(backbone.class_of(str(job.validation.text(place)["target"])) == IGNORED for place in places):
        problem = (
            f"train.best: 'loss': none of {len(places)} validation rows has a loss, since the classifier knows none of "
            "their answers; expected none, or accuracy"
        )
        raise RecipeError("recipe", [problem])


def _caches(job: Job, loaded: Loaded, kind: type[Backbone], show: Progress, places: Sequence[int]) -> Any:
    """Return what is kept of the pictures, made now where it is missing, or None; of the validation, only `places`."""
    parts = job.recipe.data
    if not any(part.cache_pixels or part.cache_features for part in parts):
        return None
    from medvlm.data import cache
    from medvlm.models import features

    # The first process makes what is missing; the others find it made.
    if not here().first:
        here().wait()
    caches = cache.prepare(job.recipe, [job.train, job.validation], loaded, show, [None, places])
    if here().first:
        here().wait()
    if any(part.cache_features for part in parts):
        features.skip_tower(loaded.model, kind)
    return caches


def _wrapped(
    recipe: Recipe, loaded: Loaded, kind: type[Backbone], facts: dict[str, Any], checkpoint: Path | None
) -> torch.nn.Module:
    """Return the model with its adapters, what an earlier run trained in them, and made fast."""
    model = adapters.apply(loaded.model, recipe.adapters, kind)
    adapters.trainable_in_float32(model)
    # A checkpoint holds all that is trained, so that a resumed run does without the earlier one.
    if recipe.model.start is not None and checkpoint is None:
        start = open_run(recipe.model.start)
        trained.begin_from(model, start, recipe, kind)
        facts["start"] = {"run": start.path.name, "weights": _weights_of(start)}
    loaded.facts["speed_up"] = load.speed_up(model, recipe)
    return model


def _weights_of(run: Run) -> str:
    """Return a hash over the files of a run's trained weights."""
    files = sorted(path for folder in (run.adapter, run.model) for path in folder.glob("*.safetensors"))
    return stable_hash([[path.name, sha256_file(path)] for path in files])


def _batches(
    recipe: Recipe, examples: Examples, loaded: Loaded, begun: int
) -> torch.utils.data.Sampler[list[int]] | None:
    """Return which examples share a batch on this device; None where the Trainer's own shuffle does.

    Where a batch is its own contrast, it stays as it is, shared out: another cut of the update would be another task.

    Args:
        begun: devices that the run began with, by which the epoch is ordered and cut into updates.
    """
    part, count = recipe.train, here().count
    alone = begun == count == 1
    whole = _whole_batches(recipe, examples, loaded, part.batch_size * begun)
    if alone:
        return whole
    whole = whole or Chance(len(examples), part.batch_size * begun, recipe.seed)
    together = 1 if loaded.backbone.output == "match" else part.gradient_accumulation
    return Shared(whole, together, part.batch_size, here().rank, count)


def _whole_batches(
    recipe: Recipe, examples: Examples, loaded: Loaded, size: int
) -> torch.utils.data.Sampler[list[int]] | None:
    """Return the batches of `size` examples, of all devices together; None for a plain shuffle."""
    part = recipe.train
    if recipe.mixture.streaming:
        return Streamed(examples.mixture.blocks(), size, recipe.seed)
    tokens = lengths(examples, loaded.backbone) if part.batching == "grouped" else None
    if part.mix == "every_update":
        owners, names = [pick.part for pick in examples.mixture.picks], part_names(examples.mixture)
        return EveryUpdate(owners, names, size, part.gradient_accumulation, recipe.seed, tokens)
    if part.batching == "shuffled":
        return None
    return Batches(tokens or [0] * len(examples), size, part.batching, recipe.seed)


def _figure(job: Job, loaded: Loaded, shots: few_shot.FewShot | None) -> Callable[[torch.nn.Module], float] | None:
    """Return what computes the figure that the best checkpoint is chosen by; None where that is the loss, or none."""
    recipe = job.recipe
    name = recipe.train.best
    if name in ("none", "loss"):
        return None
    places = sample(len(job.validation), recipe.train.best_samples, recipe.seed)
    references = [str(job.validation.text(place)["target"]) for place in places]
    if shots is None and recipe.prompts.shots:
        shots = few_shot.chooser(job.train, recipe, loaded)

    def value(model: torch.nn.Module) -> float:
        predictor = Predictor(dataclasses.replace(loaded, model=model), greedy(recipe))
        if here().sharding in ("fsdp2", "deepspeed"):
            # Each pass takes all devices, so all of them write the same texts.
            return figure(name, generated(predictor, job.validation, places, recipe, shots), references)
        own = generated(predictor, job.validation, here().part(places), recipe, shots)
        return figure(name, here().joined(own), references)

    return value
