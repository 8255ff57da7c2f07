"""Modality from captions, keywords and pictures: hand-written captions with traps, and the labelled table."""

from __future__ import annotations

import collections
import csv
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from medvlm.data.figures import cues, modality, pixels
from medvlm.data.figures.modality import detect, resolve
from medvlm.data.look import Look, look_of
from medvlm.data.sample import Sample
from medvlm.errors import UsageError

TABLE = Path(__file__).parent / "modality_labels.tsv"

CAPTIONS = [
    ("histology", "Histology of a normal kidney."),
    ("ct", "Axial CT of the abdomen shows a hypodense lesion in the liver (arrow)."),
    ("ct", "Contrast-enhanced computed tomography scan demonstrating a renal mass."),
    ("ct", "Postoperative CT scan with the drain in place."),
    ("mri", "T2-weighted MRI of the knee showing a meniscal tear."),
    ("mri", "Sagittal T1 weighted image of the lumbar spine."),
    ("mri", "Axial FLAIR image shows periventricular hyperintensities."),
    ("radiograph", "Chest X-ray showing bilateral infiltrates."),
    ("radiograph", "Anteroposterior radiograph of the pelvis after total hip replacement."),
    ("radiograph", "Panoramic radiograph at the first visit."),
    ("ultrasound", "Transvaginal ultrasound image showing a gestational sac."),
    ("ultrasound", "Color Doppler of the carotid artery."),
    ("ultrasound", "Transthoracic echocardiogram, parasternal long axis view, with severe mitral regurgitation (MR)."),
    ("pet", "18F-FDG PET/CT shows intense uptake in a mediastinal node."),
    ("nuclear", "99mTc bone scan with increased uptake in the ribs."),
    ("nuclear", "SPECT/CT of the parathyroid."),
    ("mammography", "Mammogram of the left breast with a spiculated mass."),
    ("angiography", "Coronary angiography showing occlusion of the left anterior descending artery."),
    ("ct", "CT angiography of the pulmonary arteries."),
    ("mri", "MR angiography of the circle of Willis."),
    ("histology", "Photomicrograph of the tumor (hematoxylin and eosin, x200)."),
    ("histology", "Immunohistochemical staining for CD20 is positive."),
    ("endoscopy", "Colonoscopy showing a polyp in the sigmoid."),
    ("ultrasound", "Endoscopic ultrasound of the pancreas."),
    ("oct", "Spectral-domain OCT scan with subretinal fluid."),
    ("fundus", "Fundus photograph of the right eye with macular edema."),
    ("clinical_photo", "Clinical photograph of the patient with facial swelling."),
    ("clinical_photo", "Intraoral view before treatment."),
    ("electron_microscopy", "Scanning electron micrograph of the surface."),
    ("fluorescence", "Confocal images of cells stained with DAPI."),
    ("gel", "Western blot of whole-cell lysates."),
    ("plot", "Mean Ct values of the qPCR plotted against dilution."),
    ("plot", "Frequencies of the CT and TT genotypes. Error bars show the standard error."),
    (None, "The CT genotype was more common in patients."),
    (None, "Recycled PET bottles used in the experiment."),
    ("plot", "Degradation curves of PET films at two temperatures."),
    (None, "Tissue was embedded in OCT compound."),
    (None, "Samples were collected on 12 OCT 2015."),
    ("plot", "Forest plot of Mendelian randomization (MR) estimates."),
    (None, "Prevalence in the US and Canada."),
    ("plot", "ROC curves for CT and MRI readers."),
    ("plot", "Box plots of CT attenuation values."),
    ("diagram", "Flow chart of patients who underwent MRI."),
    ("plot", "X-ray diffraction patterns of the powder: intensity as a function of angle."),
    ("diagram", "Crystal structure of the complex solved by X-ray crystallography."),
    ("mixed", "(A) Axial CT of the chest. (B) Histopathology of the biopsy."),
    ("ct", "(A) Axial CT of the chest. (B) The lesion six months later. (C) The lesion after a year."),
    ("mri", "Brain MRI. (A) Before. (B) After."),
    ("radiograph", "Radiografía de tórax con infiltrados."),
    ("ct", "Cone-beam CT, cross sections of the mandible."),
    ("fluoroscopy", "Barium swallow showing a stricture."),
    (None, "Gastric fundus seen from within."),
    ("histology", "Gallbladder wall, H&E stain, 40x."),
    (None, "Photographed by the first author."),
    ("ct", "Micro-CT reconstruction of the jaw."),
]


def look(picture: Image.Image) -> Look:
    thumb = np.asarray(picture.convert("RGB").resize((64, 64), Image.Resampling.BOX))
    return Look("PNG", picture.mode, *picture.size, thumb)


def drawing() -> Look:
    picture = Image.new("RGB", (300, 300), "white")
    ImageDraw.Draw(picture).line([(20, 280), (100, 150), (280, 40)], fill="black", width=3)
    return look(picture)


def shades() -> Look:
    return look(Image.fromarray(np.random.default_rng(1).integers(30, 180, (6, 6), dtype=np.uint8)).resize((200, 200)))


@pytest.mark.parametrize(("name", "caption"), CAPTIONS)
def test_captions(name: str | None, caption: str) -> None:
    told, evidence = detect(caption)
    assert told == name
    assert (evidence is None) == (name is None)
    if evidence and told != "mixed":
        assert evidence.startswith("caption: ")
        assert evidence.removeprefix("caption: ") in " ".join(caption.split())


def test_every_class_can_be_told() -> None:
    assert {name for name, _, _ in cues.table()} == {*modality.MODALITIES, "-"} - {"mixed"}


