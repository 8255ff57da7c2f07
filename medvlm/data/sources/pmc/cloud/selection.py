"""Which articles of PMC are asked for: by id, by a search, or all of the inventory."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from medvlm.errors import UsageError
from medvlm.io import stable_hash

MAX_IDS_SHOWN = 20
_ID = re.compile(r"(?:PMC)?0*([1-9]\d{0,11})(?:\.([1-9]\d{0,5}))?", re.IGNORECASE)
_ID_LIKE = re.compile(r"(?:PMC)?[\d.]+", re.IGNORECASE)
_FORMS = "give PMC123,PMC456.2 or a file with one id a line"


@dataclasses.dataclass(frozen=True)
class Selection:
    """One of the three ways to choose articles; exactly one is set.

    Raises:
        UsageError: none is set, or several are.
    """

    ids: tuple[str, ...] = ()
    """As `parse_ids` returns them: "PMC123", or "PMC123.2" where a version is named."""
    query: str = ""
    """In the words of PubMed Central's search."""
    inventory: bool = False

    def __post_init__(self) -> None:
        if sum(map(bool, (self.ids, self.query.strip(), self.inventory))) != 1:
            raise UsageError("name the articles by one of --ids, --query and --inventory")

    def lineage(self) -> str:
        """Return the hash of what is asked for, which the state of the server does not change."""
        return stable_hash(["pmc-cloud", sorted(self.ids), " ".join(self.query.split()), self.inventory])

    def describe(self) -> str | list[str] | dict[str, str | int]:
        """Return the selection for the manifest; a long list of ids as its length and hash."""
        if self.inventory:
            return "inventory"
        if self.query:
            return f"query: {self.query}"
        if len(self.ids) <= MAX_IDS_SHOWN:
            return list(self.ids)
        return {"ids": len(self.ids), "sha256": stable_hash(sorted(self.ids))}


def parse_ids(text_or_file: str) -> tuple[str, ...]:
    """Return the articles that a list or a file names, sorted, each once: "PMC123", or "PMC123.2" with its version.

    Args:
        text_or_file: ids separated by commas or blanks, or the path of a file with one id a line (`#` begins a
            comment). The prefix may be missing. An article named both with and without its version has that version.

    Raises:
        UsageError: a word is no id, the file cannot be read, nothing is named, or two versions of one article are.
    """
    words = [(word, "--ids") for word in re.split(r"[\s,;]+", text_or_file.strip()) if word]
    if not words:
        raise UsageError(f"--ids names no article; {_FORMS}")
    odd = next((word for word, _ in words if not _ID_LIKE.fullmatch(word)), None)
    if odd is not None:
        words = _words_of_file(text_or_file, odd)
    versions: dict[str, str] = {}
    for word, where in words:
        match = _ID.fullmatch(word)
        if match is None:
            raise UsageError(f'{where}: "{word[:60]}" is no id of PMC; {_FORMS}')
        name, version = f"PMC{match[1]}", match[2] or ""
        known = versions.setdefault(name, version)
        if known and version and known != version:
            raise UsageError(f"{where}: {name}.{known} and {name}.{version} are one article; name one version of it")
        versions[name] = known or version
    return tuple(sorted(f"{name}.{version}" if version else name for name, version in versions.items()))


def _words_of_file(path: str, odd: str) -> list[tuple[str, str]]:
    """Return the words of a file of ids, each with its place; `odd` is what it is no list of ids for."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(f'--ids: "{odd[:60]}" is neither an id of PMC nor a file; {_FORMS}') from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UsageError(f"--ids {path[:200]}: {reason}; {_FORMS}") from error
    lines = (line.partition("#")[0] for line in text.splitlines())
    found = [
        (word, f"{path}, line {number}")
        for number, line in enumerate(lines, 1)
        for word in re.split(r"[\s,;]+", line)
        if word
    ]
    if not found:
        raise UsageError(f"--ids {path}: no id in the file; {_FORMS}")
    return found


def split_id(name: str) -> tuple[str, int | None]:
    """Return article and version of an id as `parse_ids` returns it: ("PMC123", 2), ("PMC123", None)."""
    article, _, version = name.partition(".")
    return article, int(version) if version else None
