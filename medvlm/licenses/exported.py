"""The rights in a model that medvlm exported, as an entry of the registry: what it was made of goes on with it."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medvlm.io import sha256_file
from medvlm.licenses import expressions
from medvlm.licenses.registry import Cell, Cells, Entry

FILE = "export.json"


def record_of(folder: Path) -> dict[str, Any] | None:
    """Return what `medvlm export` recorded beside the weights in a folder.

    None where there is no such record, or where the weights are no longer those that it tells of.
    """
    from medvlm.models.locate import weights_fingerprint

    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict) or told.get("weights") != weights_fingerprint(folder) or told.get("weights") is None:
        return None
    # The fingerprint is of the ends of files only; earlier exports hold no more.
    return told if "sha256" not in told or told["sha256"] == digests(folder) else None


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of weights in a folder; one that has not changed is read once a process."""
    from medvlm.models.locate import weights_files

    found = {}
    for file in weights_files(folder):
        about = file.stat()
        found[file.name] = _digest(file.resolve(), about.st_size, about.st_mtime_ns)
    return found


@functools.lru_cache(maxsize=256)
def _digest(file: Path, size: int, changed: int) -> str:
    return sha256_file(file)


def trained_on(folder: Path) -> list[dict[str, Any]]:
    """Return what an export's record says of each data set that it was trained on; nothing of any other folder.

    With `max_images`, how many pictures of a row it was shown at most; None where that was not recorded.
    """
    told = record_of(folder) or {}
    data, most = told.get("data"), told.get("max_images")
    parts = [part for part in data if isinstance(part, dict)] if isinstance(data, list) else []
    return [{"max_images": most, **part} for part in parts]


def entry_of(folder: Path) -> Entry | None:
    """Return what `medvlm export` recorded beside the weights in a folder, as the registry would; None as `record_of`.

    None too where the record holds no verdict.
    """
    told = record_of(folder)
    verdict = told.get("license") if told else None
    if told is None or not isinstance(verdict, dict):
        return None
    use, share = verdict.get("commercial_use"), verdict.get("may_share")
    if use not in expressions.RESTRICTIVENESS or share not in expressions.RESTRICTIVENESS:
        return None
    license = " AND ".join(dict.fromkeys(_licenses(verdict.get("license"), told.get("data"))))
    reasons = "; ".join(map(str, verdict.get("reasons") or [])) or None
    written = datetime.date.fromtimestamp((folder / FILE).stat().st_mtime).isoformat()

    def cell(value: Any, note: str | None = None) -> Cell[Any]:
        return Cell(value=value, verified="yes", date=written, evidence=["export"], note=note)

    cells = Cells(
        code_license=cell("Apache-2.0"),
        weights_license=cell(license),
        data_license=cell(license),
        commercial_use=cell(use, reasons),
        gated=cell("no"),
        may_share=cell(share, reasons),
    )
    sources = {"export": str(folder / FILE)}
    return Entry(name=f"{folder.name} (exported by medvlm)", kind="model", checked="yes", sources=sources, cells=cells)


def _licenses(carried: Any, data: Any) -> Iterator[str]:
    """Yield the licenses of the weights themselves and of what they learned from; a sentence is none."""
    ids = expressions.symbols(carried) if isinstance(carried, str) else []
    yield carried if ids and all(map(expressions.is_license_id, ids)) else "NOASSERTION"
    for part in data if isinstance(data, list) else []:
        yield from map(str, (part.get("licenses") if isinstance(part, dict) else None) or {})
