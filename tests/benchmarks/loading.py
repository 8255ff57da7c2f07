"""(m) Images a second for training at 448 px: rows straight from parquet against `datasets` and the image processor.

python tests/benchmarks/loading.py --input VQA_RAD      # the folder with trainset.json, testset.json and images/

Prepares VQA-RAD with `medvlm prepare`, all of it as one split, and reads each different picture once an epoch, in
batches of 16, through torch's DataLoader, in this process (0 workers) and in 2 worker processes, three ways:

- plain: `datasets.load_dataset("parquet")`, whose `with_transform` decodes and calls the image processor of PaliGemma
  (SigLIP's), and torch's own collation;
- ours: `Examples` and the backbone's `pixel_values`, as training has them, without a cache;
- cached: the same with `cache_pixels`, the cache filled before.

Pixel values of all pictures are compared bit for bit before anything is timed. The ways take turns; times are medians
of the first epoch, workers' start included, and of a second one with the same workers. Nearly all of these pictures are
gray, which helps; so every fourth one is also timed as it is and tinted, by processor time in this process alone.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SIDE, BATCH = 448, 16
RESULTS = Path(__file__).parent / "results" / "loading-cpu-2.json"
GOALS = {"ours": 1.2, "cached": 10.0}
"""Times the plain way's images a second."""

Loader = Callable[[int], Iterable[Any]]


class Silent:
    """Progress that tells nobody."""

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Take what is told."""


def backbone() -> Any:
    """Return PaliGemma's backbone at 448 px; its texts are of no matter here."""
    from medvlm.models import tiny
    from medvlm.models.backbones.paligemma import PaliGemmaBackbone

    _, processor = tiny.random_model()
    processor.image_processor.size = {"height": SIDE, "width": SIDE}
    return PaliGemmaBackbone(processor, image_tokens=1024, max_prefix_tokens=128, max_suffix_tokens=128)


