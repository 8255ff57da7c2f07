"""Questions and answers made from captions by templates.

Of what the caption says for sure, one question each (V: yes/no, balanced; O: open; C: choice):

    modality   O "What type of image is this?"              V "Is this a CT scan?"
    organ      O "Which part of the body is shown?"         V "Does the image show the liver?"
    side       C "Which side is shown or affected?"         V "Is the left side shown or affected?"
    finding    O "Which abnormality does the image show?"   V "Is there a fracture in the image?"
    denied     V "Is there a fracture in the image?" no     V "Is the image free of a fracture?" yes

Every yes/no question has its counterpart with the other answer, about something the caption does not name; a hash of
the sample's id and the template chooses which of the two is asked, so that yes and no balance in each template. What a
caption leaves unsaid may still be in the picture: a "no" means "not named". Clauses in doubt are passed over. Organs,
sides and findings are asked of pictures of patients or their tissue only, and not of figures of several panels.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence

from medvlm.data.figures import terms
from medvlm.data.figures.modality import GROUPS
from medvlm.data.sample import Sample

_SENTENCE = re.compile(r"(?<=[.;!?])\s+|\n")
_SIDES = re.compile(r"(?<![\w-])(left|right)(?![\w-])", re.IGNORECASE)
_NO_SIDE = re.compile(
    r"\b(?:left|right)(?: panels?| image| column| arrow|ward|:|\))"
    r"|\b(?:on|at|to) the (?:left|right)(?=\s*(?:[.,;:)]|$))",
    re.IGNORECASE,
)


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


def organ_of(text: str) -> str | None:
    """Return the one organ that a text names; None where it names none or several."""
    found = _named(text, terms.ORGANS)
    return found[0] if len(found) == 1 else None


def findings_of(text: str) -> dict[str, bool]:
    """Return the findings that a text asserts (True) or denies (False); those in doubt or both are left out."""
    told: dict[str, set[bool]] = {}
    unsure: set[str] = set()
    for sentence in _SENTENCE.split(text):
        doubtful = bool(terms.DOUBT.search(_without_or_lists(sentence)))
        for name, pattern in _patterns("findings").items():
            for match in pattern.finditer(sentence):
                if doubtful:
                    unsure.add(name)
                else:
                    told.setdefault(name, set()).add(not _denied(sentence, match))
    return {name: True in values for name, values in told.items() if len(values) == 1 and name not in unsure}


def _without_or_lists(sentence: str) -> str:
    """Return a sentence without the "or" of denials: "no effusion or pneumothorax" leaves no doubt."""
    return re.sub(r"\bor\b", "nor", sentence) if terms.DENIED_BEFORE.search(sentence) else sentence


def _denied(sentence: str, match: re.Match[str]) -> bool:
    before = sentence[: match.start()]
    ends = [end.end() for end in terms.CLAUSE_END.finditer(before)]
    clause = before[max(ends, default=0) :]
    return bool(terms.DENIED_BEFORE.search(clause) or terms.DENIED_BEHIND.match(sentence[match.end() :]))


@functools.cache
def _patterns(which: str) -> Mapping[str, re.Pattern[str]]:
    table = terms.ORGANS if which == "organs" else terms.FINDINGS
    return {name: terms.whole_words(pattern) for name, pattern in table.items()}


def _named(text: str, table: Mapping[str, str]) -> list[str]:
    patterns = _patterns("organs" if table is terms.ORGANS else "findings")
    return [name for name in table if patterns[name].search(text)]


def _modality(sample: Sample) -> list[_Asked]:
    name = sample.modality
    if name not in terms.NAMES:
        return []
    family = next((group for key, group in GROUPS.items() if key != "clinical" and name in group), GROUPS["drawn"])
    # "no" must be true: a PET/CT shows CT as well, angiograms and fluoroscopy are X-ray pictures taken otherwise.
    others = [
        other for other in family if other != name and (name, other) not in _OVERLAP and (other, name) not in _OVERLAP
    ]
    opened = _Asked("modality", "What type of image is this?", terms.NAMES[name], "open")
    other = _pick(sample, "modality", others)
    yes, no = (f"Is this {_a(terms.NAMES[n])}?" for n in (name, other))
    return [opened, _balanced(sample, "modality", yes, no)]


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
    found = _named(sample.target, terms.ORGANS)
    if len(found) != 1:
        return []
    opened = _Asked("organ", "Which part of the body is shown?", found[0], "open")
    if _REGION[found[0]] == "anywhere":
        return [opened]
    other = _pick(sample, "organ", _FAR[_REGION[found[0]]])
    yes, no = (f"Does the image show the {name}?" for name in (found[0], other))
    return [opened, _balanced(sample, "organ", yes, no)]


_REGIONS = {
    "head": ("brain", "teeth", "jaw", "eye"),
    "trunk": (
        "chest",
        "lung",
        "heart",
        "breast",
        "thyroid",
        "liver",
        "spleen",
        "pancreas",
        "stomach",
        "kidney",
        "bowel",
        "bladder",
        "prostate",
        "uterus",
        "ovary",
        "spine",
        "hip",
        "shoulder",
    ),
    "limbs": ("knee", "hand", "foot"),
    "anywhere": ("skin",),
}
_REGION = {organ: region for region, organs in _REGIONS.items() for organ in organs}
# A picture of the liver often shows the kidney too: the counterpart comes from another region of the body.
_FAR = {
    region: tuple(o for other, organs in _REGIONS.items() if other not in (region, "anywhere") for o in organs)
    for region in _REGIONS
}


def _side(sample: Sample) -> list[_Asked]:
    text = _NO_SIDE.sub(" ", sample.target)
    sides = {match[1].lower() for match in _SIDES.finditer(text)}
    if len(sides) != 1 or re.search(r"\bbilateral|\bboth\b", text, re.IGNORECASE):
        return []
    (side,) = sides
    other = "left" if side == "right" else "right"
    choice = _Asked("side", "Which side is shown or affected?", side, "choice", ("left", "right"))
    yes, no = (f"Is the {name} side shown or affected?" for name in (side, other))
    return [choice, _balanced(sample, "side", yes, no)]


def _findings(sample: Sample) -> list[_Asked]:
    told = findings_of(sample.target)
    named = {*_named(sample.target, terms.FINDINGS)}
    present = [name for name, here in told.items() if here]
    asked = []
    if len(present) == 1 and len(named) == 1:
        asked.append(_Asked("finding", "Which abnormality does the image show?", present[0], "open"))
    kin = {name for family in terms.KIN if family & named for name in family}
    others = [name for name in terms.FINDINGS if name not in named | kin]
    for name, here in told.items():
        question = f"Is there {_some(name)} in the image?"
        if here:
            other = _pick(sample, f"finding {name}", others)
            asked.append(
                _balanced(sample, f"finding {name}", question, f"Is there {_some(other)} in the image?", "finding")
            )
        else:
            free = f"Is the image free of {_some(name)}?"
            asked.append(_balanced(sample, f"denied {name}", free, question, "denied finding"))
    return asked


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
