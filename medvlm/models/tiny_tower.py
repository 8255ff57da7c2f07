"""Stage 0 of the tiny base: its vision tower learns to see before a decoder is trained on it.

PaliGemma starts from a SigLIP tower trained on its own (arXiv:2407.07726, stage 0). Here the tower and a throw-away
linear head learn the facts of drawn phantoms, which takes minutes where learning to see through a decoder took hours.

    python -m medvlm.models.tiny_tower data/tiny-tower
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

PICTURES = 12_000
HELD_OUT = 500
STEPS = 900
BATCH = 64
LEARNING_RATE = 1e-3
SEED = 0


def facts() -> dict[str, list[str]]:
    """Return what is to be told of a picture, and the possible answers."""
    from medvlm.data.sources.phantom.spec import all_specs

    told: dict[str, set[str]] = {"sign": set(), "size": set(), "zone": set(), "modality": set()}
    for spec in all_specs():
        for name, answer in answers(spec).items():
            told[name].add(answer)
    return {name: sorted(values) for name, values in told.items()}


def answers(spec: Any) -> dict[str, str]:
    """Return the facts of one phantom; the side goes with the sign, since it means nothing alone."""
    return {
        "sign": f"{spec.finding} {spec.side or ''}".strip(),
        "size": spec.size or "none",
        "zone": spec.zone or "none",
        "modality": spec.modality,
    }


def picture(number: int) -> tuple[NDArray[np.uint8], dict[str, str]]:
    """Draw phantom `number` of a stream of its own: pixels [S, S] at the tower's size, and its facts."""
    from PIL import Image

    from medvlm.data.sources.phantom.draw import draw
    from medvlm.data.sources.phantom.spec import random_spec
    from medvlm.models.tiny import IMAGE_SIZE

    spec = random_spec(random.Random(f"tower:{SEED}:{number}"))
    # The first word keeps these pictures apart from the sample's and from those of the base's exercises.
    drawing = draw(spec, np.random.default_rng([0x70E5, SEED, number]))
    small = Image.fromarray(drawing.pixels).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return np.asarray(small), answers(spec)


def train(model: torch.nn.Module, count: int = PICTURES, steps: int = STEPS) -> dict[str, float]:
    """Train the tower of a PaliGemma in place; return the held-out accuracy of each fact."""
    import torch
    from torch.nn import functional

    with ProcessPoolExecutor() as pool:
        drawn = list(pool.map(picture, range(count), chunksize=200))
    pixels = torch.from_numpy(np.stack([image for image, _ in drawn])).float().div_(127.5).sub_(1.0)
    labels = _labels([told for _, told in drawn])
    torch.manual_seed(SEED)
    tower: Any = model.get_submodule("model.vision_tower")
    heads = torch.nn.ModuleDict({name: torch.nn.Linear(128, len(values)) for name, values in facts().items()})
    trained = [*tower.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(trained, LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)

    def logits(places: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = tower(pixel_values=pixels[places][:, None].expand(-1, 3, -1, -1)).last_hidden_state.mean(dim=1)
        return {name: head(seen) for name, head in heads.items()}

    chance = torch.Generator().manual_seed(SEED)
    for step in range(steps):
        places = torch.randint(0, count - HELD_OUT, (BATCH,), generator=chance)
        loss = torch.stack([functional.cross_entropy(x, labels[n][places]) for n, x in logits(places).items()]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"tower: {step + 1}/{steps}  loss {loss.item():.3f}", file=sys.stderr, flush=True)
    held_out = torch.arange(count - HELD_OUT, count)
    with torch.no_grad():
        found = logits(held_out)
    return {name: float((x.argmax(-1) == labels[name][held_out]).float().mean()) for name, x in found.items()}


def _labels(told: Sequence[dict[str, str]]) -> dict[str, torch.Tensor]:
    """Return class numbers [N] of each fact."""
    import torch

    return {name: torch.tensor([values.index(row[name]) for row in told]) for name, values in facts().items()}


def main(folder: Path) -> None:
    """Save the tiny PaliGemma with a tower that sees and a decoder that knows nothing yet."""
    import torch

    from medvlm.models.tiny import random_model

    torch.manual_seed(SEED)
    model, processor = random_model()
    accuracy = train(model)
    print("held-out accuracy: " + ", ".join(f"{name} {value:.3f}" for name, value in accuracy.items()))
    model.save_pretrained(folder)  # type: ignore[operator]
    processor.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
