"""What an update tells of two states of a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medvlm.data.update import compare


def state(path: Path, units: dict[str, tuple[str, int]]) -> Path:
    """Write a status row for each unit: name -> (version, samples)."""
    rows: list[dict[str, Any]] = [
        {"unit": name, "version": version, "status": "done" if samples else "empty", "samples": samples, "rejects": {}}
        for name, (version, samples) in units.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


OLD = {"a": ("1", 2), "b": ("1", 0), "c": ("1", 3)}


@pytest.mark.parametrize(
    ("new", "told"),
    [
        (OLD, (0, 0, 0)),
        ({**OLD, "d": ("1", 1)}, (1, 0, 0)),
        ({**OLD, "a": ("2", 2)}, (0, 1, 0)),
        ({**OLD, "a": ("1", 1)}, (0, 1, 0)),
        ({**OLD, "b": ("1", 4)}, (0, 1, 0)),
        ({"a": ("1", 2), "b": ("1", 0)}, (0, 0, 1)),
        ({**OLD, "c": ("2", 0)}, (0, 0, 1)),
        ({"c": ("2", 1), "x": ("1", 0)}, (1, 1, 2)),
        ({}, (0, 0, 3)),
    ],
)
def test_units_added_changed_withdrawn(tmp_path: Path, new: dict[str, tuple[str, int]], told: tuple[int, ...]) -> None:
    found = compare(state(tmp_path / "old", OLD), state(tmp_path / "new", new))
    assert (found["added"], found["changed"], found["withdrawn"]) == told
