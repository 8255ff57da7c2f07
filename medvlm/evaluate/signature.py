"""What a score was computed with, as one string: two scores compare only where their signatures are equal."""

from __future__ import annotations

from collections.abc import Iterable

import medvlm


def signature(head: str, **settings: object) -> str:
    """Return `head|key:value|...|medvlm:VERSION`, as in `bleu:4|tok:ptb|case:lower|refs:1|smooth:none|medvlm:0.1.0`."""
    parts = [head, *(f"{key}:{value}" for key, value in settings.items()), f"medvlm:{medvlm.__version__}"]
    return "|".join(parts)


def references_per_segment(references: Iterable[int]) -> str:
    """Return "5" where every segment has five references, "max5" where at most five, "0" where there is no segment."""
    counts = {int(count) for count in references}
    most = max(counts, default=0)
    return f"max{most}" if len(counts) > 1 else str(most)
