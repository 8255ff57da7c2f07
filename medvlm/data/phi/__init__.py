"""Looks through texts of samples for identifiers of persons, offline: `Scanner`.

It finds what 45 CFR 164.514(b)(2)(i) lists and English radiology reports carry, by patterns: dates (not years alone),
names beside a title, label or degree, numbers of records, accessions, devices and social security behind their labels,
phones, e-mail, web and IP addresses, streets and US zip codes, ages above 89, unique identifiers of DICOM. The marks of
de-identified sets (`XXXX`, `___`, `[**...**]`) count as nothing. Phone numbers are checked by the library phonenumbers.

How well, measured with made-up identifiers put into report phrases. On phrases the patterns were written for: dates,
records, accessions, e-mail, social security numbers, ages, IP addresses 100 % of 400 to 3,000 each, phones 99 %, names
91 %, addresses 83 %. On phrases written afterwards by the same hand, before the patterns were widened for them: names
65 %, records 60 %, phones and ages 71 %, addresses 68 %, dates 87 %, device numbers 50 %, accessions 100 %: expect a
report of another hospital to lie there. False alarms: none in the 3,108 questions and answers of VQA-RAD; 38 of 724
captions of open-access articles: links to data sets, dates, and a version number that reads like one.

What it is not: a de-identification, certified or not, or a promise that a text without a finding has no identifier. It
does not know names without a title, label or degree, hospitals, towns, streets of unusual kinds, dates and titles in
other languages than English, relatives and rare events that point to one person, or what is written in the picture.
Names, numbers and birth dates known beforehand (`known`) are found wherever they stand, names as they are spelled, also
where they are a common word. A spaCy pipeline finds more names (94 % of full names in plain sentences with
en_core_web_sm 3.8) but sees persons in 45 % of the same captions, which is why it has to be asked for.
People must read what strict mode lets through.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Collection

from medvlm.data.phi import persons
from medvlm.data.phi.plain import Span
from medvlm.data.sample import Reject, Sample
from medvlm.errors import MissingExtraError, UsageError

MODES = ("off", "count", "strict")
REASON = "identifiers in text"
"""Why strict mode drops a sample."""
NONE = "none"
"""What `Sample.identifiers` says where a scan found nothing."""

__all__ = ["MODES", "NONE", "REASON", "Scanner", "Span"]


@dataclasses.dataclass(frozen=True)
class Scanner:
    """Finds identifiers in the texts of samples, and says only of what kinds they are.

    What was found stays in memory: neither a sample, nor a reject, nor an error carries it.

    Args:
        mode: "off" changes nothing and loads nothing; "count" notes the kinds in `Sample.identifiers`; "strict" drops
            the sample.
        model: an installed spaCy pipeline that knows persons ("en_core_web_sm"), or the folder of one, for names
            without a title or a label.

    Raises:
        UsageError: there is no such mode.
        MissingExtraError: what the scan needs is not installed.
        InputError: there is no such model, or it knows no persons.
    """

    mode: str = "off"
    model: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"--phi {self.mode}: no such mode; choose from {', '.join(MODES)}")
        if self.mode == "off":
            return
        if importlib.util.find_spec("phonenumbers") is None:
            raise MissingExtraError("the scan of texts for identifiers", "phi")
        if self.model is not None:
            persons.load(self.model)

    def spans(self, text: str, known: Collection[str] = ()) -> list[Span]:
        """Return where identifiers stand in `text`, in order; overlapping ones of one kind are one.

        Args:
            known: names, numbers and birth dates that are identifiers wherever they stand, as the header beside a
                report has them.
        """
        from medvlm.data.phi.spans import scan

        return scan(text, self.model, known)

    def kinds(self, text: str, known: Collection[str] = ()) -> list[str]:
        """Return the kinds of identifiers in `text`, sorted, each once."""
        return sorted({span.kind for span in self.spans(text, known)})

    def judge(self, sample: Sample, known: Collection[str] = ()) -> Sample | Reject:
        """Return the sample with its `identifiers` filled in, or why it is dropped.

        Scanned are prompt, target, choices, mentions, indication and the original text. What a picture shows is not:
        text burned into it is another matter.
        """
        if self.mode == "off":
            return sample
        texts = {sample.prompt, sample.target, sample.indication, sample.original_text}
        texts.update(sample.choices or (), sample.mentions)
        kinds = sorted({kind for text in texts if text for kind in self.kinds(text, known)})
        if kinds and self.mode == "strict":
            return Reject(sample.source, sample.id, REASON, ", ".join(kinds))
        return dataclasses.replace(sample, identifiers=", ".join(kinds) or NONE)
