"""Does the model look at the picture: its answers to the same prompts with a blank picture, and with another sample's.

After arXiv:2603.03437, where models keep 81 % of their accuracy on VQA-RAD with no image at all. Three numbers:

- image sensitivity: the share of answers that change when the picture is blank, or another's;
- visual reliance: the score with the right picture minus that with another's, on the same samples;
- kept without image: the score with a blank picture divided by that with the right one.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

from medvlm.evaluate.compare import pairs, scored
from medvlm.evaluate.score_table import Row, Settings, bootstrap_of, outputs
from medvlm.evaluate.statistics import groups_of

PICTURES = ("blank", "shuffled")

LEAST = 0.01
"""Of a lower score no share is taken: a share of nearly nothing is any number."""


def choose(places: Sequence[int], most: int | None, seed: int) -> list[int]:
    """Return at most `most` of the places, evenly spread from a seeded start; all where `most` is None."""
    if most is None or most >= len(places):
        return list(places)
    start = random.Random(seed).random()
    return [places[int((index + start) * len(places) / most)] for index in range(most)]


def measure(rows: Mapping[str, Sequence[Row]], split: Sequence[Row], names: Sequence[str], settings: Settings) -> Row:
    """Return what the controls say.

    Args:
        rows: model, blank and shuffled -> predictions of the same samples in one order.
        split: all rows that are evaluated; CIDEr's document frequencies are those of all their references, so that the
            scores compare with those of the whole split.
        names: metrics.
        settings: how they are computed.

    Returns:
        n, of, seed, rows, image_sensitivity, visual_reliance, kept_without_image, outputs, as scores.json holds them.
    """
    options = settings.options
    if options.idf is None and options.idf_references is None:
        options = dataclasses.replace(options, idf_references=[row["references"] for row in split])
    found = {name: scored(listed, names, options) for name, listed in rows.items()}
    values = {name: one.values for name, one in found.items()}
    groups = groups_of(rows["model"])
    bootstrap = bootstrap_of(groups, settings)
    (reliance,) = pairs(found, [("model", "shuffled")], groups, bootstrap, seed=settings.seed)
    return {
        "n": len(groups),
        "of": len(split),
        "seed": settings.seed,
        "rows": values,
        "image_sensitivity": {name: changed(rows["model"], rows[name]) for name in PICTURES},
        "visual_reliance": reliance["keys"],
        "kept_without_image": kept(values["model"], values["blank"]),
        "outputs": {name: outputs(listed) for name, listed in rows.items()},
    }


def changed(own: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> float:
    """Return the share of samples whose answers differ between two lists in one order, blanks around them aside."""
    differ = [str(a["prediction"]).strip() != str(b["prediction"]).strip() for a, b in zip(own, other, strict=True)]
    return sum(differ) / len(differ)


def kept(own: Mapping[str, float], blank: Mapping[str, float]) -> dict[str, float]:
    """Return by metric the blank pictures' score over the right ones', where those score at least `LEAST`."""
    return {key: blank[key] / value for key, value in own.items() if value >= LEAST and key in blank}
