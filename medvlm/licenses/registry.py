"""The license registry: what `baselines.yaml` says of each system, cell by cell, checked when it is read.

`baselines.schema.json` is the schema of the file for editors and other programs; it is made from the types below.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar, get_args

import pydantic
import yaml

from medvlm.errors import MedvlmError, UsageError
from medvlm.registry import nearest

FILE = Path(__file__).with_name("baselines.yaml")
SCHEMA = Path(__file__).with_name("baselines.schema.json")

Rights = Literal["yes", "no", "conditional", "unknown"]
Kind = Literal["model", "data", "method"]
KINDS: tuple[Kind, ...] = get_args(Kind)
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
LICENSE_FIELDS: tuple[Field, ...] = ("code_license", "weights_license", "data_license")

T = TypeVar("T")
_STRICT = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)


class Cell(pydantic.BaseModel, Generic[T]):
    """One fact with where it comes from. `baselines.yaml` explains the keys."""

    model_config = _STRICT

    value: T
    verified: Literal["yes", "no"]
    date: str = pydantic.Field(pattern=r"^\d{4}-\d{2}(-\d{2})?$")
    evidence: list[str] = []
    note: str | None = None

    @pydantic.model_validator(mode="after")
    def _verified_by_something(self) -> Self:
        if self.verified == "yes" and not self.evidence:
            raise ValueError("verified: yes needs evidence")
        return self


_License = Cell[str]
_Words = Cell[str | None]


class Cells(pydantic.BaseModel):
    """The facts on one system; one that nobody recorded is absent."""

    model_config = _STRICT

    hub_ids: Cell[list[str]] | None = None
    repo: _Words | None = None
    parameters: _Words | None = None
    code_license: _License
    weights_license: _License
    data_license: _Words | None = None
    commercial_use: Cell[Rights]
    gated: Cell[Literal["yes", "no", "unknown"]]
    may_share: Cell[Rights]
    conflict: _Words | None = None
    scores: _Words | None = None


class Entry(pydantic.BaseModel):
    """One system: a base model, a published baseline, a data set, or an answer that needs no model."""

    model_config = _STRICT

    name: str = pydantic.Field(min_length=1)
    kind: Kind
    checked: str = pydantic.Field(min_length=1)
    sources: dict[str, str] = {}
    remarks: dict[Literal["evidence", "checked"], str] = {}
    cells: Cells

    @pydantic.model_validator(mode="after")
    def _sources_are_listed(self) -> Self:
        for field, cell in self.each():
            for key in cell.evidence:
                if key not in self.sources and not key.startswith("https://"):
                    raise ValueError(f"{field}: evidence {key!r} is neither an address nor one of sources")
        return self

    @pydantic.model_validator(mode="after")
    def _never_permissive_by_doubt(self) -> Self:
        """A yes rests on verified cells: itself, and every license that is recorded beside it."""
        rights: tuple[Field, ...] = ("commercial_use", "may_share")
        for field in rights:
            doubtful = [name for name in (field, *LICENSE_FIELDS) if name in self.unverified]
            if getattr(self, field) == "yes" and (self.conflict is not None or doubtful):
                why = f"nobody has verified {', '.join(doubtful)}" if doubtful else "its sources conflict"
                raise ValueError(f"{field} is yes although {why}")
        return self

    @pydantic.model_validator(mode="after")
    def _yes_needs_known_data(self) -> Self:
        """Weights of which nobody knows what they were trained on are no plain yes, unless a note says why."""
        data = (self.data_license or "").lower()
        known = data and not any(words in data for words in ("not released", "not stated", "own license"))
        if self.kind == "model" and self.commercial_use == "yes" and not known and not self.cells.commercial_use.note:
            raise ValueError(
                "commercial_use is yes although its training data's license is not stated; say why in note"
            )
        return self

    def each(self) -> Iterator[tuple[Field, Cell[Any]]]:
        """Yield the recorded cells in the order of the table."""
        for field in FIELDS:
            cell = getattr(self.cells, field)
            if cell is not None:
                yield field, cell

    def addresses(self, cell: Cell[Any]) -> list[str]:
        """Return the addresses of a cell's evidence."""
        return [self.sources.get(key, key) for key in cell.evidence]

    def _value(self, field: Field) -> Any:
        cell = getattr(self.cells, field)
        return None if cell is None else cell.value

    @property
    def hub_ids(self) -> list[str]:
        """Hugging Face ids."""
        return self._value("hub_ids") or []

    @property
    def repo(self) -> str | None:
        """The code's repository."""
        return self._value("repo")  # type: ignore[no-any-return]

    @property
    def parameters(self) -> str | None:
        """Size as published."""
        return self._value("parameters")  # type: ignore[no-any-return]

    @property
    def code_license(self) -> str:
        """SPDX expression or LicenseRef of the code."""
        return self.cells.code_license.value

    @property
    def weights_license(self) -> str:
        """SPDX expression or LicenseRef of the weights."""
        return self.cells.weights_license.value

    @property
    def data_license(self) -> str | None:
        """The data and, where known, their license: for kind data an SPDX expression, else words."""
        return self._value("data_license")  # type: ignore[no-any-return]

    @property
    def commercial_use(self) -> Rights:
        """May it be used commercially."""
        return self.cells.commercial_use.value

    @property
    def gated(self) -> Literal["yes", "no", "unknown"]:
        """Does access need an agreement first."""
        return self.cells.gated.value

    @property
    def may_share(self) -> Rights:
        """May a fine-tune (of data: a copy) be passed on."""
        return self.cells.may_share.value

    @property
    def conflict(self) -> str | None:
        """What its sources disagree about."""
        return self._value("conflict")  # type: ignore[no-any-return]

    @property
    def scores(self) -> str | None:
        """Published scores."""
        return self._value("scores")  # type: ignore[no-any-return]

    @property
    def evidence(self) -> list[str]:
        """All addresses of the entry."""
        return list(dict.fromkeys([*self.sources.values(), *(a for _, c in self.each() for a in self.addresses(c))]))

    @property
    def verified(self) -> str:
        """What was checked at its source, in words."""
        return self.checked

    @property
    def unverified(self) -> list[Field]:
        """The recorded cells that nobody has checked at their source."""
        return [field for field, cell in self.each() if cell.verified == "no"]

    @property
    def note(self) -> dict[str, str]:
        """Original wordings: of each field whose value is shortened or normalized, of evidence and of verified."""
        found = {str(field): cell.note for field, cell in self.each() if cell.note is not None}
        names = {"evidence": "evidence", "checked": "verified"}
        return {**found, **{names[key]: text for key, text in self.remarks.items()}}

    def marked(self, field: Field) -> str:
        """Return a field as text with "[unverified]" behind it where nobody has checked it."""
        value = getattr(self, field)
        text = ", ".join(value) if isinstance(value, list) else value or "not stated"
        return f"{text} [unverified]" if field in self.unverified else text


