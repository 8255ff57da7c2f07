"""A server that fails: what is tried again, what is final, and that a stopped run goes on at the object."""

from __future__ import annotations

import asyncio
import email.utils
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cloud_run import read, reasons, samples, sums
from conftest import HASTY
from pmc_server import Server, World, md5, picture

from medvlm.data.sources.pmc.cloud import CloudSource
from medvlm.data.sources.pmc.cloud.http import Absent, Denied, Exhausted, Http, Postponed, Refused, Retries, retry_after
from medvlm.data.sources.pmc.cloud.protocol import object_url
from medvlm.errors import AccessError, UsageError

Make = Callable[..., CloudSource]
PASSING = ["429", "500", "503", "408", "reset", "short", "flip", "cut", "slow:1.1", "text:<html>captive portal</html>"]


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("where", ["PMC5.1.xml", "f1.png"])
def test_what_passes_is_tried_again(world: World, server: Server, cloud: Make, fault: str, where: str) -> None:
    world.add("PMC5")
    server.faults[where] = [fault]
    source = cloud("PMC5")
    assert [sample.image.data for sample in samples(read(source))] == [picture(5)]
    assert len(server.asked(where)) == 2
    assert sums(source, "fetch")["retries"] == 1
    assert not list(source.store.root.rglob(".part-*"))


@pytest.mark.parametrize("fault", ["429", "500", "reset", "short", "slow:1.1"])
@pytest.mark.parametrize("where", ["list-type", "metadata/"])
def test_planning_is_as_patient(world: World, server: Server, cloud: Make, fault: str, where: str) -> None:
    world.add("PMC5")
    server.faults[where] = [fault, fault]
    assert len(samples(read(cloud("PMC5")))) == 1
    assert len(server.asked(where)) == 3


@pytest.mark.parametrize("fault", ["404", "410"])
def test_a_missing_object_is_not_tried_again_and_counted(world: World, server: Server, cloud: Make, fault: str) -> None:
    world.add("PMC5", media={"f1.png": picture(1), "f2.png": picture(2)})
    world.add("PMC6")
    server.always = {"PMC5.1/f1.png": fault, "PMC6.1.xml": fault}
    items = read(cloud("PMC5,PMC6"))
    assert [sample.file_name for sample in samples(items)] == ["f2.png"]
    assert reasons(items) == {"object missing": 2}
    assert len(server.asked("f1.png")) == 1
    assert len(server.asked("PMC6.1.xml")) == 1


