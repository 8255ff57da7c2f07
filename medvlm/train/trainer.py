"""The Trainer: our loss, optimizer groups, batches, validation and checkpoints inside Hugging Face's loop."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from transformers import Trainer

from medvlm.data.mixture import Mixture
from medvlm.models import adapters
from medvlm.models.backbones import BACKBONES
from medvlm.models.backbones.rows import finished
from medvlm.models.components import Places
from medvlm.models.load import decoder_layers
from medvlm.recipe.models import COMPONENTS, Recipe
from medvlm.train import checkpoints, devices
from medvlm.train.batches import InOrder, Shared
from medvlm.train.compute import Meter
from medvlm.train.failures import diverged
from medvlm.train.mixing import HELD, PartLosses
from medvlm.train.spread import (
    fold,
    full,
    head_at_hand,
    left_out,
    optimizer_state,
    part_optimizer_state,
    spread,
    unfolded,
)
from medvlm.train.validation import random_states, restore_random_states, undisturbed


class SuffixTrainer(Trainer):  # type: ignore[misc]
    """Trainer whose loss is `forward_loss` and whose checkpoints are whole or not counted.

    Args:
        recipe: of the run.
        mixture: what is trained on; names the data sets.
        validation: what is validated on.
        meter: counts samples, tokens and operations.
        batches: which examples share a batch; None shuffles as the Trainer does.
        figure: what the best checkpoint is chosen by, of the model as it is now; None where it is the loss.
        checkpoint: the one that training goes on from.
    """

    control: Any

    def __init__(
        self,
        *args: Any,
        recipe: Recipe,
        mixture: Mixture,
        validation: Mixture,
        meter: Meter,
        batches: torch.utils.data.Sampler[list[int]] | None = None,
        figure: Callable[[torch.nn.Module], float] | None = None,
        checkpoint: Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.recipe, self.validation, self.meter, self.batches, self.figure = recipe, validation, meter, batches, figure
        self.per_example = recipe.train.loss == "example"
        self.parts = PartLosses(mixture, self.per_example)
        # The loss is divided by all tokens (or examples) of the update, not by the number of micro-batches.
        self.loss_is_scaled_for_ga = True
        self.counters = checkpoints.counters_of(checkpoint)
        self.here = devices.here()
        self.outer: Any = None
        """What spreads the model over several devices, once there is an optimizer to be made; None on one device."""
        if self.here.first:
            self.parts.restore(self.counters.get("parts"))
        self.started = time.perf_counter()
        self._update_loss: torch.Tensor | float = 0.0
        self._update_held = (0, 0, 0)
        self._rates: list[float] = []
        self._logged = (0, 0.0)

    def seconds(self) -> float:
        """Return the seconds that the run has taken up to this step, earlier sessions up to their checkpoint."""
        return float(self.counters.get("seconds", 0.0)) + time.perf_counter() - self.started

    def get_train_dataloader(self) -> Any:
        """Return the loader of the chosen batches."""
        return (
            super().get_train_dataloader() if self.batches is None else self._loader(self.train_dataset, self.batches)
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Return the loader of the validation examples; each device has its share of every batch."""
        if self.here.count == 1:
            return super().get_eval_dataloader(eval_dataset)
        size, count = self.args.per_device_eval_batch_size, self.here.count
        batches = InOrder(len(self.eval_dataset), size * count)
        return self._loader(self.eval_dataset, Shared(batches, 1, size, self.here.rank, count))

    def _loader(self, dataset: Any, batches: torch.utils.data.Sampler[list[int]]) -> Any:
        loader: Any = torch.utils.data.DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        if self.here.count == 1:
            return self.accelerator.prepare(loader)
        # The batches are this device's own already.
        return prepare_data_loader(
            loader,
            self.accelerator.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            dispatch_batches=False,
        )

    def create_optimizer(self, model: Any = None) -> Any:
        """Return the optimizer, each component with its own learning rate."""
        if self.optimizer is None:
            self._spread()
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            groups = adapters.parameter_groups(self.model, self.recipe, BACKBONES.get(self.recipe.model.backbone))
            self.optimizer_cls_and_kwargs = (kind, {**options, "params": groups})
        return super().create_optimizer(model)

    def _spread(self) -> None:
        """Put the model on all devices; before the optimizer is made, since sharding makes other parameters."""
        if self.here.count == 1 or self.here.sharding == "deepspeed" or self.outer is not None:
            return
        model = self.accelerator.prepare_model(self.model, evaluation_mode=True)
        backbone, kind = self.data_collator.collator.backbone, BACKBONES.get(self.recipe.model.backbone)
        bare = model.get_base_model() if hasattr(model, "get_base_model") else model
        has_decoder = "language_model" in kind.components_of(bare.config)
        layers = decoder_layers(bare, kind) if has_decoder else []
        self.outer = spread(model, backbone.losses, self.here, self.accelerator.device, layers)

    def _wrap_model(self, model: torch.nn.Module, training: bool = True, dataloader: Any = None) -> Any:
        """Return what training calls."""
        return self.outer if self.outer is not None else super()._wrap_model(model, training, dataloader)

    def learning_rates(self) -> dict[str, float]:
        """Return the rates that the last update was made with: train.learning_rate's, and of each trained component.

        Those of the components stand there only where one has its own.
        """
        if not self._rates:
            return {}
        base = self.recipe.train.learning_rate
        # What the schedule had made of the first group's rate; one ratio holds for all.
        found = {"learning_rate": self._rates[0] * (base / self.optimizer.param_groups[0]["initial_lr"])}
        if any(self.recipe.adapters.part(name).learning_rate for name in COMPONENTS):
            groups = zip(self.optimizer.param_groups, self._rates, strict=True)
            made = {id(p): rate for group, rate in groups for p in group["params"]}
            places = Places(self.model, BACKBONES.get(self.recipe.model.backbone))
            named = self.model.named_parameters()
            found |= {f"learning_rate/{places.component(name)}": made[id(p)] for name, p in named if id(p) in made}
        return found

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: the meter counts, and the Trainer's own count walks through all modules at every batch."""
        return 0

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return a batch on the device, pictures that a worker sent in 8 bits as pixel values."""
        prepared: dict[str, Any] = super()._prepare_inputs(inputs)
        processor = self.data_collator.collator.backbone.image_processor
        if "pixel_values" in prepared:
            prepared["pixel_values"] = finished(processor, prepared["pixel_values"])
        return prepared

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> int:
        """Return by what the loss of an update is divided: its tokens, or its examples, on all devices."""
        held = [batch[HELD] for batch in batch_samples]
        own = [sum(getattr(one, name) for one in held) for name in ("labels", "samples", "tokens", "flops")]
        labels, samples, tokens, flops = self.here.total(own)
        self._update_held = samples, tokens, flops
        # What chooses its answers has one loss an example, and none where it does not know the answer.
        several = self.data_collator.collator.backbone.output == "text"
        return samples if self.per_example and several else labels

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss of a training batch."""
        held = inputs.pop(HELD)
        loss, sums, counts = self._losses(
            model,
            inputs,
            count=num_items_in_batch,
            per_example=self.per_example,
            smoothing=self.recipe.train.label_smoothing,
            chunk=self.recipe.train.loss_chunk,
        )
        if held.parts:
            self.parts.add(held.parts, sums, counts)
        else:
            loss = loss * 0
        # Gradients are averaged over devices, and each device's loss is its part of the update's.
        loss = loss * self.here.count if self.here.count > 1 else loss
        self._update_loss = self._update_loss + loss.detach()
        return loss

    def _losses(self, model: Any, inputs: dict[str, Any], **options: Any) -> Any:
        if model is self.outer:
            return model(inputs, options)
        with head_at_hand(model):
            loss, sums, counts = self.data_collator.collator.backbone.losses(model, inputs, **options)
        return loss + left_out(model, inputs), sums, counts

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """Return the norm; called right before the update, so that a bad one never reaches the weights."""
        norm = super()._get_grad_norm(model, grad_norm=full(grad_norm) if grad_norm is not None else None)
        loss, self._update_loss = self._mean(float(self._update_loss)), 0.0
        # A gradient of float16 may be infinite for a step, whose scaler then skips it.
        if not math.isfinite(loss) or (not self.args.fp16 and not math.isfinite(float(norm))):
            what = "loss" if not math.isfinite(loss) else "gradient"
            raise diverged(self.state.global_step + 1, what, self.args.fp16, Path(self.args.output_dir))
        self.parts.fold()
        self.meter.step(*self._update_held)
        # The schedule moves on before the step is logged.
        self._rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        return norm

    def _mean(self, value: float) -> float:
        """Return the mean over devices."""
        return self.here.sums([value])[0] / self.here.count

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the Trainer's figures with what has been seen, by data set where there are several."""
        if "loss" in logs:
            self.parts.join(self.here)
            means = self.parts.means()
            logs |= {f"loss/{name}": value for name, value in means.items()} if len(self.parts.names) > 1 else {}
            logs |= self.learning_rates()
        if "loss" in logs or "eval_loss" in logs:
            logs |= {"samples": self.meter.samples, "tokens": self.meter.tokens, "flops": self.meter.flops}
            logs |= {"seconds": round(self.seconds(), 3)}
        if "loss" in logs:
            now = (self.meter.samples, self.seconds() - self.meter.session.aside_seconds)
            samples, seconds = (after - before for after, before in zip(now, self._logged, strict=True))
            logs["samples_per_second"] = round(samples / max(1e-9, seconds), 3)
            self._logged = now
        super().log(logs, start_time)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """Return the mean loss over validation examples, in all and by data set, and the chosen figure.

        The mean is over examples of each one's mean, so it does not depend on how they are batched; except that a
        contrast is of the batch, `train.batch_size` examples of each device, in the order of the rows. Training goes on
        as if nothing had been: random states and modes are put back.
        """
        with self.meter.aside(), undisturbed(self.model):
            losses = self._validation_losses()
            mean = losses.mean()
            metrics = {} if mean is None else {"eval_loss": mean}
            if len(losses.names) > 1:
                metrics |= {f"eval_loss/{name}": value for name, value in losses.means().items()}
            if self.figure is not None:
                with unfolded(self.outer):
                    metrics[f"eval_{self.recipe.train.best}"] = self.figure(self.model)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _validation_losses(self) -> PartLosses:
        losses = PartLosses(self.validation, per_example=True)
        self.model_wrapped.eval()
        for batch in self.get_eval_dataloader():
            inputs = self._prepare_inputs(batch)
            held = inputs.pop(HELD)
            with torch.no_grad():
                _, sums, counts = self._losses(self.model_wrapped, inputs, chunk=self.recipe.train.loss_chunk)
            if held.parts:
                losses.add(held.parts, sums, counts)
                losses.fold()
        fold(self.outer)
        losses.share(self.here)
        return losses

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Note a new best, the earlier one of equals, and have it saved whatever the step."""
        best = bool(super()._determine_best_metric(metrics, trial))
        if best:
            self.control.should_save = True
        return best

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write a checkpoint, mark it as whole, then drop those no longer kept."""
        folder = Path(self.args.output_dir)
        target = folder / f"checkpoint-{self.state.global_step}"
        if self.here.first:
            shutil.rmtree(target, ignore_errors=True)
        with self.meter.aside():
            self.here.wait()
            try:
                super()._save_checkpoint(model, trial)
                self.here.wait()
                counters = self._counters()
                if self.here.first:
                    checkpoints.seal(target, counters)
            except BaseException:
                if self.here.first:
                    shutil.rmtree(target, ignore_errors=True)
                raise
            if self.here.first:
                checkpoints.keep(folder, self.recipe.train.keep_checkpoints, self.state.best_global_step)
            self.here.wait()

    def _counters(self) -> dict[str, Any]:
        """Return what logs go on from; floats come back from JSON as they were."""
        self.parts.join(self.here)
        return {
            "samples": self.meter.samples,
            "tokens": self.meter.tokens,
            "flops": self.meter.flops,
            "seconds": self.seconds(),
            "loss_sum": self._mean(float(self._tr_loss)),
            "last_logged": self._globalstep_last_logged,
            "parts": self.parts.stored(),
        }

    def restore_log(self) -> None:
        """Start the clock; go on with a mean loss that a checkpoint cut in two, once the Trainer has set its to 0."""
        self.started = time.perf_counter()
        self._logged = (self.meter.samples, self.seconds() - self.meter.session.aside_seconds)
        if self.counters:
            self._tr_loss += self.counters["loss_sum"]
            self._globalstep_last_logged = self.counters["last_logged"]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write what is trained, under the names and in the dtypes that it has here."""
        checkpoints.save_weights(self.model, Path(output_dir or self.args.output_dir), write=self.here.first)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Write both as one device would, however the model is spread."""
        if self.here.sharding != "fsdp2":
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = optimizer_state(self.optimizer)
        if self.here.first:
            torch.save(state, Path(output_dir) / "optimizer.pt")
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load both; each device takes its part."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.here.sharding == "fsdp2":
            part_optimizer_state(self.optimizer)

    def _save_rng_state(self, output_dir: str) -> None:
        """Write the random states of all devices into one file, the first one's as those of one device."""
        if self.here.count == 1:
            super()._save_rng_state(output_dir)
            return
        states = self.here.joined([random_states()])
        if self.here.first:
            torch.save({**states[0], "others": states[1:]}, Path(output_dir) / "rng_state.pth")

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Go on with this device's random states; one that had no part in the run yet begins its own."""
        if self.here.count == 1 or checkpoint is None:
            super()._load_rng_state(checkpoint)
            return
        stored = checkpoints.random_states_in(Path(checkpoint))
        states = [stored, *stored.get("others", [])]
        if self.here.rank < len(states):
            restore_random_states(states[self.here.rank])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load what `save_model` wrote."""
        fold(self.outer)
        checkpoints.load_weights(self.model, Path(resume_from_checkpoint))
