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
def shared_texts(realdata: Path, coco_captions: list[list[str]]) -> dict[str, list[str]]:
    """Texts by source, each on one line: COCO, VQA-RAD, SLAKE, captions and paragraphs of JATS articles, RadEval."""
    sources = {
        "coco": [caption for captions in coco_captions for caption in captions],
        "vqa_rad": _values(realdata / "vqa_rad", ("question", "answer")),
        "slake": _values(realdata / "slake", ("question", "answer")),
        "radeval": _values(realdata / "metrics" / "radeval_fixtures", ("hyp", "ref")),
        "captions": [],
        "paragraphs": [],
    }
    parser = etree.XMLParser(recover=True, no_network=True)
    for path in sorted(realdata.glob("jats*/**/*ml")):
        article = etree.parse(path, parser)
        for name, tag in (("captions", "{*}caption"), ("paragraphs", "{*}p")):
            sources[name] += dict.fromkeys("".join(part.itertext()) for part in article.iter(tag))
    return {name: [" ".join(text.split()) for text in texts] for name, texts in sources.items()}


def _values(folder: Path, keys: tuple[str, ...]) -> list[str]:
    """What the rows of the JSON lists in `folder` say under `keys`."""
    lists = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    rows = [row for one in lists if isinstance(one, list) for row in one]
    return [str(row[key]) for row in rows for key in keys if key in row]
