"""Run folders and data sets with licenses of every kind, made without training anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medvlm.io import write_json
from medvlm.models.locate import weights_fingerprint
from medvlm.recipe.load import check
from medvlm.recipe.resolve import recipe_hash, write_resolved
from medvlm.resources import PACKAGE

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a finished run: base, rows by license, where it starts from, more facts."""

    def make(
        name: str = "tuned",
        base: str = "medvlm/tiny-base",
        licenses: dict[str, int] | None = None,
        start: Path | None = None,
        **more: Any,
    ) -> Path:
        run = tmp_path / "runs" / name
        model: dict[str, Any] = {"id": base} if start is None else {"id": base, "start": str(start)}
        recipe = check({"name": name, "model": model, "data": [{"path": f"data/{name}"}]}, "test")
        write_resolved(recipe, run / "recipe.yaml")
        counts = {"CC-BY-4.0": 6, "CC0-1.0": 2} if licenses is None else licenses
        weights = weights_fingerprint(PACKAGE / "models" / "tiny_base") if base == "medvlm/tiny-base" else None
        facts = {
            "schema": 1,
            "name": name,
            "status": "finished",
            "started": "2026-01-01T00:00:00+00:00",
            "finished": "2026-01-01T01:02:03+00:00",
            "recipe_hash": recipe_hash(recipe),
            "versions": {"medvlm": "0.1.0", "torch": "2.13.0+cpu"},
            "data": [
                {"path": f"data/{name}", "fingerprint": name[0] * 64, "rows": sum(counts.values()), "licenses": counts}
            ],
            "model": {"id": base, "parts": {"model": base}, "revision": None, "weights": {"model": weights}},
            "result": {},
            **more,
        }
        write_json(run / "run.json", facts)
        return run

    return make


@pytest.fixture(scope="session")
def mixed_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set: for training one row CC BY-NC and one with no license, for the test one CC0."""
    from prepared import write_folder

    from medvlm.data.sources.phantom.base_grammar import base_samples

    rows = [next(iter(base_samples(3, index))) for index in range(3)]
    licenses = (("CC-BY-NC-4.0", "no"), (None, "unknown"), ("CC0-1.0", "yes"))
    rows = [
        dataclasses.replace(row, license=license, commercial_use=use)
        for row, (license, use) in zip(rows, licenses, strict=True)
    ]
    folder = tmp_path_factory.mktemp("mixed") / "set"
    write_folder(folder, {"train": rows[:2], "test": rows[2:]})
    return folder
