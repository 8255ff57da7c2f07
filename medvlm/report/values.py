"""JSON values of any kind, read as what they should be: what is damaged or of another kind is as if it were missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def mapping(value: Any) -> dict[str, Any]:
    """Return `value` if it is a JSON object, else an empty one."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def listed(value: Any) -> list[Any]:
    """Return `value` if it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def text(value: Any) -> str:
    """Return a JSON scalar as text; nothing for null; what stands for a scalar wrongly is told in words."""
    if isinstance(value, dict | list):
        return words(value)
    return "" if value is None else value if isinstance(value, str) else str(value)


_DEEPEST = 8


def words(value: Any, depth: int = 0) -> str:
    """Return a JSON value as a reader would write it: lists and maps in one line, "-" for null within them.

    What lies deeper than eight levels is "...", so that no nesting breaks a report.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list) and depth > _DEEPEST:
        return "..."
    if isinstance(value, dict):
        told = ((str(key).replace("_", " "), words(item, depth + 1) or "-") for key, item in value.items())
        return ", ".join(f"{key} {item}" for key, item in told)
    if isinstance(value, list):
        return ", ".join(words(item, depth + 1) or "-" for item in value)
    return text(value)


def texts(value: Any) -> list[str]:
    """Return a JSON array as texts."""
    return [text(item) for item in listed(value)]


def number(value: Any) -> float | None:
    """Return a finite JSON number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def counts(value: Any) -> dict[str, int]:
    """Return the whole numbers of a JSON object."""
    return {key: item for key, item in mapping(value).items() if isinstance(item, int) and not isinstance(item, bool)}
