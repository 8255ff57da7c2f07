"""Which version, which form of a picture, which article: what is unusable gives way to the next that can be used."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from cloud_run import read, reasons, samples
from pmc_server import CC_BY, Server, World, picture

from medvlm.data.sample import Credit, Reject
from medvlm.data.sources.pmc import packages, reader
from medvlm.data.sources.pmc.cloud import CloudSource

Make = Callable[..., CloudSource]
FORMS = (
    '<fig id="X"><label>Figure 1</label><caption><p>Chest radiograph.</p></caption><alternatives>'
    '<graphic xlink:href="g.tif"/><graphic xlink:href="g.png"/></alternatives></fig>'
)


def put_xml(world: World, folder: str, data: bytes) -> None:
    world.objects[f"{folder}/{folder}.xml"] = data
    world.metadata(folder, xml_url=world.address(f"{folder}/{folder}.xml"))


def spoil(world: World, how: str, folder: str) -> None:
    if how == "metadata":
        del world.objects[f"metadata/{folder}.json"]
    elif how == "xml":
        del world.objects[f"{folder}/{folder}.xml"]
    else:
        put_xml(world, folder, how.encode())


@pytest.mark.parametrize("inventory", [False, True])
@pytest.mark.parametrize("how", ["metadata", "xml", "<broken", '<!DOCTYPE a [<!ENTITY b "c">]><article/>'])
def test_an_unusable_version_gives_way_to_the_one_before(world: World, cloud: Make, inventory: bool, how: str) -> None:
    for version in (1, 2, 3):
        world.add("PMC5", version, media={"f1.png": picture(version)})
    world.publish_inventory()
    spoil(world, how, "PMC5.3")
    items = read(cloud("" if inventory else "PMC5", inventory=inventory))
    assert [sample.image.data for sample in samples(items)] == [picture(2)]
    told = [item.where for item in items if isinstance(item, Reject) and item.reason == "version unusable"]
    assert told == ["PMC5.3"]


def test_planning_takes_no_older_version_silently(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC5", 1)
    world.add("PMC5", 2, is_retracted=True)
    server.faults["metadata/PMC5.2"] = ["404"]
    source = cloud("PMC5")
    assert source.units()[0].locator == ("PMC5", "2")
    assert reasons(read(source)) == {"retracted article": 1}
    assert server.asked("PMC5.1") == []


def test_a_version_that_was_named_has_no_other(world: World, server: Server, cloud: Make) -> None:
    for version in (1, 2):
        world.add("PMC5", version)
    spoil(world, "<broken", "PMC5.2")
    assert reasons(read(cloud("PMC5.2"))) == {"no article in xml": 1}
    assert server.asked("PMC5.1") == []


@pytest.mark.parametrize("first", ["PMC5", "PMC5.2"])
def test_records_know_whether_the_version_was_named(world: World, cloud: Make, first: str) -> None:
    for version in (1, 2):
        world.add("PMC5", version, media={"f1.png": picture(version)})
    spoil(world, "<broken", "PMC5.2")
    expected = {"PMC5": {"version unusable": 1}, "PMC5.2": {"no article in xml": 1}}
    read(cloud(first))
    for ids in ("PMC5", "PMC5.2"):
        items = read(cloud(ids))
        assert reasons(items) == expected[ids]
        assert [sample.image.data for sample in samples(items)] == ([picture(1)] if ids == "PMC5" else [])


def test_where_no_version_can_be_used_the_newest_tells_why(world: World, cloud: Make) -> None:
    for version in (1, 2):
        world.add("PMC5", version)
        spoil(world, "<broken", f"PMC5.{version}")
    items = read(cloud("PMC5"))
    assert [(item.where, item.reason) for item in items if isinstance(item, Reject)] == [
        ("PMC5.2/PMC5.2.xml", "no article in xml")
    ]


@pytest.mark.parametrize("fault", ["damaged", "404", "huge", ""])
def test_the_next_form_of_a_picture_is_taken_as_from_a_folder(
    world: World, server: Server, cloud: Make, fault: str
) -> None:
    good = picture(8)
    world.add("PMC5", media={"g.tif": good if not fault else b"II*\0no tiff", "g.png": picture(5)}, more=FORMS)
    put_xml(world, "PMC5.1", re.sub(rb'<fig id="F\d">.*?</fig>', b"", world.objects["PMC5.1/PMC5.1.xml"]))
    files = {key.rpartition("/")[2]: data for key, data in world.objects.items() if key.startswith("PMC5.1/")}
    if fault in ("404", "huge"):
        server.always["g.tif"] = fault
        del files["g.tif"]
    here = read(cloud("PMC5"))
    there = list(reader.read_package(packages.MemoryPackage("PMC5.1", files), "pmc"))
    assert [sample.image.data for sample in samples(here)] == [picture(5) if fault else good]
    assert samples(here) == samples(there)
    assert len(server.asked("g.png")) == (1 if fault else 0)


def test_a_form_that_may_come_yet_is_waited_for(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC5", media={"g.tif": picture(4), "g.png": picture(5)}, more=FORMS)
    put_xml(world, "PMC5.1", re.sub(rb'<fig id="F\d">.*?</fig>', b"", world.objects["PMC5.1/PMC5.1.xml"]))
    server.always["g.tif"] = "503"
    items = read(cloud("PMC5", allow_failed=True))
    assert reasons(items) == {"fetch failed": 1}
    assert server.asked("g.png") == []


def test_an_article_that_is_another_is_not_read(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC5")
    put_xml(world, "PMC5.1", world.objects["PMC5.1/PMC5.1.xml"].replace(b">PMC5<", b">PMC999<"))
    assert reasons(read(cloud("PMC5"))) == {"article is another": 1}
    assert server.asked("f1.png") == []


def test_an_article_without_an_id_has_that_of_its_folder(world: World, cloud: Make) -> None:
    world.add("PMC5")
    stated = b'<article-id pub-id-type="pmc">PMC5</article-id>'
    put_xml(world, "PMC5.1", world.objects["PMC5.1/PMC5.1.xml"].replace(stated, b""))
    items = read(cloud("PMC5"))
    assert [(sample.id, sample.group, sample.pmcid) for sample in samples(items)] == [
        ("PMC5/F1/-/caption/0", "PMC5", "PMC5")
    ]
    assert [(item.group, item.pmcid) for item in items if isinstance(item, Credit)] == [("PMC5", "PMC5")]


BASE = "https://creativecommons.org/"


@pytest.mark.parametrize(
    ("code", "address", "license"),
    [
        ("CC BY-NC-ND", f"{BASE}licenses/by-nc/4.0/", "LicenseRef-CC-BY-NC-ND-unversioned"),
        ("CC BY-SA", CC_BY, "LicenseRef-CC-BY-SA-unversioned"),
        ("CC BY", f"{BASE}publicdomain/zero/1.0/", "LicenseRef-CC-BY-unversioned"),
        ("CC BY-NC", f"{BASE}licenses/by-nc-nd/4.0/", "CC-BY-NC-ND-4.0"),
        ("CC BY", f"{BASE}licenses/by-sa/4.0/", "CC-BY-SA-4.0"),
        ("CC0", CC_BY, "CC-BY-4.0"),
        ("CC BY-NC", f"{BASE}licenses/by-nc/4.0/", "CC-BY-NC-4.0"),
    ],
)
def test_of_metadata_and_xml_the_one_with_more_terms_holds(
    world: World, cloud: Make, code: str, address: str, license: str
) -> None:
    world.add("PMC5", code=code, address=address)
    assert [sample.license for sample in samples(read(cloud("PMC5", license="any")))] == [license]
