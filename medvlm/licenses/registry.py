"""The baseline registry: what `baselines.yaml` says about each system, checked against its schema when it is read."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal, Self, get_args

import pydantic
import yaml

from medvlm.errors import MedvlmError, UsageError
from medvlm.registry import nearest

FILE = Path(__file__).with_name("baselines.yaml")

Rights = Literal["yes", "no", "conditional", "unknown"]
Field = Literal[
    "hub_ids",
    "repo",
    "parameters",
    "code_license",
    "weights_license",
    "data_license",
    "commercial_use",
    "gated",
    "may_share",
    "conflict",
    "scores",
]
FIELDS: tuple[Field, ...] = get_args(Field)


class Entry(pydantic.BaseModel):
    """One system: a base model, a published baseline, or an answer that needs no model. `baselines.yaml` explains
    the fields."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)

    name: str = pydantic.Field(min_length=1)
    hub_ids: list[str]
    repo: str | None
    parameters: str | None
    code_license: str = pydantic.Field(min_length=1)
    weights_license: str = pydantic.Field(min_length=1)
    data_license: str | None
    commercial_use: Rights
    gated: Literal["yes", "no", "unknown"]
    may_share: Rights
    conflict: str | None
    scores: str | None
    evidence: list[str]
    verified: str = pydantic.Field(min_length=1)
    unverified: list[Field]
    note: dict[Field | Literal["evidence", "verified"], str]

    @pydantic.model_validator(mode="after")
    def _never_permissive_by_doubt(self) -> Self:
        doubtful = self.conflict is not None or "commercial_use" in self.unverified
        if self.commercial_use == "yes" and doubtful:
            raise ValueError("commercial_use is yes although its sources conflict or nobody has verified it")
        return self

    def marked(self, field: Field) -> str:
        """Return a field as text with "[unverified]" behind it where nobody has checked it."""
        value = getattr(self, field)
        text = ", ".join(value) if isinstance(value, list) else value or "not stated"
        return f"{text} [unverified]" if field in self.unverified else text


@functools.cache
def _entries() -> tuple[Entry, ...]:
    rows = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    try:
        return tuple(Entry.model_validate(row) for row in rows)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MedvlmError(f"{FILE.name}: {error.title} {where}: {first['msg']}") from error


def load() -> list[Entry]:
    """Return every entry in the order of the file."""
    return list(_entries())


def find(name_or_hub_id: str) -> Entry | None:
    """Return the entry with that name, hub id or repository in any case, or None.

    A name wins over a hub id, a hub id over a repository, which several systems may share: then it names none.
    """
    key = name_or_hub_id.strip().lower()
    for entry in _entries():
        if entry.name.lower() == key:
            return entry
    for entry in _entries():
        if key in (hub_id.lower() for hub_id in entry.hub_ids):
            return entry
    owners = [entry for entry in _entries() if entry.repo and entry.repo.lower() == key]
    return owners[0] if len(owners) == 1 else None


def get(name_or_hub_id: str) -> Entry:
    """Return the entry with that name or hub id.

    Raises:
        UsageError: there is none; the message suggests the nearest name.
    """
    found = find(name_or_hub_id)
    if found:
        return found
    known = {key.lower(): key for entry in _entries() for key in (entry.name, *entry.hub_ids)}
    hint = nearest(name_or_hub_id, known)
    raise UsageError(f'no system "{name_or_hub_id}" in the license registry{hint}; `medvlm licenses` lists all')
