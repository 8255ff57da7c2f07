"""Batched, resumable prediction: what the model answers to each row, written as it comes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.cli.common import Progress
from medvlm.evaluate.sampling import SeededDraw
from medvlm.io import atomic_write, resource_errors, sha256_bytes, stable_hash
from medvlm.recipe.models import Recipe

if TYPE_CHECKING:
    import torch

    from medvlm.data.mixture import Mixture
    from medvlm.models.load import Loaded
    from medvlm.runs import Run

GRAY = (127, 127, 127)
"""The blank picture: no structure, and about the mean of the value range [-1, 1] that the tower sees."""


def load_tuned(run: Run, recipe: Recipe) -> Loaded:
    """Load the run's base with what was trained (see `medvlm.models.trained.load`, which says what it raises)."""
    from medvlm.models import trained

    return trained.load(run, recipe)


class Predictor:
    """Generates answers with a KV cache, decoded as `recipe.eval` says: greedily, with beams, or drawn.

    Drawn answers depend on seed, picture and prefix (see `medvlm.evaluate.sampling`); greedy ones and beams on picture
    and prefix. How a batch is padded rounds logits in their last digits, which may turn a tie between two tokens.

    Args:
        loaded: base or tuned model.
        recipe: for prompts and decoding.
        seed: of what is drawn; None takes the recipe's.
    """

    def __init__(self, loaded: Loaded, recipe: Recipe, seed: int | None = None) -> None:
        import torch

        self.loaded, self.recipe = loaded, recipe
        self.seed = recipe.seed if seed is None else seed
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model: Any = loaded.model.eval()
        if recipe.quantization.mode == "none":
            self.model = self.model.to(self.device)

    def answers(self, images: Sequence[Any], prefixes: Sequence[str]) -> list[str]:
        """Return one answer for each picture and prefix."""
        import torch

        from medvlm.models.backbones.base import Example

        backbone = self.loaded.backbone
        examples = [Example(image, prefix) for image, prefix in zip(images, prefixes, strict=True)]
        inputs = backbone.collate_prompts(examples)
        search = self._search(inputs, prefixes)
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        width = inputs["input_ids"].shape[1]
        with torch.inference_mode(), self.precision():
            tokens = self.model.generate(**inputs, max_new_tokens=self.recipe.eval.max_new_tokens, **search)
        return backbone.decode(tokens[:, width:])

    def _search(self, inputs: Mapping[str, torch.Tensor], prefixes: Sequence[str]) -> dict[str, Any]:
        """Return what `generate` is told of decoding; drawing is greedy search over scores that were drawn already."""
        part = self.recipe.eval
        search: dict[str, Any] = {"do_sample": False, "num_beams": part.num_beams}
        if part.temperature > 0:
            from transformers import LogitsProcessorList

            seen = [sha256_bytes(pixels.float().numpy().tobytes()) for pixels in inputs["pixel_values"]]
            keys = [f"{self.seed}:{pixels}:{prefix}" for pixels, prefix in zip(seen, prefixes, strict=True)]
            search["logits_processor"] = LogitsProcessorList([SeededDraw(keys, part.temperature, part.top_p)])
        return search

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Adapters and projector are kept in float32 beside half-precision weights, so their products need autocast."""
        import torch

        kind: torch.dtype = getattr(torch, self.recipe.model.dtype)
        if kind == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=kind)


def predict_rows(
    mixture: Mixture,
    places: Sequence[int],
    recipe: Recipe,
    predictor: Callable[[], Predictor],
    path: Path,
    show: Progress,
    *,
    fingerprint: str,
    blank: bool = False,
) -> list[dict[str, Any]]:
    """Return a prediction for each place, generating only what `path` does not hold yet.

    Every batch is appended to a file beside `path`, so that nothing is lost when the process dies; `path` itself
    appears only whole.

    Args:
        mixture: the rows.
        places: which of them.
        recipe: for prompts, batch size and decoding.
        predictor: makes the predictor, called only when something is missing.
        path: the final JSONL file.
        show: told how many rows are done.
        fingerprint: of model, data and decoding; predictions of another one are not used.
        blank: replace every picture with an even gray.

    Raises:
        ResourceError: the disk is full.
    """
    partial = path.with_name(f".{path.name}.partial")
    done = _known(path, fingerprint) | _known(partial, fingerprint)
    wanted = {str(mixture.text(place)["id"]): place for place in places}
    missing = [place for name, place in wanted.items() if name not in done]
    if missing:
        for row in _generate(mixture, missing, recipe, predictor(), partial, fingerprint, blank, show, len(wanted)):
            done[row["id"]] = row
    if missing or not path.is_file():
        # In the order of the split, and with rows that an earlier, larger evaluation left.
        order = [str(text["id"]) for text in mixture.texts()]
        with atomic_write(path) as file:
            file.write("".join(_line(done[name]) for name in dict.fromkeys(order) if name in done))
        write_fingerprint(path, fingerprint)
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()
        _fingerprint_path(partial).unlink()
    return [done[name] for name in wanted]


def _generate(
    mixture: Mixture,
    missing: list[int],
    recipe: Recipe,
    predictor: Predictor,
    partial: Path,
    fingerprint: str,
    blank: bool,
    show: Progress,
    total: int,
) -> Iterator[dict[str, Any]]:
    from medvlm.train.collate import prefix

    # Long prompts first: padding is least within a batch, and memory is highest at once rather than at the end.
    order = sorted(missing, key=lambda place: (-len(str(mixture.text(place)["prompt"])), place))
    size = recipe.eval.batch_size
    done = total - len(missing)
    with resource_errors(partial.parent, "set --batch-size 1, or a smaller model.image_size in the recipe"):
        partial.parent.mkdir(parents=True, exist_ok=True)
        # Written anew without a line that a kill cut off, or the next row would be appended to it.
        partial.write_text("".join(map(_line, _known(partial, fingerprint).values())), encoding="utf-8")
        write_fingerprint(partial, fingerprint)
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            texts = [mixture.text(place) for place in batch]
            images = [_blank() if blank else mixture.image(place) for place in batch]
            answers = predictor.answers(images, [prefix(text, recipe.prompts) for text in texts])
            rows = [_row(text, answer) for text, answer in zip(texts, answers, strict=True)]
            with open(partial, "a", encoding="utf-8") as file:
                file.write("".join(map(_line, rows)))
                file.flush()
                os.fsync(file.fileno())
            done += len(rows)
            show.update(done, total)
            yield from rows


def _blank() -> Any:
    from PIL import Image

    # Every size ends as the same square, so a small one does.
    return Image.new("RGB", (28, 28), GRAY)


def _row(text: dict[str, Any], answer: str) -> dict[str, Any]:
    return row_of(text) | {"prediction": answer}


def row_of(text: dict[str, Any]) -> dict[str, Any]:
    """Return the line of predictions.jsonl for a row, its prediction yet empty."""
    return {
        "id": str(text["id"]),
        "prediction": "",
        "references": [str(text["target"])],
        "group": text.get("group"),
        "task": text.get("task"),
        "prompt": text.get("prompt"),
        "finding": text.get("finding"),
    }


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _fingerprint_path(path: Path) -> Path:
    return path.with_name(f".{path.name.lstrip('.')}.fingerprint")


def write_fingerprint(path: Path, fingerprint: str) -> None:
    """Record beside `path` what its predictions were made by."""
    _fingerprint_path(path).write_text(fingerprint, encoding="utf-8")


def _known(path: Path, fingerprint: str) -> dict[str, dict[str, Any]]:
    """Return the whole lines of an earlier prediction by the same model, data and decoding, by id."""
    try:
        if _fingerprint_path(path).read_text(encoding="utf-8") != fingerprint:
            return {}
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
    rows = {}
    for line in text.split("\n"):
        # A line cut off by a kill is generated again.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            row = json.loads(line)
            rows[row["id"]] = row
    return rows


def decoding(recipe: Recipe, seed: int | None = None) -> dict[str, Any]:
    """Return how answers are decoded, as scores and predictions record it.

    Args:
        recipe: its `eval` decides.
        seed: of what is drawn; None takes the recipe's.
    """
    part = recipe.eval
    facts: dict[str, Any] = {
        "max_new_tokens": part.max_new_tokens,
        "do_sample": part.temperature > 0,
        "num_beams": part.num_beams,
    }
    if part.temperature > 0:
        seed = recipe.seed if seed is None else seed
        facts |= {"temperature": part.temperature, "top_p": part.top_p, "seed": seed}
    return facts


def fingerprint(run: Run, recipe: Recipe, mixture: Mixture, row: str) -> str:
    """Return what predictions depend on: trained weights, recipe, data, decoding, and which row of the table."""
    facts = run.facts()
    return stable_hash(
        {
            "recipe": facts.get("recipe_hash"),
            "finished": facts.get("finished"),
            "data": [part["fingerprint"] for part in mixture.facts()],
            "decoding": decoding(recipe),
            "row": row,
        }
    )
