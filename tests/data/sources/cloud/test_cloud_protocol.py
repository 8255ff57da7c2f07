"""The service's answers: listings, metadata, the inventory's manifest; whole, odd and hostile ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pmc_server import World

from medvlm.data.sources.pmc.cloud import protocol
from medvlm.data.sources.pmc.cloud.protocol import Damaged, read_listing, read_metadata, versions_in

MD5 = "0123456789abcdef0123456789abcdef"


def body(**changes: Any) -> bytes:
    said = {"pmcid": "PMC7", "version": 2, "is_pmc_openaccess": True, "is_retracted": False, "license_code": "CC BY"}
    return json.dumps({**said, "xml_url": f"s3://pmc-oa-opendata/PMC7.2/PMC7.2.xml?md5={MD5}", **changes}).encode()


@pytest.mark.realdata
def test_real_listings(realdata: Path) -> None:
    folder = realdata / "pmc_cloud_s3" / "list"
    versions = {}
    for file in sorted(folder.glob("*.xml")):
        prefixes, token = read_listing(file.read_bytes())
        versions[file.stem] = versions_in(prefixes, file.stem.partition("_")[0])
        assert token == ""
    assert versions == {"PMC2300466_empty": [], "PMC4924218": [1], "PMC7988253": [1, 2]}


@pytest.mark.realdata
def test_real_metadata(realdata: Path) -> None:
    said = {}
    for file in sorted((realdata / "pmc_cloud_s3" / "metadata").glob("*.json")):
        article, version, _ = file.name.split(".")
        found = read_metadata(file.read_bytes(), article, int(version))
        assert found.xml is not None
        assert found.xml.key == f"{article}.{version}/{article}.{version}.xml"
        assert found.refused == {}
        assert not found.retracted
        assert not found.historical_ocr
        said[f"{article}.{version}"] = (found.open_access, found.license_code, len(found.media))
    assert said == {
        "PMC10041407.1": (False, "TDM", 0),
        "PMC11592912.1": (True, "CC BY", 18),
        "PMC12876392.1": (True, "CC BY-NC-ND", 5),
        "PMC4599423.1": (True, "CC BY-NC", 1),
        "PMC4924218.1": (True, "CC BY", 0),
        "PMC7988253.1": (True, "CC BY", 12),
        "PMC7988253.2": (True, "CC BY", 12),
    }


@pytest.mark.realdata
def test_real_inventory_rows(realdata: Path) -> None:
    lines = (realdata / "pmc_cloud_s3" / "inventory_sample_3_rows.csv").read_text().splitlines()
    rows = [[cell.strip('"') for cell in line.split(",")] for line in lines if line]
    assert list(protocol.read_rows(iter(rows), (1, 3))) == [
        ("PMC10000002", 1, "f25d9c5f5b85338f62156faeedfc1e95"),
        ("PMC10000003", 1, "a47959089c1fd488b91004eeb06adfa9"),
        ("PMC10000005", 1, "22ed20dfdd305479a4ade2d573514b3d"),
    ]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is not XML"),
        (b"<html><body>login</body></html>", "is a <html>"),
        (b'<a:Error xmlns:a="x"/>', "is a <Error>"),
        (b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", "no continuation token"),
        (b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]><ListBucketResult>&a;', "is not XML"),
    ],
)
def test_a_listing_that_is_none(data: bytes, told: str) -> None:
    with pytest.raises(Damaged, match=told):
        read_listing(data)


def test_only_an_articles_own_versions_count() -> None:
    assert versions_in(["PMC7.10/", "PMC7.2/", "PMC70.3/", "PMC7.x/", "PMC7.1", "xPMC7.9/", "PMC7.0/"], "PMC7") == [
        2,
        10,
    ]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"<html>", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "no JSON object"),
        (b"\xff\xfe\x00", "is not JSON"),
        (body(pmcid="PMC8"), "speaks of PMC8.2"),
        (body(version="2"), None),
        (body(version=1), "speaks of PMC7.1"),
        (body(xml_url="s3://elsewhere/PMC7.2/PMC7.2.xml?md5=" + MD5), "lies outside"),
        (body(xml_url="s3://pmc-oa-opendata/PMC8.2/a.xml?md5=" + MD5), "lies outside"),
        (body(xml_url="s3://pmc-oa-opendata/PMC7.2/PMC7.2.xml"), "no s3 address with an md5"),
        (body(xml_url=5), "no s3 address"),
        (body(media_urls="s3://x"), "no list"),
        (body(media_urls=[""] * 10_001), "no list of at most"),
    ],
)
def test_metadata_that_is_none(data: bytes, told: str | None) -> None:
    with pytest.raises(Damaged, match=told):
        read_metadata(data, "PMC7", 2)


@pytest.mark.parametrize(
    "name", ["../PMC1.1/a.png", "a/b.png", "..", "", "a\x00.png", "a\\b.png", "\ud800.png", "a\nb"]
)
def test_media_that_point_elsewhere_are_refused(name: str) -> None:
    found = read_metadata(body(media_urls=[f"s3://pmc-oa-opendata/PMC7.2/{name}?md5={MD5}"]), "PMC7", 2)
    assert found.media == {}
    assert len(found.refused) == 1


def test_odd_but_honest_names_are_kept() -> None:
    names = ["Fig 1 (a)+é%20.jpg", "a?b=c&d.png", "a#b.png", "图1.png"]
    found = read_metadata(
        body(media_urls=[f"s3://pmc-oa-opendata/PMC7.2/{n}?md5={MD5.upper()}" for n in names]), "PMC7", 2
    )
    assert list(found.media) == names
    assert {remote.md5 for remote in found.media.values()} == {MD5}


def test_absent_keys_count_as_the_stricter_answer() -> None:
    found = read_metadata(b'{"version": 2, "pmcid": "PMC7"}', "PMC7", 2)
    assert (found.open_access, found.license_code, found.xml, found.media) == (False, None, None, {})
    assert not read_metadata(body(is_pmc_openaccess="true"), "PMC7", 2).open_access
    assert read_metadata(body(is_retracted=None), "PMC7", 2).retracted
    assert read_metadata(body(is_historical_ocr="no"), "PMC7", 2).historical_ocr
    assert read_metadata(body(license_code=" "), "PMC7", 2).license_code is None


def test_the_order_of_keys_does_not_matter() -> None:
    said = json.loads(body(media_urls=[f"s3://pmc-oa-opendata/PMC7.2/b.png?md5={MD5}"]))
    turned = json.dumps(dict(reversed(list(said.items())))).encode()
    assert read_metadata(turned, "PMC7", 2) == read_metadata(json.dumps(said).encode(), "PMC7", 2)


@given(st.binary(max_size=200) | st.from_regex(r'\{"(pmcid|media_urls|xml_url)":(\[|"|\{|1)*.{0,20}\}', fullmatch=True))
def test_any_metadata_is_read_or_damaged(data: bytes | str) -> None:
    with pytest.raises(Damaged):
        read_metadata(data if isinstance(data, bytes) else data.encode(), "PMC7", 2)


@given(st.text(min_size=1, max_size=30))
def test_an_address_holds_any_name(name: str) -> None:
    if protocol.is_plain_name(name):
        address = protocol.object_url("http://h/", f"PMC7.2/{name}")
        assert address.isascii()
        assert not set(address[9:]) & set("?# ")


def test_the_newest_inventory_is_the_last_dated_one() -> None:
    base = protocol.INVENTORY
    days = ["2026-09-20T01-00Z", "2026-09-21T01-00Z", "2025-12-31T01-00Z"]
    assert protocol.newest_inventory([f"{base}{name}/" for name in ["data", *days, "hive"]]) == f"{base}{days[1]}/"
    with pytest.raises(Damaged, match="no dated inventory"):
        protocol.newest_inventory([f"{base}hive/"])


@pytest.mark.parametrize(
    "changes",
    [
        {"files": []},
        {"files": None},
        {"files": [{"key": "../../etc/passwd"}]},
        {"files": [{"key": "inventory-reports/../x.csv.gz"}]},
        {"files": ["x"]},
        {"fileFormat": "Parquet"},
        {"fileSchema": "Bucket, Key"},
        {"fileSchema": None},
    ],
)
def test_a_manifest_that_is_none(world: World, changes: dict[str, Any]) -> None:
    world.add("PMC1")
    world.publish_inventory()
    key = next(key for key in world.objects if key.endswith("manifest.json"))
    whole = json.loads(world.objects[key])
    assert protocol.read_manifest(world.objects[key])[1] == (1, 3)
    with pytest.raises(Damaged, match="manifest"):
        protocol.read_manifest(json.dumps({**whole, **changes}).encode())
