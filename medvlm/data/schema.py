"""The parquet form of `Sample`: arrow types, and the metadata by which `datasets.load_dataset` reads it unaided.

Written by hand with pyarrow: importing `datasets` for it would cost every `prepare` a second. A test holds it against
`datasets.Features(...).arrow_schema`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from medvlm.data.sample import COLUMNS, Image, Sample

SCHEMA_VERSION = 3

_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_OTHER_THAN_STRING: dict[str, pa.DataType] = {
    "image": _PICTURE,
    "more_images": pa.list_(_PICTURE),
    "mentions": pa.list_(pa.string()),
    "choices": pa.list_(pa.string()),
    "concepts": pa.list_(pa.string()),
    "views": pa.list_(pa.string()),
    "compound": pa.bool_(),
    "third_party": pa.bool_(),
    "year": pa.int32(),
}
_DTYPES = {pa.string(): "string", pa.bool_(): "bool", pa.int32(): "int32"}

PICTURE_LEAVES = frozenset(
    {"image.bytes", "image.path", "more_images.list.element.bytes", "more_images.list.element.path"}
)
"""Parquet leaf columns of the pictures: already compressed, and without an order that statistics could use."""


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """Return the `datasets` feature of an arrow type in the form that `Features.to_dict` gives it."""
    if kind == _PICTURE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": _DTYPES[kind], "_type": "Value"}


def _build() -> pa.Schema:
    fields = [pa.field(name, _OTHER_THAN_STRING.get(name, pa.string())) for name in COLUMNS]
    info = {"info": {"features": {field.name: _feature(field.type) for field in fields}}}
    return pa.schema(fields, metadata={"huggingface": json.dumps(info)})


SCHEMA: pa.Schema = _build()


def leaf_columns() -> list[str]:
    """Return the parquet paths of all leaf columns, in order."""
    leaves: list[str] = []
    for field in SCHEMA:
        leaves += _leaves(field.name, field.type)
    return leaves


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    if pa.types.is_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    if pa.types.is_struct(kind):
        return [f"{path}.{kind.field(index).name}" for index in range(kind.num_fields)]
    return [path]


def _cell(value: Any) -> Any:
    if isinstance(value, Image):
        return value.as_row()
    if isinstance(value, list):
        return [_cell(item) for item in value]
    return value


def arrays(samples: Sequence[Sample]) -> list[pa.Array]:
    """Return one arrow array for each column of `SCHEMA`, each of length `len(samples)`."""
    return [pa.array([_cell(getattr(sample, field.name)) for sample in samples], type=field.type) for field in SCHEMA]


def payload(sample: Sample) -> int:
    """Return about how many bytes a sample weighs: its pictures and its long texts."""
    pictures = len(sample.image.data) + sum(len(view.data) for view in sample.more_images)
    return pictures + len(sample.prompt) + len(sample.target) + sum(map(len, sample.mentions))
