"""Texts and segments from the shared data."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest
from lxml import etree


@pytest.fixture(scope="session")
def coco_captions(realdata: Path) -> list[list[str]]:
    """The captions of each of the 5,000 images of COCO val2017, in the order of the images' numbers."""
    path = realdata / "metrics" / "coco_val2017_fakecap" / "captions_val2017.json"
    images = defaultdict(list)
    for annotation in json.loads(path.read_text(encoding="utf-8"))["annotations"]:
        images[annotation["image_id"]].append(annotation["caption"])
    return [images[image] for image in sorted(images)]


@pytest.fixture(scope="session")
def shared_texts(realdata: Path, coco_captions: list[list[str]]) -> list[str]:
    """COCO captions, VQA-RAD, SLAKE (English) and the captions of JATS articles, each on one line."""
    texts = [caption for captions in coco_captions for caption in captions]
    for path in sorted((realdata / "vqa_rad").glob("*.json")):
        texts += [
            str(row[key]) for row in json.loads(path.read_text(encoding="utf-8")) for key in ("question", "answer")
        ]
    for path in sorted((realdata / "slake").glob("*.json")):
        rows = [row for row in json.loads(path.read_text(encoding="utf-8")) if row["q_lang"] == "en"]
        texts += [row[key] for row in rows for key in ("question", "answer")]
    parser = etree.XMLParser(recover=True, no_network=True)
    for path in sorted(realdata.glob("jats*/**/*ml")):
        captions = etree.parse(path, parser).iter("{*}caption")
        texts += {"".join(caption.itertext()): None for caption in captions}
    return [" ".join(text.split()) for text in texts]
