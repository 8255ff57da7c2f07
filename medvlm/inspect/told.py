"""What was found inside a model, as lines of text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medvlm.inspect.maps import Maps
    from medvlm.inspect.words import Near, Words

_SHOWN = 20


def words_text(found: Words) -> list[str]:
    """Return the most frequent nearest words, and what they are worth."""
    counts = found.counts()
    lines = [f"{count:>5} x {word}  (mean cosine {mean:.3f})" for word, count, mean in counts[:_SHOWN]]
    if len(counts) > _SHOWN:
        lines.append(f"and {len(counts) - _SHOWN} more words")
    if found.grid is None:
        lines.append("These image tokens are no one grid over the picture.")
    return [*lines, *found.sentences()]


def words_json(found: Words) -> dict[str, Any]:
    """Return the words of every image token in the model's order, counts and controls."""

    def told(near: Near) -> dict[str, Any]:
        return {"word": near.word, "cosine": near.cosine, "distance": near.distance}

    grid = found.grid
    return {
        "grid": None
        if grid is None
        else {"rows": grid.rows, "columns": grid.columns, "before": grid.extra, "view": list(grid.view)},
        "vocabulary": found.vocabulary,
        "left_out": found.left_out,
        "counts": [{"word": word, "tokens": count, "cosine": mean} for word, count, mean in found.counts()],
        "controls": found.controls(),
        "sentences": found.sentences(),
        "tokens": [
            {"near": [told(near) for near in token.near], "mean_cosine": token.mean, "blank": told(token.blank)}
            for token in found.tokens
        ],
    }


def maps_text(found: Maps) -> list[str]:
    """Return the answer and what its maps say."""
    lines = [f"prompt: {found.asked.prefix}", f"answer: {found.answer or '(empty)'}", *found.sentences()]
    for one in found.layers():
        x0, y0, x1, y1 = one.drawn.peak()
        place = f"{50 * (x0 + x1):.0f} % from the left and {50 * (y0 + y1):.0f} % from the top"
        lines.append(f"{one.drawn.title} ({one.drawn.note}): peak {place}")
    return lines


def hits_text(found: Mapping[str, Any]) -> list[str]:
    """Return how often each map's peak lies on the finding, beside chance and the middle of the picture."""
    part = found[found["split"]]
    pictures = f"{part['n']} pictures of the {found['split']} split with a finding ({part['groups']} articles)"
    lines = [
        f"{pictures}, {found['task']}; the answer names the finding in {part['named']:.0%}",
        f"{'':<24}{'peak touches it':>24}{'chance':>8}{'middle':>8}{'peak on it':>24}{'chance':>8}{'middle':>8}",
    ]
    for name, told in part["maps"].items():
        cells = [
            f"{_percent(told[kind], told[f'{kind}_interval']):>24}{told[f'{kind}_chance']:>8.0%}"
            f"{told[f'{kind}_center']:>8.0%}"
            for kind in ("touch", "point")
        ]
        shown = f"attention, {name}" if name != "occlusion" else name
        lines.append(f"{shown:<24}{''.join(cells)}")
    if found["layer"]:
        lines.append(f"{found['layer']} was chosen on the {found['chosen_on']} split, where it touches most often.")
    lines.append(
        "Intervals: 95 %, bootstrap over articles. Chance: a peak anywhere. Middle: always the middle of the picture."
    )
    return lines


def _percent(value: float, interval: list[float]) -> str:
    return f"{value:.0%} [{interval[0]:.0%}, {interval[1]:.0%}]"
