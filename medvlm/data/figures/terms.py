"""Small vocabularies of what captions name: organs and regions of the body, findings and their kin, sides."""

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
    "skin": r"skin|cutaneous|dermal(?! bone)",
}
"""Organ or part of the body -> the words that name it."""

REGION_WORDS: dict[str, str] = {
    "head": r"skull|cranial|cranium|craniofacial|faces?|facial|orbit(?:s|al)?|nasal|nose|sinus(?:es)?|scalp"
    r"|ears?|tongue"
    r"|palat\w+|parotid|oral|neck(?<!femoral neck)(?<!bladder neck)|cervical (?:lymph|spine)|larynx|laryngeal"
    r"|pharyn\w+|carotid"
    r"|(?<!femoral )(?<!humeral )(?<!radial )(?<!pancreatic )(?<!metatarsal )(?<!fibular )head(?! of the (?:fem"
    r"|hum|rad|panc))",
    "trunk": r"abdom(?:en|inal)|pelvi[cs]|flank|torso|trunk|rib(?:s|cage)?|stern(?:um|al)|clavic\w+|scapul\w+"
    r"|aort(?:a|ic)"
    r"|diaphragm\w*|retroperitone\w+|periton\w+|adrenal|gall ?bladder|bil(?:e|iary)|esophag\w+|oesophag\w+"
    r"|rect(?:um|al)"
    r"|appendi\w+|trachea\w*|groin|inguinal|thoracic|sacr(?:um|al)|test(?:is|icular|es)|ureter\w*",
    "limbs": r"(?:upper |lower )?(?:legs?|limbs?|arms?|extremit(?:y|ies))|thighs?|cal(?:f|ves)|fem(?:ur|urs"
    r"|oral)|tibia[el]?s?"
    r"|fibula[re]?s?|humer(?:us|al)|elbows?|forearms?|radi(?:us|i)|ulna[re]?s?|fingers?|thumbs?|toes?|heels?"
    r"|phalan\w+|tarsal"
    r"|talus|achilles",
}
"""Region of the body -> words that name it or a part of it, but for those of ORGANS."""

ORGAN_REGIONS: dict[str, frozenset[str]] = {
    name: frozenset(regions.split())
    for names, regions in (
        ("brain teeth jaw eye", "head"),
        ("chest lung heart breast liver spleen pancreas stomach kidney bowel bladder prostate uterus ovary", "trunk"),
        ("thyroid spine", "head trunk"),
        ("hip shoulder", "trunk limbs"),
        ("knee hand foot", "limbs"),
        ("skin", "head trunk limbs"),
    )
    for name in names.split()
}
"""Organ -> the regions of the body that it lies in or reaches."""

IDIOMS = re.compile(
    r"\bon (?:the )?(?:one|other) hand\b|\b(?:left|right)(?:-hand|[- ]handed|[- ]hand (?:side|panel|column"
    r"|image)s?)\b|\b(?:at|by|in|second|first)[- ]hand\b"
    r"|\bhand[- ](?:in[- ]hand|drawn|held|made|crafted|labell?ed)\b|\bfoot process\w*|\bfoot ?notes?\b"
    r"|\bface[- ]to[- ]face\b"
    r"|\b(?:treatment|study|control|each|both|c|l)[- ]arms?\b|\bheart of\b|\bradius of\b|\beye[- ]catching\b"
    r"|\bbone[- ]in\b",
    re.IGNORECASE,
)
"""Words that name parts of the body and mean something else."""

_ILLNESS = (
    r"(?:cancers?|carcinoma|tumou?rs?|failure|insufficiency|disease|transplant\w*|arrest|cirrhosis"
    r"|encephalopathy|function"
    r"|metastas[ei]s)"
)
NO_ORGAN = re.compile(
    rf"{IDIOMS.pattern}|\b(?:whole|total|entire|full)[- ]body\b.*"
    r"|\b(?:patients?|m[ae]n|wom[ae]n|males?|females?|boys?|girls?|child(?:ren)?|infants?|persons?|subjects?|cases?)"
    r" (?:(?:who|had|has|have|was|were|is) )*(?:with|suffering from|diagnosed with|known for|treated for"
    r"|undergoing|after|of)\b"
    r"[^.;:,]*"
    r"|\b(?:history of|known|previous|prior|status post|following|after|due to|because of|secondary to"
    r"|caused by)\b[^.;:,]*"
    rf"|\b[a-z]+ {_ILLNESS}\b|\bmetasta\w+ (?:of|from|to)\b[^.;:,]*",
    re.IGNORECASE | re.DOTALL,
)
"""Text whose organs are not told to be in the picture: idioms, histories, the whole body with all behind it."""

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
    "mass": r"(?<!body )mass(?! effect| index| spectr)|masses|tumou?rs?",
}
"""Finding -> the words that name it."""

