"""Pictures as the model takes them, or as its frozen vision tower sees them, kept on disk between epochs and runs.

A record belongs to a picture by its bytes and to a model by all that shaped it, so that a cache is used where it is
right and nowhere else, however the data set around the picture changes; a picture that many questions share is kept
once. Caches lie in `.cache/` of the data folder, or in the folder that MEDVLM_CACHE names.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from medvlm.cli.common import Progress
from medvlm.data import pixels
from medvlm.data.mixture import Mixture, Rows
from medvlm.data.pixels import Pixels
from medvlm.data.store import KEY_BYTES, Store
from medvlm.errors import InputError, RecipeError, ResourceError
from medvlm.io import atomic_write, stable_hash, write_json
from medvlm.recipe.models import Recipe

if TYPE_CHECKING:
    import torch

    from medvlm.models.load import Loaded

AT_ONCE = 16
"""Pictures that are computed together."""
SPARE = 256 << 20
"""Bytes that filling a cache leaves free on the disk."""


@dataclasses.dataclass(slots=True)
class Caches:
    """What is kept of the pictures of some mixtures; can be pickled for worker processes."""

    finish: Finish
    places: dict[tuple[str, int], tuple[Store, np.ndarray]]
    """(split, part) -> its store, and the record of each of its rows, -1 where there is none."""

    def values(self, mixture: Mixture, place: int) -> torch.Tensor:
        """Return `Example.pixels` of a place: pixel values [3, S, S], or features [N, D].

        Of a data set that caches nothing, pixel values are computed from its picture.

        Raises:
            InputError: its features are not there.
        """
        record = self._record(mixture, place)
        return self.finish.afresh(mixture.image(place)) if record is None else self.finish.values(record)

    def kept(self, mixture: Mixture, place: int) -> torch.Tensor:
        """Return what an example is to hold of a place: its picture in 8 bits, where batches finish it; else `values`.

        Raises:
            InputError: its features are not there.
        """
        import torch

        proven = pixels.of(self.finish.processor) if isinstance(self.finish, Pixels) else None
        if proven is None:
            return self.values(mixture, place)
        record = self._record(mixture, place)
        return torch.from_numpy(np.array(proven.bytes_of(mixture.image(place))) if record is None else record)

    def _record(self, mixture: Mixture, place: int) -> np.ndarray | None:
        pick = mixture.picks[place]
        store, records = self.places.get((mixture.split, pick.part), (None, None))
        if store is None or records is None or records[pick.row] < 0:
            return None
        return store.read(int(records[pick.row]))


class Finish(Protocol):
    """The last step from a record to what the model takes."""

    def values(self, record: np.ndarray) -> torch.Tensor:
        """Return a record as a tensor."""
        ...

    def afresh(self, image: Any) -> torch.Tensor:
        """Return what a picture without a record gives."""
        ...


class Features:
    """The vision tower's last hidden states, bit for bit in the run's dtype."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def values(self, record: np.ndarray) -> torch.Tensor:
        """Return features [N, D]."""
        import torch

        return torch.from_numpy(record).view(getattr(torch, self.dtype))

    def afresh(self, image: Any) -> torch.Tensor:
        """Raise: the tower is not at hand where examples are made."""
        raise InputError("data.cache_features: a picture's features are not cached; train in a new run")


