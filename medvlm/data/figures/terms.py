"""Small vocabularies of what captions name: organs, findings, sides, and the words that deny or doubt."""

from __future__ import annotations

import re

ORGANS: dict[str, str] = {
    "brain": r"brain|cerebr(?:al|um)|cerebell(?:ar|um)|intracranial|frontal lobe|temporal lobe|basal ganglia",
    "chest": r"chest|thorax|thoracic cavity|mediastin(?:al|um)",
    "lung": r"lungs?|pulmonary|pleural?|bronch(?:us|i|ial)",
    "heart": r"heart|cardiac|myocardi(?:al|um)|(?:left|right) ventric(?:le|ular)|mitral|aortic valve",
    "liver": r"liver|hepatic",
    "kidney": r"kidneys?|renal",
    "spleen": r"spleen|splenic",
    "pancreas": r"pancreas|pancreatic",
    "stomach": r"stomach|gastric",
    "bowel": r"bowel|intestin(?:e|al)|colon|colonic|sigmoid|jejun(?:um|al)|ile(?:um|al)|duoden(?:um|al)",
    "bladder": r"(?<!gall )bladder|vesical",
    "prostate": r"prostat(?:e|ic)",
    "uterus": r"uter(?:us|ine)|endometri(?:al|um)|myometri(?:al|um)",
    "ovary": r"ovar(?:y|ies|ian)|adnexal",
    "breast": r"breasts?|mammary",
    "thyroid": r"thyroid",
    "spine": r"spine|spinal|vertebra(?:l|e)?|lumbar|intervertebral",
    "knee": r"knees?|menisc(?:us|al)|patell(?:a|ar)",
    "hip": r"hips?|acetabul(?:ar|um)|femoral head",
    "shoulder": r"shoulders?|rotator cuff|gleno(?:id|humeral)",
    "hand": r"hands?|wrists?|metacarpals?|carpal",
    "foot": r"foot|feet|ankles?|metatarsals?|calcaneus",
    "teeth": r"teeth|tooth|dental|molars?|incisors?",
    "jaw": r"mandib(?:le|ular)|maxill(?:a|ary)|jaws?",
    "eye": r"eyes?|retina(?:l)?|ocular|macula(?:r)?|optic disc",
    "skin": r"skin|cutaneous|dermal",
}
"""Organ or part of the body -> the words that name it."""

FINDINGS: dict[str, str] = {
    "pleural effusion": r"pleural effusions?",
    "pericardial effusion": r"pericardial effusions?",
    "pneumothorax": r"pneumothora(?:x|ces)",
    "pneumonia": r"(?:broncho)?pneumonia",
    "consolidation": r"consolidations?",
    "atelectasis": r"atelecta(?:sis|tic)",
    "cardiomegaly": r"cardiomegaly",
    "fracture": r"fractures?|fractured",
    "dislocation": r"dislocat(?:ion|ions|ed)",
    "hemorrhage": r"ha?emorrhag(?:e|es|ic)|bleeding",
    "hematoma": r"ha?ematomas?",
    "infarct": r"infarct(?:s|ion|ions)?",
    "thrombosis": r"thromb(?:osis|us|i)",
    "aneurysm": r"(?:pseudo)?aneurysms?|aneurysmal",
    "stenosis": r"stenos[ei]s|stenotic",
    "cyst": r"cysts?",
    "abscess": r"abscess(?:es)?",
    "calcification": r"calcifications?",
    "metastasis": r"metastas[ei]s|metastatic",
    "hydronephrosis": r"hydronephrosis",
    "ascites": r"ascites",
    "lymphadenopathy": r"lymphadenopathy|enlarged lymph nodes?",
    "edema": r"o?edema",
    "polyp": r"polyps?",
    "ulcer": r"ulcers?|ulceration",
    "nodule": r"nodules?",
    "mass": r"(?<!body )mass(?! effect| index)|masses|tumou?rs?",
}
"""Finding -> the words that name it."""

KIN: tuple[frozenset[str], ...] = (
    frozenset({"pneumonia", "consolidation", "atelectasis", "pleural effusion"}),
    frozenset({"hemorrhage", "hematoma"}),
    frozenset({"infarct", "thrombosis", "stenosis", "edema"}),
    frozenset({"mass", "nodule", "cyst", "polyp", "metastasis", "abscess", "aneurysm", "hematoma", "lymphadenopathy"}),
    frozenset({"fracture", "dislocation"}),
)
"""Findings that often come together or name the same thing: where one is named, another is not asked as absent."""

NAMES: dict[str, str] = {
    "radiograph": "radiograph",
    "ct": "CT scan",
    "mri": "MRI scan",
    "ultrasound": "ultrasound image",
    "pet": "PET scan",
    "nuclear": "nuclear medicine scan",
    "mammography": "mammogram",
    "fluoroscopy": "fluoroscopic image",
    "angiography": "angiogram",
    "histology": "histology image",
    "fluorescence": "fluorescence microscopy image",
    "electron_microscopy": "electron micrograph",
    "light_microscopy": "light micrograph",
    "endoscopy": "endoscopic image",
    "fundus": "fundus photograph",
    "oct": "optical coherence tomography scan",
    "clinical_photo": "clinical photograph",
    "photo": "photograph",
    "gel": "gel or blot",
    "plot": "plot",
    "diagram": "diagram",
    "map": "map",
    "table": "table",
}
"""Modality -> what a picture of it is called in a question."""

DENIED_BEFORE = re.compile(
    r"\b(?:no|not|without|absence of|absent|negative for|free of|nor|neither|never|exclud(?:es?|ed|ing)|rather than"
    r"|resolution of|resolved|disappearance of|complete removal of)\b",
    re.IGNORECASE,
)
"""Denies what follows in its clause."""

DENIED_BEHIND = re.compile(
    r"^[^.;,]{0,30}\b(?:is|are|was|were|has|have)(?: been)?"
    r" (?:not|absent|excluded|ruled out|resolved|no longer|disappeared)\b",
    re.IGNORECASE,
)
"""Denies what stands right before it."""

CLAUSE_END = re.compile(
    r"[.;:]\s|,\s(?=(?:the|an?|there|it)\s)|\b(?:but|however|although|though|except|showing|shows?|with)\b",
    re.IGNORECASE,
)
"""Ends the reach of a denial."""

DOUBT = re.compile(
    r"\b(?:possibl[ey]|probabl[ey]|suspect(?:ed|ing)?|suspicious|suspicion|may|might|could|likely|unlikely|suggest\w*"
    r"|rule out|ruled out|cannot|versus|vs|differential|presumed|presumably|question\w*|mimic\w*|history of|previous"
    r"|prior|before|after|risk|if|or)\b|\?",
    re.IGNORECASE,
)
"""A sentence with one of these tells nothing for sure about its findings."""


def whole_words(pattern: str) -> re.Pattern[str]:
    """Return a pattern that matches whole words in any case."""
    return re.compile(rf"(?<![\w-])(?:{pattern})(?!\w)", re.IGNORECASE)
