"""A prepared data set small enough to be learned by heart."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medvlm.data.sample import Sample
from medvlm.data.schema import SCHEMA, arrays
from medvlm.data.sources.phantom.base_grammar import base_samples
from medvlm.io import write_json


def write_folder(folder: Path, splits: dict[str, list[Sample]]) -> Path:
    """Write what `medvlm prepare` would have written, as far as training reads it."""
    import pyarrow as pa

    for split, samples in splits.items():
        (folder / "data").mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_arrays(arrays(samples), schema=SCHEMA)
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    write_json(folder / "manifest.json", {"fingerprint": f"test-{folder.name}", "synthetic": True})
    return folder


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures for training, four for validation and test each, one keyword caption a picture."""
    listed = [next(s for s in base_samples(5, i) if s.prompt == "keywords") for i in range(16)]
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    return write_folder(folder, {"train": listed[:8], "validation": listed[8:12], "test": listed[12:]})
