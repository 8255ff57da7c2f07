"""Small copies of IU X-ray and MIMIC-CXR in exactly the layouts in which they are published, quirks included.

`LAYOUTS` names each layout as source, or source/form, and maps it to make(folder, records) -> the folder for --input.
Texts are made up in the manner of the sets; pictures are of one shade each.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import PIL.Image

FINDINGS = (
    "The heart is normal in size. No focal consolidation, pleural effusion or pneumothorax. Nodule of {n} mm.",
    "XXXX sternotomy XXXX. There are no XXXX of a left effusion.. Granuloma {n} in the right apex.There is no edema.",
    "",
)
IMPRESSIONS = (
    "No acute cardiopulmonary abnormality.",
    "1. Stable cardiomegaly. 2. No edema in study {n}. .",
    "Normal chest x-XXXX {n}.",
)
MESH = (
    "normal",
    "Cardiomegaly/borderline;Aorta, Thoracic/tortuous;Cardiomegaly",
    "Opacity/lung/base/left/patchy;Catheters, Indwelling/right",
    "No Indexing",
)


def picture(shade: int, kind: str) -> bytes:
    """Return a small gray picture; another one for each number."""
    file = io.BytesIO()
    PIL.Image.new("L", (10, 12 + shade // 200), shade % 200 + 20).save(file, kind)
    return file.getvalue()


def study(n: int) -> dict[str, str]:
    """Return the columns of study `n` as the Kaggle copy has them."""
    mesh = MESH[n % 4]
    return {
        "uid": str(n),
        "MeSH": mesh,
        "Problems": ";".join(term.partition("/")[0] for term in mesh.split(";")),
        "image": "Xray Chest PA and Lateral",
        "indication": ("Positive TB test", "XXXX-year-old male, chest pain.", "")[n % 3],
        "comparison": ("None.", "XXXX, XXXX", "")[n % 3],
        "findings": FINDINGS[n % 3].format(n=n),
        "impression": IMPRESSIONS[n % 3].format(n=n),
    }


def views(n: int) -> list[tuple[str, str]]:
    """Return the stem and the projection of each picture; the lateral one comes first where the number is even."""
    both = [(f"{n}_IM-{n:04}-1001", "Frontal"), (f"{n}_IM-{n:04}-{3 + n % 2}001", "Lateral")]
    return both[:1] if n % 5 == 0 else both[::-1] if n % 2 == 0 else both


def kaggle(folder: Path, count: int) -> Path:
    """Write both tables and images/images_normalized; the files are named N_IM-....dcm.png."""
    images = folder / "images" / "images_normalized"
    images.mkdir(parents=True)
    for name, rows in (
        ("indiana_reports.csv", [study(n) for n in range(1, count + 1)]),
        (
            "indiana_projections.csv",
            [
                {"uid": str(n), "filename": f"{stem}.dcm.png", "projection": view}
                for n in range(1, count + 1)
                for stem, view in views(n)
            ],
        ),
    ):
        _table(folder / name, list(rows[0]) if rows else ["uid", "findings", "impression"], rows)
    for n in range(1, count + 1):
        for number, (stem, _) in enumerate(views(n)):
            (images / f"{stem}.dcm.png").write_bytes(picture(2 * n + number, "PNG"))
    return folder


def _table(path: Path, names: list[str], rows: list[dict[str, str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def open_i(folder: Path, count: int) -> Path:
    """Write ecgen-radiology/N.xml and NLMCXR_png; study 1's pictures are CXR1_1_IM-...."""
    (folder / "ecgen-radiology").mkdir(parents=True)
    (folder / "NLMCXR_png").mkdir()
    for n in range(1, count + 1):
        row, stems = study(n), [f"CXR{n}_{stem}" if n == 1 else f"CXR{stem}" for stem, _ in views(n)]
        (folder / "ecgen-radiology" / f"{n}.xml").write_text(xml(row, stems), encoding="utf-8")
        for number, stem in enumerate(stems):
            (folder / "NLMCXR_png" / f"{stem}.png").write_bytes(picture(2 * n + number, "PNG"))
    return folder


def xml(row: dict[str, str], stems: list[str]) -> str:
    """Return a report as Open-i writes it."""
    labels = ("COMPARISON", "INDICATION", "FINDINGS", "IMPRESSION")
    texts = "".join(f'<AbstractText Label="{label}">{escape(row[label.lower()])}</AbstractText>\n' for label in labels)
    major = "".join(f"<major>{escape(term)}   \t</major>" for term in row["MeSH"].split(";"))
    images = "".join(
        f"<parentImage id={quoteattr(stem)}><figureId>F{k}</figureId><caption>{row['image']}</caption><panel "
        f'type="single"><url>/hadoop/storage/radiology/extract/{stem}.jpg</url></panel></parentImage>\n'
        for k, stem in enumerate(stems, 1)
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<eCitation>\n<meta type="rr"/><uId id="CXR{row["uid"]}"/>\n'
        f'<pmcId id="{row["uid"]}"/><docSource>CXR</docSource><IUXRId id="{row["uid"]}"/>\n'
        "<licenseType>open-access</licenseType>"
        "<licenseURL>http://creativecommons.org/licenses/by-nc-nd/4.0/</licenseURL><ccLicense>byncnd</ccLicense>\n"
        '<MedlineCitation Owner="Indiana University" Status="supplied by publisher"><Article PubModel="Electronic">\n'
        f"<Abstract>\n{texts}</Abstract></Article></MedlineCitation>\n"
        f"<MeSH>{major}<automatic>heart size</automatic></MeSH>\n{images}</eCitation>\n"
    )


