"""Articles by id from a server to samples: versions, licenses before images, what changed since the last run."""

from __future__ import annotations

import datetime
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from cloud_run import read, reasons, samples, sums
from pmc_server import Server, World, md5, picture

from medvlm.data.sample import Credit, Sample
from medvlm.data.sources.base import Unit
from medvlm.data.sources.pmc.cloud import CloudSource
from medvlm.data.sources.pmc.options import PmcOptions
from medvlm.errors import AccessError, UsageError

Make = Callable[..., CloudSource]
NC = "https://creativecommons.org/licenses/by-nc/4.0/"
BY_SA = "https://creativecommons.org/licenses/by-sa/4.0/"


def test_an_article_becomes_samples(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC5", media={"f1.png": picture(1), "f2.png": picture(2)})
    source = cloud("PMC5")
    units = list(source.units())
    assert units == [Unit("PMC5", ("PMC5", "1"), md5(world.objects["metadata/PMC5.1.json"]))]
    items = read(source)
    found = samples(items)
    assert [sample.image.data for sample in found] == [picture(1), picture(2)]
    assert {(s.source, s.pmcid, s.group, s.license, s.commercial_use) for s in found} == {
        ("pmc", "PMC5", "PMC5", "CC-BY-4.0", "yes")
    }
    assert found[0].target == "Axial CT number 1 of PMC5."
    assert [item.license for item in items if isinstance(item, Credit)] == ["CC-BY-4.0"]
    assert reasons(items) == {}
    assert sorted(server.log) == [
        "?list-type=2&prefix=PMC5.&delimiter=/",
        "PMC5.1/PMC5.1.xml",
        "PMC5.1/f1.png",
        "PMC5.1/f2.png",
        "metadata/PMC5.1.json",
    ]
    assert all(agent.startswith("medvlm/") for agent in server.agents)


def test_reading_needs_no_network(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC5")
    source = cloud("PMC5")
    before = read(source)
    server.forget()
    again = [item for unit in source.units() for item in pickle.loads(pickle.dumps(source)).read(unit)]
    assert again == before
    assert server.log == []


def test_the_newest_version_is_taken_unless_one_is_named(world: World, server: Server, cloud: Make) -> None:
    shared = {"f1.png": picture(1)}
    for version in (1, 2, 10):
        world.add("PMC5", version, media=shared)
        world.add("PMC6", version, media=shared)
    source = cloud("PMC5,PMC6.2")
    assert [(unit.name, unit.locator) for unit in source.units()] == [("PMC5", ("PMC5", "10")), ("PMC6", ("PMC6", "2"))]
    assert len(samples(read(source))) == 2
    assert server.asked("PMC5.2/") == server.asked("PMC5.1/") == server.asked("prefix=PMC6") == []
    # One download for two articles with the same picture, whichever of them asked first.
    assert len(server.asked("f1.png")) == 1


def test_a_listing_of_several_pages(world: World, server: Server, cloud: Make) -> None:
    for version in range(1, 8):
        world.add("PMC5", version)
    world.page = 2
    assert cloud("PMC5").units()[0].locator == ("PMC5", "7")
    assert len(server.asked("list-type")) == 4


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"is_pmc_openaccess": False}, "not open access"),
        ({"is_pmc_openaccess": False, "license_code": "TDM"}, "not open access"),
        ({"is_retracted": True}, "retracted article"),
        ({"is_historical_ocr": True}, "historical OCR only"),
        ({"license_code": "CC BY-NC"}, "license forbids commercial use"),
        ({"license_code": "CC BY-NC-ND"}, "license forbids commercial use"),
        ({"license_code": "TDM"}, "license forbids commercial use"),
        ({"license_code": "CC BY-ND"}, "license conditional"),
        ({"xml_url": ...}, "no xml"),
        ({"xml_url": "s3://elsewhere/PMC5.1/PMC5.1.xml?md5=" + "0" * 32}, "metadata damaged"),
        ({"version": 3}, "metadata damaged"),
    ],
)
def test_metadata_excludes_before_anything_else_is_fetched(
    world: World, server: Server, cloud: Make, changes: dict[str, object], reason: str
) -> None:
    world.add("PMC5")
    world.metadata("PMC5.1", **changes)
    assert reasons(read(cloud("PMC5"))) == {reason: 1}
    assert server.asked("PMC5.1/") == []