def prepare(
    recipe: Recipe,
    mixtures: Sequence[Mixture],
    loaded: Loaded,
    show: Progress,
    places: Sequence[Sequence[int] | None] | None = None,
) -> Caches | None:
    """Fill what is missing and return the caches; None where the recipe asks for none.

    What a killed earlier call has finished is kept.

    Args:
        recipe: `data.*.cache_pixels` and `data.*.cache_features` say which.
        mixtures: whose pictures.
        loaded: model and processor that the run trains with, the tower's weights as they will stay.
        show: told how many pictures are done.
        places: of each mixture, the places that are used; None is all.

    Raises:
        InputError: the cache's folder cannot be written, or a picture not be read.
        RecipeError: some data sets of the recipe cache features and others do not.
        ResourceError: the disk has no room for it.
    """
    wanted = [part.cache_pixels or part.cache_features for part in recipe.data]
    if not any(wanted):
        return None
    kind = _FeatureKind(recipe, loaded) if _features_asked(recipe) else _PixelKind(loaded)
    kept: dict[tuple[str, int], tuple[Store, np.ndarray]] = {}
    for mixture, some in zip(mixtures, places or [None] * len(mixtures), strict=True):
        for part, rows in enumerate(mixture.rows):
            picks = mixture.picks if some is None else (mixture.picks[place] for place in some)
            used = sorted({pick.row for pick in picks if pick.part == part})
            if wanted[part] and used:
                kept[mixture.split, part] = _fill(rows, mixture.split, used, kind, recipe.train.workers, show)
    return Caches(kind.finish, kept)


def _features_asked(recipe: Recipe) -> bool:
    asked = [part.cache_features for part in recipe.data]
    if any(asked) and not all(asked):
        problem = f"data.{asked.index(False)}.cache_features: False: expected true, as of the other data sets"
        raise RecipeError("recipe", [f"{problem} (a batch holds features or pictures)"])
    return any(asked)


class _PixelKind:
    """Cached pixels: a record is the resized picture."""

    name, words = "pixels", "pictures resized"

    def __init__(self, loaded: Loaded) -> None:
        self.finish = Pixels(loaded.backbone.image_processor)
        self.settings = _processor_settings(loaded)
        self.item = self.finish.bytes_of
        side = loaded.facts["image_size"]
        self.shape, self.dtype = (3, side, side), "uint8"

    def records(self, items: np.ndarray) -> np.ndarray:
        """Return the records [n, ...] of what workers made."""
        return items


class _FeatureKind:
    """Cached features: a record is what the tower makes of the processor's pixel values."""

    name, words = "features", "pictures seen by the vision tower"

    def __init__(self, recipe: Recipe, loaded: Loaded) -> None:
        import torch

        from medvlm.models.backbones import BACKBONES
        from medvlm.models.features import fingerprint, look, tower_of

        self.item = functools.partial(_processed, loaded.backbone.image_processor)
        self.tower = tower_of(loaded.model, BACKBONES.get(recipe.model.backbone))
        self.look, self.torch_dtype = look, getattr(torch, recipe.model.dtype)
        self.finish = Features(recipe.model.dtype)
        self.settings = _processor_settings(loaded) | {
            "tower": fingerprint(self.tower),
            "dtype": recipe.model.dtype,
            "torch": version("torch"),
        }
        side = loaded.facts["image_size"]
        blank = look(self.tower, torch.zeros(1, 3, side, side), self.torch_dtype)
        self.shape = tuple(blank.shape[1:])
        self.dtype = "float32" if recipe.model.dtype == "float32" else "uint16"

    def records(self, items: np.ndarray) -> np.ndarray:
        """Return the records [n, N, D] of what workers made."""
        import torch

        seen = self.look(self.tower, torch.from_numpy(items), self.torch_dtype)
        # numpy knows no bfloat16: its bits are kept as whole numbers.
        found: np.ndarray = (seen if self.dtype == "float32" else seen.view(torch.uint16)).numpy()
        return found


def _processed(processor: Any, image: Any) -> np.ndarray:
    return np.asarray(processor(images=[image], return_tensors="np")["pixel_values"][0])


_Kind = _PixelKind | _FeatureKind


def _processor_settings(loaded: Loaded) -> dict[str, Any]:
    """Return all that decides what the image processor makes of a picture."""
    processor = loaded.backbone.image_processor
    return {
        "class": type(processor).__name__,
        "processor": {key: str(value) for key, value in sorted(processor.to_dict().items())},
        "image_size": loaded.facts["image_size"],
        "versions": {name: version(name) for name in ("pillow", "transformers")},
    }


