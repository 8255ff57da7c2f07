"""The loop: Hugging Face's Trainer around a recipe, and the run folder it fills."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
import os
import random
import shutil
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerState, TrainingArguments

from medvlm.cli.common import Progress
from medvlm.data.mixture import Mixture
from medvlm.errors import InputError, MedvlmError, ResourceError, UsageError
from medvlm.io import resource_errors, write_json
from medvlm.models import adapters
from medvlm.models.backbones import BACKBONES
from medvlm.models.load import Loaded, load_base
from medvlm.models.locate import Located, check_weights
from medvlm.recipe.models import Recipe
from medvlm.recipe.resolve import recipe_hash, write_resolved
from medvlm.runs import FAILED, FINISHED, INTERRUPTED, RUNNING, Run
from medvlm.train import callbacks
from medvlm.train.collate import Collator, Examples
from medvlm.train.loss import suffix_loss

PACKAGES = (
    "medvlm", "torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets", "safetensors", "pillow",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return the installed version of every package that a result depends on."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


class SuffixTrainer(Trainer):  # type: ignore[misc]
    """Trainer whose loss is `suffix_loss` over the kept logits only."""

    def __init__(self, *args: Any, per_example: bool, smoothing: float, log: callbacks.StepLog, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.per_example, self.smoothing, self.log_file = per_example, smoothing, log
        # The loss is divided by all tokens (or examples) of the update, not by the number of micro-batches.
        self.loss_is_scaled_for_ga = True

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, torch.Tensor]], device: torch.device) -> Any:
        """Return by what the loss of an update is divided: its tokens, or its examples."""
        if self.per_example:
            return sum(len(batch["labels"]) for batch in batch_samples)
        return super()._get_num_items_in_batch(batch_samples, device)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load a checkpoint's weights.

        Those of a bare model are stored under the names of the checkpoint format, which the Trainer's own loading does
        not translate back: it would go on from the base without a word.
        """
        model = model or self.model
        if hasattr(model, "peft_config"):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        stored = type(model).from_pretrained(resume_from_checkpoint, dtype="auto", local_files_only=True)
        model.load_state_dict(stored.state_dict())

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a batch that `Backbone.collate` made."""
        labels = inputs.pop("labels")
        outputs = model(**inputs, use_cache=False)
        if model.training:
            self.log_file.samples += len(labels)
            self.log_file.tokens += int(inputs["attention_mask"].sum())
            loss = suffix_loss(
                outputs.logits,
                labels,
                count=num_items_in_batch,
                per_example=self.per_example,
                smoothing=self.smoothing,
            )
        else:
            # The validation loss is the mean over examples: that does not depend on how they are batched.
            loss = suffix_loss(outputs.logits, labels, per_example=True)
        return (loss, {"loss": loss}) if return_outputs else loss


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


def train(job: Job, run: Run, show: Progress, *, resume: bool = False) -> Run:
    """Train `job` into `run`'s folder and mark it finished.

    Args:
        job: the recipe, base and data.
        run: its folder, new or, with `resume`, the one to go on with.
        show: told every step.
        resume: go on from the newest whole checkpoint.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when the checkpoint is written.
        ResourceError: disk or memory is exhausted; the last good checkpoint is kept.
    """
    with run.owned():
        facts = _opening_facts(job, run, resume)
        write_resolved(job.recipe, run.path / "recipe.yaml")
        run.record(facts)
        _train(job, run, facts, show, resume)
        _end(run, facts, FINISHED)
        run.finish()
    return run


def _train(job: Job, run: Run, facts: dict[str, Any], show: Progress, resume: bool) -> None:
    """Train and save; whatever ends it early is recorded in run.json."""
    try:
        with resource_errors(run.path, _SMALLER), callbacks.Interrupt() as interrupt:
            loaded, trainer = _prepare(job, run, facts, interrupt, show, resume)
            run.record(facts)
            started = time.perf_counter()
            _run_steps(trainer, _checkpoint(run) if resume else None)
            if interrupt.asked and trainer.state.global_step < trainer.state.max_steps:
                raise KeyboardInterrupt
            _save(trainer.model, loaded, run)
            _close(facts, trainer, run, time.perf_counter() - started)
    except KeyboardInterrupt:
        _end(run, facts, INTERRUPTED)
        raise
    except MedvlmError as error:
        plain = _from_worker(error)
        facts["error"] = str(plain)
        with contextlib.suppress(OSError, ResourceError):
            _end(run, facts, FAILED)
        raise plain from error
    except BaseException as error:
        facts["error"] = " ".join(str(error).split())[:500]
        with contextlib.suppress(OSError, ResourceError):
            _end(run, facts, FAILED)
        raise


_SMALLER = (
    "set train.batch_size=1 with train.gradient_accumulation, train.activation_checkpointing=true, or a smaller "
    "model.image_size"
)


def _run_steps(trainer: SuffixTrainer, checkpoint: str | None) -> None:
    """Train to the last step; where a checkpoint has reached it already, only load that."""
    if checkpoint is not None and _step(checkpoint) >= trainer.args.max_steps:
        trainer._load_from_checkpoint(checkpoint)
        trainer.state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        return
    trainer.train(resume_from_checkpoint=checkpoint)


def _step(checkpoint: str) -> int:
    return int(checkpoint.rsplit("-", 1)[1])


def _from_worker(error: MedvlmError) -> MedvlmError:
    """Return the one line of an error that a DataLoader's worker wrapped into its traceback."""
    text = str(error)
    if "Original Traceback" not in text:
        return error
    last = text.strip().splitlines()[-1]
    return type(error)(last.split(": ", 1)[-1])