def r2gen(folder: Path, count: int) -> Path:
    """Write annotation.json and images/ID/0.png; the file is one object of three lists, not a list."""
    listed: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    for n in range(1, count + 1):
        row, split = study(n), "test" if n % 5 == 4 else "val" if n % 5 == 3 else "train"
        key = f"CXR{n}_IM-{n:04}" + ("-1001" if n % 7 == 3 else "")
        paths = [f"{key}/{k}.png" for k, _ in enumerate(views(n))]
        report = " ".join(text for text in (row["findings"], row["impression"]) if text)
        listed[split].append({"id": key, "report": report, "image_path": paths, "split": split})
        (folder / "images" / key).mkdir(parents=True)
        for number, path in enumerate(paths):
            (folder / "images" / path).write_bytes(picture(2 * n + number, "PNG"))
    folder.mkdir(exist_ok=True)
    (folder / "annotation.json").write_text(json.dumps(listed), encoding="utf-8")
    return folder


LABELS = ("Atelectasis", "Cardiomegaly", "Edema", "No Finding", "Pleural Effusion", "Support Devices")


def report(n: int) -> str:
    """Return a report as MIMIC-CXR writes them: a blank before each line, several forms."""
    usual = (
        " EXAMINATION:  CHEST (PA AND LAT)\n \n INDICATION:  ___ year old woman with cough  // pneumonia?\n \n"
        " TECHNIQUE:  Chest PA and lateral\n \n COMPARISON:  ___\n \n FINDINGS: \n \n"
        f" Left nodule of {n} mm.  No pleural effusion or\n pneumothorax.\n \n IMPRESSION: \n \n 1. No pneumonia.\n"
        f" 2. Nodule {n}.\n"
    )
    forms = (
        usual,
        f" CHEST RADIOGRAPH\n \n HISTORY:  Fall.\n \n FINDINGS AND IMPRESSION:  Right rib {n} is broken.\n",
        f" REASON FOR EXAMINATION:  Tube.\n \n Compared to ___.\n \n The tube ends {n} cm above the carina.\n",
        f" INDICATION:  ___M with pain\n \n IMPRESSION:  No acute process in study {n}.\n",
    )
    wet = f" WET READ: ___ ___ 5:32 PM\n  Wrong reading {n}.\n {'_' * 78}\n" if n % 6 == 0 else ""
    return f"{wet}                                 FINAL REPORT\n{forms[n % 4]}"


def mimic(folder: Path, count: int, texts: str = "zip") -> Path:
    """Write `count` studies, two a patient: JPEG files, the three .csv.gz tables, and reports as a zip or as files."""
    folder.mkdir(parents=True, exist_ok=True)
    splits, metadata, chexpert, reports = [], [], [], {}
    for n in range(count):
        subject, key = f"{10 + n // 2 % 10}{n // 2:06}", f"{50000000 + n}"
        name = f"p{subject[:2]}/p{subject}/s{key}"
        (folder / "files" / name).mkdir(parents=True)
        split = ("train", "train", "validate", "test")[n // 2 % 4]
        for k, view in enumerate(("LATERAL", "PA") if n % 3 else ("AP",)):
            dicom = f"{n:08x}-{k:08x}-00000000-00000000-0000000a"
            (folder / "files" / name / f"{dicom}.jpg").write_bytes(picture(2 * n + k, "JPEG"))
            splits.append([dicom, key, subject, split])
            metadata.append([dicom, subject, key, "CHEST (PA AND LAT)", "" if n % 7 == 6 else view, "2544", "3056"])
        values = ["1.0" if (n + k) % 4 == 0 else "-1.0" if k == 2 else "" for k in range(6)]
        chexpert.append([subject, key, *(values if n % 3 else ["", "", "0.0", "1.0", "", ""])])
        reports[f"files/{name}.txt"] = report(n)
    tables = {
        "split": (["dicom_id", "study_id", "subject_id", "split"], splits),
        "metadata": (
            [
                "dicom_id",
                "subject_id",
                "study_id",
                "PerformedProcedureStepDescription",
                "ViewPosition",
                "Rows",
                "Columns",
            ],
            metadata,
        ),
        "chexpert": (["subject_id", "study_id", *LABELS], chexpert),
    }
    for name, (columns, rows) in tables.items():
        gzipped(folder / f"mimic-cxr-2.0.0-{name}.csv.gz", columns, rows)
    if texts == "zip":
        with zipfile.ZipFile(folder / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for path, text in reports.items():
                file.writestr(path, text)
    for path, text in reports.items() if texts != "zip" else ():
        (folder / texts / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / texts / path).write_text(text, encoding="utf-8", newline="")
    return folder


def gzipped(path: Path, columns: list[str], rows: list[list[str]]) -> None:
    """Write a .csv.gz."""
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


LAYOUTS: dict[str, Callable[[Path, int], Path]] = {
    "iu-xray": kaggle,
    "iu-xray/open-i": open_i,
    "iu-xray/r2gen": r2gen,
    "mimic-cxr": mimic,
    "mimic-cxr/files": lambda folder, count: mimic(folder, count, texts="."),
}
