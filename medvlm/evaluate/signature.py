"""What a score was computed with, as one string: two scores compare only where their signatures are equal."""

from __future__ import annotations

import medvlm
from medvlm.evaluate.ngrams import Ints


def signature(head: str, **settings: object) -> str:
    """Return `head|key:value|...|medvlm:VERSION`, as in `bleu:4|tok:ptb|case:lower|refs:1|smooth:none|medvlm:0.1.0`."""
    parts = [head, *(f"{key}:{value}" for key, value in settings.items()), f"medvlm:{medvlm.__version__}"]
    return "|".join(parts)


def references_per_segment(references: Ints) -> str:
    """Return "5" where every segment has five references, "max5" where at most five, "0" where there is no segment."""
    if not len(references):
        return "0"
    most = int(references.max())
    return str(most) if int(references.min()) == most else f"max{most}"
