"""What tests of exports share: the card's code, run, and what the run itself answers."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

from medvlm.data.mixture import DataFolder
from medvlm.evaluate.predict import Predictor
from medvlm.models import trained
from medvlm.runs import Run


def code_of(card: Path) -> str:
    found = re.search(r"```python\n(.*?)```", card.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


def answer_of(run: Path, prefix: str) -> str:
    """What the run itself answers to image.png."""
    recipe = Run(run).recipe()
    predictor = Predictor(trained.load(Run(run), recipe), recipe)
    return predictor.answers([Image.open("image.png").convert("RGB")], [prefix])[0]


def run_code(code: str) -> str:
    """Run the code as a reader would, in the folder where the export lies."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run_here(code: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the code in this process, where the libraries are loaded already."""
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(code, {})
    return capsys.readouterr().out.strip()


def picture() -> None:
    from medvlm.data.sources.phantom.base_grammar import base_samples

    Path("image.png").write_bytes(next(iter(base_samples(5, 1))).image.data)


def with_data(data: Path, license: str) -> dict[str, object]:
    """run.json of a run trained on this data under this license."""
    fingerprint = DataFolder.open(str(data)).fingerprint()
    told = {"path": str(data), "fingerprint": fingerprint, "rows": 2, "licenses": {license: 2}}
    return {f"data.0.{key}": value for key, value in told.items()}
