"""`medvlm finetune`: train what a recipe says, all its stages or variants, or print the plan."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from medvlm.cli.common import DebugOption, QuietOption, progress, say, warn

if TYPE_CHECKING:
    from medvlm.recipe import Members, Recipe
    from medvlm.runs import Run
    from medvlm.train.launch import Launch


def register(app: typer.Typer) -> None:
    """Add the verb to the app."""
    app.command("finetune")(finetune)


def finetune(
    recipe: Annotated[str, typer.Argument(help="A recipe file; one not found here is looked up among those shipped.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="As in train.learning_rate=3e-5; stages.NAME.KEY=... for one."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and train nothing.")] = False,
    only: Annotated[
        str | None, typer.Option("--only", metavar="NAME,...", help="Only these stages or variants of the recipe.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest unfinished run, or stages, of this recipe.")
    ] = False,
    devices: Annotated[
        int | None,
        typer.Option("--devices", metavar="N", min=1, help="Train on N GPUs of this machine."),
    ] = None,
    accelerate_config: Annotated[
        str | None,
        typer.Option(
            "--accelerate-config",
            metavar="FILE",
            help="How several devices share the model: a file of `accelerate config`, or ddp, fsdp2, zero2, zero3.",
        ),
    ] = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Fine-tune a base model as RECIPE says, into a new folder under runs/; each stage or variant into its own.

    Example: medvlm finetune recipes/paligemma448.yaml train.epochs=1 --dry-run
    """
    from medvlm.errors import RecipeError
    from medvlm.recipe import load_members

    members = load_members(recipe, overrides or [])
    names = members.selected(only)
    try:
        together = _together(devices, accelerate_config)
        if dry_run:
            _print_plans(members, names, quiet, together.count if together else 1)
        elif together:
            _start(together, members, names, [recipe, *(overrides or [])], only, resume, quiet, debug)
        else:
            _train(members, names, resume, quiet)
    except RecipeError as error:
        # What only the base or the data show to be wrong is found where the recipe's file is not known.
        raise (RecipeError(recipe, error.problems) if error.where == "recipe" else error) from error


def _together(devices: int | None, config: str | None) -> Launch | None:
    """Return how to start one process a device; None where there is one device, or this is one of the processes."""
    if devices is None and config is None:
        return None
    from medvlm.errors import UsageError
    from medvlm.train.devices import started_together
    from medvlm.train.launch import of_options

    if started_together():
        raise UsageError("--devices and --accelerate-config start the processes themselves; leave out the launcher")
    return of_options(devices, config)


def _start(
    together: Launch,
    members: Members,
    names: list[str],
    words: list[str],
    only: str | None,
    resume: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Check the recipe once, then have one process a device train it."""
    from medvlm.train.group import check_members
    from medvlm.train.launch import check_processors, start

    check_processors(together)
    check_members(members, names, together.sharding, None if resume else together.count)
    chosen = ["--only", only] if only is not None else []
    flags = {"--resume": resume, "--quiet": quiet, "--debug": debug}
    options = [*chosen, *(name for name, wanted in flags.items() if wanted)]
    start(together, ["finetune", *words, *options], _command())


def _command() -> str:
    """Return the command line as it was given, also where another process was given it and started this one."""
    return os.environ.get("MEDVLM_COMMAND") or f"medvlm {shlex.join(sys.argv[1:])}"


def _train(members: Members, names: list[str], resume: bool, quiet: bool) -> None:
    from medvlm.train.group import train_members

    # One of several processes speaks.
    quiet = quiet or os.environ.get("RANK", "0") != "0"
    command = _command()
    run = None
    for run in train_members(members, names, command, lambda name: progress(f"finetune {name}", quiet), resume=resume):
        if os.environ.get("RANK", "0") == "0":
            _print_result(run, quiet)
    if run is not None:
        group = run.facts().get("group")
        say(f"next: medvlm report {group['id']}" if group else "next: medvlm eval --metrics bleu,rouge,cider", quiet)


def _print_plans(members: Members, names: list[str], quiet: bool, devices: int) -> None:
    from medvlm.train.group import plan_members
    from medvlm.train.plan_text import lines, reasons, summary

    planned = []
    with progress("plan", quiet) as bar:
        for one in plan_members(members, names, devices):
            planned.append(one)
            bar.update(len(planned), len(names))
    what = members.kind.removesuffix("s")
    if len(planned) > 1:
        for line in summary(planned, what):
            say(line)
    for name, recipe, plan, verdict in planned:
        if members.kind != "single":
            say(f"\n{what} {name}")
        for line in lines(plan, recipe, verdict, _starts_from(members, name, recipe)):
            say(line)
    for line in reasons(planned):
        say(line)


def _starts_from(members: Members, name: str, recipe: Recipe) -> str | None:
    """Return in words what a member's run starts from besides the base."""
    place = members.names.index(name)
    if members.kind == "stages" and place > 0 and recipe.model.start is None:
        return f"stage {members.names[place - 1]}, which goes before"
    return recipe.model.start


def _print_result(run: Run, quiet: bool) -> None:
    import json

    facts = run.facts()
    compute = json.loads((run.path / "compute.json").read_text(encoding="utf-8"))
    loss = facts["result"]["train_loss"]
    held_out = facts["result"].get("eval_loss")
    validation = f", validation loss {held_out:.3f}" if held_out is not None else ""
    training = f", mean training loss {loss:.3f}" if loss is not None else ""
    say(f"{run.path}: {facts['result']['steps']} steps{training}{validation}")
    if "best_gone" in facts["result"]:
        warn(facts["result"]["best_gone"])
    count = compute.get("devices", 1)
    device = compute["device"] if count == 1 else f"{count} x {compute['device']}"
    say(f"{compute['samples_per_second']:.1f} samples/s, {compute['seconds']:.0f} s on {device}", quiet)