def test_what_the_caption_does_not_tell_others_may() -> None:
    caption = "The lesion (arrow) is large."
    assert detect(caption, ["The chest radiograph was normal (Fig. 1)."]) == (
        "radiograph",
        "mention: radiograph",
    )
    assert detect(caption, ["MRI of the brain and CT scan are shown in Fig. 1."]) == (None, None)
    assert detect(caption, ["MRI of the brain was done. Fig. 1 shows the lesion."]) == (None, None)
    assert detect(caption, [], ["Computed Tomography", "Liver"], shades()) == ("ct", "keyword: Computed Tomography")
    assert detect(caption, [], ["Computed Tomography"], drawing()) == (None, None)
    assert detect(caption, [], ["Computed Tomography"]) == (None, None)
    assert detect(caption, [], ["Computed Tomography", "MRI"], shades()) == (None, None)


def test_drawn_pictures_are_no_scans() -> None:
    assert detect("Axial CT scan volumes.", look=drawing()) == (None, None)
    assert detect("Axial CT scan.", look=shades()) == ("ct", "caption: Axial CT scan")
    assert detect("Scatter plot.", look=drawing())[0] == "plot"
    assert detect("Scatter plot.", look=shades()) == (None, None)


def test_resolve() -> None:
    assert resolve(["CT", "x-ray", "ct"]) == ("radiograph", "ct")
    assert set(resolve(["radiology"])) == set(modality.GROUPS["radiology"])
    assert resolve(["electron-microscopy"]) == ("electron_microscopy",)
    assert set(resolve(list(modality.GROUPS))) < set(modality.MODALITIES)
    with pytest.raises(UsageError, match=r'unknown modality "radiologie".*did you mean "radiology"'):
        resolve(["radiologie"])


def _slowly(text: str) -> list[tuple[str, int, int]]:
    """Find cues by trying every row everywhere."""
    found = [
        (match.start(), -match.end(), -strength, name)
        for name, strength, pattern in cues.table()
        for match in pattern.finditer(text)
    ]
    kept, end = [], 0
    for start, stop, strength, name in sorted(found):
        if start >= end:
            end = -stop
            kept += [(name, -strength, start)] if name != "-" else []
    return kept


_WORDS = sorted({word for _, caption in CAPTIONS for word in re.findall(r"\S+", caption)})


@given(st.lists(st.sampled_from(_WORDS), max_size=25))
def test_fast_search_finds_what_the_slow_one_finds(words: list[str]) -> None:
    text = " ".join(words)
    # Equal matches of several classes may be told either way; those of one text always the same.
    assert [(c.start, c.strength) for c in cues.find(text)] == [(start, s) for _, s, start in _slowly(text)]


def test_traits() -> None:
    assert pixels.traits(drawing().thumb).drawn
    assert not pixels.traits(drawing().thumb).scan
    assert pixels.traits(shades().thumb).scan
    assert not pixels.traits(shades().thumb).drawn
    assert not pixels.traits(np.full((64, 64, 3), (200, 40, 90), np.uint8)).scan


def _looks(realdata: Path) -> dict[str, Look]:
    """Return the looks of the pictures that the shared articles come with, by caption."""
    from medvlm.data.sources.pmc import PmcSource

    source = PmcSource(sorted(realdata.glob("jats_*")))
    items = [item for unit in source.units() for item in source.read(unit)]
    return {item.target: look_of(item.image) for item in items if isinstance(item, Sample)}


def _xml_of(path: Path) -> bytes:
    """Return an article's XML, from within its archive where it lies in one."""
    if path.suffix != ".zip":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(".xml")))


def _answers(realdata: Path, split: str) -> list[tuple[str | None, str | None]]:
    """Return (true, told) for each labelled figure of a split."""
    from medvlm.data.sources.pmc import jats, xml

    with TABLE.open(encoding="utf-8") as file:
        labels = {
            (row["article"], row["figure"]): None if row["modality"] == "unknown" else row["modality"]
            for row in csv.DictReader(file, delimiter="\t")
            if row["split"] == split
        }
    looks, answers = _looks(realdata), []
    for article in sorted({article for article, _ in labels}):
        for document in xml.read_documents(_xml_of(realdata / article)):
            for figure in jats.read_article(document).figures:
                if (article, figure.key) in labels:
                    told, _ = detect(figure.caption, look=looks.get(figure.caption))
                    answers.append((labels[article, figure.key], told))
    return answers


@pytest.mark.realdata
def test_precision_and_recall_on_the_labelled_figures(realdata: Path) -> None:
    """The numbers themselves stand in README.md beside this file; `-s` prints them anew."""
    answers = _answers(realdata, "test")
    true, told = (collections.Counter(names) for names in zip(*answers, strict=True))
    right = collections.Counter(name for name, answer in answers if name == answer)
    for name in sorted({*true, *told} - {None}, key=str):
        print(f"| {name} | {true[name]} | {told[name]} | {right[name]} |")
    named = right.total() - right[None]
    precision, recall = named / (told.total() - told[None]), named / (true.total() - true[None])
    print(
        f"precision {precision:.3f}, recall {recall:.3f} of {len(answers)}; {right[None]} of {true[None]} left unknown"
    )
    assert len(answers) > 200
    assert precision > 0.65
    assert recall > 0.38


@pytest.mark.realdata
def test_scans_never_look_drawn(realdata: Path) -> None:
    files = sorted((realdata / "vqa_rad" / "images").glob("*.jpg"))
    drawn = [file.name for file in files if pixels.traits(look(Image.open(file)).thumb).drawn]
    assert len(files) > 300
    assert len(drawn) <= 3
