"""The hand-written arrow schema against the one that `datasets` makes."""

from __future__ import annotations

import datasets
import pyarrow as pa
from fake_source import sample

from medvlm.data import schema
from medvlm.data.sample import COLUMNS, Image


def test_schema_equals_that_of_datasets() -> None:
    text, many = datasets.Value("string"), datasets.List(datasets.Value("string"))
    others = {
        "image": datasets.Image(),
        "more_images": datasets.List(datasets.Image()),
        "mentions": many,
        "choices": many,
        "concepts": many,
        "views": many,
        "compound": datasets.Value("bool"),
        "third_party": datasets.Value("bool"),
        "year": datasets.Value("int32"),
    }
    expected = datasets.Features({name: others.get(name, text) for name in COLUMNS})
    assert schema.SCHEMA.equals(expected.arrow_schema, check_metadata=False)
    assert datasets.Features.from_arrow_schema(schema.SCHEMA) == expected
    assert schema.SCHEMA.metadata == expected.arrow_schema.metadata


def test_leaf_columns_are_those_of_parquet(tmp_path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "one.parquet"
    pq.write_table(pa.Table.from_arrays(schema.arrays([sample("g", 0, 1)]), schema=schema.SCHEMA), path)
    written = pq.ParquetFile(path).schema
    assert schema.leaf_columns() == [written.column(index).path for index in range(len(written))]
    assert set(schema.leaf_columns()) >= schema.PICTURE_LEAVES


def test_arrays_hold_every_field() -> None:
    one = sample("g", 0, 1, more_images=[Image(b"x", "side.png")], year=2020, choices=["a", "b"], compound=True)
    row = pa.Table.from_arrays(schema.arrays([one]), schema=schema.SCHEMA).to_pylist()[0]
    assert row["image"] == {"bytes": one.image.data, "path": "fig0.png"}
    assert row["more_images"] == [{"bytes": b"x", "path": "side.png"}]
    assert (row["year"], row["choices"], row["compound"]) == (2020, ["a", "b"], True)
    plain = set(COLUMNS) - {"image", "more_images"}
    assert all(row[name] == getattr(one, name) for name in plain)
