"""`medvlm predict`: what a run says of pictures from files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from medvlm.cli import predict_options as given
from medvlm.cli.common import DebugOption, QuietOption, progress, say, warn

if TYPE_CHECKING:
    from medvlm.evaluate.ask import Asker
    from medvlm.evaluate.prompting import Question, Shot
    from medvlm.recipe import Recipe


def register(app: typer.Typer) -> None:
    """Add the verb to the app."""
    app.command("predict")(predict)


def predict(
    run: given.RunName,
    images: given.Images,
    prompt: given.Prompt = "",
    task: given.TaskName = None,
    language: given.Language = "en",
    examples: given.Examples = None,
    together: given.Together = False,
    rationale: given.Rationale = False,
    rationale_prompt: given.RationalePrompt = None,
    answer_prompt: given.AnswerPrompt = None,
    impression_prompt: given.ImpressionPrompt = None,
    max_prefix_tokens: given.PrefixTokens = None,
    beams: given.Beams = None,
    temperature: given.Temperature = None,
    top_p: given.TopP = None,
    seed: given.Seed = None,
    max_new_tokens: given.NewTokens = None,
    batch_size: given.BatchSize = None,
    engine: given.Engine = "transformers",
    workers: given.Workers = 1,
    ray_address: given.RayAddress = None,
    form: given.Format = "text",
    out: given.Out = None,
    overwrite: given.Overwrite = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what a run's model sees in pictures: captions, answers, or report drafts for a radiologist to read.

    Every picture that can be read is answered; the exit code is 3 if one could not.

    Example: medvlm predict latest chest.png --prompt "is there a pleural effusion?" --beams 4

    Example: medvlm predict latest scans/ --format report --out drafts.jsonl
    """
    from medvlm.evaluate import ask, engines, pictures, prompting
    from medvlm.models.locate import check_weights
    from medvlm.runs import open_run

    found_run = open_run(None if run == "latest" and not Path(run).exists() else run)
    settings = {"num_beams": beams, "temperature": temperature, "top_p": top_p}
    settings |= {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
    recipe = _with(found_run.recipe(), settings, max_prefix_tokens)
    asked = ask.task_of(task, recipe, prompt, _wants_report(form))
    question = prompting.Question(
        asked,
        prompt,
        language,
        _shots(examples, recipe) if examples else (),
        rationale,
        rationale_prompt or prompting.RATIONALE,
        answer_prompt or prompting.ANSWER,
        asked == "report" or form == "report",
        impression_prompt,
    )
    prompting.check(question, recipe.prompts)
    found = pictures.find(images)
    for remark in found.remarks:
        warn(remark)
    _check_together(together, len(found.paths), recipe)
    check_weights(found_run.facts())
    choice = engines.Choice(engine, workers, ray_address)
    engines.check(choice, found_run, recipe)
    job = ask.Job(found_run, recipe, question, recipe.seed if seed is None else seed, out, overwrite, choice, together)
    outcome = ask.Outcome()
    with progress("predict", quiet) as bar:
        for row in ask.ask(job, found.paths, lambda: _asker(job, len(found.paths)), outcome, bar, warn):
            say(_shown(row, form))
    if out is not None:
        say(f"{out}: {outcome.done} predictions, {outcome.kept} of them made before", quiet)
    outcome.check()


def _wants_report(form: str) -> bool:
    from medvlm.errors import UsageError

    if form not in ("text", "json", "report"):
        raise UsageError(f'--format "{form}": expected text, json or report')
    return form == "report"


def _with(recipe: Recipe, settings: dict[str, Any], max_prefix_tokens: int | None) -> Recipe:
    """Return the recipe with the flags on top of its own decoding."""
    from pydantic import ValidationError

    from medvlm.errors import UsageError
    from medvlm.recipe.models import EvalPart

    values = recipe.eval.model_dump() | {key: value for key, value in settings.items() if value is not None}
    try:
        part = EvalPart.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = {"num_beams": "--beams: ", "top_p": "--top-p: "}.get(str((first["loc"] or ("",))[0]), "")
        said = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{where}{_in_flags(said)}") from error
    text = recipe.text
    if max_prefix_tokens is not None:
        text = text.model_copy(update={"max_prefix_tokens": max_prefix_tokens})
    return recipe.model_copy(update={"eval": part, "text": text})


def _in_flags(said: str) -> str:
    """Return what a recipe's check says in terms of the command line."""
    said = re.sub(r"\b(num_beams|temperature|top_p)=", lambda key: f"{_FLAGS[key[1]]} ", said)
    return re.sub(r"\b(num_beams|top_p)\b", lambda key: _FLAGS[key[1]], said).replace(
        "set temperature,", "set --temperature above 0,"
    )


_FLAGS = {"num_beams": "--beams", "temperature": "--temperature", "top_p": "--top-p"}


def _shots(path: Path, recipe: Recipe) -> tuple[Shot, ...]:
    """Return the examples, with their pictures where the model can be shown them."""
    from medvlm.errors import UsageError
    from medvlm.evaluate import prompting
    from medvlm.models.backbones import BACKBONES

    shots, kind = prompting.read_shots(path), BACKBONES.get(recipe.model.backbone)
    if kind.output != "text":
        raise UsageError(f"--examples: {recipe.model.backbone} chooses among answers it knows, and takes no examples")
    if any(shot.image for shot in shots) and kind.several:
        return prompting.with_pictures(shots, path.parent)
    return shots


def _check_together(together: bool, count: int, recipe: Recipe) -> None:
    """Raise UsageError where the model takes one picture; tell where it learned from fewer than it is asked about."""
    if not together or count == 1:
        return
    from medvlm.errors import UsageError
    from medvlm.models.backbones import BACKBONES
    from medvlm.train.few_shot import taking_several

    if not BACKBONES.get(recipe.model.backbone).several:
        raise UsageError(
            f"--together: {recipe.model.backbone} takes one picture; leave it out to ask about each by itself, or use "
            f"a backbone that takes several ({', '.join(taking_several())})"
        )
    if count > recipe.prompts.max_images:
        warn(f"--together: {count} pictures; this run's recipe shows at most {recipe.prompts.max_images} of a sample")


def _asker(job: Any, count: int) -> Asker:
    """Load the model, and say what of the examples it will not see."""
    from medvlm.evaluate import ask, engines

    engine = engines.load(job.choice, job.run, job.recipe, seed=job.seed)
    made = ask.Asker(engine, job.question, count if job.together else 1)
    _tell_examples(job.question, made.first().dropped, job.recipe)
    return made


def _tell_examples(question: Question, dropped: int, recipe: Recipe) -> None:
    if any(shot.image for shot in question.shots) and not question.pictured:
        warn(f"--examples: {recipe.model.backbone} takes one picture, so of the examples only the texts are used")
    if dropped:
        warn(
            f"--examples: the first {dropped} of {len(question.shots)} have no room in {recipe.text.max_prefix_tokens} "
            "tokens and are left out; --max-prefix-tokens gives more"
        )


def _shown(row: dict[str, Any], form: str) -> str:
    if form == "json":
        return json.dumps(row, ensure_ascii=False)
    if form == "report":
        from medvlm.evaluate.report_format import render

        return render(row)
    more = len(row.get("more_images", ()))
    text = f"{row['image']}{f' and {more} more' if more else ''}: {row['prediction']}"
    text += f"\n  rationale: {row['rationale']}" if "rationale" in row else ""
    return text + (f"\n  {row['report']['status']}" if "report" in row else "")