@pytest.mark.parametrize(
    ("code", "address", "policy", "license"),
    [
        ("CC BY", None, "commercial", "LicenseRef-CC-BY-unversioned"),
        ("CC0", None, "commercial", "CC0-1.0"),
        (None, "https://creativecommons.org/licenses/by/4.0/", "commercial", "CC-BY-4.0"),
        ("CC BY", BY_SA, "commercial", "CC-BY-SA-4.0"),
        ("NO-CC CODE", BY_SA, "commercial", "CC-BY-SA-4.0"),
        ("CC BY", "https://creativecommons.org/licenses/by/4.0/", "CC-BY-4.0", "CC-BY-4.0"),
        ("CC BY-NC", NC, "any", "CC-BY-NC-4.0"),
        ("CC BY", NC, "any", "CC-BY-NC-4.0"),
        (None, None, "any", None),
        ("CC BY-NC", "https://creativecommons.org/licenses/by/4.0/", "any", "LicenseRef-CC-BY-NC-unversioned"),
    ],
)
def test_the_license_of_metadata_and_xml(
    world: World, cloud: Make, code: str | None, address: str | None, policy: str, license: str | None
) -> None:
    world.add("PMC5", code=code, address=address)
    items = read(cloud("PMC5", license=policy))
    assert [sample.license for sample in samples(items)] == [license]
    assert [item.license for item in items if isinstance(item, Credit)] == [license]
    use = "no" if license and "NC" in license else "yes" if license else "unknown"
    assert [sample.commercial_use for sample in samples(items)] == [use]


@pytest.mark.parametrize(
    ("code", "policy"),
    [("TDM", "LicenseRef-public-domain"), ("CC BY-NC", "CC-BY-4.0"), ("CC BY", "CC0-1.0,CC-BY-SA-4.0")],
)
def test_a_code_outside_the_list_costs_no_xml(
    world: World, server: Server, cloud: Make, code: str, policy: str
) -> None:
    world.add("PMC5", code=code)
    assert reasons(read(cloud("PMC5", license=policy))) == {"license not in the list": 1}
    assert server.asked("PMC5.1/") == []


def test_the_evidence_names_the_metadata(world: World, cloud: Make) -> None:
    world.add("PMC5", address=None)
    world.add("PMC6", code="CC BY-NC")
    said = {s.pmcid: s.license_evidence for s in samples(read(cloud("PMC5,PMC6", license="any")))}
    assert said == {
        "PMC5": "PMC metadata: CC BY",
        "PMC6": "PMC metadata: CC BY-NC (stricter than the article's CC-BY-4.0)",
    }


@pytest.mark.parametrize(
    ("code", "address", "policy", "reason"),
    [
        ("CC BY", NC, "commercial", "license forbids commercial use"),
        (None, None, "commercial", "license unknown"),
        (None, NC, "commercial", "license forbids commercial use"),
        ("NO-CC CODE", None, "commercial", "license unknown"),
        ("CC BY", None, "CC-BY-4.0", "license not in the list"),
        ("CC BY", "https://creativecommons.org/licenses/by/3.0/", "CC-BY-4.0", "license not in the list"),
    ],
)
def test_no_image_is_fetched_that_the_xml_does_not_license(
    world: World, server: Server, cloud: Make, code: str | None, address: str | None, policy: str, reason: str
) -> None:
    world.add("PMC5", code=code, address=address)
    items = read(cloud("PMC5", license=policy))
    assert samples(items) == []
    assert len(server.asked("PMC5.1.xml")) == 1
    assert server.asked(".png") == []
    assert reasons(items) == {reason: 1}


def test_of_an_articles_figures_only_the_licensed_ones_are_fetched(world: World, server: Server, cloud: Make) -> None:
    theirs = (
        '<fig id="X"><caption><p>Theirs.</p></caption><graphic xlink:href="x.png"/><permissions>'
        "<copyright-statement>© 2001 MBARI</copyright-statement><license><p>All rights reserved.</p></license>"
        "</permissions></fig>"
    )
    world.add("PMC5", media={"f1.png": picture(1)}, more=theirs)
    world.objects["PMC5.1/x.png"] = picture(9)
    world.metadata("PMC5.1", media_urls=[world.address("PMC5.1/f1.png"), world.address("PMC5.1/x.png")])
    items = read(cloud("PMC5"))
    assert [sample.file_name for sample in samples(items)] == ["f1.png"]
    assert server.asked("x.png") == []
    assert reasons(items) == {"license forbids commercial use": 1}


