"""A mixture in memory and a run of the tiny base, for the tests of predictions; run as a script, it predicts."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

from medvlm.cli.common import progress
from medvlm.evaluate import predict
from medvlm.evaluate.engines import Engine
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe

QUESTIONS = ("is there a nodule?", "what is seen?", "is the heart large, and is there fluid beside the left lung?")


def recipe_of(**of: Any) -> Recipe:
    """Return a recipe of the tiny base; keywords are of its `eval`."""
    model = {"id": "medvlm/tiny-base", "dtype": "float32"}
    part = {"max_new_tokens": 6, "batch_size": 3, **of}
    return check({"name": "r", "model": model, "data": [{"path": "d"}], "eval": part}, "test")


class Rows:
    """As many questions as are asked for, of prompts of several lengths, two or so to a group."""

    def __init__(self, count: int = 20, groups: int | None = None, pictures: int | None = None) -> None:
        self.count, self.groups = count, groups or (count + 1) // 2
        self.pictures = pictures or self.groups

    def text(self, place: int) -> dict[str, Any]:
        return {
            "id": f"r{place}",
            "task": "vqa",
            "prompt": QUESTIONS[place % 3],
            "target": "yes",
            "group": f"g{place % self.groups}",
            "language": "en",
        }

    def texts(self) -> list[dict[str, Any]]:
        return [self.text(place) for place in range(self.count)]

    def image(self, place: int) -> Any:
        # One picture for each group, unless there are more.
        shade = 10 + 240 * (place % self.pictures) // self.pictures
        return Image.new("RGB", (40, 40), (shade, shade, 255 - shade))


def predicted(rows: Any, engine: Engine, path: Path, recipe: Recipe | None = None, **of: Any) -> list[dict[str, Any]]:
    """Predict all rows."""
    with progress("test", quiet=True) as bar:
        made = recipe or recipe_of()
        given = {"fingerprint": "f", **of}
        return predict.predict_rows(rows, range(rows.count), made, lambda: engine, path, bar, **given)


class Slow:
    """Takes its time, so that a kill finds it at work."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def answers(self, images: Any, prefixes: Any) -> list[str]:
        time.sleep(0.05)
        return self.engine.answers(images, prefixes)


if __name__ == "__main__":
    recipe = recipe_of()
    loaded = predict.load_plain(recipe)
    print(json.dumps("ready"), flush=True)
    predicted(Rows(60), Slow(predict.Predictor(loaded, recipe)), Path(sys.argv[1]))
