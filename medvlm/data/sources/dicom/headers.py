"""The whole list of what leaves a header, and in which form: nothing else of it gets into a data set.

Every value is checked against the terms that the standard defines for it, since any element can be mistaken for a notes
field: a body part "SMITH J" is no body part and stays behind. Numbers are written anew from their value.
"""

from __future__ import annotations

import datetime
import re
from typing import Any

from pydicom.dataset import Dataset

from medvlm.data.sources.dicom.gray import number, of_frame, window_used
from medvlm.data.sources.dicom.options import Window

WHITELIST: dict[str, str] = {
    "Modality": "`modality`: what made the picture",
    "BodyPartExamined": "`organ`: the part of the body, where it is one of the standard's terms",
    "ViewPosition": "`views`: the projection",
    "ImageLaterality": "`views`: the side, before the projection",
    "Laterality": "`views`: the side, where the image itself has none",
    "PhotometricInterpretation": "`label`: how gray or color was stored",
    "BitsStored": "`label`: bits of a stored value",
    "Rows": "`label`: height as stored",
    "Columns": "`label`: width as stored",
    "PixelSpacing": "`label`: millimeters between pixels",
    "ImagerPixelSpacing": "`label`: the same at the detector, where PixelSpacing is absent",
    "SliceThickness": "`label`: millimeters",
    "StudyDate": "`year`, only with --dates shift, and only that of the shifted date",
    "PatientID": "`group` and `id`: a keyed stand-in",
    "StudyInstanceUID": "`id`: a keyed stand-in",
    "SeriesInstanceUID": "`id`: a keyed stand-in",
    "SOPInstanceUID": "`id` and `file_name`: a keyed stand-in",
}
"""Element -> the column that it gets into. Used and kept back besides: what decides how pixels are shown (rescale,
windows, LUTs, palettes, filling), what refuses a file, and what a report is found by (AccessionNumber)."""

MODALITIES: dict[str, str] = {
    **dict.fromkeys(("CR", "DX", "RG", "IO", "PX"), "radiograph"),
    **dict.fromkeys(("US", "IVUS", "BDUS"), "ultrasound"),
    **dict.fromkeys(("NM", "ST"), "nuclear"),
    "CT": "ct",
    "ES": "endoscopy",
    "GM": "light_microscopy",
    "MG": "mammography",
    "MR": "mri",
    "OP": "fundus",
    "OPT": "oct",
    "PT": "pet",
    "RF": "fluoroscopy",
    "SM": "histology",
    "XA": "angiography",
    "XC": "clinical_photo",
}
"""Modality (PS3.3, C.7.3.1.1.1) -> the word used throughout data sets."""

_OTHERS = """
ANN AR ASMT AU BI BMD CFM CTPROTOCOL DG DMS DOC ECG EEG EMG EOG EPS FID HC HD IOL KER KO LEN LS M3D MA MS OAM OCT OPM
OPTBSV OPTENF OPV OSS OT PA PLAN POS PR REG RESP RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV
SEG SMR SR SRF STAIN TEXTUREMAP TG VA XAPROTOCOL
"""
_OTHER_MODALITIES = frozenset(_OTHERS.split())

_PARTS = """
ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM AXILLA BACK BLADDER BRAIN BREAST BRONCHUS BUTTOCK CALCANEUS CALF CAROTID
CEREBELLUM CERVIX CHEEK CHEST CHESTABDOMEN CHESTABDPELVIS CIRCLEOFWILLIS CLAVICLE COCCYX COLON CORNEA CORONARYARTERY
CSPINE CTSPINE DUODENUM EAR ELBOW ESOPHAGUS EXTREMITY EYE EYELID FACE FEMUR FINGER FOOT FOREARM GALLBLADDER HAND HEAD
HEADNECK HEART HIP HUMERUS IAC ILEUM ILIUM JAW JEJUNUM KIDNEY KNEE LARYNX LEG LIVER LSPINE LSSPINE LUNG MAXILLA
MEDIASTINUM MOUTH NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE ORBIT OVARY PANCREAS PAROTID PATELLA PELVIS
PENIS PHARYNX PROSTATE RECTUM RIB RIBS SCALP SCAPULA SCLERA SCROTUM SHOULDER SKULL SPINE SPLEEN SSPINE STERNUM STOMACH
SUBMANDIBULAR TESTIS THIGH THORAX THUMB THYMUS THYROID TLSPINE TMJOINT TOE TONGUE TRACHEA TSPINE URETER URETHRA UTERUS
VAGINA VULVA WHOLEBODY WRIST ZYGOMA
"""
BODY_PARTS = frozenset(_PARTS.split())
"""Defined terms of Body Part Examined (PS3.16, annex L), and a few that many machines write."""