def _fill(
    rows: Rows, split: str, used: Sequence[int], kind: _Kind, workers: int, show: Progress
) -> tuple[Store, np.ndarray]:
    """Return the store of a data set's pictures, nothing missing, and the record of each row."""
    root = Path(os.environ.get("MEDVLM_CACHE") or rows.folder.path / ".cache")
    store = Store(root / f"{kind.name}-{stable_hash(kind.settings)[:16]}", kind.shape, kind.dtype)
    keys = _keys(rows, split, used, root)
    known = store.numbers()
    missing = {key: row for row, key in keys.items() if key not in known}
    if missing:
        _check_room(store, len(missing))
        with store.writer():
            # Another process may have filled it meanwhile.
            known = store.numbers()
            missing = {key: row for key, row in missing.items() if key not in known}
            write_json(store.folder / "settings.json", kind.settings)
            _compute(store, rows, missing, kind, workers, show)
        known = store.numbers()
    records = np.full(len(rows), -1, dtype=np.int64)
    for row, key in keys.items():
        records[row] = known[key]
    return store, records


def _check_room(store: Store, count: int) -> None:
    needed = count * (store.size + KEY_BYTES)
    place = next(folder for folder in [store.folder, *store.folder.parents] if folder.exists())
    free = shutil.disk_usage(place).free
    if needed + SPARE > free:
        raise ResourceError(
            f"{store.folder}: caching {count} pictures takes {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "free some, set MEDVLM_CACHE to a larger disk, or data.cache_pixels and data.cache_features to false"
        )


def _keys(rows: Rows, split: str, used: Sequence[int], root: Path) -> Mapping[int, bytes]:
    """Return the SHA-256 of each used row's picture, from a file if they were computed before."""
    shards = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in rows.folder.shards(split)]
    ids = [rows.texts[row]["id"] for row in used]
    name = stable_hash([rows.folder.fingerprint(), shards, list(map(str, ids)), list(used)])
    path = root / f"pictures-{name[:32]}"
    data = path.read_bytes() if path.is_file() else b""
    if len(data) != KEY_BYTES * len(used):
        data = b"".join(hashlib.sha256(rows.encoded(row)).digest() for row in used)
        try:
            with atomic_write(path, "wb") as file:
                file.write(data)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{root}: no cache can be written ({reason}); set MEDVLM_CACHE to a folder") from error
    return {row: data[at * KEY_BYTES : (at + 1) * KEY_BYTES] for at, row in enumerate(used)}


class _Missing:
    """The pictures to be computed, for a DataLoader."""

    def __init__(self, rows: Rows, places: Sequence[int], kind: _Kind) -> None:
        self.rows, self.places, self.item = rows, places, kind.item

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.item(self.rows.image(self.places[index]))


def _compute(store: Store, rows: Rows, missing: Mapping[bytes, int], kind: _Kind, workers: int, show: Progress) -> None:
    """Append the records of the missing pictures, batch by batch."""
    keys = list(missing)
    size = f"{len(keys) * store.size / 1e9:.1f} GB"
    done = 0
    show.update(done, len(keys), f"{kind.words}, {size} to {store.folder}")
    for items in _batches(_Missing(rows, [missing[key] for key in keys], kind), workers):
        store.append(keys[done : done + len(items)], kind.records(items))
        done += len(items)
        show.update(done, len(keys), kind.words)


def _batches(missing: _Missing, workers: int) -> Iterator[np.ndarray]:
    import torch
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        missing,  # type: ignore[arg-type]
        batch_size=AT_ONCE,
        num_workers=workers,
        collate_fn=np.stack,
        # A generator of its own: the run's random state must not depend on whether a cache was filled.
        generator=torch.Generator(),
    )
    yield from loader
