"""(d) Reading the XML of articles, images left aside: against bare lxml, and against pubmed_parser's caption reader.

pip install pubmed_parser   # optional: without it the third row is left out
MEDVLM_REALDATA=FOLDER python tests/benchmarks/read_articles.py [--large MEGABYTES]

With `--large` it also reads one synthetic article of that size in a process of its own, and states the peak memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lxml import etree

ROUNDS = 9


def shared_articles() -> list[Path]:
    """Return every shared XML file."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    root = Path(os.environ.get("MEDVLM_REALDATA", beside))
    return sorted(p for p in root.glob("jats_*/**/*") if p.suffix in (".xml", ".nxml"))


def bare(files: list[Path]) -> None:
    """Parse every file with lxml and look at nothing."""
    for path in files:
        etree.fromstring(path.read_bytes())


def read(files: list[Path]) -> None:
    """Read captions, labels, images' names, rights, mentions and credits of every article."""
    from medvlm.data.sources.pmc import MemoryPackage, read_package

    for path in files:
        for _ in read_package(MemoryPackage("m", {"a.nxml": path.read_bytes()}), "pmc"):
            pass


def pubmed_parser_captions(files: list[Path]) -> None:
    """Read the captions as pubmed_parser does; it raises on some files, which cost it what they cost."""
    import pubmed_parser

    for path in files:
        try:
            pubmed_parser.parse_pubmed_caption(str(path))
        except Exception:
            continue


def best(task: Callable[[list[Path]], None], files: list[Path]) -> float:
    """Return the shortest of `ROUNDS` times, in seconds."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        task(files)
        times.append(time.perf_counter() - started)
    return min(times)


def large_article(megabytes: int) -> bytes:
    """Return one article with figures, paragraphs that cite them, and a license, of about that size."""
    links = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
    license = '<permissions><license xlink:href="http://creativecommons.org/licenses/by/4.0/"/></permissions>'
    section = (
        "<sec><title>Part {0}</title><p>Axial <italic>CT</italic> of the chest (<xref rid='f{0}'>Fig {0}</xref>) "
        + "shows a nodule of 10<sup>-2</sup> m in the right upper lobe, with no effusion. " * 20
        + "</p><fig id='f{0}'><label>Fig {0}</label><caption><p>Axial CT {0}: a nodule (arrow).</p></caption>"
        "<graphic xlink:href='g{0}'/></fig></sec>"
    )
    count = megabytes * 2**20 // (len(section) + 20)
    body = "".join(section.format(number) for number in range(count))
    return (
        f"<article {links}><front><article-meta>{license}</article-meta></front><body>{body}</body></article>".encode()
    )


def peak_of_large(megabytes: int) -> None:
    """Print the peak memory of this process before and after reading one large article."""
    from medvlm.data.sources.pmc import MemoryPackage, read_package

    data = large_article(megabytes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    items = sum(1 for _ in read_package(MemoryPackage("m", {"a.nxml": data}), "pmc"))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = len(data) / 2**20
    print(
        f"one article of {size:.0f} MiB: {items} items in {seconds:.1f} s, peak {peak / 1024:.0f} MiB "
        f"({before / 1024:.0f} before), {(peak - before) / 1024 / size:.1f} bytes for each of the XML"
    )


def main() -> None:
    """Measure in turn, print seconds and ratios."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--large", type=int, default=0)
    arguments.add_argument("--peak", type=int, default=0, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.peak:
        peak_of_large(options.peak)
        return
    files = shared_articles()
    tasks: dict[str, Callable[[list[Path]], None]] = {"bare lxml": bare, "medvlm": read}
    try:
        import pubmed_parser  # noqa: F401

        tasks["pubmed_parser.parse_pubmed_caption"] = pubmed_parser_captions
    except ImportError:
        print("pubmed_parser is not installed: pip install pubmed_parser", file=sys.stderr)
    size = sum(path.stat().st_size for path in files)
    times = {name: best(task, files) for name, task in tasks.items()}
    print(f"{len(files)} articles, {size / 1e6:.1f} MB of XML, best of {ROUNDS}")
    for name, seconds in times.items():
        print(f"{name:36} {seconds:.3f} s  {size / 1e6 / seconds:5.0f} MB/s  {seconds / times['bare lxml']:.2f}")
    if options.large:
        subprocess.run([sys.executable, __file__, "--peak", str(options.large)], check=True)


if __name__ == "__main__":
    main()
