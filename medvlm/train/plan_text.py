"""A plan in lines of text, for the command line; no line is wider than 80 columns where its words allow."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medvlm.recipe.members import differing
from medvlm.recipe.models import COMPONENTS, Recipe
from medvlm.train.plan import ASSUMED_SHARE, Plan
from medvlm.train.remedies import size

WIDTH = 80
LARGEST = "  pictures taken to be as large as the model takes; model.image_size fixes a size"
_HEADINGS = ("component", "parameters", "trained", "4-bit", "memory")

Planned = tuple[str, Recipe, Plan, dict[str, Any]]
"""Member's name, its recipe, its plan, its license verdict."""


def lines(plan: Plan, recipe: Recipe, verdict: Mapping[str, Any] | None = None, start: str | None = None) -> list[str]:
    """Return the plan: components with their parameters and bytes, memory, data, work, time, money, license.

    Args:
        plan: of `recipe`.
        recipe: what would be done.
        verdict: on the tuned model; None leaves it out.
        start: in words, what the run starts from besides the base.
    """
    part = recipe.train
    adapted = [f"LoRA on {plan.lora_modules} modules"] if plan.lora_modules else []
    packed = [f"{plan.quantized_modules} linear layers in 4 bits"] if plan.quantized_modules else []
    told = [
        f"plan of {recipe.name} (a plan; nothing is run)",
        *(f"{role.replace('_', ' ')}: {name}" for role, name in recipe.model.parts.items()),
        *([f"starts from: {start}"] if start else []),
        *_components(plan),
        *([f"adapters: {'; '.join([*adapted, *packed])}"] if adapted or packed else []),
        *_memory(plan),
        *_data(plan, recipe),
        f"data licenses: {', '.join(f'{name} ({count:,} rows)' for name, count in plan.licenses.items())}",
        (
            f"steps: {plan.steps:,} of {part.batch_size} x {part.gradient_accumulation}{_devices(plan)} samples, "
            f"learning rate {_rates(recipe)}, {part.schedule}, warm-up {part.warmup:.0%}"
        ),
        f"tokens: {plan.tokens:,} ({plan.tokens_are} text, {plan.image_tokens} image tokens a sample)",
        *([LARGEST] if plan.largest_pictures else []),
        *_work(plan, recipe),
        *([f"license: commercial use {verdict['commercial_use']}, sharing {verdict['may_share']}"] if verdict else []),
    ]
    return wrapped(told)


def wrapped(told: Iterable[str]) -> list[str]:
    """Return the lines, those wider than `WIDTH` broken between words and gone on with deeper."""
    found = []
    for line in told:
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        broken = textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        found += broken if len(line) > WIDTH else [line]
    return found


def reasons(planned: Sequence[Planned]) -> list[str]:
    """Return what limits the use of the tuned models, each reason once, with the members that it is not of all of."""
    members: dict[str, list[str]] = {}
    for name, _, _, verdict in planned:
        for reason in verdict["reasons"]:
            members.setdefault(reason, []).append(name)
    told = [
        f"  {reason}" + ("" if len(names) == len(planned) else f" (of {', '.join(names)})")
        for reason, names in members.items()
    ]
    return wrapped(["what limits it:", *told]) if told else []


def summary(planned: Sequence[Planned], what: str) -> list[str]:
    """Return a table of the plans of all members, one a line, and what differs between their recipes.

    Args:
        planned: in order.
        what: stage or variant.
    """
    body = []
    for name, _, plan, _ in planned:
        trained = sum(count.trainable for count in plan.census.values())
        fits = "yes" if plan.fits else "no"
        body.append([name, f"{trained:,}", size(plan.memory.total), fits, f"{plan.steps:,}"])
    found = _table([what, "trained", "memory", "fits", "steps"], body)
    rows = differing([recipe.model_dump(mode="json") for _, recipe, _, _ in planned])
    names = [name for name, *_ in planned]
    for path, values in rows.items():
        each = [f"{name} {'-' if value is None else value}" for name, value in zip(names, values, strict=True)]
        found.append(f"  {path}: {', '.join(each)}")
    return wrapped(found)


