"""(f), (g) Training steps at 448 px with the vocabulary of 257,216 words: medvlm against three others, in one run.

python tests/benchmarks/training_peers.py                 # (f) a tiny body, float32
python tests/benchmarks/training_peers.py --body 500m     # (g) 510 M parameters in the decoder's layers, bfloat16

All train LoRA on the language model, from the same weights (base and adapter), on the same rows in the same order, with
the same optimizer, each in a process of its own:

medvlm  `medvlm.train.loop.train`, as `medvlm finetune` calls it, from a recipe to a run folder
hf      (a) Hugging Face's Trainer and the processor's collator, as in their PaliGemma notebook:
        processor(text="<image>" + prompt, images, suffix, padding="longest")
trl     (b) TRL's SFTTrainer, with (a)'s collator: its own cannot take the model (`--why-not-trl` shows it)
bare    (c) a loop of bare torch: the logits of labelled positions only, then cross-entropy

A step is from the end of one update to the end of the next, so images are decoded and collated in it. The peak counts
from the beginning of training; what loading took is left out. The first step is left out of the median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training_setup import child, forget_peak, machine, memory, save_base, table, write_data

WAYS = ("medvlm", "hf", "trl", "bare")
IMAGE_SIZE = 448
LEARNING_RATE = 1e-3


class Watch:
    """The clock and the memory of one way: `start` at the beginning of training, `step` after each update."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.start_bytes = self.peak_bytes = 0

    def start(self) -> None:
        """Take the model's own memory and forget the peak of loading it."""
        forget_peak()
        self.start_bytes = memory()[0]
        self.times = [time.perf_counter()]

    def step(self) -> None:
        """Note the end of an update."""
        self.times.append(time.perf_counter())
        self.peak_bytes = memory()[1]

    def figures(self, losses: Sequence[float]) -> dict[str, Any]:
        """Return what is reported of the way."""
        seconds = [after - before for before, after in zip(self.times, self.times[1:], strict=False)]
        return {
            "seconds_a_step": statistics.median(seconds[1:] or seconds),
            "peak_bytes": self.peak_bytes,
            "above_model_bytes": self.peak_bytes - self.start_bytes,
            "losses": list(losses),
        }


