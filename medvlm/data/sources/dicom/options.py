"""What `medvlm prepare dicom` can be asked for, checked before anything is read."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from medvlm.errors import UsageError
from medvlm.registry import nearest

PRESETS: dict[str, tuple[float, float]] = {
    "brain": (40, 80),
    "subdural": (75, 215),
    "stroke": (40, 40),
    "temporal-bone": (600, 2800),
    "head-neck": (40, 375),
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
    "angio": (200, 600),
    "abdomen": (50, 400),
    "liver": (30, 150),
    "spine": (50, 250),
    "bone": (400, 1800),
}
"""CT windows by name: center and width in Hounsfield units, as reading rooms commonly set them. There is no standard of
them, and departments differ: CENTER/WIDTH takes any other."""

TARGETS = ("modality", "body-part", "view")


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """How gray values become 8 bits: `kind` is tag, percentile, preset or numbers."""

    name: str
    kind: str
    center: float = 0.0
    width: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Frames:
    """Which frames of a file with several are taken: first, middle, all, or every n-th from the first on."""

    name: str
    step: int = 0

    def of(self, count: int) -> range:
        """Return the positions of the frames that are taken of `count`, from 0."""
        if self.name == "first":
            return range(1)
        if self.name == "middle":
            return range(count // 2, count // 2 + 1)
        return range(0, count, self.step or 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The settings that decide what becomes of the files; all are in the manifest."""

    window: Window = Window("tag", "tag")
    frames: Frames = Frames("middle")
    reports: str = "none"
    """none, sr, or table: a table or folder of reports (its path is no setting)."""
    target_from: str | None = None
    sections: str = "both"
    views: str = "study"
    """study (one sample with all its pictures) or each (one sample a picture)."""
    max_images: int = 4
    dates: str = "drop"
    allow_burned_in: bool = False
    allow_secondary: bool = False
    data_license: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the settings as the manifest holds them."""
        told = dataclasses.asdict(self)
        return {**told, "window": self.window.name, "frames": self.frames.name}


def parse(
    *,
    window: str = "tag",
    frames: str = "middle",
    reports: str = "none",
    target_from: str | None = None,
    sections: str = "both",
    views: str | None = None,
    max_images: int = 4,
    dates: str = "drop",
    allow_burned_in: bool = False,
    allow_secondary: bool = False,
    data_license: str | None = None,
) -> Options:
    """Return the options as the command line spells them.

    Raises:
        UsageError: an option has no such value, or no text is named to learn.
    """
    kind = reports if reports in ("none", "sr") else "table"
    if (kind == "none") == (target_from is None):
        raise UsageError(
            "a sample needs a text to learn, from one place: --reports sr (structured reports beside the pictures), "
            "--reports FILE (a table with study and report), or --target-from modality|body-part|view"
        )
    if target_from is not None:
        _one_of("--target-from", target_from, TARGETS)
    _one_of("--sections", sections, ("findings", "impression", "both"))
    _one_of("--dates", dates, ("drop", "shift"))
    views = views or ("study" if target_from is None else "each")
    _one_of("--views", views, ("study", "each"))
    if target_from is not None and views == "study":
        raise UsageError("--target-from tells something of one picture; use it with --views each")
    _check_license(data_license)
    return Options(
        window=parse_window(window),
        frames=parse_frames(frames),
        reports=kind,
        target_from=target_from,
        sections=sections,
        views=views,
        max_images=max_images,
        dates=dates,
        allow_burned_in=allow_burned_in,
        allow_secondary=allow_secondary,
        data_license=data_license,
    )


def parse_window(text: str) -> Window:
    """Return the window that `text` names: tag, percentile, a preset, or CENTER/WIDTH.

    Raises:
        UsageError: it is none of these.
    """
    name = text.strip().lower()
    if name in ("tag", "percentile"):
        return Window(name, name)
    if name in PRESETS:
        return Window(name, "preset", *PRESETS[name])
    found = re.fullmatch(r"(-?\d{1,6}(?:\.\d{1,6})?)/(\d{1,6}(?:\.\d{1,6})?)", name)
    if found and float(found[2]) >= 1:
        return Window(name, "numbers", float(found[1]), float(found[2]))
    known = ("tag", "percentile", *PRESETS)
    raise UsageError(
        f'--window "{text}" is neither {", ".join(known)}{nearest(name, known)}, nor CENTER/WIDTH as in 40/400 '
        "with a width of at least 1"
    )


def parse_frames(text: str) -> Frames:
    """Return which frames `text` names: first, middle, all or every:N.

    Raises:
        UsageError: it is none of these.
    """
    name = text.strip().lower()
    if name in ("first", "middle", "all"):
        return Frames(name)
    found = re.fullmatch(r"every:([1-9]\d{0,5})", name)
    if not found:
        raise UsageError(f'--frames "{text}" is not first, middle, all or every:N, as in every:10')
    return Frames(name, int(found[1]))


def is_path(reports: str) -> Path | None:
    """Return the table or folder that --reports names, None where it is none or sr."""
    return None if reports in ("none", "sr") else Path(reports)


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f'{option} "{value}" is unknown{nearest(value, known)}; known: {", ".join(known)}')


def _check_license(license: str | None) -> None:
    from medvlm.licenses.expressions import symbols

    if license is not None and not symbols(license):
        raise UsageError(
            f'--data-license "{license}" is no license id; give LicenseRef-own-data for your own data, or an SPDX id '
            "as in CC-BY-4.0"
        )
