"""`medvlm finetune`: train what a recipe says, or print the plan."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm.cli.common import DebugOption, QuietOption, progress, say

if TYPE_CHECKING:
    from medvlm.data.mixture import Mixture
    from medvlm.recipe import Recipe
    from medvlm.runs import Run


def register(app: typer.Typer) -> None:
    """Add the verb to the app."""
    app.command("finetune")(finetune)


def finetune(
    recipe: Annotated[str, typer.Argument(help="A recipe file; one not found here is looked up among those shipped.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As in train.learning_rate=3e-5.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and train nothing.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest unfinished run of this recipe.")
    ] = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Fine-tune a base model as RECIPE says, into a new folder under runs/.

    Example: medvlm finetune recipes/paligemma448.yaml train.learning_rate=3e-5 --dry-run
    """
    from medvlm.data.mixture import Mixture
    from medvlm.errors import InputError
    from medvlm.models.locate import locate_parts
    from medvlm.recipe import load_recipe

    resolved = load_recipe(recipe, overrides or [])
    # Asked for before anything heavy is loaded, so that missing weights are told within seconds.
    located = None if dry_run else locate_parts(resolved.model)
    mixture = Mixture(resolved.data, "train", resolved.seed)
    if not len(mixture):
        paths = ", ".join(part.path for part in resolved.data)
        raise InputError(f"data: no training rows in {paths}; check data.tasks and the data set's splits")
    if dry_run:
        _print_plan(resolved, mixture)
        return
    assert located is not None
    from medvlm.recipe.resolve import recipe_hash
    from medvlm.runs import Run, unfinished
    from medvlm.train.loop import Job, check_one_device, train

    check_one_device()
    job = Job(
        resolved,
        located,
        mixture,
        Mixture(resolved.data, "validation", resolved.seed),
        command=f"medvlm {shlex.join(sys.argv[1:])}",
        license=_verdict(resolved, mixture),
    )
    run = unfinished(recipe_hash(resolved)) if resume else Run.create(resolved.name)
    if run is None:
        raise InputError(f"no unfinished run of {recipe} with these settings; leave out --resume to start one")
    with progress(f"finetune {resolved.name}", quiet) as bar:
        train(job, run, bar, resume=resume)
    _print_result(run, quiet)


def _verdict(recipe: Recipe, mixture: Mixture) -> dict[str, Any]:
    import dataclasses

    from medvlm.licenses import policy, registry

    verdict = policy.verdict(registry.find(str(recipe.model.id)), mixture.licenses(), recipe.model.label)
    return dataclasses.asdict(verdict)


def _print_plan(recipe: Recipe, mixture: Mixture) -> None:
    from medvlm.train.plan import make_plan

    plan = make_plan(recipe, mixture)
    part = recipe.train
    say(f"plan of {recipe.name}: {recipe.model.label}, nothing is trained")
    say(f"  {'component':<16}{'parameters':>16}{'trained':>14}{'4-bit':>16}")
    for name, count in plan.census.items():
        say(f"  {name:<16}{count.total:>16,}{count.trainable:>14,}{count.quantized:>16,}")
    totals = [sum(getattr(c, key) for c in plan.census.values()) for key in ("total", "trainable", "quantized")]
    say(f"  {'all':<16}{totals[0]:>16,}{totals[1]:>14,}{totals[2]:>16,}")
    say(f"LoRA on {plan.lora_modules} modules; {plan.quantized_modules} linear layers in 4 bits")
    say(f"data: {plan.rows:,} rows an epoch from {', '.join(d.path for d in recipe.data)}")
    say(
        f"steps: {plan.steps:,} of {part.batch_size} x {part.gradient_accumulation} samples, "
        f"learning rate {part.learning_rate:g}, {part.schedule}, warm-up {part.warmup:.0%}"
    )
    say(f"tokens: {plan.tokens:,} ({plan.tokens_are} text, {plan.image_tokens} image tokens a sample)")
    verdict = _verdict(recipe, mixture)
    say(f"license: commercial use {verdict['commercial_use']}, sharing {verdict['may_share']}")
    for reason in verdict["reasons"]:
        say(f"  {reason}")


def _print_result(run: Run, quiet: bool) -> None:
    import json

    facts = run.facts()
    compute = json.loads((run.path / "compute.json").read_text(encoding="utf-8"))
    loss = facts["result"]["train_loss"]
    held_out = facts["result"].get("eval_loss")
    validation = f", validation loss {held_out:.3f}" if held_out is not None else ""
    say(f"{run.path}: {facts['result']['steps']} steps, mean training loss {loss:.3f}{validation}")
    say(f"{compute['samples_per_second']:.1f} samples/s, {compute['seconds']:.0f} s on {compute['device']}", quiet)
    say("next: medvlm eval --metrics bleu,rouge,cider", quiet)
