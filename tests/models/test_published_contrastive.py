"""Published dimensions of whole CLIPs and SigLIPs against published numbers of parameters.

Source: open_clip, docs/model_profile.csv (models ViT-B-16, ViT-L-14, ViT-L-14-336, ViT-B-16-SigLIP,
ViT-SO400M-14-SigLIP-384), in millions; text towers and projections apart.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medvlm.models.adapters import census
from medvlm.models.backbones.contrastive import ContrastiveBackbone
from medvlm.models.load import planned_config
from medvlm.recipe.load import check

MILLIONS = {
    "openai/clip-vit-base-patch16": (149.62, 86.19, 63.43),
    "openai/clip-vit-large-patch14": (427.62, 303.97, 123.65),
    "openai/clip-vit-large-patch14-336": (427.94, 304.29, 123.65),
    "google/siglip-base-patch16-224": (203.16, 92.88, 110.27),
    "google/siglip-so400m-patch14-384": (877.96, 428.23, 449.73),
}


@pytest.mark.parametrize("name", list(MILLIONS))
def test_parameters(name: str) -> None:
    made = check({"name": "t", "model": {"id": name, "backbone": "contrastive"}, "data": [{"path": "d"}]}, "test")
    with torch.device("meta"):
        model: Any = ContrastiveBackbone.build(planned_config(made))
    whole, image, text = MILLIONS[name]
    sizes = {name: parameter.numel() / 1e6 for name, parameter in model.named_parameters()}
    assert sum(sizes.values()) == pytest.approx(whole, abs=0.006)
    assert sum(n for key, n in sizes.items() if key.startswith(("vision", "visual"))) == pytest.approx(image, abs=0.006)
    assert sum(n for key, n in sizes.items() if key.startswith("text")) == pytest.approx(text, abs=0.006)
    counts = census(model, ContrastiveBackbone, set())
    assert sum(count.total for count in counts.values()) / 1e6 == pytest.approx(whole, abs=0.006)