def test_only_what_is_used_is_fetched(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC5")
    spare = {"PMC5.1/f1.gif": b"GIF89a", "PMC5.1/movie.mp4": b"film", "PMC5.1/data.csv": b"1,2"}
    world.objects |= spare
    world.metadata("PMC5.1", media_urls=[world.address(key) for key in ["PMC5.1/f1.png", *spare]])
    assert len(samples(read(cloud("PMC5")))) == 1
    assert server.asked("PMC5.1/") == ["PMC5.1/PMC5.1.xml", "PMC5.1/f1.png"]


def test_article_type_and_day_are_asked_of_the_xml(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC5", kind="case-report", year=2024)
    world.add("PMC6", kind="research-article", year=2024)
    world.add("PMC7", kind="case-report", year=2019)
    options = PmcOptions(article_types=("case-report",), since=datetime.date(2020, 1, 1))
    items = read(cloud("PMC5,PMC6,PMC7", options=options))
    assert [sample.pmcid for sample in samples(items)] == ["PMC5"]
    assert reasons(items) == {"article type not asked for": 1, "older than --since": 1}
    assert server.asked(".png") == ["PMC5.1/f1.png"]


def test_an_article_that_is_not_there(world: World, cloud: Make) -> None:
    world.add("PMC5")
    source = cloud("PMC5,PMC6,PMC5000,PMC7.3")
    items = read(source)
    assert len(samples(items)) == 1
    assert reasons(items) == {"article not found": 3}
    assert source.describe()[0]["articles"] == 4


def test_the_limit_is_of_the_plan(world: World, server: Server, cloud: Make) -> None:
    for number in (10, 9, 100, 11):
        world.add(f"PMC{number}")
    source = cloud("PMC9,PMC10,PMC11,PMC100", options=PmcOptions(limit=2))
    assert [unit.name for unit in source.units()] == ["PMC10", "PMC100"]
    assert server.asked("PMC9.") == []


def test_a_second_run_asks_only_whether_something_changed(world: World, server: Server, cloud: Make) -> None:
    for number in (1, 2, 3, 4):
        world.add(f"PMC{number}")
    source = cloud("PMC1,PMC2,PMC3,PMC4")
    first = {unit.name: unit.version for unit in source.units()}
    read(source)
    described = source.describe()
    source.complete()
    server.forget()
    read(source)
    assert source.describe() == described
    assert sorted(server.log) == sorted(
        [f"metadata/PMC{n}.1.json" for n in (1, 2, 3, 4)]
        + [f"?list-type=2&prefix=PMC{n}.&delimiter=/" for n in (1, 2, 3, 4)]
    )
    assert len(server.conditional) == 4
    source.complete()
    world.add("PMC2", 2, media={"f1.png": picture(2)}, more="<p>Corrected.</p>")
    world.metadata("PMC3.1", is_retracted=True)
    for key in [key for key in world.objects if "PMC4." in key]:
        del world.objects[key]
    server.forget()
    items = read(source)
    assert {s.pmcid for s in samples(items)} == {"PMC1", "PMC2"}
    assert reasons(items) == {"retracted article": 1, "article not found": 1}
    changed = {unit.name for unit in source.units() if first[unit.name] != unit.version}
    assert changed == {"PMC2", "PMC3", "PMC4"}
    # The new version's picture is that of the old one and in the store already.
    assert [path for path in server.log if path.startswith("PMC")] == ["PMC2.2/PMC2.2.xml"]
    assert source.describe() != described


def test_the_plan_holds_until_the_run_is_complete(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC1")
    world.add("PMC2")
    source = cloud("PMC1,PMC2")
    described = source.describe()
    world.add("PMC1", 2)
    server.forget()
    again = cloud("PMC2,PMC1")
    assert again.describe() == described
    assert again.lineage == source.lineage
    assert server.log == []
    source.complete()
    assert again.describe() != described


def test_an_article_that_changed_since_the_plan_is_read_as_it_is_now(world: World, cloud: Make) -> None:
    world.add("PMC1", media={"f1.png": picture(1)})
    source = cloud("PMC1")
    units = list(source.units())
    world.add("PMC1", media={"f1.png": picture(77)})
    assert [sample.image.data for sample in samples(read(source, units))] == [picture(77)]


def test_another_policy_asks_only_for_what_is_missing(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC1")
    world.add("PMC2", code="CC BY-NC", address=NC)
    assert {s.pmcid for s in samples(read(cloud("PMC1,PMC2")))} == {"PMC1"}
    server.forget()
    assert {s.pmcid for s in samples(read(cloud("PMC1,PMC2", license="any")))} == {"PMC1", "PMC2"}
    assert sorted(server.log) == ["PMC2.1/PMC2.1.xml", "PMC2.1/f1.png"]
    server.forget()
    assert {s.pmcid for s in samples(read(cloud("PMC1,PMC2")))} == {"PMC1"}
    assert server.log == []


def test_what_is_kept_does_not_depend_on_the_concurrency(world: World, cloud: Make, tmp_path: Path) -> None:
    kept = []
    for number in range(1, 13):
        world.add(f"PMC{number}", media={"a.png": picture(number % 3), "b.png": picture(number)})
    for concurrency in (1, 16):
        source = cloud(
            ",".join(f"PMC{n}" for n in range(1, 13)), store=tmp_path / str(concurrency), concurrency=concurrency
        )
        read(source)
        files = [path for kind in ("objects", "metadata", "records") for path in (source.store.root / kind).rglob("*")]
        kept.append({path.relative_to(source.store.root): path.read_bytes() for path in files if path.is_file()})
        kept[-1]["plan"] = source.describe()[0]["sha256"]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 12 + 12 + 12 + 13 + 1  # metadata, records, XML, pictures, plan


def test_traffic_is_counted(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC1", media={"f1.png": picture(1), "f2.png": picture(2)})
    server.faults["f2.png"] = ["500"]
    source = cloud("PMC1")
    read(source)
    fetched, planned = sums(source, "fetch"), sums(source, "plan")
    whole = sum(len(world.objects[f"PMC1.1/{name}"]) for name in ("PMC1.1.xml", "f1.png", "f2.png"))
    assert (planned["requests"], planned["objects"]) == (2, 0)
    assert (fetched["requests"], fetched["retries"], fetched["objects"], fetched["reused"]) == (4, 1, 3, 1)
    assert fetched["bytes"] == whole
    assert fetched["seconds"] > 0
    assert planned["seconds"] > 0
    assert source.traffic == {name: fetched[name] + planned[name] for name in fetched}


def test_a_damaged_store_is_mended(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC1")
    source = cloud("PMC1")
    (unit,) = source.units()
    before = read(source)
    source.store.object(md5(picture(1))).write_bytes(b"")
    with pytest.raises(AccessError, match="damaged or gone; run the same command again"):
        list(source.read(unit))
    assert read(source) == before
    for record in source.store.root.glob("records/*/*/*.json"):
        record.write_text('{"planned": 1')
    with pytest.raises(AccessError, match="PMC1 is not in"):
        list(source.read(unit))
    assert read(source) == before
    assert len(server.asked("f1.png")) == 2


def test_odd_names_reach_the_server(world: World, cloud: Make) -> None:
    names = ["Fig 1 (a)+é.png", "a;b=c,d@e.png", "it's.png", "图1.png"]
    world.add("PMC5", media={name: picture(n) for n, name in enumerate(names)})
    assert [sample.file_name for sample in samples(read(cloud("PMC5")))] == names


def test_describe_tells_the_selection(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC1")
    (told,) = cloud("PMC1").describe()
    assert told["path"] == server.endpoint
    assert told["selection"] == ["PMC1"]
    assert told["articles"] == 1
    assert len(told["sha256"]) == 64
    assert told["bytes"] == len(f"PMC1\t1\t{md5(world.objects['metadata/PMC1.1.json'])}\n")


def test_the_card_says_where_articles_come_from(cloud: Make) -> None:
    card = cloud("PMC1").card()
    assert "pmcaws" in card["homepage"]
    assert card["synthetic"] is False


def test_a_malformed_policy_is_told_before_any_request(server: Server, cloud: Make) -> None:
    with pytest.raises(UsageError, match="--license"):
        cloud("PMC1", license="CC BY").describe()
    assert server.log == []


def test_units_are_prepared_by_the_engine(world: World, cloud: Make, tmp_path: Path) -> None:
    from medvlm.data.prepare import Settings, prepare

    for number in range(1, 9):
        world.add(f"PMC{number}", code="CC BY" if number % 2 else "CC BY-NC")
    source = cloud(",".join(f"PMC{n}" for n in range(1, 9)))
    outcome = prepare(source, tmp_path / "out", Settings("commercial"), workers=1)
    assert outcome.manifest["counts"]["samples"] == 4
    assert outcome.manifest["drops"] == {"license forbids commercial use": 4}
    assert isinstance(samples(read(source))[0], Sample)
