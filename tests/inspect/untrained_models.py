"""Any backbone's tiny model, untrained, as something to look into."""

from __future__ import annotations

from typing import Any


def untrained(backbone: str, family: str = "") -> Any:
    """A backbone's tiny untrained model, ready to answer; one that chooses knows yes and no."""
    from medvlm.evaluate.predict import Predictor
    from medvlm.models.backbones import BACKBONES
    from medvlm.models.load import load_base
    from medvlm.recipe.load import check

    chooses = BACKBONES.get(backbone).output == "class"
    whole = dict.fromkeys(("language_model", "projector", "vision_tower", "head"), "full")
    given = {
        "name": "tiny",
        "model": {"id": f"medvlm/tiny-random{family}", "backbone": backbone, "dtype": "float32"},
        "adapters": whole if chooses else {},
        "data": [{"path": "data/pmc", "tasks": ["vqa"]}],
        "text": {"max_prefix_tokens": 64},
        "eval": {"max_new_tokens": 6, "batch_size": 16},
    }
    recipe = check(given, "test")
    loaded = load_base(recipe)
    loaded.backbone.fit(loaded.model, [("is there a nodule?", "yes"), ("is there air?", "no")])
    return Predictor(loaded, recipe)