class _File(pydantic.RootModel[list[Entry]]):
    """License registry of medvlm."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, as `baselines.schema.json` holds it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_File.model_json_schema()}


def schema_text() -> str:
    """Return the content of `baselines.schema.json`."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


@functools.cache
def _entries() -> tuple[Entry, ...]:
    # Every scalar is text, so that `no`, dates and commit ids stay what they are. A cell without `value` states none.
    rows = yaml.load(FILE.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    for row in rows if isinstance(rows, list) else []:
        cells = row.get("cells") if isinstance(row, dict) else None
        for cell in cells.values() if isinstance(cells, dict) else []:
            if isinstance(cell, dict):
                cell.setdefault("value", None)
    try:
        return tuple(_File.model_validate(rows).root)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = first["loc"][0] if first["loc"] else None
        row = rows[place] if isinstance(place, int) else {}
        name = row.get("name", "unnamed") if isinstance(row, dict) else "unnamed"
        where = ".".join(str(part) for part in first["loc"][1:])
        raise MedvlmError(f"{FILE.name}: {name}: {where}: {first['msg']}") from error


def load(kind: Kind | None = None) -> list[Entry]:
    """Return every entry, or those of one kind, in the order of the file."""
    return [entry for entry in _entries() if kind in (None, entry.kind)]


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


def of_model(id: str) -> Entry | None:
    """Return the entry of a base as recipes name it: by hub id alone, and none for what is a folder or file here.

    Whose weights lie in a folder nobody can tell from its name; of what medvlm exported, it is recorded beside them.
    """
    from medvlm.licenses import exported
    from medvlm.models.locate import TINY_RANDOM, is_packaged, is_random

    if is_random(id):
        id = TINY_RANDOM
    if not is_packaged(id) and os.path.exists(os.path.expanduser(id)):
        return exported.entry_of(Path(id).expanduser())
    key = id.strip().lower()
    return next((entry for entry in _entries() if key in (hub_id.lower() for hub_id in entry.hub_ids)), None)


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