_CHEST = frozenset(
    {
        "pneumonia",
        "consolidation",
        "atelectasis",
        "pleural effusion",
        "edema",
        "nodule",
        "mass",
        "hemorrhage",
        "abscess",
    }
    | {"cardiomegaly", "pericardial effusion", "pneumothorax"}
)
_INJURY = frozenset({"fracture", "dislocation", "hematoma", "hemorrhage", "edema", "pneumothorax", "pleural effusion"})
_VESSEL = frozenset(
    {"infarct", "thrombosis", "stenosis", "aneurysm", "edema", "hemorrhage", "hematoma", "calcification", "ulcer"}
    | {"hydronephrosis", "mass"}
)
_BLEEDING = frozenset(
    {"hemorrhage", "hematoma", "infarct", "thrombosis", "aneurysm", "fracture", "edema", "mass", "ulcer"}
)
_FOCAL = frozenset(
    {"mass", "nodule", "cyst", "polyp", "metastasis", "abscess", "aneurysm", "hematoma", "lymphadenopathy", "ulcer"}
    | {"calcification", "infarct", "hemorrhage", "edema", "consolidation", "fracture", "hydronephrosis", "stenosis"}
    | {"thrombosis"}
)
_FLUID = frozenset(
    {
        "edema",
        "ascites",
        "pericardial effusion",
        "pleural effusion",
        "cardiomegaly",
        "hydronephrosis",
        "cyst",
        "abscess",
    }
    | {"mass", "lymphadenopathy", "aneurysm", "hematoma", "atelectasis", "consolidation", "pneumonia", "stenosis"}
)
_INFLAMED = frozenset(
    {"abscess", "edema", "ulcer", "pneumonia", "consolidation", "lymphadenopathy", "ascites", "calcification"}
    | {"pleural effusion", "pericardial effusion", "thrombosis", "polyp"}
)

KIN: dict[str, frozenset[str]] = {
    rf"{FINDINGS['pneumonia']}|{FINDINGS['consolidation']}|{FINDINGS['atelectasis']}|opaci\w+|infiltrat\w*|shadow\w*"
    r"|densit\w+|ground[- ]glass|tubercul\w+|covid\S*|ards|hyperdens\w+|white[- ]?out|bronchi\w+|pneumonitis|empyema"
    r"|pleuri\w+|pleural \w+": _CHEST,
    rf"{FINDINGS['fracture']}|{FINDINGS['dislocation']}|trauma\w*|injur\w+|displace\w+|sublux\w+|disrupt\w+|avuls\w+"
    r"|accidents?|fall|fell|collision|wound\w*": _INJURY,
    rf"{FINDINGS['infarct']}|{FINDINGS['thrombosis']}|{FINDINGS['stenosis']}|{FINDINGS['aneurysm']}|strokes?"
    rf"|isch(?:a)?em\w+"
    r"|embol\w+|occlu\w+|clots?|narrow\w+|stricture\w*|obstruct\w+|filling defects?|dissect\w+|vascul\w+|malformations?"
    r"|varic\w+|ectasi\w+": _VESSEL,
    rf"{FINDINGS['hemorrhage']}|{FINDINGS['hematoma']}|bleeds?|blood|ruptur\w+|contusions?|bruis\w+": _BLEEDING,
    rf"{FINDINGS['mass']}|{FINDINGS['nodule']}|{FINDINGS['cyst']}|{FINDINGS['polyp']}|{FINDINGS['metastasis']}"
    rf"|{FINDINGS['abscess']}|{FINDINGS['lymphadenopathy']}|{FINDINGS['ulcer']}|\w+omas?|\w+omata|cancers?|neopla\w+"
    r"|malignan\w+|lesions?|growths?|abnormalit\w+|areas?|foc(?:us|i|al)|spots?|lumps?|cystic|nodular|polyp\w+"
    r"|ulcerat\w+"
    r"|enhanc\w+|uptake|(?:hyper|hypo|iso)\w+|\w*lucen\w+|cavit\w+|collections?|calcifi\w+|lymph nodes?|stones?"
    r"|calcul\w+"
    r"|\w*lithiasis|leukemia|erosion\w*|lytic|osteolytic|sclerotic|scleros\w+": _FOCAL,
    rf"{FINDINGS['edema']}|{FINDINGS['ascites']}|{FINDINGS['pericardial effusion']}|{FINDINGS['cardiomegaly']}"
    rf"|{FINDINGS['pleural effusion']}|effusions?|fluid|swell\w+|swollen|enlarge\w*|dilat\w+|disten\w+|congest\w+"
    rf"|heart failure|hydro\w+|thicken\w+|{FINDINGS['hydronephrosis']}": _FLUID,
    r"inflam\w+|infect\w+|\w+itis|sepsis|septic|purulent|pus": _INFLAMED,
    rf"{FINDINGS['pneumothorax']}|(?:\w+)?pneumo\w+|emphysema\w*|free air|air leak\w*|gas|air": frozenset(
        {"pneumothorax", *_CHEST}
    ),
}
"""Words of captions -> findings that they may be other names for, or that often come with what they name.

Where such words stand in a caption, none of these findings is asked as one that it does not name.
"""