def _devices(plan: Plan) -> str:
    return f" x {plan.devices} devices" if plan.devices > 1 else ""


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


def _components(plan: Plan) -> list[str]:
    rows: list[tuple[str, list[int]]] = []
    for name, count in plan.census.items():
        held = plan.memory.components.get(name)
        amount = held.weights + held.trained + held.gradients + held.optimizer if held else 0
        rows.append((name, [count.total, count.trainable, count.quantized, amount]))
    rows.append(("all", [sum(column) for column in zip(*(numbers for _, numbers in rows), strict=True)]))
    cells = [[name, *(f"{value:,}" for value in numbers[:3]), size(numbers[3])] for name, numbers in rows]
    return _table(_HEADINGS, cells)


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    return [
        "  "
        + row[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in (header, *body)
    ]


def _data(plan: Plan, recipe: Recipe) -> list[str]:
    """Return where the rows come from: of each data set how many, its share, and how often each of them is seen."""
    names = ", ".join(part.path for part in recipe.data)
    streamed = ", streamed" if recipe.mixture.streaming else ""
    told = [f"data: {plan.rows:,} rows an epoch from {names}{streamed}"]
    if len(plan.shares) == 1 and plan.shares[0].seen == plan.shares[0].visits == plan.shares[0].rows:
        return told
    if recipe.mixture.temperature is not None:
        told[0] += f", mixed at temperature {recipe.mixture.temperature:g}"
    body = [
        [
            share.path,
            f"{share.rows:,}",
            f"{share.rows - share.seen:,}",
            f"{share.visits:,}",
            f"{share.visits / max(1, plan.rows):.1%}",
            f"{share.visits / max(1, share.seen):.2f}",
        ]
        for share in plan.shares
    ]
    return told + _table(["data set", "rows", "never seen", "an epoch", "share", "times each"], body)


def _memory(plan: Plan) -> list[str]:
    found, batch, device = plan.memory, plan.batch, plan.device
    items = {
        "frozen weights": found.weights,
        "weights in training": found.adapters,
        "gradients": found.gradients,
        "optimizer": found.optimizer,
        "activations": found.activations,
        "logits": found.logits,
        "libraries and rounding": found.total - found.tensors,
    }
    # Below a megabyte they say nothing beside the rest.
    shown = [[name, size(count)] for name, count in items.items() if count >= 1e6]
    free = " free" if device.kind == "cpu" else ""
    room = f"{device.name} with {size(device.memory)}{free}"
    each = " on each device that holds the whole model" if plan.devices > 1 else ""
    first = f"memory: {size(found.total)} at the peak{each}, for {batch.rows:,} x {batch.length:,} tokens"
    table = _table(shown[0], shown[1:])
    if plan.fits:
        return [first, *table, f"  fits {room}"]
    missing = size(found.total - device.memory)
    return [first, *table, f"  does not fit {room}, by {missing}:", *(f"    {mend}" for mend in plan.remedies)]


def _work(plan: Plan, recipe: Recipe) -> list[str]:
    again = plan.flops_a_sample.recomputed
    more = f", and {again / 1e12:.3g} again for checkpointing" if again else ""
    each = plan.flops_a_sample.useful / 1e12
    found = [f"work: {each:.3g} TFLOP a sample{more}; {plan.flops / 1e15:.3g} PFLOP in all"]
    if plan.hours is None:
        return [*found, f"time: unknown for {plan.device.name}; compute.peak_tflops=NUMBER gives an estimate"]
    devices = f"on {plan.devices} devices " if plan.devices > 1 else ""
    assumed = f"{devices}at {ASSUMED_SHARE:.0%} of {plan.peak_tflops:g} TFLOP/s (an assumption; {plan.peak_source})"
    if plan.money is None:
        price = "; compute.price_per_hour=NUMBER adds the price"
    else:
        price = f", {plan.money['amount']:.2f} {plan.money['currency']} at {plan.money['price_per_hour']:g} an hour"
    return [*found, f"time: about {_duration(plan.hours)} {assumed}{price}"]


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{max(1, round(hours * 60))} minutes"
