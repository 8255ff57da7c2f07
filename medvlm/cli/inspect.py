"""`medvlm inspect`: look inside a run's model: words of image tokens, where answers look, how often rightly."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medvlm.cli.common import DebugOption, QuietOption, progress, say

if TYPE_CHECKING:
    from PIL.Image import Image

    from medvlm.inspect.page import Page
    from medvlm.recipe import Recipe
    from medvlm.runs import Run

HELP = """Look inside a run's model: words nearest to its image tokens, where its answers look, and how often rightly.

Example: medvlm inspect words latest chest.png --out words.html

Example: medvlm inspect attention latest chest.png --prompt "is there a nodule?" --out look.html --out look.png
"""

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A finished run's folder or name, or `latest`.")]
Picture = Annotated[Path, typer.Argument(metavar="IMAGE", help="A PNG, JPEG or TIFF file.", show_default=False)]
Out = Annotated[
    list[Path] | None,
    typer.Option("--out", help="FILE.png, FILE.html (a page to point at patches) or FILE.json; may be given again."),
]
Format = Annotated[str, typer.Option("--format", help="What is printed: text or json.")]
Prompt = Annotated[str, typer.Option("--prompt", help="The question.")]
TaskName = Annotated[str | None, typer.Option("--task", help="caption, vqa or report: which template of the recipe.")]
Language = Annotated[str, typer.Option("--language", help="For a template with {language}.")]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    verb = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="rich")
    for command in (words, attention, hits):
        verb.command(command.__name__)(command)
    app.add_typer(verb, name="inspect")


def words(
    run: RunName,
    image: Picture,
    k: Annotated[int, typer.Option("--k", min=1, help="So many of the nearest words of each token.")] = 5,
    out: Out = None,
    form: Format = "text",
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Name the word nearest to each image token, beside the same for a blank picture: it may well mean nothing.

    Example: medvlm inspect words latest chest.png --out words.png --out words.html
    """
    from medvlm.inspect import draw, opened, page
    from medvlm.inspect.told import words_json, words_text
    from medvlm.inspect.words import of_picture

    found_run, recipe, files, picture = _opened(run, image, out, form)
    with progress("inspect", quiet):
        found = of_picture(opened.open_model(found_run, recipe), picture, k)
    name, place = _shown(image.name), _shown(found_run.path)
    title = f"Nearest words: {name}"
    facts = [("run", place), ("model", recipe.model.label), ("picture", name)]
    told = {"run": place, "image": _shown(image)} | words_json(found)
    _write(
        files,
        lambda: draw.words_sheet(picture, found, title),
        lambda: page.words_page(picture, found, title, facts),
        told,
    )
    _say(told if form == "json" else words_text(found), files, quiet)