def _opening_facts(job: Job, run: Run, resume: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "schema": 1,
        "name": job.recipe.name,
        "status": RUNNING,
        "command": job.command,
        "started": _now(),
        "recipe_hash": recipe_hash(job.recipe),
        "seed": job.recipe.seed,
        "versions": versions(),
        "data": job.train.facts(),
        "license": job.license,
        **({"group": job.group} if job.group else {}),
    }
    if resume:
        old = run.facts()
        if [d["fingerprint"] for d in old["data"]] != [d["fingerprint"] for d in facts["data"]]:
            raise InputError(f"{run.path}: its data has changed since, so it cannot go on; start a new run")
        check_weights(old)
        facts["started"] = old["started"]
        facts["command"] = old["command"]
        facts["resumed"] = [*old.get("resumed", []), _now()]
    return facts


def _prepare(
    job: Job, run: Run, facts: dict[str, Any], interrupt: callbacks.Interrupt, show: Progress, resume: bool
) -> tuple[Loaded, SuffixTrainer]:
    recipe = job.recipe
    torch.manual_seed(recipe.seed)
    loaded = load_base(recipe, job.located)
    kind = BACKBONES.get(recipe.model.backbone)
    model = adapters.apply(loaded.model, recipe.adapters, kind)
    adapters.trainable_in_float32(model)
    facts["model"] = loaded.facts
    facts["census"] = {name: dataclasses.asdict(count) for name, count in adapters.census(model, kind).items()}
    checkpoint = _checkpoint(run) if resume else None
    log = callbacks.StepLog(run.path / "metrics.jsonl", _step(checkpoint) if checkpoint else 0, show)
    places = list(range(len(job.validation)))
    limit = recipe.train.eval_samples
    if len(places) > limit:
        places = sorted(random.Random(recipe.seed).sample(places, limit))
    trainer = SuffixTrainer(
        model=model,
        args=_arguments(recipe, run, len(job.train), bool(places)),
        train_dataset=Examples(job.train, recipe.prompts),
        eval_dataset=Examples(job.validation, recipe.prompts, places) if places else None,
        data_collator=Collator(loaded.backbone),
        callbacks=[log, interrupt],
        per_example=recipe.train.loss == "example",
        smoothing=recipe.train.label_smoothing,
        log=log,
    )
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return loaded, trainer


