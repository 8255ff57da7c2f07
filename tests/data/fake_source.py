"""A source made of small PNG files, for tests of the engine: what each unit holds is told by a plain dict."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from typing import Any

import PIL.Image

from medvlm.data.sample import Image, Reject, Sample
from medvlm.data.sources.base import Unit
from medvlm.errors import AccessError
from medvlm.io import stable_hash


def png(shade: int) -> bytes:
    """Return a PNG of one color; another one for each number."""
    buffer = io.BytesIO()
    color = (shade % 256, shade // 256 % 256, shade // 65536)
    PIL.Image.new("RGB", (8, 6), color).save(buffer, "PNG")
    return buffer.getvalue()


def sample(of: str, number: int, shade: int, **changes: Any) -> Sample:
    """Return a caption sample that any policy admits."""
    fields: dict[str, Any] = {
        "id": f"{of}/fig{number}/-/caption/0",
        "image": Image(png(shade), f"fig{number}.png"),
        "task": "caption",
        "prompt": "",
        "target": f"Caption {number} of {of}.",
        "mentions": [f"See figure {number}."],
        "language": "en",
        "source": "fake",
        "group": of,
        "file_name": f"fig{number}.png",
        "license": "CC-BY-4.0",
        "license_scope": "article",
        "commercial_use": "yes",
    }
    return Sample(**{**fields, **changes})


class FakeSource:
    """`units` articles of `figures` figures each; `special` replaces what a unit yields.

    `delay` (seconds a unit) does not belong to its description: it changes no byte.
    """

    name = "fake"

    def __init__(
        self, units: int = 12, figures: int = 3, *, special: dict[int, Sequence[Any]] | None = None, delay: float = 0
    ) -> None:
        self.count, self.figures, self.delay = units, figures, delay
        self.special = special or {}

    def describe(self) -> list[dict[str, Any]]:
        told = [self.count, self.figures, sorted(self.special)]
        return [{"path": "/nowhere/fake", "sha256": stable_hash(told), "bytes": 1}]

    def units(self) -> list[Unit]:
        return [Unit(f"article-{number:04d}", (str(number),)) for number in range(self.count)]

    def prefetch(self, units: Sequence[Unit]) -> None:
        return

    def read(self, unit: Unit) -> Iterator[Sample | Reject]:
        time.sleep(self.delay)
        number = int(unit.locator[0])
        if number in self.special:
            for item in self.special[number]:
                if isinstance(item, BaseException):
                    raise item
                yield item
            return
        for figure in range(self.figures):
            yield sample(f"PMC{number}", figure, number * 100 + figure)
        yield Reject(self.name, unit.name, "table image", "t1")

    def card(self) -> dict[str, Any]:
        return {
            "title": "Fake articles",
            "description": "Made for tests.",
            "citation": "Nobody, 2026.",
            "known_problems": ["It is not real."],
            "synthetic": True,
        }


class Served(FakeSource):
    """Articles on a server that may change: `versions` holds each one's, by number."""

    lineage = "these articles"

    def __init__(self, versions: dict[int, str], fail: int = -1) -> None:
        super().__init__(len(versions))
        self.versions, self.fail = versions, fail
        self.fetched: list[str] = []
        self.traffic: dict[str, int] = {"requests": 0, "bytes": 0}

    def describe(self) -> list[dict[str, Any]]:
        return [{"path": "server", "sha256": stable_hash(sorted(self.versions.items())), "bytes": 0}]

    def units(self) -> list[Unit]:
        return [Unit(f"PMC{number}", (str(number),), self.versions[number]) for number in sorted(self.versions)]

    def prefetch(self, units: Sequence[Unit]) -> None:
        if any(unit.locator == (str(self.fail),) for unit in units):
            raise AccessError("the server is away; try again later")
        self.fetched += [unit.name for unit in units]
        self.traffic["requests"] += len(units)
        self.traffic["bytes"] += 10 * len(units)
