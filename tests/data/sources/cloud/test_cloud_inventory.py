"""All articles by the daily inventory: newest versions, columns by the manifest, no request an article to plan."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable

import pytest
from cloud_run import read, reasons, samples
from pmc_server import BUCKET, Server, World, md5

from medvlm.data.sources.pmc.cloud import CloudSource
from medvlm.data.sources.pmc.options import PmcOptions
from medvlm.errors import AccessError

Make = Callable[..., CloudSource]
DATA = f"inventory-reports/{BUCKET}/metadata/data/2026-09-07T01-00Z-0.csv.gz"


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("Bucket, Key, LastModifiedDate, ETag", 1),
        ("ETag, LastModifiedDate, Key", 3),
        ("Key, ETag", 2),
    ],
)
def test_the_newest_version_of_each_article(world: World, server: Server, cloud: Make, schema: str, files: int) -> None:
    for number in (3, 20, 100):
        for version in (1, 2, 10):
            world.add(f"PMC{number}", version)
    world.publish_inventory("2026-09-06T01-00Z")
    world.publish_inventory(schema=schema, files=files)
    source = cloud(inventory=True)
    expected = {f"PMC{n}": ("10", md5(world.objects[f"metadata/PMC{n}.10.json"])) for n in (3, 20, 100)}
    assert {unit.name: (unit.locator[1], unit.version) for unit in source.units()} == expected
    assert [unit.name for unit in source.units()] == sorted(expected)
    assert len(server.log) == 2 + files
    assert server.asked("metadata/PMC") == []
    assert not list(source.store.root.rglob("*.gz"))


def test_articles_are_read_and_excluded(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC1")
    world.add("PMC2", code="CC BY-NC")
    world.add("PMC3", is_retracted=True)
    world.objects["metadata/README.txt"] = b"no article"
    world.publish_inventory()
    source = cloud(inventory=True)
    items = read(source)
    assert {sample.pmcid for sample in samples(items)} == {"PMC1"}
    assert reasons(items) == {"license forbids commercial use": 1, "retracted article": 1}
    assert server.asked("list-type=2&prefix=PMC") == []
    assert source.describe()[0]["selection"] == "inventory"


def test_the_next_inventory_costs_only_what_changed(world: World, server: Server, cloud: Make) -> None:
    for number in (1, 2, 3):
        world.add(f"PMC{number}")
    world.publish_inventory()
    source = cloud(inventory=True)
    read(source)
    before = {unit.name: unit.version for unit in source.units()}
    source.complete()
    world.add("PMC2", 2)
    world.add("PMC4")
    del world.objects["metadata/PMC3.1.json"]
    world.publish_inventory("2026-09-08T01-00Z")
    server.forget()
    assert {sample.pmcid for sample in samples(read(source))} == {"PMC1", "PMC2", "PMC4"}
    after = {unit.name: unit.version for unit in source.units()}
    assert after.keys() - before.keys() == {"PMC4"}
    assert before.keys() - after.keys() == {"PMC3"}
    assert {name for name in before.keys() & after.keys() if before[name] != after[name]} == {"PMC2"}
    assert sorted(server.asked("metadata/PMC")) == ["metadata/PMC2.2.json", "metadata/PMC4.1.json"]
    assert server.asked("PMC1.1/") == []


def test_an_article_newer_than_the_inventory_is_read_as_it_is(world: World, cloud: Make) -> None:
    world.add("PMC1")
    world.publish_inventory()
    world.add("PMC1", code="CC0", address="https://creativecommons.org/publicdomain/zero/1.0/")
    assert [sample.license for sample in samples(read(cloud(inventory=True)))] == ["CC0-1.0"]


def test_an_article_that_went_since_the_inventory(world: World, cloud: Make) -> None:
    world.add("PMC1")
    world.add("PMC2")
    world.publish_inventory()
    del world.objects["metadata/PMC1.1.json"]
    items = read(cloud(inventory=True))
    assert reasons(items) == {"object missing": 1}
    assert len(samples(items)) == 1


def test_the_limit_is_the_first_by_name(world: World, cloud: Make) -> None:
    for number in (9, 10, 2, 100):
        world.add(f"PMC{number}")
    world.publish_inventory(files=2)
    assert [unit.name for unit in cloud(inventory=True, options=PmcOptions(limit=3)).units()] == [
        "PMC10",
        "PMC100",
        "PMC2",
    ]


@pytest.mark.parametrize("fault", ["500", "flip", "short", "reset"])
def test_a_fault_in_an_inventory_file_is_mended(world: World, server: Server, cloud: Make, fault: str) -> None:
    world.add("PMC1")
    world.publish_inventory()
    server.faults[".csv.gz"] = [fault]
    assert len(cloud(inventory=True).units()) == 1
    assert len(server.asked(".csv.gz")) == 2


def test_inventory_files_that_came_are_not_fetched_again(world: World, server: Server, cloud: Make) -> None:
    for number in range(1, 7):
        world.add(f"PMC{number}")
    world.publish_inventory(files=3)
    server.always["-2.csv.gz"] = "404"
    source = cloud(inventory=True)
    with pytest.raises(AccessError, match=r"the inventory of \S+ cannot be had: \S+-2.csv.gz: HTTP 404"):
        source.units()
    server.always.clear()
    server.forget()
    assert len(source.units()) == 6
    assert len(server.asked(".csv.gz")) == 1


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (gzip.compress(b'"a","metadata/PMC1.1.json","x","e"\n' * 9, mtime=0)[:-12], "is damaged"),
        (b"not gzip", "is damaged"),
        (gzip.compress(b"\xff\xff,\n", mtime=0), "is damaged"),
        (gzip.compress(b"a,b\n", mtime=0), "lists no article"),
        (gzip.compress(b"", mtime=0), "lists no article"),
    ],
)
def test_an_inventory_that_is_none(world: World, server: Server, cloud: Make, data: bytes, told: str) -> None:
    world.add("PMC1")
    world.publish_inventory()
    manifest = next(key for key in world.objects if key.endswith("manifest.json"))
    world.objects[manifest] = world.objects[manifest].replace(md5(world.objects[DATA]).encode(), md5(data).encode())
    world.objects[DATA] = data
    with pytest.raises(AccessError, match=told):
        cloud(inventory=True).units()


def test_a_server_without_an_inventory(world: World, cloud: Make) -> None:
    world.add("PMC1")
    with pytest.raises(AccessError, match="no dated inventory is listed"):
        cloud(inventory=True).units()


def test_the_plan_does_not_depend_on_the_order_of_rows(world: World, cloud: Make) -> None:
    for number in range(1, 40):
        for version in range(1, 1 + number % 4):
            world.add(f"PMC{number}", version, media={})
    world.publish_inventory()
    source = cloud(inventory=True)
    told = source.describe()
    rows = gzip.decompress(world.objects[DATA]).splitlines(keepends=True)
    random.Random(1).shuffle(rows)
    shuffled = gzip.compress(b"".join(rows), mtime=0)
    manifest = next(key for key in world.objects if key.endswith("manifest.json"))
    world.objects[manifest] = world.objects[manifest].replace(md5(world.objects[DATA]).encode(), md5(shuffled).encode())
    world.objects[DATA] = shuffled
    source.complete()
    assert source.describe() == told
