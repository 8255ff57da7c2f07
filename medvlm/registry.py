"""One lazy registry of names: what is registered is imported only when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from medvlm.errors import UsageError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean "x"?)` for the nearest known name, or an empty string."""
    found = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return f' (did you mean "{found[0]}"?)' if found else ""


class Registry(Generic[T]):
    """Names mapped to `module:attribute`, imported on first use.

    Args:
        kind: what the names are, for messages: "metric", "source".
        entries: name -> "package.module:attribute".
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def names(self) -> list[str]:
        """Return all names in their registered order."""
        return list(self._entries)

    def get(self, name: str) -> T:
        """Import and return what `name` stands for.

        Raises:
            UsageError: no such name; the message suggests the nearest and lists all.
        """
        if name not in self._entries:
            known = ", ".join(self._entries)
            raise UsageError(f'unknown {self.kind} "{name}"{nearest(name, self._entries)}; known: {known}')
        module, _, attribute = self._entries[name].partition(":")
        value: T = getattr(importlib.import_module(module), attribute)
        return value
