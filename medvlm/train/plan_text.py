"""A plan in lines of text, for the command line."""

from __future__ import annotations

from collections.abc import Sequence

from medvlm.recipe.models import COMPONENTS, Recipe
from medvlm.train.plan import ASSUMED_SHARE, Plan

GB = 1e9
_HEADINGS = ("component", "parameters", "trained", "4-bit", "weights", "training", "gradients", "optimizer")


def lines(plan: Plan, recipe: Recipe) -> list[str]:
    """Return the plan, a line each: components with their parameters and bytes, memory, data, work, time, money."""
    part = recipe.train
    return [
        f"plan of {recipe.name}: {recipe.model.label}, a dry run",
        *_components(plan),
        f"LoRA on {plan.lora_modules} modules; {plan.quantized_modules} linear layers in 4 bits",
        *_memory(plan),
        f"data: {plan.rows:,} rows an epoch from {', '.join(d.path for d in recipe.data)}",
        (
            f"steps: {plan.steps:,} of {part.batch_size} x {part.gradient_accumulation} samples, "
            f"learning rate {_rates(recipe)}, {part.schedule}, warm-up {part.warmup:.0%}"
        ),
        f"tokens: {plan.tokens:,} ({plan.tokens_are} text, {plan.image_tokens} image tokens a sample)",
        *_work(plan, recipe),
    ]


def size(count: float) -> str:
    """Return bytes in words, decimal units."""
    for unit, step in (("GB", GB), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.{2 if unit == 'GB' else 1}f} {unit}"
    return f"{count:.0f} B" if count else "-"


def _rates(recipe: Recipe) -> str:
    """Return the learning rates of what is trained: one, or that of each component where one has its own."""
    trained = {name: recipe.adapters.part(name) for name in COMPONENTS}
    rates = {
        name: part.learning_rate or recipe.train.learning_rate
        for name, part in trained.items()
        if part.kind != "frozen"
    }
    if len(set(rates.values())) == 1:
        return f"{next(iter(rates.values())):g}"
    return " and ".join(f"{rate:g} ({name})" for name, rate in rates.items())


def _large(count: float) -> str:
    """Return bytes in words; those below a megabyte say nothing beside the rest."""
    return size(count) if count >= 1e6 else "-"


def _components(plan: Plan) -> list[str]:
    rows: list[tuple[str, list[int]]] = []
    for name, count in plan.census.items():
        held = plan.memory.components.get(name)
        amounts = [held.weights, held.trained, held.gradients, held.optimizer] if held else [0] * 4
        rows.append((name, [count.total, count.trainable, count.quantized, *amounts]))
    rows.append(("all", [sum(column) for column in zip(*(numbers for _, numbers in rows), strict=True)]))
    cells = [_HEADINGS, *(_cells(name, numbers) for name, numbers in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(8)]
    return [
        "  "
        + row[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in cells
    ]


def _cells(name: str, numbers: Sequence[int]) -> tuple[str, ...]:
    return (name, *(f"{value:,}" for value in numbers[:3]), *(size(value) for value in numbers[3:]))


def _memory(plan: Plan) -> list[str]:
    found, batch, device = plan.memory, plan.batch, plan.device
    first = (
        f"memory: {size(found.total)} at the peak = weights {size(found.weights)} + trained {size(found.adapters)} "
        f"+ gradients {size(found.gradients)} + optimizer {size(found.optimizer)} "
        f"+ activations {size(found.activations)} + logits {_large(found.logits)} + libraries and rounding "
        f"{size(found.total - found.tensors)}, for {batch.rows} x {batch.length:,} tokens"
    )
    if plan.fits:
        return [first, f"  fits {device.name}: {size(device.memory)}{_free(plan)}"]
    missing = size(found.total - device.memory)
    return [
        first,
        f"  does not fit {device.name} with {size(device.memory)}{_free(plan)}, by {missing}: {plan.smaller}",
    ]


def _free(plan: Plan) -> str:
    return " free" if plan.device.kind == "cpu" else ""


def _work(plan: Plan, recipe: Recipe) -> list[str]:
    again = plan.flops_a_sample.recomputed
    more = f", and {again / 1e12:.3g} again for checkpointing" if again else ""
    each = plan.flops_a_sample.useful / 1e12
    found = [f"work: {each:.3g} TFLOP a sample{more}; {plan.flops / 1e15:.3g} PFLOP in all"]
    if plan.hours is None:
        return [*found, f"time: unknown for {plan.device.name}; compute.peak_tflops=NUMBER gives an estimate"]
    assumed = f"at {ASSUMED_SHARE:.0%} of {plan.peak_tflops:g} TFLOP/s (an assumption; {plan.peak_source})"
    if plan.money is None:
        price = "; compute.price_per_hour=NUMBER adds the price"
    else:
        price = f", {plan.money['amount']:.2f} {plan.money['currency']} at {plan.money['price_per_hour']:g} an hour"
    return [*found, f"time: about {_duration(plan.hours)} {assumed}{price}"]


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{max(1, round(hours * 60))} minutes"