def test_metadata_that_is_listed_but_missing(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC5")
    world.add("PMC6")
    del world.objects["metadata/PMC5.1.json"]
    items = read(cloud("PMC5,PMC6"))
    assert reasons(items) == {"object missing": 1}
    assert len(samples(items)) == 1


@pytest.mark.parametrize("fault", ["500", "flip", "cut", "short", "reset", "redirect", "400"])
def test_what_does_not_pass_ends_the_run_with_one_line(world: World, server: Server, cloud: Make, fault: str) -> None:
    for number in (1, 2, 3):
        world.add(f"PMC{number}")
    server.always["PMC2.1/f1.png"] = fault
    source = cloud("PMC1,PMC2,PMC3")
    with pytest.raises(
        AccessError, match=r"^PMC2: http://\S+/PMC2.1/f1.png: .*run the same command again.*--skip-failed$"
    ):
        read(source)
    assert len(server.asked("PMC2.1/f1.png")) <= (6 if fault == "redirect" else HASTY.attempts)
    had = {path.name for path in source.store.root.glob("objects/*/*")}
    server.always.clear()
    server.forget()
    assert len(samples(read(source))) == 3
    assert len(server.asked("PMC2.1/f1.png")) == 1
    assert not had & {md5(world.objects[path]) for path in server.log}


def test_failures_can_be_counted_instead(world: World, server: Server, cloud: Make) -> None:
    for number in (1, 2, 3):
        world.add(f"PMC{number}", media={"f1.png": picture(number), "f2.png": picture(10 + number)})
    server.always = {"PMC1.1/f1.png": "500", "PMC2.1.xml": "flip", "prefix=PMC3.": "503"}
    source = cloud("PMC1,PMC2,PMC3", allow_failed=True)
    with pytest.raises(AccessError, match=r"PMC3: .*HTTP 503"):
        source.units()
    del server.always["prefix=PMC3."]
    source.units()
    server.always["PMC3.1.xml"] = "reset"
    items = read(source)
    assert [sample.file_name for sample in samples(items)] == ["f2.png"]
    assert reasons(items) == {"fetch failed": 3}
    told = source.describe()
    source.complete()
    server.always.clear()
    # The articles are the same, but the finished data set is not up to date: it lacks what failed.
    assert source.describe() != told
    assert len(samples(read(source))) == 6
    mended = source.describe()
    source.complete()
    assert source.describe() == mended


def test_a_server_that_fails_everything_is_not_counted(world: World, server: Server, cloud: Make) -> None:
    for number in range(1, 9):
        world.add(f"PMC{number}")
    source = cloud(",".join(f"PMC{number}" for number in range(1, 9)), allow_failed=True)
    units = source.units()
    server.always["PMC"] = "503"
    with pytest.raises(AccessError, match="none of the last 8 articles asked for came, so the server fails"):
        read(source, units)
    server.always.clear()
    assert len(samples(read(source, units))) == 8


@pytest.mark.parametrize("fault", ["403", "404"])
def test_a_server_that_is_no_bucket(server: Server, cloud: Make, fault: str) -> None:
    server.always["list-type"] = fault
    with pytest.raises(AccessError, match=rf"HTTP {fault}.*: no bucket of PMC answers at \S+; check --endpoint"):
        cloud("PMC1").units()


@pytest.mark.parametrize(
    "address",
    [
        "pmc",
        "s3://pmc-oa-opendata",
        "ftp://h/",
        "http://",
        "http://h/?x=1",
        "file:///x",
        "http://[::1",
        "http://a:99999999",
        "http://a:b",
        "http://a..b",
        "http://\u2100.com",
        "http://ex ample",
    ],
)
def test_a_server_has_an_http_address(cloud: Make, address: str) -> None:
    with pytest.raises(UsageError, match=r"--endpoint .* is no address of a server"):
        cloud("PMC1", endpoint=address)
    with pytest.raises(UsageError, match=r"--eutils .* is no address of a server"):
        cloud("PMC1", eutils=address)


def test_an_object_of_absurd_size_is_left_out(
    world: World, server: Server, cloud: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add("PMC5", media={"f1.png": picture(1), "f2.png": picture(2)})
    server.always["f1.png"] = "huge"
    items = read(cloud("PMC5"))
    assert reasons(items) == {"object too large": 1}
    assert len(server.asked("f1.png")) == 1
    monkeypatch.setattr("medvlm.data.sources.pmc.cloud.fetch.MAX_XML_BYTES", 100)
    world.add("PMC6")
    assert reasons(read(cloud("PMC6"))) == {"object too large": 1}


@pytest.mark.parametrize("after", range(2, 12, 3))
def test_a_server_that_dies_on_the_way(world: World, server: Server, cloud: Make, after: int) -> None:
    for number in range(1, 5):
        world.add(f"PMC{number}", media={"a.png": picture(number), "b.png": picture(50 + number)})
    whole = read(cloud("PMC1,PMC2,PMC3,PMC4", store=Path(cloud("PMC1").store.root, "..", "untouched")))
    server.forget()
    source = cloud("PMC1,PMC2,PMC3,PMC4", retries=Retries(attempts=2, base=0.01, longest=0.02))
    units = source.units()
    server.forget()
    server.dead_after = after
    with pytest.raises(AccessError):
        read(source, units)
    # Requests that were under way when the reading gave up may still come in.
    seen = -1
    while seen != len(server.log):
        seen = len(server.log)
        time.sleep(0.2)
    had = {path.name for path in source.store.root.glob("objects/*/*")}
    server.dead_after = None
    server.forget()
    assert read(source, units) == whole
    fetched = [md5(world.objects[path]) for path in server.log]
    assert len(fetched) == len(set(fetched)) == 12 - len(had)
    assert not had & set(fetched)


def test_planning_goes_on_where_it_was_stopped(
    world: World, server: Server, cloud: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medvlm.data.sources.pmc.cloud.planning._BATCH", 2)
    for number in range(1, 7):
        world.add(f"PMC{number}")
    ids = ",".join(f"PMC{number}" for number in range(1, 7))
    whole = cloud(ids, store=Path(cloud("PMC1").store.root, "..", "untouched")).describe()
    server.always["metadata/PMC5"] = "500"
    source = cloud(ids)
    with pytest.raises(AccessError, match=r"PMC5: .*HTTP 500.*it goes on where it stopped"):
        source.describe()
    server.always.clear()
    server.forget()
    assert source.describe() == whole
    assert not [path for path in server.log if any(f"PMC{n}." in path for n in (1, 2, 3, 4))]


def test_a_work_table_that_a_power_cut_damaged_is_begun_anew(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC1")
    source = cloud("PMC1")
    told = source.describe()
    (plan,) = source.store.root.glob("plans/*.sqlite")
    source.complete()
    plan.with_suffix(".building").write_bytes(b"no table" * 1000)
    assert source.describe() == told


@pytest.mark.parametrize("inventory", [False, True])
def test_metadata_that_stays_damaged_is_a_failure(world: World, cloud: Make, inventory: bool) -> None:
    world.add("PMC1")
    world.add("PMC2")
    world.objects["metadata/PMC1.1.json"] = b"<html>\x00"
    world.publish_inventory()
    ids = "" if inventory else "PMC1,PMC2"
    with pytest.raises(AccessError, match=r"PMC1: \S+PMC1.1.json: the metadata is not JSON.*--skip-failed"):
        read(cloud(ids, inventory=inventory))
    items = read(cloud(ids, inventory=inventory, allow_failed=True))
    assert reasons(items) == {"fetch failed": 1}
    assert len(samples(items)) == 1


@pytest.mark.parametrize("fault", ["text:<html>sign in</html>", "text:[]", 'text:{"pmcid": "PMC7"}', "cut"])
@pytest.mark.parametrize("inventory", [False, True])
def test_metadata_that_is_none_is_asked_for_again(
    world: World, server: Server, cloud: Make, fault: str, inventory: bool
) -> None:
    world.add("PMC1")
    world.publish_inventory()
    server.faults["metadata/PMC1.1.json"] = [fault]
    source = cloud("" if inventory else "PMC1", inventory=inventory)
    assert len(samples(read(source))) == 1
    assert len(server.asked("metadata/PMC1")) == 2
    # A store that a loss of power has damaged is no better than such an answer.
    (kept,) = source.store.root.glob("metadata/*/*")
    kept.write_bytes(kept.read_bytes()[:-9])
    for record in source.store.root.glob("records/*/*/*"):
        record.unlink()
    assert len(samples(read(source))) == 1


def test_metadata_must_have_the_md5_of_its_etag(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC1")
    retracted = world.objects["metadata/PMC1.1.json"].replace(b'retracted": false', b'retracted": true ')
    server.faults["metadata/PMC1.1.json"] = [f"etag:{retracted.decode()}"]
    assert len(samples(read(cloud("PMC1")))) == 1
    assert len(server.asked("metadata/PMC1")) == 2


def test_media_with_bad_addresses_are_not_asked_for(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC1")
    world.metadata(
        "PMC1.1",
        media_urls=[
            world.address("PMC1.1/f1.png"),
            f"s3://elsewhere/PMC1.1/g.png?md5={'0' * 32}",
            f"s3://pmc-oa-opendata/PMC1.1/../secret.png?md5={'0' * 32}",
            "file:///etc/passwd",
            None,
        ],
    )
    assert len(samples(read(cloud("PMC1")))) == 1
    assert not [path for path in server.log if "secret" in path or "g.png" in path or "passwd" in path]


def get(url: str, retries: Retries = HASTY, cap: int = 1000, waits: list[float] | None = None) -> bytes:
    """Return what a client gets; where `waits` is given, waits are noted in it and not waited."""

    async def sleep(seconds: float) -> None:
        if waits is None:
            await asyncio.sleep(seconds)
        else:
            waits.append(seconds)

    async def run() -> bytes:
        async with Http(2, retries, sleep=sleep) as http:
            return (await http.get(url, cap)).body

    return asyncio.run(run())


def test_any_key_reaches_the_server(world: World, server: Server) -> None:
    for number, key in enumerate(["a b", "50%25", "a?b=c", "a#b", "a&b", "é图", "a+b", "%2e%2e", "it's;=,@"]):
        world.objects[f"PMC1.1/{key}"] = str(number).encode()
        assert get(object_url(server.endpoint, f"PMC1.1/{key}")) == str(number).encode()


def test_the_kinds_of_failure(world: World, server: Server) -> None:
    world.objects["a"] = b"x" * 500
    url = f"{server.endpoint}/a"
    assert get(url) == b"x" * 500
    with pytest.raises(Refused, match="500 bytes; at most 100"):
        get(url, cap=100)
    with pytest.raises(Absent, match="HTTP 404"):
        get(f"{server.endpoint}/none")
    server.always["a"] = "redirect"
    with pytest.raises(Refused) as refused:
        get(url)
    assert refused.value.reason == "redirect loop"
    server.always["a"] = "401"
    with pytest.raises(Refused, match="HTTP 401"):
        get(url)
    server.always["a"] = "503"
    with pytest.raises(Exhausted, match=r"HTTP 503 \(4 attempts\)"):
        get(url)
    server.log.clear()
    server.always["a"] = "403"
    with pytest.raises(Denied, match=r"HTTP 403 \(3 attempts\)"):
        get(url)
    assert len(server.log) == 3
    server.close()
    with pytest.raises(Exhausted, match="ConnectError"):
        get(url)


def test_a_server_that_trickles_is_given_up(world: World, server: Server) -> None:
    world.objects["a"] = b"x"
    server.always["a"] = "slow:1"
    with pytest.raises(Exhausted, match=r"not whole after 0.1 s \(2 attempts\)"):
        get(f"{server.endpoint}/a", Retries(attempts=2, base=0.01, longest=0.01, read=5, whole=0.1))


@pytest.mark.parametrize(
    ("asked", "least", "most"), [("1", 1, 1.1), ("300", 300, 300.1), ("0", 0.0, 0.11), ("soon", 0.0, 0.11)]
)
def test_retry_after_is_honored_beyond_the_longest_wait(
    world: World, server: Server, asked: str, least: float, most: float
) -> None:
    waits: list[float] = []
    world.objects["a"] = b"x"
    server.faults["a"] = [f"429:{asked}"]
    assert get(f"{server.endpoint}/a", Retries(attempts=3, base=0.1, longest=0.2), waits=waits) == b"x"
    assert len(waits) == 1
    assert least <= waits[0] <= most


def test_a_server_that_asks_to_wait_too_long_is_left_alone(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC1")
    waits: list[float] = []
    server.always["PMC1.1.xml"] = "503:3600"
    with pytest.raises(Postponed, match="HTTP 503: the server asks to wait 3600 s, 600 s are the most"):
        get(f"{server.endpoint}/PMC1.1/PMC1.1.xml", waits=waits)
    assert waits == []
    for allow_failed in (False, True):
        with pytest.raises(AccessError, match=r"PMC1: .* asks to wait 3600 s.* run the same command again"):
            read(cloud("PMC1", allow_failed=allow_failed))


def test_waits_double_up_to_the_longest_and_are_drawn_by_chance(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds: list[float] = []

    def draw(low: float, high: float) -> float:
        bounds.append(high)
        return low

    monkeypatch.setattr(random, "uniform", draw)
    server.always["a"] = "500"
    with pytest.raises(Exhausted):
        get(f"{server.endpoint}/a", Retries(attempts=7, base=0.5, longest=5), waits=[])
    assert bounds[:6] == [0.5, 1, 2, 4, 5, 5]


def test_retry_after_as_a_date() -> None:
    now = 1_790_000_000.0
    assert retry_after(email.utils.formatdate(now + 90, usegmt=True), now) == 90
    assert retry_after(email.utils.formatdate(now - 90, usegmt=True), now) == 0
    assert retry_after("120", now) == 120
    for nothing in (None, "", "later", "-5", "1e9", "Mon, 99 Foo 2026", "²"):
        assert retry_after(nothing, now) is None