_PART_WORDS = {
    "abdomenpelvis": "abdomen and pelvis",
    "chestabdomen": "chest and abdomen",
    "chestabdpelvis": "chest, abdomen and pelvis",
    "circleofwillis": "circle of willis",
    "coronaryartery": "coronary artery",
    "cspine": "cervical spine",
    "ctspine": "cervicothoracic spine",
    "headneck": "head and neck",
    "iac": "internal auditory canal",
    "lspine": "lumbar spine",
    "lsspine": "lumbosacral spine",
    "neckchest": "neck and chest",
    "neckchestabdomen": "neck, chest and abdomen",
    "neckchestabdpelv": "neck, chest, abdomen and pelvis",
    "ribs": "rib",
    "sspine": "sacral spine",
    "thorax": "chest",
    "tlspine": "thoracolumbar spine",
    "tmjoint": "temporomandibular joint",
    "tspine": "thoracic spine",
    "wholebody": "whole body",
}
"""Terms that are no word, in words."""

_PROJECTIONS = "AP PA CC MLO ML LM XCC XCCL XCCM FB SIO LMO ISO AT CV RLO LLO RLD LLD"
VIEWS: dict[str, str] = {
    **{term: term for term in _PROJECTIONS.split()},
    **dict.fromkeys(("LL", "RL", "LAT", "LATERAL"), "LATERAL"),
}
"""View Position (PS3.3, C.8.1.2 and C.8.11.7) -> the word used throughout data sets."""

_PHOTOMETRIC = re.compile(r"MONOCHROME[12]|PALETTE COLOR|RGB|YBR_(?:FULL|FULL_422|PARTIAL_4\d\d|RCT|ICT)")
_SPELLED = {"ct": "CT", "mri": "MRI", "nuclear": "nuclear medicine", "oct": "OCT", "pet": "PET"}

QUESTIONS = {
    "modality": "Which modality made this image?",
    "body-part": "Which part of the body does this image show?",
    "view": "Which view is this?",
}
"""What --target-from asks."""


def term(header: Dataset, keyword: str) -> str:
    """Return an element's first value as a term of a list is written: capitals, no blanks around."""
    value: Any = header.get(keyword)
    if value is not None and not isinstance(value, str | int | float) and len(value):
        value = value[0]
    return str(value or "").strip().upper()


def modality_code(header: Dataset) -> str:
    """Return the modality if the standard has it, else ""."""
    found = term(header, "Modality")
    return found if found in MODALITIES or found in _OTHER_MODALITIES else ""


def modality(header: Dataset) -> str | None:
    """Return what made the picture, in the words of `medvlm.data.figures.modality`; None where that is not told."""
    return MODALITIES.get(term(header, "Modality"))


def body_part(header: Dataset) -> str | None:
    """Return the part of the body in words, if it is one of the standard's terms."""
    found = re.sub(r"[ _-]", "", term(header, "BodyPartExamined"))
    return _PART_WORDS.get(found.lower(), found.lower()) if found in BODY_PARTS else None


def view(header: Dataset) -> str | None:
    """Return the projection, with the side before it where one is told: PA, LATERAL, L MLO."""
    found = VIEWS.get(term(header, "ViewPosition"))
    side = term(header, "ImageLaterality") or term(header, "Laterality")
    return f"{side} {found}" if found and side in ("L", "R") else found


def year(header: Dataset, shift: int) -> int | None:
    """Return the year of the study's date moved by `shift` days, None where it has no date."""
    found = re.fullmatch(r"(\d{4})\.?(\d{2})\.?(\d{2})", term(header, "StudyDate"))
    if not found:
        return None
    try:
        day = datetime.date(*(int(part) for part in found.groups()))
        return (day + datetime.timedelta(days=shift)).year
    except (ValueError, OverflowError):
        return None


def label(header: Dataset, frame: int, window: Window) -> str:
    """Return how the picture was stored and shown, in one line made of numbers and terms of the standard."""
    told = [modality_code(header) or "picture", f"{int(header.Columns)}x{int(header.Rows)}"]
    bits, kind = number(header, "BitsStored"), term(header, "PhotometricInterpretation")
    told += [f"{bits:g} bits"] if bits else []
    told += [kind] if _PHOTOMETRIC.fullmatch(kind) else []
    told += [f"window {window_used(header, frame, window)}"] if kind.startswith("MONOCHROME") else []
    measures = of_frame(header, frame, "PixelMeasuresSequence")
    spacing = _numbers(measures, "PixelSpacing") or _numbers(header, "ImagerPixelSpacing")
    told += ["spacing " + "x".join(f"{value:.4g}" for value in spacing) + " mm"] if len(spacing) == 2 else []
    thickness = number(measures, "SliceThickness")
    told += [f"slice {thickness:.4g} mm"] if thickness else []
    return ", ".join(told)


def answer(header: Dataset, asked: str) -> str | None:
    """Return what --target-from answers of a picture, None where its header does not tell."""
    if asked == "modality":
        found = modality(header)
        return _SPELLED.get(found, found.replace("_", " ")) if found else None
    if asked == "body-part":
        return body_part(header)
    found = view(header)
    return found.replace("LATERAL", "lateral") if found else None


def _numbers(elements: Dataset, keyword: str) -> list[float]:
    value: Any = elements.get(keyword)
    try:
        return [float(part) for part in value] if value is not None and not isinstance(value, str) else []
    except (TypeError, ValueError):
        return []
