"""Runs to be exported, and the fake Hub that tests of data sets use, too."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent.parent
sys.path += [str(TESTS / name) for name in ("data", "train", "models", "report")]


def change(run: Path, recipe: dict[str, Any], facts: dict[str, Any]) -> None:
    """Change values of a run's recipe and run.json, by dotted key."""
    import yaml

    values = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    told = json.loads((run / "run.json").read_text(encoding="utf-8"))
    for target, changes in ((values, recipe), (told, facts)):
        for key, value in changes.items():
            *parents, last = key.split(".")
            inner: Any = target
            for name in parents:
                inner = inner[int(name) if name.isdigit() else name]
            inner[last] = value
    (run / "recipe.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    (run / "run.json").write_text(json.dumps(told), encoding="utf-8")


@pytest.fixture
def made(adapter_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a copy of the run under runs/, with changed recipe and run.json, and go to the folder above."""
    monkeypatch.chdir(tmp_path)

    def copy(recipe: dict[str, Any] | None = None, facts: dict[str, Any] | None = None) -> Path:
        run = Path("runs") / "adapted"
        shutil.copytree(adapter_run, run)
        change(run, recipe or {}, facts or {})
        return run

    return copy


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A prepared data set with four rows of the test split, and whom to name for them."""
    from prepared import write_folder

    from medvlm.data.sources.phantom.base_grammar import base_samples

    listed = [next(s for s in base_samples(5, i) if s.prompt == "keywords") for i in range(6)]
    folder = write_folder(tmp_path / "phantoms", {"train": listed[:2], "test": listed[2:]})
    (folder / "attribution.tsv").write_text("group\tauthors\ng\tA. Author\n", encoding="utf-8")
    return folder