def attention(
    run: RunName,
    image: Picture,
    prompt: Prompt = "",
    task: TaskName = None,
    language: Language = "en",
    answer: Annotated[str | None, typer.Option("--answer", help="Look at this answer, not at the model's.")] = None,
    about: Annotated[
        str | None, typer.Option("--about", help="Only these words of the answer, such as `nodule`.")
    ] = None,
    layer: Annotated[int | None, typer.Option("--layer", min=1, help="Draw this layer's map too.")] = None,
    head: Annotated[int | None, typer.Option("--head", min=0, help="One head of each layer, not their mean.")] = None,
    window: Annotated[
        int | None, typer.Option("--window", min=1, help="Side of what is hidden, in pixels as the model sees them.")
    ] = None,
    stride: Annotated[int | None, typer.Option("--stride", min=1, help="Between two places of the window.")] = None,
    occlude: Annotated[bool, typer.Option("--occlusion/--no-occlusion", help="Whether to hide parts at all.")] = True,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Pictures at a time.")] = None,
    out: Out = None,
    form: Format = "text",
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Show where an answer's tokens look, beside what its probability loses when a part of the picture is hidden.

    Example: medvlm inspect attention latest chest.png --prompt "is there a nodule?" --out look.html

    Example: medvlm inspect attention latest chest.png --task report --about effusion --layer 2 --out look.png
    """
    from medvlm.errors import InputError
    from medvlm.inspect import maps, opened
    from medvlm.inspect.told import maps_text

    _check_texts({"--prompt": prompt, "--language": language, "--answer": answer, "--about": about})
    found_run, recipe, files, picture = _opened(run, image, out, form)
    prefix = opened.prefix_of(recipe, task, prompt, language)
    asked = maps.Asked(prefix, answer, about.split() if about else None, head, window, stride, occlude, batch_size)
    with progress("inspect", quiet) as bar:
        found = maps.of_picture(opened.open_model(found_run, recipe), picture, asked, bar.update)
    if found.attention is None and found.occlusion is None:
        raise InputError("; ".join(dict.fromkeys(part for part in (found.no_occlusion, found.no_attention) if part)))
    found.check_layer(layer)
    name, place = _shown(image.name), _shown(found_run.path)
    title = f"Where the answer looks: {name}"
    facts = [("run", place), ("model", recipe.model.label), ("picture", name)]
    told = {"run": place, "image": _shown(image)} | found.as_json()
    _write(
        files,
        lambda: found.sheet(picture, title, layer),
        lambda: found.page(picture, title, facts, layer),
        told,
    )
    _say(told if form == "json" else maps_text(found), files, quiet)


def hits(
    run: RunName,
    task: Annotated[str, typer.Option("--task", help="Whose answers: caption, vqa or report.")] = "caption",
    split: Annotated[str, typer.Option("--split", help="Judged on it; the layer is chosen on validation.")] = "test",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="So many pictures of each split.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="FILE.json with every picture.")] = None,
    form: Format = "text",
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Count how often a map's peak lies on the finding, on the embedded sample, whose findings' places are known.

    Example: medvlm inspect hits latest --out hits.json
    """
    from medvlm.inspect import hits as game
    from medvlm.inspect import opened
    from medvlm.inspect.told import hits_text

    found_run, recipe = _run(run)
    files = _files([out] if out else None, (".json",), form)
    with progress("inspect", quiet) as bar:
        found = game.measure(
            lambda: opened.open_model(found_run, recipe),
            recipe,
            task=task,
            split=split,
            limit=limit,
            advance=bar.update,
        )
    told = {"run": _shown(found_run.path)} | found
    _write(files, None, None, told)
    _say(told if form == "json" else hits_text(found), files, quiet)


def _run(name: str) -> tuple[Run, Recipe]:
    from medvlm.runs import open_run

    found = open_run(None if name == "latest" and not Path(name).exists() else name)
    return found, found.recipe()


def _opened(name: str, image: Path, out: list[Path] | None, form: str) -> tuple[Run, Recipe, list[Path], Image]:
    """Return what is asked about; everything that can be wrong with the command line is said before a model loads."""
    from medvlm.data.images import decode
    from medvlm.errors import InputError, UsageError
    from medvlm.evaluate import pictures

    run, recipe = _run(name)
    files = _files(out, (".png", ".html", ".json"), form)
    if image.is_dir():
        raise InputError(f"{image}: is a folder; name one picture")
    for path in files:
        if path.exists() and image.exists() and path.samefile(image):
            raise UsageError(
                f"--out {path}: is the picture that is looked at, and would be replaced; name another file"
            )
    data = pictures.find([image]).paths[0].read_bytes()
    return run, recipe, files, decode(data, str(image), "name another picture")


def _shown(name: Path | str) -> str:
    """Return a name of a file as text that can be printed and kept: bytes in it that are no UTF-8 become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


def _check_texts(given: dict[str, str | None]) -> None:
    """Make sure that texts of the command line are UTF-8, which is what a model's words are made from."""
    from medvlm.errors import UsageError

    for option, text in given.items():
        if text is not None and _shown(text) != text:
            raise UsageError(f'{option} "{_shown(text)}": is no UTF-8; give it in the encoding UTF-8')
    answer = given.get("--answer")
    if answer is not None and not answer.strip():
        raise UsageError(f'--answer "{answer}": holds no word to look at; leave it out for the model\'s own answer')


def _files(out: list[Path] | None, known: tuple[str, ...], form: str) -> list[Path]:
    from medvlm.errors import UsageError
    from medvlm.io import check_plain

    if form not in ("text", "json"):
        raise UsageError(f'--format "{form}": expected text or json')
    for path in out or []:
        if path.suffix.lower() not in known:
            raise UsageError(f"--out {path}: expected a name that ends in {' or '.join(known)}")
        check_plain(path, "--out")
    return list(out or [])


def _write(
    files: list[Path], drawn: Callable[[], Any] | None, page: Callable[[], Page] | None, told: dict[str, Any]
) -> None:
    """Write each file whole, in the form that its name says."""
    from medvlm.inspect.draw import png
    from medvlm.inspect.page import render
    from medvlm.io import atomic_write, write_json, write_text

    for path in files:
        if path.suffix.lower() == ".json":
            write_json(path, told)
        elif path.suffix.lower() == ".html" and page is not None:
            write_text(path, render(page()))
        elif drawn is not None:
            with atomic_write(path, "wb") as file:
                file.write(png(drawn()))


def _say(told: dict[str, Any] | list[str], files: list[Path], quiet: bool) -> None:
    if isinstance(told, dict):
        # Nothing else, so that it can be read by a program.
        say(json.dumps(told, ensure_ascii=False))
        return
    for line in told:
        say(line)
    for path in files:
        say(f"written: {_shown(path)}", quiet)
