"""Questions and answers made from captions by templates.

Of what the caption says for sure, one question each (V: yes/no, balanced; O: open; C: choice):

    modality   O "What type of image is this?"              V "Is this a CT scan?"
    organ      O "Which part of the body is shown?"         V "Does the image show the liver?"
    side       C "Which side is affected?"                  V "Is the left side affected?"
    finding    O "Which abnormality does the image show?"   V "Is there a fracture in the image?"
    denied     V "Is there a fracture in the image?"        V "Is the image free of a fracture?"

Yes and no balance in each form of question, whatever the captions: a hash of the sample's id and the template chooses
between the question to be answered with yes and its counterpart in the same words, to be answered with no. The
counterpart of a finding that is there is one that the caption does not name, neither by another word nor by one of its
kin; of a caption that also denies a finding, the two together are asked about. A finding that is denied where none is
there is not asked about: nothing in such a caption would balance its "no".

Within a form the single names do not balance where the captions do not: of a set of CT scans only, "Is this a CT scan?"
is answered with yes always and "Is this an MRI scan?" with no always, and a finding that most captions name gets more
yes than no. A "no" about what a caption does not name means "not named": it may be in the picture still.

Clauses in doubt are passed over. The modality is asked only where the caption tells it; organs, sides and findings only
of pictures of patients or their tissue, and not of figures of several panels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence

from medvlm.data.figures import cues, facts, terms
from medvlm.data.figures.modality import GROUPS
from medvlm.data.sample import Sample


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """One question; `kind` is its question_type, `choices` None but for a choice."""

    kind: str
    prompt: str
    target: str
    answer_type: str
    choices: tuple[str, ...] | None = None


def make(sample: Sample) -> list[Sample]:
    """Return question/answer samples from a caption sample, none where its caption tells nothing for sure.

    Each keeps the picture and the rights; `original_text` is the caption, the id's task is "vqa" and its ordinal counts
    the questions.
    """
    if sample.language is not None and not sample.language.startswith("en"):
        return []
    asked = _modality(sample)
    if sample.modality in GROUPS["clinical"] and not sample.compound:
        asked += [*_organ(sample), *_side(sample), *_findings(sample)]
    group, figure, panel, _, ordinal = sample.id.split("/")
    first = "" if ordinal == "0" else f"{ordinal}."
    return [
        dataclasses.replace(
            sample,
            id=f"{group}/{figure}/{panel}/vqa/{first}{number}",
            task="vqa",
            prompt=question.prompt,
            target=question.target,
            question_type=question.kind,
            answer_type=question.answer_type,
            choices=list(question.choices) if question.choices else None,
            original_text=sample.original_text or sample.target,
        )
        for number, question in enumerate(asked)
    ]


def _modality(sample: Sample) -> list[_Asked]:
    name = sample.modality
    if name not in terms.NAMES or not (sample.modality_evidence or "").startswith("caption:"):
        return []
    named = {(cue.modality, cue.strength) for cue in cues.find(sample.original_text or sample.target)}
    named |= {(cue.modality, cue.strength) for cue in cues.find(sample.target)}
    if any(strength >= cues.NAMES_IT and _apart(name, other) and _akin(name, other) for other, strength in named):
        return []  # "Chest radiograph and CT scan."
    cued = {other for other, _ in named}
    # Common ones come as often as they do among the answers "yes", roughly.
    others = [
        other
        for other in _foreign(sample, name)
        if _apart(name, other) and other not in cued
        for _ in range(4 if other in _COMMON else 1)
    ]
    if not others:
        return []
    opened = _Asked("modality", "What type of image is this?", terms.NAMES[name], "open")
    other = _pick(sample, "modality", others)
    yes, no = (f"Is this {_a(terms.NAMES[n])}?" for n in (name, other))
    return [opened, _balanced(sample, "modality", yes, no)]


_COMMON = ("ct", "mri", "radiograph", "ultrasound", "histology", "plot", "diagram")


def _family(name: str) -> tuple[str, ...]:
    return next((group for key, group in GROUPS.items() if key != "clinical" and name in group), GROUPS["drawn"])


def _foreign(sample: Sample, name: str) -> tuple[str, ...]:
    """Return the modalities that one is told from: of its family, and what looks nothing like it.

    Panels beside a photograph may well be scans: of several panels the family alone is asked, but for drawings.
    """
    family = _family(name)
    if family == GROUPS["radiology"] or (sample.compound and family != GROUPS["drawn"]):
        return family
    return tuple(dict.fromkeys((*family, "gel", *GROUPS["radiology"], "electron_microscopy")))


def _akin(name: str, other: str) -> bool:
    return other in _family(name) or (name in GROUPS["clinical"] and other in GROUPS["clinical"])


def _apart(name: str, other: str) -> bool:
    """Tell whether a picture of one modality is never one of the other: a PET/CT shows CT as well."""
    return other != name and (name, other) not in _OVERLAP and (other, name) not in _OVERLAP


_OVERLAP = {
    ("pet", "ct"),
    ("pet", "mri"),
    ("pet", "nuclear"),
    ("nuclear", "ct"),
    ("radiograph", "mammography"),
    ("radiograph", "fluoroscopy"),
    ("radiograph", "angiography"),
    ("fluoroscopy", "angiography"),
    ("ct", "angiography"),
    ("mri", "angiography"),
    ("light_microscopy", "histology"),
    ("light_microscopy", "fluorescence"),
    ("histology", "fluorescence"),
    ("photo", "clinical_photo"),
    ("photo", "endoscopy"),
    ("photo", "fundus"),
    ("clinical_photo", "endoscopy"),
    ("clinical_photo", "fundus"),
    ("diagram", "map"),
    ("plot", "map"),
    ("plot", "diagram"),
}


def _organ(sample: Sample) -> list[_Asked]:
    organ = facts.organ_of(sample.target)
    if organ is None:
        return []
    opened = _Asked("organ", "Which part of the body is shown?", organ, "open")
    # A picture of the liver often shows the kidney too: the counterpart comes from another region of the body.
    near = terms.ORGAN_REGIONS[organ] | facts.regions_of(sample.target)
    named = facts.named(sample.target, terms.ORGANS)
    others = [name for name, regions in terms.ORGAN_REGIONS.items() if not regions & near and name not in named]
    if not others:
        return [opened]
    other = _pick(sample, "organ", others)
    yes, no = (f"Does the image show the {name}?" for name in (organ, other))
    return [opened, _balanced(sample, "organ", yes, no)]


def _side(sample: Sample) -> list[_Asked]:
    side = facts.side_of(sample.target)
    if side is None:
        return []
    other = "left" if side == "right" else "right"
    choice = _Asked("side", "Which side is affected?", side, "choice", ("left", "right"))
    yes, no = (f"Is the {name} side affected?" for name in (side, other))
    return [choice, _balanced(sample, "side", yes, no)]


def _findings(sample: Sample) -> list[_Asked]:
    told = facts.findings_of(sample.target)
    here = [name for name, there in told.items() if there]
    gone = [name for name, there in told.items() if not there]
    asked = []
    if len(here) == 1 and facts.named(sample.target, terms.FINDINGS) == here:
        asked.append(_Asked("finding", "Which abnormality does the image show?", here[0], "open"))
    others = _unnamed(sample.target)
    for present, denied in itertools.zip_longest(here, gone):
        if present and denied:
            asked += _told_both(sample, present, denied)
        elif present and others:
            other = _pick(sample, f"finding {present}", others)
            asked.append(_balanced(sample, f"finding {present}", _is_there(present), _is_there(other), "finding"))
    return asked


def _unnamed(caption: str) -> list[str]:
    """Return the findings that a caption names neither themselves nor by other words or kin."""
    named = {*facts.named(caption, terms.FINDINGS)}
    kin = {
        name for pattern in facts.named(caption, {words: words for words in terms.KIN}) for name in terms.KIN[pattern]
    }
    return [name for name in terms.FINDINGS if name not in named | kin]


def _told_both(sample: Sample, here: str, gone: str) -> list[_Asked]:
    """Return one question each about a finding that is there and one that is not: both of yes, or both of no."""
    yes = _hash(sample, f"finding {here}, denied {gone}") % 2
    there, free = _is_there(here if yes else gone), f"Is the image free of {_some(gone if yes else here)}?"
    answer = "yes" if yes else "no"
    kinds = ("finding", "denied finding") if yes else ("denied finding", "finding")
    return [_Asked(kind, prompt, answer, "closed") for kind, prompt in zip(kinds, (there, free), strict=True)]


def _is_there(finding: str) -> str:
    return f"Is there {_some(finding)} in the image?"


def _balanced(sample: Sample, template: str, yes: str, no: str, kind: str = "") -> _Asked:
    """Return one of two questions with its answer, by a hash."""
    if _hash(sample, template) % 2:
        return _Asked(kind or template, yes, "yes", "closed")
    return _Asked(kind or template, no, "no", "closed")


def _pick(sample: Sample, template: str, names: Sequence[str]) -> str:
    return names[_hash(sample, f"{template} counterpart") % len(names)]


def _hash(sample: Sample, template: str) -> int:
    """Return 64 bits that are the same for a sample and a template wherever they are asked for."""
    return int.from_bytes(hashlib.sha256(f"{sample.id}|{template}".encode()).digest()[:8], "big")


_UNCOUNTED = {
    "pneumonia",
    "atelectasis",
    "cardiomegaly",
    "hemorrhage",
    "thrombosis",
    "hydronephrosis",
    "ascites",
    "lymphadenopathy",
    "edema",
    "consolidation",
    "calcification",
}


def _some(finding: str) -> str:
    return finding if finding in _UNCOUNTED else _a(finding)


def _a(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' or name.startswith('MRI') else 'a'} {name}"