def prepared(given: Path, folder: Path) -> Path:
    """Prepare VQA-RAD below `folder` and return where."""
    out = folder / "vqa-rad"
    command = [sys.executable, "-m", "medvlm", "prepare", "vqa-rad", "--input", str(given), "--out", str(out)]
    # All pictures in one split.
    subprocess.run([*command, "--split-ratio", "1,0,0", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return out


def distinct(shards: list[Path]) -> list[int]:
    """Return the number of the first row of each different picture."""
    import pyarrow.parquet as pq

    first: dict[str, int] = {}
    row = 0
    for shard in shards:
        for digest in pq.read_table(shard, columns=["sha256"])["sha256"].to_pylist():
            first.setdefault(digest, row)
            row += 1
    return list(first.values())


class Plain:
    """Called by `datasets` for each row; a class, so that it can be sent to workers."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, rows: dict[str, list[Any]]) -> dict[str, Any]:
        """Return pixel values for pictures."""
        return {"pixel_values": self.processor(rows["image"], return_tensors="pt")["pixel_values"]}


class Stacked:
    """Our examples' pictures as a batch, as a backbone's `collate` puts them together."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, examples: Any) -> dict[str, Any]:
        """Return a batch."""
        from medvlm.models.backbones.rows import pixel_values

        return {"pixel_values": pixel_values(self.processor, examples)}


class Batches:
    """Pixel values of a loader's batches, as the model takes them."""

    def __init__(self, loader: Any, processor: Any, finish: Callable[[Any, Any], Any] | None) -> None:
        self.loader, self.processor, self.finish = loader, processor, finish

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            values = batch["pixel_values"]
            yield self.finish(self.processor, values) if self.finish else values


def loaders(folder: Path, scratch: Path) -> tuple[dict[str, Loader], int]:
    """Return the ways by name, each from a number of workers to batches; and the number of pictures."""
    import datasets
    from torch.utils.data import DataLoader

    from medvlm.data import cache
    from medvlm.data.mixture import Mixture
    from medvlm.models.backbones.rows import finished
    from medvlm.models.load import Loaded
    from medvlm.recipe.load import check
    from medvlm.train.collate import Examples

    kind = backbone()
    processor = kind.image_processor
    values = {"name": "b", "model": {"id": "medvlm/tiny-base"}, "data": [{"path": str(folder), "cache_pixels": True}]}
    recipe = check(values, "benchmark")
    mixture = Mixture(recipe.data, "train", 0)
    rows = distinct(mixture.folders[0].shards("train"))
    datasets.disable_progress_bars()
    shards = [str(path) for path in mixture.folders[0].shards("train")]
    table = datasets.load_dataset("parquet", data_files=shards, split="train", cache_dir=str(scratch / "datasets"))
    table = table.select(rows).with_transform(Plain(processor), columns=["image"])
    os.environ["MEDVLM_CACHE"] = str(scratch / "cache")
    loaded = Loaded(None, None, kind, {"image_size": SIDE})  # type: ignore[arg-type]
    caches = cache.prepare(recipe, [mixture], loaded, Silent(), [rows])
    ours = Examples(mixture, recipe.prompts, rows)
    kept = Examples(mixture, recipe.prompts, rows, caches)
    given: dict[str, tuple[Any, Any]] = {
        "plain": (table, None),
        "ours": (ours, Stacked(processor)),
        "cached": (kept, Stacked(processor)),
    }

    def way(data: Any, collate: Any) -> Loader:
        finish = finished if collate else None

        def batches(workers: int) -> Batches:
            loader = DataLoader(
                data, batch_size=BATCH, num_workers=workers, collate_fn=collate, persistent_workers=workers > 0
            )
            return Batches(loader, processor, finish)

        return batches

    return {name: way(*pair) for name, pair in given.items()}, len(rows)


def compare(ways: dict[str, Loader], workers: int) -> int:
    """Return how many pictures were compared.

    Raises:
        AssertionError: a number of one differs.
    """
    import torch

    count = 0
    for batches in zip(*(way(workers) for way in ways.values()), strict=True):
        first, *others = batches
        assert first.shape[1:] == (3, SIDE, SIDE)
        assert first.dtype == torch.float32
        for other in others:
            assert torch.equal(first, other), f"pixel values differ in the batch of pictures from {count}"
        count += len(first)
    return count


def seconds(way: Loader, workers: int) -> tuple[float, float]:
    """Return how long a first pass takes, workers' start included, and a second with the same workers."""
    batches, marks = way(workers), [time.perf_counter()]
    for _ in range(2):
        for batch in batches:
            float(batch[-1, -1, -1, -1])
        marks.append(time.perf_counter())
    return marks[1] - marks[0], marks[2] - marks[1]


def by_color(folder: Path, repeat: int) -> dict[str, dict[str, float]]:
    """Return milliseconds of processor time a picture, plain and ours, for pictures as they are and tinted."""
    import torch

    from medvlm.data.images import decode
    from medvlm.data.mixture import DataFolder, Rows
    from medvlm.models.backbones.base import Example
    from medvlm.models.backbones.rows import pixel_values

    processor = backbone().image_processor
    rows = Rows(DataFolder.open(str(folder)), "train")
    some = [rows.encoded(row) for row in distinct(rows.folder.shards("train"))[::4]]

    def plain(data: bytes) -> Any:
        with Image.open(io.BytesIO(data)) as image:
            return processor([image], return_tensors="pt")["pixel_values"]

    ways = {"plain": plain, "ours": lambda data: pixel_values(processor, [Example(decode(data), "")])}
    found = {}
    for name, pictures in (("as_they_are", some), ("tinted", [tinted(data) for data in some])):
        assert all(torch.equal(*(way(data) for way in ways.values())) for data in pictures)
        taken: dict[str, list[float]] = {}
        for _ in range(repeat):
            for way, call in ways.items():
                began = time.process_time()
                for data in pictures:
                    call(data)
                taken.setdefault(way, []).append((time.process_time() - began) / len(pictures) * 1000)
        middle = {way: statistics.median(values) for way, values in taken.items()}
        ratio = middle["plain"] / middle["ours"]
        found[name] = {**{way: round(value, 2) for way, value in middle.items()}, "times_plain": round(ratio, 2)}
    return found


def tinted(data: bytes) -> bytes:
    """Return a picture in shades of one color."""
    red, green, blue = Image.open(io.BytesIO(data)).convert("RGB").split()
    file = io.BytesIO()
    shades = (red, green.point(lambda value: value * 3 // 4), blue.point(lambda value: value // 2))
    Image.merge("RGB", shades).save(file, "JPEG", quality=90)
    return file.getvalue()


def compared_rates(count: int, taken: dict[str, list[float]]) -> dict[str, Any]:
    """Return images a second of each way, its median and all, and how many times the plain way's that is."""
    rates = {way: [count / spent for spent in values] for way, values in taken.items()}
    middle = {way: statistics.median(values) for way, values in rates.items()}
    return {
        "images_a_second": {way: round(value, 1) for way, value in middle.items()},
        "all": {way: [round(value, 1) for value in values] for way, values in rates.items()},
        "times_plain": {way: round(middle[way] / middle["plain"], 2) for way in GOALS},
    }


def measure(given: Path, repeat: int, ready: Path | None = None) -> dict[str, Any]:
    """Return images a second of all ways, and how they compare with the plain one."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = ready or prepared(given, scratch)
        ways, count = loaders(folder, scratch)
        colors = by_color(folder, repeat)
        compared = {str(workers): compare(ways, workers) for workers in (0, 2)}
        assert set(compared.values()) == {count}, compared
        taken: dict[tuple[int, str], list[tuple[float, float]]] = {}
        for _ in range(repeat):
            for workers in (0, 2):
                for way, loader in ways.items():
                    taken.setdefault((workers, way), []).append(seconds(loader, workers))
    found = {
        str(workers): {
            epoch: compared_rates(count, {way: [pair[at] for pair in taken[workers, way]] for way in ways})
            for at, epoch in enumerate(("first_epoch", "second_epoch"))
        }
        for workers in (0, 2)
    }
    names = ("medvlm", "torch", "transformers", "datasets", "pyarrow", "pillow")
    return {
        "pictures": count,
        "side": SIDE,
        "batch_size": BATCH,
        "repeats": repeat,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "compared_bit_for_bit": compared,
        "goals_times_plain": GOALS,
        "workers": found,
        "milliseconds_by_color": colors,
        "versions": {name: version(name) for name in names},
    }


def main() -> None:
    """Measure, print and write; say why not where there are no data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="VQA-RAD as it is published")
    parser.add_argument("--prepared", type=Path, help="what `medvlm prepare` made of it, if that lies there already")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    if not (asked.input / "trainset.json").is_file():
        print(f"skipped: {asked.input} holds no trainset.json (VQA-RAD); nothing was measured")
        return
    found = measure(asked.input, asked.repeat, asked.prepared)
    text = json.dumps(found, indent=2)
    print(text)
    asked.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
