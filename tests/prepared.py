"""Writes what training reads."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medvlm.data.sample import Sample
from medvlm.data.schema import SCHEMA, arrays
from medvlm.io import write_json


def write_folder(folder: Path, splits: dict[str, list[Sample]]) -> Path:
    """Write what `medvlm prepare` would have written, as far as training reads it."""
    for split, samples in splits.items():
        (folder / "data").mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_arrays(arrays(samples), schema=SCHEMA)
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    write_json(folder / "manifest.json", {"fingerprint": f"test-{folder.name}", "synthetic": True})
    return folder
