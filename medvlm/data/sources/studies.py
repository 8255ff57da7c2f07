"""What the sets of chest radiographs with reports share: a study has one report and one picture or several.

`--sections` says what of a report is learnt, `--views` which pictures go with it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.data.look import PictureError
from medvlm.data.reports import Sections, check_choice, clean, lacking, says_something, target
from medvlm.data.sample import Image, Reject, Sample
from medvlm.data.sources.files import FileSource, Place
from medvlm.data.sources.pictures import NO_FILE
from medvlm.errors import UsageError

if TYPE_CHECKING:
    from medvlm.data.phi import Scanner

VIEWS = ("study", "each", "frontal")
_FRONTAL = re.compile(r"\s*(?:PA|AP|FRONTAL|POSTERO\w*|ANTERO\w*)\b", re.I)
_PA = re.compile(r"\s*(?:PA|POSTERO\w*)\b", re.I)
# Lying on a side, or the beam tilted: MIMIC-CXR has PA LLD, PA RLD, AP LLD, AP RLD and AP AXIAL.
_ODD = re.compile(r"\b(?:LLD|RLD|AXIAL|DECUBITUS|LORDOTIC)\b", re.I)
_SIDE = re.compile(r"\s*(?:LATERAL|LL|RL|XTABLE)\b", re.I)


@dataclasses.dataclass(slots=True)
class Shot:
    """One picture of a study, or why there is none."""

    name: str
    """As the set calls it."""
    image: Image | PictureError
    view: str = ""
    """Its projection in the set's own words; "" where it is not told."""

    @property
    def frontal(self) -> bool:
        """Whether it was taken from the front or the back."""
        return bool(_FRONTAL.match(self.view))

    @property
    def rank(self) -> int:
        """The order in a study: PA, which shows the heart at its size, AP, odd frontal ones, not told, lateral."""
        if self.frontal:
            return 2 if _ODD.search(self.view) else 0 if _PA.match(self.view) else 1
        return 4 if _SIDE.match(self.view) else 3


@dataclasses.dataclass(slots=True)
class Study:
    """One report with its pictures."""

    group: str
    """The patient."""
    key: str
    """Of the study, unique in the group."""
    shots: list[Shot]
    report: Sections
    original: str
    """The report as it came."""
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    """More of `Sample`: official_split, finding, license_evidence."""


class StudySource(FileSource):
    """A set of studies on disk.

    Args:
        inputs: see `FileSource`, as are `scanner` and `only`.
        sections: findings, impression or both: what of the report is the text to learn.
        views: study: one sample with all pictures, the frontal first; each: a sample for each picture; frontal: one
            sample with the first frontal picture.

    Raises:
        UsageError: `sections` or `views` is none of these.
    """

    def __init__(
        self,
        inputs: Sequence[Path | str],
        scanner: Scanner | None = None,
        only: Mapping[str, Collection[str]] | None = None,
        sections: str = "both",
        views: str = "study",
    ) -> None:
        super().__init__(inputs, scanner, only)
        self.sections = check_choice(sections)
        if views not in VIEWS:
            raise UsageError(f'--views "{views}": give {", ".join(VIEWS[:-1])} or {VIEWS[-1]}')
        self.views = views

    def options(self) -> dict[str, Any]:
        """Return the choice of sections and views."""
        return {"sections": self.sections, "views": self.views}

    def of_study(self, study: Study, place: Place) -> Iterator[Sample | Reject]:
        """Yield the samples of a study; a study without the text or without any picture gives one reject.

        A picture that cannot be had beside others is a reject of its own, and the study keeps the others.
        """
        text = target(study.report, self.sections)
        if text is None:
            yield self.reject(place, lacking(study.report, self.sections), study.key)
            return
        lost = [(shot.name, shot.image) for shot in study.shots if isinstance(shot.image, PictureError)]
        good = sorted((shot for shot in study.shots if isinstance(shot.image, Image)), key=lambda shot: shot.rank)
        if not good:
            reason = lost[0][1].reason if lost else NO_FILE
            details = ", ".join(error.detail or name for name, error in lost) or f"{study.key} has no picture"
            yield self.reject(place, reason, details)
            return
        for _, error in lost:
            yield self.without_picture(place, error)
        yield from self._samples(study, good, text, place)

    def _samples(self, study: Study, shots: list[Shot], text: str, place: Place) -> Iterator[Sample | Reject]:
        if self.views == "study":
            yield self._sample(study, shots, text, "-")
        elif self.views == "each":
            for shot in shots:
                yield self._sample(study, [shot], text, Path(shot.name).stem)
        elif shots[0].frontal:
            yield self._sample(study, shots[:1], text, "-")
        else:
            yield self.reject(place, "no frontal view", study.key)

    def _sample(self, study: Study, shots: list[Shot], text: str, panel: str) -> Sample:
        pictures = [shot.image for shot in shots if isinstance(shot.image, Image)]
        views = [shot.view for shot in shots]
        indication = clean(study.report.indication)
        known = {
            "task": "report",
            "prompt": "",
            "target": text,
            "original_text": study.original,
            "indication": indication if says_something(indication) else None,
            "more_images": pictures[1:],
            "views": views if any(views) else None,
            "language": "en",
            "modality": "radiograph",
            "modality_evidence": "data set: chest radiographs",
            "organ": "chest",
        }
        key = (study.group, study.key, panel, "report", "0")
        return self.sample(pictures[0], id=key, group=study.group, **{**known, **study.fields})
