"""(c) Preparing real articles: seconds and MB/s, against bare lxml parsing plus reading the images.

MEDVLM_REALDATA=FOLDER python tests/benchmarks/prepare_articles.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from lxml import etree

FOLDERS = ("jats_with_images_encoda", "jats_with_tif_elife_bot")
ROUNDS = 5


def bare(folders: list[Path]) -> int:
    """Parse every XML with lxml and read every other file; return the bytes read."""
    total = 0
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    for name in archive.namelist():
                        data = archive.read(name)
                        total += len(data)
                        if name.endswith(".xml"):
                            etree.fromstring(data)
            elif path.suffix in (".xml", ".nxml"):
                total += path.stat().st_size
                etree.parse(str(path))
            elif path.is_file():
                total += len(path.read_bytes())
    return total


def read(folders: list[Path]) -> None:
    """Turn every article into samples and rejects, images decoded and rights read, without writing anything."""
    from medvlm.data.sources.pmc.source import PmcSource

    source = PmcSource(folders)
    for unit in source.units():
        for _ in source.read(unit):
            pass


def prepare(folders: list[Path], workers: int) -> float:
    """Return the seconds of one whole `medvlm prepare pmc` process."""
    out = Path(tempfile.mkdtemp()) / "out"
    inputs = [part for folder in folders for part in ("--input", str(folder))]
    command = [sys.executable, "-m", "medvlm", "prepare", "pmc", *inputs, "--out", str(out), "--license", "any", "-q"]
    started = time.perf_counter()
    subprocess.run([*command, "--workers", str(workers)], check=True, capture_output=True)
    seconds = time.perf_counter() - started
    shutil.rmtree(out.parent)
    return seconds


def main() -> None:
    """Measure in turn and print the best of each."""
    root = Path(os.environ.get("MEDVLM_REALDATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    folders = [root / name for name in FOLDERS]
    reading, samples, whole = [], [], []
    size = bare(folders)
    read(folders)
    for _ in range(ROUNDS):
        started = time.perf_counter()
        bare(folders)
        reading.append(time.perf_counter() - started)
        started = time.perf_counter()
        read(folders)
        samples.append(time.perf_counter() - started)
        whole.append(prepare(folders, 1))
    found = {
        "mb": round(size / 1e6, 2),
        "bare_seconds": round(min(reading), 3),
        "read_seconds": round(min(samples), 3),
        "read_mb_per_second": round(size / 1e6 / min(samples), 1),
        "read_ratio": round(min(samples) / min(reading), 2),
        "prepare_seconds": round(min(whole), 3),
        "prepare_mb_per_second": round(size / 1e6 / min(whole), 2),
        "prepare_ratio": round(min(whole) / min(reading), 2),
        "rounds": ROUNDS,
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