def check_one_device() -> None:
    """Raise where training would be spread over several devices, which epochs and run folders do not count with yet.

    Raises:
        UsageError: started by a launcher of several processes, or with several GPUs in sight.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("medvlm trains on one device; start it without torchrun or accelerate launch")
    if torch.cuda.device_count() > 1:
        raise UsageError("medvlm trains on one device; choose it with CUDA_VISIBLE_DEVICES=0")


def updates(recipe: Recipe, rows: int) -> int:
    """Return how many optimizer updates the recipe makes on one device."""
    if recipe.train.max_steps is not None:
        return recipe.train.max_steps
    batches = math.ceil(rows / recipe.train.batch_size)
    a_epoch = max(1, math.ceil(batches / recipe.train.gradient_accumulation))
    return math.ceil(recipe.train.epochs * a_epoch)


def _arguments(recipe: Recipe, run: Run, rows: int, validate: bool) -> Any:
    part = recipe.train
    steps = updates(recipe, rows)
    every_epoch = max(1, math.ceil(math.ceil(rows / part.batch_size) / part.gradient_accumulation))
    return TrainingArguments(
        output_dir=str(run.checkpoints),
        per_device_train_batch_size=part.batch_size,
        per_device_eval_batch_size=part.batch_size,
        gradient_accumulation_steps=part.gradient_accumulation,
        learning_rate=part.learning_rate,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(part.schedule, part.schedule),
        warmup_steps=round(part.warmup * steps),
        max_steps=steps,
        weight_decay=part.weight_decay,
        max_grad_norm=part.clip,
        optim={"adamw": "adamw_torch", "paged_adamw_8bit": "paged_adamw_8bit"}[part.optimizer],
        logging_strategy="steps",
        logging_steps=part.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validate else "no",
        eval_steps=min(part.eval_every or every_epoch, steps),
        save_strategy="steps",
        save_steps=part.save_every or max(1, math.ceil(steps / 10)),
        save_total_limit=part.keep_checkpoints,
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


def _checkpoint(run: Run) -> str | None:
    """Return the newest whole checkpoint's path, or None to begin again."""
    found = sorted(run.checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))
    # trainer_state.json is what the Trainer writes last.
    whole = [path for path in found if (path / "trainer_state.json").is_file()]
    return str(whole[-1]) if whole else None


def _save(model: torch.nn.Module, loaded: Loaded, run: Run) -> None:
    """Write the adapter (with components trained whole) or the whole model, whole or not at all."""
    wrapped = hasattr(model, "peft_config")
    whole = not wrapped and all(p.requires_grad for n, p in model.named_parameters() if "language_model" in n)
    target = run.model if whole else run.adapter
    building = target.with_name(f".{target.name}")
    shutil.rmtree(building, ignore_errors=True)
    if wrapped or whole:
        model.save_pretrained(building)  # type: ignore[operator]
    else:
        _save_components(model, building)
    loaded.processor.save_pretrained(building)
    shutil.rmtree(target, ignore_errors=True)
    building.rename(target)


def _save_components(model: torch.nn.Module, folder: Path) -> None:
    """Write the parameters that were trained, where neither LoRA nor the whole model was."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    trained = {n: p.detach().contiguous() for n, p in model.named_parameters() if p.requires_grad}
    save_file(trained, folder / "components.safetensors", metadata={"format": "pt"})


def _close(facts: dict[str, Any], trainer: SuffixTrainer, run: Run, seconds: float) -> None:
    log = trainer.log_file
    seconds += log.earlier_seconds
    facts["result"] = {"train_loss": log.mean_loss(), "steps": trainer.state.global_step}
    history = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    if history:
        facts["result"]["eval_loss"] = history[-1]
    write_json(
        run.path / "compute.json",
        {
            "device": callbacks.device_name(),
            "seconds": round(seconds, 3),
            "samples": log.samples,
            "tokens": log.tokens,
            "samples_per_second": round(log.samples / seconds, 3),
            "tokens_per_second": round(log.tokens / seconds, 1),
            "peak_memory_bytes": callbacks.peak_memory(),
            "steps": trainer.state.global_step,
        },
    )


def _end(run: Run, facts: dict[str, Any], status: str) -> None:
    facts["status"] = status
    facts["finished"] = _now()
    run.record(facts)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
