"""The loop: Hugging Face's Trainer around a recipe, and the run folder it fills."""

from __future__ import annotations

import contextlib
import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState

from medvlm.cli.common import Progress
from medvlm.errors import InputError, MedvlmError, RecipeError, ResourceError
from medvlm.io import resource_errors, write_json
from medvlm.models import trained
from medvlm.models.backbones import BACKBONES
from medvlm.models.load import Loaded
from medvlm.models.locate import check_weights
from medvlm.recipe.models import Recipe
from medvlm.recipe.resolve import recipe_hash, write_resolved
from medvlm.runs import FAILED, FINISHED, INTERRUPTED, RUNNING, Run
from medvlm.train import callbacks, checkpoints, devices, launch, trackers
from medvlm.train.arguments import updates
from medvlm.train.failures import memory_errors, smaller
from medvlm.train.setup import Job, prepare
from medvlm.train.spread import fold, whole
from medvlm.train.trainer import SuffixTrainer

__all__ = ["Job", "check_machine", "check_sharding", "train", "updates", "versions"]

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
    trackers.check(job.recipe)
    first = devices.here().first
    with run.owned() if first else contextlib.nullcontext():
        facts = devices.here().from_first(lambda: _opening_facts(job, run, resume))
        _check_devices(facts, resume, job.recipe)
        if first:
            launch.tell_run(run.path)
            write_resolved(job.recipe, run.path / "recipe.yaml")
        _record(run, facts)
        _train(job, run, facts, show, resume)
        _end(run, facts, FINISHED)
        if first:
            run.finish()
        devices.here().wait()
    return run


def _train(job: Job, run: Run, facts: dict[str, Any], show: Progress, resume: bool) -> None:
    """Train and save; whatever ends it early is recorded in run.json."""
    begun = facts["devices"]["begun"]
    checkpoint = devices.here().from_first(lambda: checkpoints.newest(run.checkpoints) if resume else None)
    try:
        if checkpoint is not None and checkpoints.step_of(checkpoint) < updates(job.recipe, len(job.train), begun):
            _check_best(checkpoint)
        hint = smaller(job.recipe)
        with resource_errors(run.path, hint), memory_errors(hint), callbacks.Interrupt(show.silent) as interrupt:
            loaded, trainer = prepare(job, run, facts, interrupt, show, checkpoint)
            _record(run, facts)
            _run_steps(trainer, checkpoint)
            if interrupt.asked and trainer.state.global_step < trainer.state.max_steps:
                raise KeyboardInterrupt
            _close(facts, trainer, loaded, run)
    except KeyboardInterrupt:
        _end(run, facts, INTERRUPTED)
        raise
    except MedvlmError as error:
        plain = _plain(error, run)
        facts["error"] = str(plain)
        with contextlib.suppress(OSError, ResourceError):
            _end(run, facts, FAILED)
        raise plain from error
    except BaseException as error:
        facts["error"] = launch.first_cause(str(error)) or " ".join(str(error).split())[:500]
        with contextlib.suppress(OSError, ResourceError):
            _end(run, facts, FAILED)
        raise


def _run_steps(trainer: SuffixTrainer, checkpoint: Path | None) -> None:
    """Train to the last step; where a checkpoint has reached it already, only load that."""
    meter, counters = trainer.meter, trainer.counters
    meter.start(*(int(counters.get(key, 0)) for key in ("samples", "tokens", "flops")))
    if devices.here().count > 1:
        # What is dropped out on one device says nothing of the others.
        torch.manual_seed(trainer.recipe.seed + devices.here().rank)
    try:
        if checkpoint is not None and checkpoints.step_of(checkpoint) >= trainer.args.max_steps:
            trainer._load_from_checkpoint(str(checkpoint))
            trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        else:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        meter.stop()


def _plain(error: MedvlmError, run: Run) -> MedvlmError:
    """Return an error's one line, also of one that a DataLoader's worker wrapped into its traceback.

    Where disk or memory ran out, it ends with what there is to go on from.
    """
    text = str(error)
    if "Original Traceback" in text:
        text = text.strip().splitlines()[-1].split(": ", 1)[-1]
    if isinstance(error, ResourceError):
        text = f"{text}; {checkpoints.last_words(run.checkpoints)}"
    return error if text == str(error) else type(error)(text)


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
        "devices": _devices(devices.here().count),
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
        facts |= {key: old[key] for key in ("start", "fitted") if key in old}
        # Its updates keep their samples, however many devices share them now.
        facts["devices"] = _devices(old.get("devices", {}).get("begun", 1))
    return facts


def _devices(begun: int) -> dict[str, Any]:
    """Return what run.json says of the devices: how many there are, began the run, and how they share the model."""
    here = devices.here()
    return {"count": here.count, "begun": begun, "sharding": here.sharding}


