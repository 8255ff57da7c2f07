"""Batched, resumable prediction: what the model answers to each row, written as it comes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.cli.common import Progress, warn
from medvlm.evaluate import resume
from medvlm.evaluate.engines import Batch, Engine, answered, lengths
from medvlm.evaluate.generation import asking, decoding
from medvlm.evaluate.questions import Questions
from medvlm.evaluate.sampling import SeededDraw
from medvlm.evaluate.shown import Picture, Pictures
from medvlm.io import atomic_write, resource_errors, sha256_bytes, stable_hash
from medvlm.recipe.models import Recipe

if TYPE_CHECKING:
    import torch

    from medvlm.data.mixture import Mixture
    from medvlm.models.backbones.base import Example
    from medvlm.models.load import Loaded
    from medvlm.runs import Run
    from medvlm.train.few_shot import FewShot, Room

__all__ = ["Predictor", "decoding", "fingerprint", "load_plain", "load_tuned", "predict_rows", "row_of"]

COLUMNS = ("modality", "organ", "question_type", "answer_type", "choices", "source", "language")
"""What is told of a row where the data set tells it."""

SMALLER = "set --batch-size 1, or a smaller model.image_size in the recipe"


def load_tuned(run: Run, recipe: Recipe) -> Loaded:
    """Load the run's base with what was trained (see `medvlm.models.trained.load`, which says what it raises).

    A published model to which nothing was trained (`kind` "baseline" in run.json) is loaded as it is.
    """
    if run.facts().get("kind") == "baseline":
        return load_plain(recipe)
    from medvlm.models import trained

    return trained.load(run, recipe)


def load_plain(recipe: Recipe) -> Loaded:
    """Load the recipe's base with nothing trained (see `medvlm.models.load.load_base`, which says what it raises)."""
    from medvlm.models.load import load_base

    return load_base(recipe)


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

    def lengths(self, prefixes: Sequence[str]) -> list[int]:
        """Return how many tokens each prefix takes, after truncation."""
        return [self.loaded.backbone.text_tokens(prefix, "")[0] for prefix in prefixes]

    def count(self, text: str) -> int:
        """Return how many tokens a text takes by itself."""
        return len(self.loaded.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def room(self) -> Room | None:
        """Return what the model has room for; None where nothing is to be counted but the text."""
        from medvlm.train.few_shot import room_of

        return room_of(self.loaded)

    def answers(
        self, images: Sequence[Any], prefixes: Sequence[str], shots: Sequence[Sequence[Example]] = ()
    ) -> list[str]:
        """Return one answer for each question (see `medvlm.evaluate.engines.Engine`)."""
        import torch

        from medvlm.models.backbones.base import Example

        backbone = self.loaded.backbone
        examples = []
        for image, prefix, before in zip(images, prefixes, shots or [()] * len(prefixes), strict=True):
            first, *more = image if isinstance(image, tuple) else (image,)
            examples.append(Example(first, prefix, more_images=tuple(more), shots=tuple(before)))
        inputs = backbone.collate_prompts(examples)
        search = self._search(inputs, examples)
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        with torch.inference_mode(), self.precision():
            return backbone.answer(self.model, inputs, self.recipe.eval.max_new_tokens, search)

    def _search(self, inputs: Mapping[str, torch.Tensor], examples: Sequence[Example]) -> dict[str, Any]:
        """Return what `generate` is told of decoding; drawing is greedy search over scores that were drawn already."""
        part = self.recipe.eval
        search: dict[str, Any] = {"do_sample": False, "num_beams": part.num_beams}
        if part.temperature > 0:
            from transformers import LogitsProcessorList

            if self.loaded.backbone.several:
                # Its pixel values need not stand one by one for the questions.
                seen = [sha256_bytes(b"".join(map(_identity, [*one.shots, one]))) for one in examples]
            else:
                seen = [sha256_bytes(pixels.float().numpy().tobytes()) for pixels in inputs["pixel_values"]]
            keys = [f"{self.seed}:{pixels}:{one.prefix}" for pixels, one in zip(seen, examples, strict=True)]
            search["logits_processor"] = LogitsProcessorList([SeededDraw(keys, part.temperature, part.top_p)])
        return search

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Adapters and projector are kept in float32 beside half-precision weights, so their products need autocast."""
        import torch

        kind: torch.dtype = getattr(torch, self.recipe.model.dtype)
        if kind == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=kind)


def _identity(example: Example) -> bytes:
    """Return a hash of an example's pictures and texts."""
    pictures = [sha256_bytes(f"{image.size}".encode() + image.tobytes()) for image in example.images]
    return stable_hash([pictures, example.prefix, example.suffix]).encode()


def predict_rows(
    mixture: Mixture,
    places: Sequence[int],
    recipe: Recipe,
    predictor: Callable[[], Engine],
    path: Path,
    show: Progress,
    *,
    fingerprint: str,
    picture: Picture = "own",
    seed: int = 0,
    few_shot: Callable[[Engine], FewShot] | None = None,
) -> list[dict[str, Any]]:
    """Return a prediction for each place, generating only what `path` does not hold yet.

    Every batch is appended to a file beside `path` and synced, so that a kill loses no more than the batch under way;
    `path` itself appears only whole, in the order of the split.

    Args:
        mixture: the rows.
        places: which of them.
        recipe: for prompts, batch size and decoding.
        predictor: makes what answers (see `medvlm.evaluate.engines`), called only when something is missing.
        path: the final JSONL file.
        show: told how many rows are done.
        fingerprint: of model, data and decoding; predictions of another one are not used.
        picture: each row's own; `blank`, an even gray; or `shuffled`, another row's, whose id stands in the row as
            `picture_of` (see `medvlm.evaluate.shown`). Few-shot examples keep theirs; their ids stand as `shots`.
        seed: of the shuffle.
        few_shot: gives what chooses the examples, where there are any, for what answers; by default it is made anew.

    Raises:
        InputError: another process writes predictions there.
        ResourceError: the disk is full.
    """
    if picture != "own":
        fingerprint = stable_hash([fingerprint, picture, seed if picture == "shuffled" else None])
    with resource_errors(path.parent, SMALLER), resume.held(path):
        partial = path.with_name(f".{path.name}.partial")
        kept = resume.known(path, fingerprint)
        done = kept | resume.known(partial, fingerprint)
        wanted = {str(mixture.text(place)["id"]): place for place in places}
        missing = [place for name, place in wanted.items() if name not in done]
        if missing:
            # Written anew without a line that a kill cut off, or the next row would be appended to it.
            with atomic_write(partial) as file:
                file.writelines(map(resume.line, resume.known(partial, fingerprint).values()))
            resume.write_fingerprint(partial, fingerprint)
            engine, left = predictor(), len(missing)
            chooser = few_shot(engine) if few_shot is not None and recipe.prompts.shots else None
            questions = Questions(mixture, recipe, engine, picture, seed, chooser)
            for rows in _generate(mixture, missing, recipe, engine, questions):
                resume.append(partial, rows)
                done |= {row["id"]: row for row in rows}
                left -= len(rows)
                show.update(len(wanted) - left, len(wanted))
            questions.tell()
            _tell_alone(questions.pictures)
        if len(done) > len(kept) or not path.is_file():
            # In the order of the split, and with rows that an earlier, larger evaluation left.
            order = [str(text["id"]) for text in mixture.texts()]
            if not kept:
                # A kill between the two writes must not leave these rows under the name of another model.
                resume.remove_fingerprint(path)
            with atomic_write(path) as file:
                file.write("".join(resume.line(done[name]) for name in dict.fromkeys(order) if name in done))
            resume.write_fingerprint(path, fingerprint)
        resume.remove(partial)
    return [done[name] for name in wanted]


def _generate(
    mixture: Mixture, missing: Sequence[int], recipe: Recipe, engine: Engine, questions: Questions
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each batch that is done, in any order."""
    tokens = dict(zip(missing, lengths(engine, [questions.text(place) for place in missing]), strict=True))
    # Long prompts first: padding is least within a batch, and memory is highest at once rather than at the end.
    order = sorted(missing, key=lambda place: (-tokens[place], place))
    size = recipe.eval.batch_size
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    # What the rows of each batch that is under way tell of what they were shown.
    told: dict[int, list[dict[str, Any]]] = {}

    def asked() -> Iterator[Batch]:
        for number, batch in enumerate(batches):
            found = [questions.of(place) for place in batch]
            told[number] = [one.told for one in found]
            shots = [one.shots for one in found] if any(one.shots for one in found) else []
            yield Batch(number, [one.image for one in found], [one.prefix for one in found], shots)

    for number, answers in answered(engine, asked()):
        yield [
            row_of(mixture.text(place)) | {"prediction": answer} | more
            for place, answer, more in zip(batches[number], answers, told.pop(number), strict=True)
        ]


def _tell_alone(pictures: Pictures) -> None:
    if pictures.alone:
        warn(
            f"{len(pictures.alone)} rows ({pictures.alone[0]}, ...) were shown their own picture, since the split has "
            "no other one to show; their picture_of says so"
        )


def row_of(text: Mapping[str, Any]) -> dict[str, Any]:
    """Return the line of predictions.jsonl for a row, its prediction yet empty; `COLUMNS` where they are known."""
    told = {name: text[name] for name in COLUMNS if text.get(name) not in (None, "", [])}
    return {
        "id": str(text["id"]),
        "prediction": "",
        "references": [str(text["target"])],
        "group": text.get("group"),
        "task": text.get("task"),
        "prompt": text.get("prompt"),
        "finding": text.get("finding"),
    } | told


def fingerprint(run: Run, recipe: Recipe, mixture: Mixture, row: str, engine: str = "transformers") -> str:
    """Return what predictions depend on: trained weights, recipe, data, decoding, engine, and which row of the table.

    On how many machines they are made they do not depend.
    """
    facts = run.facts()
    depends = {
        "recipe": facts.get("recipe_hash"),
        "finished": facts.get("finished"),
        "data": [part["fingerprint"] for part in mixture.facts()],
        "decoding": decoding(recipe, run=run) | asking(recipe),
        "row": row,
    }
    return stable_hash(depends | ({} if engine == "transformers" else {"engine": engine}))
