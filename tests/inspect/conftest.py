"""Models to look into, and a drawn chest to look at."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from untrained_models import untrained

# The browser that the report's tests look with.
sys.path.append(str(Path(__file__).resolve().parent.parent / "report"))


@pytest.fixture(scope="session")
def chest() -> Image.Image:
    """A drawn chest in RGB."""
    from medvlm.data.images import decode
    from medvlm.data.sources.phantom.base_grammar import base_samples

    return decode(next(iter(base_samples(5, 0))).image.data)


@pytest.fixture(scope="session")
def adapted(adapter_run: Path) -> Any:
    """The packaged tiny PaliGemma with an adapter."""
    from medvlm.inspect.opened import open_model
    from medvlm.runs import Run

    run = Run(adapter_run)
    return open_model(run, run.recipe())


@pytest.fixture(scope="session")
def git_llm() -> Any:
    return untrained("git_llm")


@pytest.fixture(scope="session")
def git() -> Any:
    return untrained("git")