SIDE_ADJECTIVES = (
    r"upper|lower|middle|mid|main|proximal|distal|medial|lateral|anterior|posterior|superior|inferior|large|small|huge"
    r"|massive|moderate|mild|severe|acute|chronic|apical|basal|displaced|comminuted|complex|simple|cystic|solid|primary"
    r"|pleural|pulmonary|renal|hepatic|adrenal|ovarian|femoral|frontal|temporal|parietal|occipital|cerebellar|maxillary"
    r"|mandibular|internal|external|common|tension|subdural|epidural|intracerebral"
)
SIDED = (
    r"lungs?|lobes?|hemi ?thorax|pleura|breasts?|kidneys?|ureters?|adrenal(?: gland)?|ovar(?:y|ies)|adnexa\w*"
    r"|test(?:is|icle)"
    r"|knees?|hips?|shoulders?|elbows?|wrists?|hands?|fingers?|thumbs?|foot|feet|ankles?|toes?|heels?|legs?"
    r"|arms?|forearms?"
    r"|thighs?|cal(?:f|ves)|fem(?:ur|oral)|tibia[l]?|fibula[r]?|humer(?:us|al)|ulnar?|clavicles?|scapula|ribs?|ilia?c"
    r"|acetabul(?:um|ar)|eyes?|orbit(?:al)?|retina|ears?|cheeks?|hemispheres?|thalam(?:us|ic)|putamen|basal ganglia"
    r"|maxill(?:a|ary)|mandib(?:le|ular)|parotid|tonsils?|carotid|subclavian|axilla|groin|flank|diaphragm"
    r"|bronchus|cerebell(?:um|ar)"
    r"|(?:frontal|temporal|parietal|occipital|renal|adnexal|ovarian|adrenal|hilar|breast|lung|thyroid|parotid)"
    + "".join(f"|{pattern}" for pattern in FINDINGS.values())
)
"""Nouns that "left" and "right" tell the side of the body of; the chambers of the heart and single organs do not."""

NO_SIDE = re.compile(
    r"\b(?:left|right)(?:[- ]hand(?:ed)?)?(?: side)?(?: panels?| images?| columns?| rows?| arrows?| insets?|ward|:|\))"
    r"|\b(?:on|at|to) the (?:left|right)(?=\s*(?:[.,;:)]|$))",
    re.IGNORECASE,
)
"""Places in the figure, not sides of the body."""

BOTH_SIDES = re.compile(
    r"\b(?:bilateral\w*|both|contralateral\w*|opposite|either|two-sided|normal|healthy|unaffected|compared)\b",
    re.IGNORECASE,
)
"""With one of these words a text tells no one side."""

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


def whole_words(pattern: str) -> re.Pattern[str]:
    """Return a pattern that matches whole words in any case."""
    return re.compile(rf"(?<![\w-])(?:{pattern})(?!\w)", re.IGNORECASE)
