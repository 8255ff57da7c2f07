"""Copies of a model in Ray's workers, on this machine or on a cluster: each answers whole batches.

The batches are those of one process, so that padding, and with it every answer, is the same. Run, base model and
checkout must lie under the same paths on all machines. This process alone writes the predictions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from medvlm.data.engine.ray_tasks import connect
from medvlm.errors import ResourceError, UsageError
from medvlm.evaluate.engines import ENGINES, Batch, Choice, lengths

if TYPE_CHECKING:
    from medvlm.evaluate.engines import FullEngine
    from medvlm.models.backbones.base import Example
    from medvlm.recipe.models import Recipe
    from medvlm.runs import Run
    from medvlm.train.few_shot import Room

RETRIES = 2
"""So often is a copy of the model begun anew whose process died, and its batch asked again."""

QUEUED = 2
"""Batches handed to each copy, so that none waits for the next pictures to be read."""


class _Copy:
    """What lives in a worker: the model, loaded when first asked, so that its errors are those of an answer."""

    def __init__(self, name: str, run: Run, recipe: Recipe, base: bool, seed: int | None) -> None:
        self._given = (run, recipe, base, seed)
        self._name = name
        self._engine: FullEngine | None = None

    def _ready(self) -> FullEngine:
        if self._engine is None:
            self._engine = ENGINES.get(self._name).load(*self._given)
        return self._engine

    def answers(self, *asked: Any) -> list[str]:
        """Answer a batch; pictures, and those of the examples before each question, come with it."""
        return self._ready().answers(*asked)

    def lengths(self, prefixes: Sequence[str]) -> list[int]:
        """Return how many tokens each prefix takes."""
        return lengths(self._ready(), prefixes)

    def count(self, text: str) -> int:
        """Return how many tokens a text takes by itself."""
        return self._ready().count(text)

    def room(self) -> Room | None:
        """Return what the model has room for."""
        return self._ready().room()


class Actors:
    """An engine of several copies of a model.

    Args:
        choice: which engine, how many copies, and where Ray runs.
        run: whose model is asked.
        recipe: its own, with the decoding that is meant.
        base: ask the run's base, with nothing trained.
        seed: of what is drawn.

    Raises:
        AccessError: there is no Ray cluster at the address, or it cannot be started here.
        UsageError: the cluster has fewer GPUs than copies are asked for.
    """

    def __init__(self, choice: Choice, run: Run, recipe: Recipe, base: bool, seed: int | None) -> None:
        import ray

        self.ray: Any = ray
        self.recipe = recipe
        if not ray.is_initialized():
            connect(ray, choice.workers, choice.ray_address, instead="--workers 1 and no --ray-address")
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if gpus and gpus < choice.workers:
            raise UsageError(f"--workers {choice.workers}: there are {gpus} GPUs; set --workers {gpus}")
        remote = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=RETRIES, max_task_retries=RETRIES)
        given = (choice.name, type(run)(run.path.resolve()), recipe, base, seed)
        self.copies = [remote(_Copy).remote(*given) for _ in range(choice.workers)]

    def lengths(self, prefixes: Sequence[str]) -> list[int]:
        """Return how many tokens each prefix takes, after truncation."""
        found: list[int] = self._get(self.copies[0].lengths.remote(list(prefixes)))
        return found

    def count(self, text: str) -> int:
        """Return how many tokens a text takes by itself."""
        found: int = self._get(self.copies[0].count.remote(text))
        return found

    def room(self) -> Room | None:
        """Return what the model has room for; None where nothing is to be counted but the text."""
        found: Room | None = self._get(self.copies[0].room.remote())
        return found

    def answers(
        self, images: Sequence[Any], prefixes: Sequence[str], shots: Sequence[Sequence[Example]] = ()
    ) -> list[str]:
        """Return one answer for each question (see `Engine`), in batches of the recipe's size."""
        size = self.recipe.eval.batch_size
        starts = range(0, len(images), size)
        parts = ((at, [list(part[at : at + size]) for part in (images, prefixes, shots)]) for at in starts)
        batches = (Batch(at, *part) for at, part in parts)
        found = dict(self.each(batches))
        return [answer for at in starts for answer in found[at]]

    def each(self, batches: Iterable[Batch]) -> Iterator[tuple[int, list[str]]]:
        """Yield number and answers of each batch, as they are done.

        Raises:
            ResourceError: a copy's process died again and again.
        """
        left = iter(batches)
        running: dict[Any, tuple[int, int]] = {}
        idle = [number for _ in range(QUEUED) for number in range(len(self.copies))]
        while True:
            while idle and (batch := next(left, None)) is not None:
                copy = idle.pop(0)
                running[self.copies[copy].answers.remote(*batch.asked())] = (copy, batch.number)
            if not running:
                return
            for reference in self.ray.wait(list(running))[0]:
                copy, number = running.pop(reference)
                answers = self._get(reference)
                idle.append(copy)
                yield number, answers

    def _get(self, reference: Any) -> Any:
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            # Ray's own error is of both classes, and its text is a traceback of many lines.
            raise error.cause from error
        except self.ray.exceptions.RayError as error:
            raise ResourceError(
                f"Ray gave up a copy of the model ({type(error).__name__}), most likely out of memory; use fewer with "
                "--workers, or set --batch-size 1"
            ) from error
