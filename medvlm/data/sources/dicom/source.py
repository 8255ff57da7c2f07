"""DICOM files of one's own hospital or archive, as a source of `medvlm prepare`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.data.pseudonyms import Key
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources.base import Unit
from medvlm.data.sources.dicom.files import Inputs
from medvlm.data.sources.dicom.options import Options
from medvlm.data.sources.facts import Facts, card_of
from medvlm.errors import MissingExtraError

if TYPE_CHECKING:
    from medvlm.data.phi import Scanner
    from medvlm.data.sources.dicom.index import Index


class DicomSource:
    """DICOM files: one unit is one study, so that its pictures meet its report whatever the folders look like.

    Args:
        inputs: folders, read to the last file; DICOMDIR files; single DICOM files.
        key: for the stand-ins of patients, studies and files; its file lies outside the data set.
        options: what becomes of the files; see `options.parse`.
        scanner: looks for identifiers in the texts.
        reports: a table or folder of reports, where `options.reports` is "table".
        names: write here which file is which stand-in: private, outside the data set.

    Raises:
        MissingExtraError: pydicom is not installed.
    """

    facts = Facts(
        name="dicom",
        title="DICOM studies",
        summary="Your own DICOM files as 8-bit pictures, with reports or answers from their headers; of the headers "
        "only a whitelist leaves, and patients and studies become keyed stand-ins.",
        tasks=("report", "vqa"),
        size="as many as you have",
        license="stated by you: --data-license",
        gate="your own permission to use them: ethics approval, data protection, contracts",
        download="nothing: they are yours (extra medvlm[dicom])",
        layout="DICOM files, told by their content: folders of any depth, a DICOMDIR, or single files",
        citation="The standard: NEMA PS3 / ISO 12052, Digital Imaging and Communications in Medicine (DICOM).",
        known_problems=(
            "Pixels are not cleaned: names burned into a picture stay, and faces can be rebuilt from slices of heads.",
            "This is no certified de-identification (DICOM PS3.15, annex E): look at the result before others get it.",
            "Whoever has the key file can tell which patient a stand-in is.",
        ),
    )
    name = facts.name

    def __init__(
        self,
        inputs: Sequence[Path | str],
        key: Key,
        options: Options | None = None,
        scanner: Scanner | None = None,
        reports: Path | None = None,
        names: Path | None = None,
    ) -> None:
        if importlib.util.find_spec("pydicom") is None:
            raise MissingExtraError("reading DICOM files", "dicom")
        from medvlm.data.sources.dicom.texts import Reports

        self.inputs, self.key, self.options, self.scanner = Inputs(inputs), key, options or Options(), scanner
        self.reports = Reports(reports) if reports is not None else None
        self.names = names
        self._found: Index | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Workers get their studies one by one.
        return {**self.__dict__, "_found": None}

    def describe(self) -> list[dict[str, Any]]:
        """Return size and keyed hash of each input and of the reports, without their names.

        Raises:
            InputError: an input is missing, or the reports cannot be used.
        """
        entries = self.inputs.describe(self.key)
        if self.reports is not None:
            self.reports.check()
            entries.append(self.reports.describe(self.key))
        return entries

    def units(self) -> list[Unit]:
        """Return one unit for each study, named by stand-ins, and units for what cannot be read.

        Raises:
            InputError: an input or the table of reports cannot be read.
        """
        return self._index().units

    def prefetch(self, units: Sequence[Unit]) -> None:
        """Do nothing: the files lie on disk."""
        return

    def read(self, unit: Unit) -> Iterator[Sample | Reject]:
        """Yield the samples of one study, and one reject for each file that gives none."""
        from medvlm.data.sources.dicom.study import StudyReader

        yield from StudyReader(self.inputs, self.key, self.options, self.reports, self.scanner).read(unit)

    def card(self) -> dict[str, Any]:
        """Return the facts for the dataset card, with what the first look at the files found."""
        card = card_of(self.facts)
        window = self.options.window
        shown = window.name + (" for CT and by what the file tells for others" if window.kind == "preset" else "")
        changes = [f"Pictures are 8-bit PNG made from the stored values; gray by --window {shown}."]
        changes += ["Overlays, annotations and presentation states are not drawn; nothing is resampled or cropped."]
        if self.options.target_from is None:
            changes += [
                "Texts are the chosen sections of reports, cleaned; `original_text` has the sections' own words."
            ]
        else:
            changes += ["Questions are of one form, and answers come from the header; no person checked them."]
        return {**card, "known_problems": [*card["known_problems"], *self._index().notes], "changes": changes}

    def _index(self) -> Index:
        if self._found is None:
            from medvlm.data.sources.dicom.index import build

            self._found = build(self.inputs, self.key, self.options, self.reports, self.names)
        return self._found
