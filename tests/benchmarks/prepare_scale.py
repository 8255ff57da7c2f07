"""(e) Preparing many articles: peak memory, articles a second with one and two workers, and what all of PMC would take.

The articles are made from the shared ones: other ids, other windows of their pictures (SIDE pixels a side, so that ten
thousand articles take 2 GB), the same each time. What all of PMC open access would take is reckoned from a third set,
with pictures of nearly their whole size, and from the assumptions printed beside it.

MEDVLM_REALDATA=FOLDER python tests/benchmarks/prepare_scale.py [ARTICLES ...]    (1000 10000 by default)
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from PIL import Image

SIDE = 200
WHOLE = 50
"""Articles of the set with large pictures."""

ALL_ARTICLES = 8_203_807
"""PMC open access on 2026-09-07, by ESearch."""

FIGURES = 731 / 110
"""Figures an article, counted in 110 real articles of all kinds."""

REQUESTS = 2
"""An article's metadata and XML; its figures come on top. The inventory's few hundred files do not count."""

_ID = re.compile(r"(<article-id\b[^>]*>)([^<]*)(</article-id>)")


def articles(root: Path) -> list[Path]:
    """Return the folders of the real articles."""
    return sorted(path.parent for path in (root / "jats_with_images_encoda").glob("*/main.jats.xml"))


def make(sources: list[Path], folder: Path, count: int, side: int | None) -> dict[str, int]:
    """Write `count` articles below `folder`; return how many pictures, and the bytes of XML and pictures."""
    pictures = {
        path: Image.open(path).convert("RGB") for source in sources for path in sorted(source.glob("*.[jp][pn]g"))
    }
    told = {"articles": count, "pictures": 0, "xml_bytes": 0, "picture_bytes": 0}
    for number in range(count):
        source = sources[number % len(sources)]
        target = folder / f"article-{number:06d}"
        target.mkdir(parents=True)
        text = (source / "main.jats.xml").read_text(encoding="utf-8")
        xml = _ID.sub(lambda match, number=number: f"{match[1]}{match[2]}{number}{match[3]}", text).encode()
        (target / "main.jats.xml").write_bytes(xml)
        told["xml_bytes"] += len(xml)
        for path in sorted(source.glob("*.[jp][pn]g")):
            data = window(pictures[path], f"{number}/{path.name}", side, path.suffix)
            (target / path.name).write_bytes(data)
            told["pictures"] += 1
            told["picture_bytes"] += len(data)
    return told


def window(picture: Image.Image, seed: str, side: int | None, suffix: str) -> bytes:
    """Return a part of a picture, another one for each seed, encoded as the file's name says."""
    chance = random.Random(seed)
    if side is None:
        width, height = (int(chance.uniform(0.85, 1) * length) for length in picture.size)
    else:
        width, height = (min(length, int(chance.uniform(0.7, 1) * side)) for length in picture.size)
    left, top = chance.randint(0, picture.width - width), chance.randint(0, picture.height - height)
    buffer = io.BytesIO()
    part = picture.crop((left, top, left + max(1, width), top + max(1, height)))
    part.save(buffer, "PNG" if suffix == ".png" else "JPEG", **({} if suffix == ".png" else {"quality": 90}))
    return buffer.getvalue()


def prepare(folder: Path, workers: int) -> dict[str, float]:
    """Run `medvlm prepare pmc` over a folder; return seconds, core seconds and peaks of memory in MB."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out"
        command = [sys.executable, "-m", "medvlm", "prepare", "pmc", "--input", str(folder), "--out", str(out)]
        command += ["--license", "any", "--quiet", "--workers", str(workers)]
        started, spent = time.perf_counter(), os.times()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        parent, children = watch(psutil.Process(process.pid), process)
        after = os.times()
        seconds = time.perf_counter() - started
        if process.returncode:
            raise SystemExit(f"prepare ended with {process.returncode}")
        manifest = json.loads((out / "manifest.json").read_text())
    cores = after.children_user + after.children_system - spent.children_user - spent.children_system
    return {
        "seconds": round(seconds, 2),
        "core_seconds": round(cores, 2),
        "samples": manifest["counts"]["samples"],
        "near_duplicates": manifest["counts"]["near_duplicates"],
        "peak_mb_parent": round(parent / 1e6, 1),
        "peak_mb_worker": round(children / 1e6, 1),
    }


def watch(process: psutil.Process, run: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Wait for a run; return the peak resident bytes of the process, and of the largest of its children."""
    parent = child = 0
    while run.poll() is None:
        parent = max(parent, peak(process.pid))
        try:
            for one in process.children(recursive=True):
                child = max(child, peak(one.pid))
        except psutil.Error:
            continue
        time.sleep(0.1)
    return parent, child


def peak(pid: int) -> int:
    """Return the most memory that a process has held so far (the kernel's VmHWM), or 0 where it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    return 1024 * int(found[1]) if found else 0


def estimate(whole: dict[str, float], told: dict[str, int], start: float) -> dict[str, float | str]:
    """Return what all of PMC open access would take, from the set with large pictures.

    Args:
        whole: what preparing that set took, with one worker.
        told: its articles, pictures and bytes.
        start: core seconds of a run over one article, which is mostly the start of the program.
    """
    each = (whole["core_seconds"] - start) / told["articles"]
    # Nearly all of the time goes into pictures: by their number, not by that of the articles.
    figures = told["pictures"] / told["articles"]
    xml, picture = told["xml_bytes"] / told["articles"], told["picture_bytes"] / told["pictures"]
    return {
        "core_seconds_an_article": round(each, 4),
        "core_hours": round(each * FIGURES / figures * ALL_ARTICLES / 3600),
        "requests": round(ALL_ARTICLES * (REQUESTS + FIGURES)),
        "terabytes": round(ALL_ARTICLES * (xml + FIGURES * picture) / 1e12, 2),
        "assumed": (
            f"{ALL_ARTICLES:,} articles of {FIGURES:.1f} figures ({figures:.1f} pictures in those measured, time in "
            f"proportion), {picture / 1e3:.0f} kB a picture and {xml / 1e3:.0f} kB an XML as measured, all "
            f"admitted, {REQUESTS} requests an article and one a figure, none repeated"
        ),
    }


def main() -> None:
    """Make the sets, measure and print."""
    counts = [int(word) for word in sys.argv[1:]] or [1000, 10000]
    root = Path(os.environ.get("MEDVLM_REALDATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    sources = articles(root)
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as place:
        make(sources, Path(place) / "one", 1, SIDE)
        start = prepare(Path(place) / "one", 1)
        found["start"] = start
        for count in counts:
            folder = Path(place) / str(count)
            told = make(sources, folder, count, SIDE)
            one, two = prepare(folder, 1), prepare(folder, 2)
            found[f"{count} articles"] = {
                **told,
                "one_worker": one,
                "two_workers": two,
                "articles_a_second": [round(count / one["seconds"], 1), round(count / two["seconds"], 1)],
                "speedup": round(one["seconds"] / two["seconds"], 2),
            }
        told = make(sources, Path(place) / "whole", WHOLE, None)
        whole = prepare(Path(place) / "whole", 1)
        found["whole pictures"] = {**told, **whole}
        found["all of PMC open access"] = estimate(whole, told, start["core_seconds"])
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