def settings(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the recipe that all ways follow."""
    return {
        "name": "peers",
        "seed": 0,
        "model": {"id": str(folder / "base"), "dtype": options.dtype},
        "adapters": {"language_model": {"kind": "lora", "r": 16, "alpha": 32}},
        "data": [{"path": str(folder / "data")}],
        "train": {
            "learning_rate": LEARNING_RATE,
            "schedule": "constant",
            "warmup": 0.0,
            "batch_size": options.batch,
            "max_steps": options.steps,
            "save_every": options.steps,
            "trackers": [],
            "workers": 0,
        },
        "compute": {"energy": "off"},
    }


def mixture_of(recipe: Any) -> Any:
    """Return the training rows."""
    from medvlm.data.mixture import Mixture

    return Mixture(recipe.data, "train", recipe.seed)


def medvlm(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train as `medvlm finetune` does; leave the first adapter and the order of the rows behind for the others."""
    from medvlm.data.mixture import Mixture
    from medvlm.models import adapters
    from medvlm.models.locate import locate_parts
    from medvlm.recipe.load import check
    from medvlm.runs import Run
    from medvlm.train.loop import Job, train

    recipe = check(settings(folder, options), "peers")
    watch, order = Watch(), []
    apply, image = adapters.apply, Mixture.image

    def noted(self: Any, place: int) -> Any:
        order.append(place)
        return image(self, place)

    def kept(*arguments: Any, **named: Any) -> Any:
        model: Any = apply(*arguments, **named)
        model.save_pretrained(folder / "adapter")
        return model

    class Show:
        silent = True

        def update(self, done: int, total: int | None = None, note: str = "") -> None:
            watch.step() if done else watch.start()

    # To take the same start and order, the others need to know both.
    Mixture.image, adapters.apply = noted, kept  # type: ignore[method-assign]
    run = Run.create("peers", folder / "runs")
    job = Job(recipe, locate_parts(recipe.model), mixture_of(recipe), Mixture(recipe.data, "validation", 0), "", {})
    train(job, run, Show())
    lines = map(json.loads, (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    (folder / "order.json").write_text(json.dumps(order[: options.steps * options.batch]), encoding="utf-8")
    return watch.figures([line["loss"] for line in lines if "loss" in line])


def opened(folder: Path, options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Return the model with the adapter that medvlm began with, the processor, and the rows in medvlm's order."""
    import torch
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from medvlm.recipe.load import check
    from medvlm.train.collate import prefix

    recipe = check(settings(folder, options), "peers")
    base = AutoModelForImageTextToText.from_pretrained(
        folder / "base", dtype=getattr(torch, options.dtype), attn_implementation="sdpa"
    )
    model = PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True)
    mixture = mixture_of(recipe)
    order = json.loads((folder / "order.json").read_text(encoding="utf-8"))
    rows = [
        {
            "image": mixture.image(place),
            "prompt": "<image>" + prefix(mixture.text(place), recipe.prompts),
            "answer": mixture.text(place)["target"],
        }
        for place in order
    ]
    return model, AutoProcessor.from_pretrained(folder / "base", backend="pil"), Dataset.from_list(rows)


class NotebookCollator:
    """The collator of Hugging Face's PaliGemma notebook."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Any:
        """Return the processor's inputs, padded to the longest."""
        return self.processor(
            text=[row["prompt"] for row in rows],
            images=[row["image"] for row in rows],
            suffix=[row["answer"] for row in rows],
            return_tensors="pt",
            padding="longest",
        )


def trainer_arguments(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments that both Trainers share: medvlm's optimizer and schedule."""
    return {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": options.batch,
        "max_steps": options.steps,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch",
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": True,
        "bf16": options.dtype == "bfloat16",
        "dataloader_pin_memory": False,
        "train_sampling_strategy": "sequential",
    }


def with_trainer(kind: type, arguments: Any, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train with Hugging Face's Trainer or one made from it."""
    from transformers import TrainerCallback

    model, processor, rows = opened(folder, options)
    watch = Watch()

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            watch.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.step()

    trainer = kind(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=NotebookCollator(processor),
        processing_class=processor,
        callbacks=[Clock()],
    )
    trainer.train()
    return watch.figures([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])


def hf(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """(a) The plain Trainer: the model's own loss over full logits."""
    from transformers import Trainer, TrainingArguments

    return with_trainer(Trainer, TrainingArguments(**trainer_arguments(folder, options)), folder, options)


def trl(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """(b) TRL's SFTTrainer, whose fused head projects every position in tiles on the CPU."""
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(**trainer_arguments(folder, options), max_length=None, gradient_checkpointing=False)
    return with_trainer(SFTTrainer, arguments, folder, options)


def bare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """(c) What is left when everything that is no arithmetic is taken away."""
    import torch

    model, processor, rows = opened(folder, options)
    base, head = model.base_model.model.model, model.base_model.model.lm_head
    collate = NotebookCollator(processor)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    model.train()
    watch, losses = Watch(), []
    watch.start()
    for start in range(0, len(rows), options.batch):
        inputs = collate([rows[place] for place in range(start, start + options.batch)])
        labels = inputs.pop("labels")[:, 1:]
        kept = labels != -100
        with torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bfloat16"):
            hidden = base(**inputs, use_cache=False).last_hidden_state[:, :-1][kept]
            logits = head(hidden)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[kept])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
        watch.step()
    return watch.figures(losses)


def why_not_trl(folder: Path, options: argparse.Namespace) -> None:
    """Show what TRL's own collator makes of both forms of rows that it knows."""
    import torch
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    model, processor, rows = opened(folder, options)
    row = rows[0]
    apart = {"images": [row["image"]], "prompt": row["prompt"], "completion": row["answer"]}
    try:
        DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)([apart])
        print("prompt and completion: taken")
    except ValueError as error:
        print(f"prompt and completion: refused by the processor, which gets the answer without an image: {error}")
    whole = {"images": [row["image"]], "text": row["prompt"] + row["answer"] + "<eos>"}
    made = DataCollatorForVisionLanguageModeling(processor)([whole])
    kinds = made["token_type_ids"].unique().tolist()
    image = int((made["labels"] == processor.image_token_id).sum())
    end = processor.tokenizer.convert_ids_to_tokens(made["input_ids"][0, -2:].tolist())
    inputs = {name: value for name, value in made.items() if name != "labels"}
    with torch.no_grad():
        before = model.eval()(**inputs).logits[0, -4]
        inputs["input_ids"][0, -3] += 1
        moved = float((model(**inputs).logits[0, -4] - before).abs().max())
    labels = f"{image} of {made['labels'].numel()} labels are image tokens"
    print(
        f"text: token_type_ids are all {kinds}; another third-last token moves the logits in front of it by "
        f"{moved:.1e}: the answer leaks; {labels}; the text ends in {end}"
    )


def compare(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the ratios that the goals are about."""
    ours, ratios = found["medvlm"], {}
    for way in found.keys() - {"medvlm"}:
        other = found[way]
        difference = [abs(a - b) for a, b in zip(ours["losses"], other["losses"], strict=True)]
        ratios[way] = {
            "times_as_fast": other["seconds_a_step"] / ours["seconds_a_step"],
            "times_the_peak": other["peak_bytes"] / ours["peak_bytes"],
            "times_the_peak_above_the_model": other["above_model_bytes"] / max(1, ours["above_model_bytes"]),
            "largest_loss_difference": max(difference),
        }
    return ratios


def show(found: dict[str, dict[str, Any]], ratios: dict[str, Any]) -> None:
    """Print the table and the goals."""
    rows = []
    for way, figures in found.items():
        gb = [f"{figures[key] / 1e9:.2f} GB" for key in ("peak_bytes", "above_model_bytes")]
        ratio = ratios.get(way)
        against = [f"{ratio['times_as_fast']:.2f}", f"{ratio['largest_loss_difference']:.1e}"] if ratio else ["1", "0"]
        rows.append([way, f"{figures['seconds_a_step']:.3f}", *gb, *against])
    heads = ("way", "seconds a step", "peak", "peak above the model's own", "times medvlm's seconds", "loss differs by")
    print(table(heads, rows))
    if "hf" in ratios:
        one = ratios["hf"]
        peaks = f"{one['times_the_peak']:.1f} (above the model's own: {one['times_the_peak_above_the_model']:.1f})"
        print(f"goals: hf takes at least 7 times the time: {one['times_as_fast']:.1f}; 8 times the peak: {peaks}")
    if "bare" in ratios:
        print(f"goal: at most 10 % slower than bare: {100 * (1 / ratios['bare']['times_as_fast'] - 1):+.1f} %")


def main() -> None:
    """Measure every way and print table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--body", choices=("tiny", "500m"), default="tiny")
    parser.add_argument("--steps", type=int, help="updates, the first of them a warm-up; default 8, with 500m 2")
    parser.add_argument("--batch", type=int, help="default 2, with 500m 1")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default float32, with 500m bfloat16")
    parser.add_argument("--ways", help="which of them, medvlm always first; default all, with 500m all but trl")
    parser.add_argument("--why-not-trl", action="store_true", help="only show what TRL's own collator does")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    large = options.body == "500m"
    options.steps = options.steps or (2 if large else 8)
    options.batch = options.batch or (1 if large else 2)
    # TRL projects every position on the CPU: its logits would take most of the time again.
    options.ways = options.ways or ",".join(way for way in WAYS if not large or way != "trl")
    options.dtype = options.dtype or ("bfloat16" if large else "float32")
    if options.way:
        print(json.dumps(globals()[options.way](options.folder, options)))
        return
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Write model and data, then run every way."""
    layers = save_base(folder / "base", options.body, IMAGE_SIZE, options.dtype)
    write_data(folder / "data", options.steps * options.batch)
    ways = ["medvlm", *(way for way in options.ways.split(",") if way != "medvlm")]
    if options.why_not_trl:
        ways = ["medvlm"]
    same = ["--body", options.body, "--dtype", options.dtype]
    same += ["--steps", str(options.steps), "--batch", str(options.batch), "--folder", str(folder)]
    found = {way: json.loads(child(__file__, ["--way", way, *same])) for way in ways}
    if options.why_not_trl:
        why_not_trl(folder, options)
        return
    ratios = compare(found)
    show(found, ratios)
    if options.dtype == "float32":
        worst = max((one["largest_loss_difference"] for one in ratios.values()), default=0.0)
        assert worst < 1e-5, f"the losses differ by {worst}"
    facts = {"body": options.body, "layers": layers, "dtype": options.dtype, "batch": options.batch, "seed": 0}
    print(json.dumps({**facts, "steps": options.steps, "machine": machine(), "ways": found, "ratios": ratios}))


if __name__ == "__main__":
    main()
