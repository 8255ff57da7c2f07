"""A prepared data set small enough to be learned by heart."""

from __future__ import annotations

from pathlib import Path

import pytest
from prepared import write_folder

from medvlm.data.sources.phantom.base_grammar import base_samples


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures for training, four for validation and test each, one keyword caption a picture."""
    listed = [next(s for s in base_samples(5, i) if s.prompt == "keywords") for i in range(16)]
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    return write_folder(folder, {"train": listed[:8], "validation": listed[8:12], "test": listed[12:]})