def _check_devices(facts: dict[str, Any], resume: bool, recipe: Recipe) -> None:
    """Raise where a run cannot go on with another number of devices.

    DeepSpeed's checkpoints are of each device's part, and a contrast is as large as the batch of all devices together.

    Raises:
        InputError: says how many to go on with.
    """
    now = facts["devices"]
    if resume and now["sharding"] == "deepspeed" and now["begun"] != now["count"]:
        raise InputError(
            f"DeepSpeed goes on with as many devices as before: --devices {now['begun']}; FSDP2 with any number"
        )
    part = recipe.train
    if resume and BACKBONES.get(recipe.model.backbone).output == "match" and now["begun"] != now["count"]:
        pairs, each = part.batch_size * now["begun"], -(-part.batch_size * now["begun"] // now["count"])
        raise InputError(
            f"{recipe.name}: this run holds {pairs} pairs against each other, on {now['begun']} devices: go on with "
            f"--devices {now['begun']}, or start a new run with train.batch_size={each}"
        )


def check_machine(recipe: Recipe) -> None:
    """Raise where this machine cannot train the recipe, before anything is loaded or made.

    Raises:
        MissingExtraError: a tracker is not installed.
    """
    trackers.check(recipe)


def check_sharding(recipe: Recipe, sharding: str) -> None:
    """Raise where a model that is shared in parts cannot be trained as the recipe says.

    Raises:
        RecipeError: says what to set.
    """
    problems = []
    if sharding in ("fsdp2", "deepspeed") and recipe.quantization.mode == "nf4":
        stored = recipe.quantization.storage
        if stored == "uint8":
            wanted = recipe.quantization.compute_dtype
            problems.append(
                f"quantization.storage: 'uint8': bytes cannot be shared by several devices; expected {wanted}"
            )
    if sharding == "fsdp2" and recipe.train.optimizer.endswith("8bit"):
        problems.append(
            f"train.optimizer: '{recipe.train.optimizer}': bitsandbytes takes no parts of weights; expected adamw or "
            "adamw_fused, whose states FSDP2 shares among the devices"
        )
    name = recipe.model.backbone
    if sharding in ("fsdp2", "deepspeed") and BACKBONES.get(name).output == "match":
        problems.append(
            f"model.backbone: '{name}': it cannot be shared in parts; expected --devices alone, which keeps all of it "
            "on each device"
        )
    if problems:
        raise RecipeError("recipe", problems)


def _close(facts: dict[str, Any], trainer: SuffixTrainer, loaded: Loaded, run: Run) -> None:
    """Save what was trained, of the best step where one was to be chosen, and sum the run up."""
    state = trainer.state
    step = state.global_step
    facts["result"] = {"train_loss": callbacks.mean_loss(run.path / "metrics.jsonl"), "steps": step}
    if trainer.recipe.train.best != "none":
        step = _take_best(facts["result"], trainer, run)
    fold(trainer.outer)
    with whole(trainer.model, keep=devices.here().first):
        if devices.here().first:
            trained.save(trainer.model, loaded.processor, run.path)
    held_out = [entry for entry in state.log_history if "eval_loss" in entry and entry["step"] <= step]
    if held_out:
        facts["result"]["eval_loss"] = held_out[-1]["eval_loss"]
    trainer.meter.stop()
    spent = trainer.meter.facts(state.global_step)
    if devices.here().first:
        write_json(run.path / "compute.json", spent)


def _take_best(result: dict[str, Any], trainer: SuffixTrainer, run: Run) -> int:
    """Load the best step's weights and return the step; the last one's stay, and it is said, if they are gone."""
    state, chosen = trainer.state, trainer.recipe.train.best
    step = int(state.best_global_step)
    found = run.checkpoints / f"checkpoint-{step}"
    if not checkpoints.is_whole(found):
        result["best_gone"] = f"{found}: the best checkpoint by {chosen} is gone; the last step was saved"
        return int(state.global_step)
    trainer._load_from_checkpoint(str(found))
    result["best"] = {"by": chosen, "step": step, "value": state.best_metric}
    return step


def _check_best(checkpoint: Path) -> None:
    """Raise where the best checkpoint so far has been removed, before training goes on for hours.

    Raises:
        InputError: says what to do.
    """
    # None where none is chosen.
    step = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")).best_global_step
    found = checkpoint.parent / f"checkpoint-{step}"
    if step and not checkpoints.is_whole(found):
        raise InputError(f"{found}: the best checkpoint so far is gone; put it back, or start a new run")


def _end(run: Run, facts: dict[str, Any], status: str) -> None:
    facts["status"] = status
    facts["finished"] = _now()
    _record(run, facts)


def _record(run: Run, facts: dict[str, Any]) -> None:
    if devices.here().first:
        run.record(facts)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
