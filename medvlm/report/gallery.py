"""The best, median and worst predictions of an evaluation, with their images from the data set."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm.errors import InputError
from medvlm.report.context import DataSet, Evaluation, Prediction
from medvlm.report.document import Case
from medvlm.report.values import text

KINDS = ("best", "median", "worst")
_EDGE = 320
_QUALITY = 80
_CREDIT = ("license", "license_evidence", "doi", "source")


def choose(predictions: Sequence[Prediction], each: int = 4) -> list[tuple[str, float, Prediction]]:
    """Return up to `each` best, median and worst predictions by the CIDEr of each, as (kind, score, prediction).

    No prediction is taken twice; ties go by id.
    """
    scored = [row for row in predictions if row.references]
    if not scored:
        return []
    ranked = sorted(zip(cider(scored), scored, strict=True), key=lambda pair: (-pair[0], pair[1].id))
    each = min(each, -(-len(ranked) // len(KINDS)))
    middle = max(each, (len(ranked) - each) // 2)
    places = {
        "best": range(each),
        "median": range(middle, middle + each),
        "worst": range(len(ranked) - 1, len(ranked) - 1 - each, -1),
    }
    seen: set[int] = set()
    chosen = []
    for kind in ("best", "worst", "median"):
        for place in places[kind]:
            if 0 <= place < len(ranked) and place not in seen:
                seen.add(place)
                chosen.append((kind, *ranked[place]))
    return sorted(chosen, key=lambda case: KINDS.index(case[0]))


def cider(predictions: Sequence[Prediction]) -> list[float]:
    """Return the CIDEr of each prediction; document frequencies are those of all references together."""
    from medvlm.evaluate.metrics import score

    found = score(["cider"], [row.prediction for row in predictions], [row.references for row in predictions])
    return [float(value) for value in found.per_segment["cider"]]


def cases(evaluation: Evaluation, data: Iterable[DataSet], each: int = 4) -> list[Case]:
    """Return the gallery of an evaluation; a case whose image is gone has none."""
    chosen = choose(evaluation.predictions, each)
    folders = [part.folder for part in data if part.folder is not None]
    rows = find_rows(folders, evaluation.split, {row.id for _, _, row in chosen})
    return [_case(kind, score, row, rows.get(row.id, {})) for kind, score, row in chosen]


def find_rows(folders: Iterable[Path], split: str, ids: set[str]) -> dict[str, dict[str, Any]]:
    """Return image and credit columns of the rows with these ids; only row groups that hold one are read in full."""
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for shard in sorted((folder / "data").glob(f"{split}-*.parquet")):
            missing = ids - found.keys()
            if missing:
                found |= _shard_rows(shard, missing)
    return found


def _shard_rows(shard: Path, ids: set[str]) -> dict[str, dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[str, dict[str, Any]] = {}
    try:
        with pq.ParquetFile(shard) as file:
            columns = [name for name in ("image", *_CREDIT) if name in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                names = file.read_row_group(group, columns=["id"]).column("id").to_pylist()
                places = [place for place, name in enumerate(names) if name in ids]
                if places:
                    table = file.read_row_group(group, columns=columns).take(places)
                    found.update(zip([names[place] for place in places], table.to_pylist(), strict=True))
    except (OSError, KeyError, pa.ArrowException):
        # A damaged or foreign shard has no images for us; the gallery says that they are missing.
        return found
    return found


def _case(kind: str, score: float, row: Prediction, found: Mapping[str, Any]) -> Case:
    image = found.get("image")
    data = image.get("bytes") if isinstance(image, Mapping) else None
    credit = ", ".join(dict.fromkeys(text(found[name]) for name in _CREDIT if found.get(name)))
    return Case(
        kind=kind,
        score=score,
        id=row.id,
        task=row.task,
        prompt=row.prompt,
        references=row.references,
        prediction=row.prediction,
        image=thumbnail(data) if data else None,
        credit=credit,
    )


def thumbnail(data: bytes) -> str | None:
    """Return a picture as a JPEG data URI of at most 320 pixels an edge, or None where it cannot be read."""
    from medvlm.data.images import decode

    try:
        picture = decode(data)
    except InputError:
        return None
    picture.thumbnail((_EDGE, _EDGE))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
