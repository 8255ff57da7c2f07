"""Nothing is lost for good: what a server denied, lacked or failed to send comes with the next run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cloud_run import read, reasons, samples
from pmc_server import Server, World, picture

from medvlm.data.prepare import Outcome, Settings, prepare
from medvlm.data.sources.pmc.cloud import CloudSource, Retries, plan
from medvlm.errors import AccessError

Make = Callable[..., CloudSource]
BRIEF = Retries(attempts=2, base=0.001, longest=0.01)


def build(source: CloudSource, out: Path) -> Outcome:
    outcome = prepare(source, out, Settings("commercial"), workers=1)
    source.complete()
    return outcome


def fill(world: World, count: int) -> None:
    for number in range(1, count + 1):
        world.add(f"PMC{number}", media={"a.png": picture(number * 7)})
    world.publish_inventory()


def test_a_server_that_denies_is_a_failure(world: World, server: Server, cloud: Make, tmp_path: Path) -> None:
    fill(world, 10)
    for number in range(4, 11):
        server.always[f"PMC{number}.1/"] = "403"
    source = cloud(inventory=True)
    with pytest.raises(AccessError, match=r"PMC\d+: \S+ HTTP 403 \(3 attempts\); .*--skip-failed"):
        build(source, tmp_path / "out")
    server.always.clear()
    assert build(source, tmp_path / "out").manifest["counts"]["samples"] == 10


@pytest.mark.parametrize("where", ["metadata/PMC2", "PMC2.1.xml", "PMC2.1/a.png"])
def test_what_was_missing_is_asked_for_by_the_next_run(
    world: World, server: Server, cloud: Make, tmp_path: Path, where: str
) -> None:
    fill(world, 3)
    server.always[where] = "404"
    source = cloud(inventory=True)
    outcome = prepare(source, tmp_path / "out", Settings("commercial"), workers=1)
    assert outcome.manifest["drops"] == {"object missing": 1}
    assert [note for note in source.notes() if "1 of 3 articles name files that the service does not have" in note]
    source.complete()
    # As long as it is missing there is nothing to do, but it is asked for each time.
    for _ in range(2):
        server.forget()
        assert build(source, tmp_path / "out").up_to_date
        assert [path for path in server.log if path.startswith(("PMC", "metadata"))] == server.asked(where)
        assert len(server.log) == 4
    server.always.clear()
    outcome = build(source, tmp_path / "out")
    assert outcome.manifest["counts"]["samples"] == 3
    assert outcome.manifest["drops"] == {}
    assert build(source, tmp_path / "out").up_to_date
    assert source.notes() == []


@pytest.mark.parametrize("ids", ["PMC1,PMC2,PMC3", "PMC1,PMC2.1,PMC3"])
@pytest.mark.parametrize("fault", ["500", "403", "flip"])
def test_metadata_that_cannot_be_had_leaves_out_its_article_alone(
    world: World, server: Server, cloud: Make, tmp_path: Path, ids: str, fault: str
) -> None:
    fill(world, 3)
    server.always["metadata/PMC2"] = fault
    with pytest.raises(AccessError, match=r"^PMC2: "):
        read(cloud(ids, retries=BRIEF))
    source = cloud(ids, allow_failed=True, retries=BRIEF)
    assert build(source, tmp_path / "out").manifest["drops"] == {"fetch failed": 1}
    server.always.clear()
    assert build(source, tmp_path / "out").manifest["counts"]["samples"] == 3


def test_what_failed_is_fetched_by_the_next_run(world: World, server: Server, cloud: Make, tmp_path: Path) -> None:
    fill(world, 3)
    server.always["PMC2.1/a.png"] = "403"
    source = cloud(inventory=True, allow_failed=True)
    outcome = prepare(source, tmp_path / "out", Settings("commercial"), workers=1)
    assert outcome.manifest["drops"] == {"fetch failed": 1}
    assert [note for note in source.notes() if note.startswith("1 of 3 articles, or files of them, could not be")]
    source.complete()
    server.always.clear()
    assert build(source, tmp_path / "out").manifest["counts"]["samples"] == 3


@pytest.mark.parametrize("fault", ["403", "503", "400", "text:<html>"])
def test_older_versions_that_cannot_be_listed_are_a_failure(
    world: World, server: Server, cloud: Make, tmp_path: Path, fault: str
) -> None:
    fill(world, 2)
    world.add("PMC2", 2)
    world.objects["PMC2.2/PMC2.2.xml"] = b"<html/>"
    world.metadata("PMC2.2", xml_url=world.address("PMC2.2/PMC2.2.xml"))
    world.publish_inventory("2026-09-08T01-00Z")
    source = cloud(inventory=True, retries=BRIEF)
    source.describe()
    server.always["prefix=PMC2."] = fault
    with pytest.raises(AccessError, match=r"^PMC2: .*--skip-failed"):
        build(source, tmp_path / "out")
    source = cloud(inventory=True, retries=BRIEF, allow_failed=True)
    assert build(source, tmp_path / "out").manifest["drops"] == {"fetch failed": 1}
    server.always.clear()
    outcome = build(source, tmp_path / "out")
    assert outcome.manifest["drops"] == {"version unusable": 1}
    assert outcome.manifest["counts"]["samples"] == 2


@pytest.mark.parametrize("where", ["PMC", ".xml"])
@pytest.mark.parametrize("fault", ["404", "503"])
def test_a_server_without_anything_ends_the_run(
    world: World, server: Server, cloud: Make, tmp_path: Path, fault: str, where: str
) -> None:
    fill(world, 40)
    source = cloud(inventory=True, allow_failed=True, retries=BRIEF)
    units = source.units()
    server.always[where] = fault
    server.forget()
    for unit in units[:7]:
        source.prefetch([unit])
    with pytest.raises(AccessError, match="none of the last 8 articles asked for came, so the server fails"):
        source.prefetch(units[7:8])
    assert len({path.partition(".")[0].rpartition("/")[2] for path in server.log}) == 8
    # The last one is asked for again by this run, the others by the next plan.
    assert len(source._plan_file().failed() | {miss.article for miss in source._plan_file().missing()}) == 7
    server.always.clear()
    assert len(samples(read(source))) == 40


@pytest.mark.parametrize("fault", ["404", "403"])
def test_a_chunk_without_its_pictures_ends(world: World, server: Server, cloud: Make, fault: str) -> None:
    fill(world, 9)
    source = cloud(inventory=True, allow_failed=True, retries=BRIEF)
    server.always[".png"] = fault
    for _ in range(2):
        assert reasons(read(source)) == {"object missing" if fault == "404" else "fetch failed": 9}
    server.always.clear()
    assert len(samples(read(source))) == 9


def test_an_article_that_is_tried_again_is_lost_once(world: World, server: Server, cloud: Make) -> None:
    fill(world, 9)
    source = cloud(inventory=True, allow_failed=True, retries=BRIEF)
    units = source.units()
    server.always["PMC"] = "503"
    for _ in range(4):
        source.prefetch(units[:7])
    with pytest.raises(AccessError, match="none of the last 8 articles"):
        source.prefetch(units[7:8])


def test_a_server_that_goes_on_the_way_ends_the_run(
    world: World, server: Server, cloud: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medvlm.data.sources.pmc.cloud.fetch.LOST_IN_A_ROW", 20)
    fill(world, 40)
    source = cloud(inventory=True, allow_failed=True, retries=BRIEF)
    units = list(source.units())
    source.prefetch(units[:4])
    for unit in units[4:]:
        server.always[f"{unit.name}."] = "503"
    for unit in units[4:23]:
        source.prefetch([unit])
    with pytest.raises(AccessError, match="none of the last 20 articles"):
        source.prefetch([units[23]])
    # The next run judges anew, and one article that came begins the count again.
    source.prefetch([units[24]])
    source.store.append(source._plan_file().lists["tally"], "came\n")
    for unit in units[25:40]:
        source.prefetch([unit])


def test_what_came_in_the_end_has_not_failed(world: World, server: Server, cloud: Make) -> None:
    fill(world, 3)
    source = cloud(inventory=True, allow_failed=True, retries=BRIEF)
    told = source.describe()
    server.always["PMC2.1/a.png"] = "503"
    read(source)
    assert source._plan_file().failed() == {"PMC2"}
    server.always.clear()
    assert len(samples(read(source))) == 3
    assert source._plan_file().failed() == set()
    assert source.notes() == []
    source.complete()
    assert source.describe() == told


@pytest.mark.parametrize("fault", ["403", "404"])
def test_a_plan_that_was_killed_in_the_making_is_the_same(
    world: World, server: Server, cloud: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str
) -> None:
    fill(world, 3)

    def mended(store: Path, steps: int) -> tuple[str, bool]:
        """Return the hash of the plan after a failure, made anew after a kill at a step, and whether it was killed."""
        server.always["PMC2.1/a.png"] = fault
        source = cloud(inventory=True, allow_failed=True, retries=BRIEF, store=store)
        first = source.describe()
        read(source)
        source.complete()
        server.always.clear()
        killed = False
        with monkeypatch.context() as patch:
            left = iter(range(steps))
            for owner, name in ((Path, "unlink"), (plan, "write_text"), (os, "replace")):
                patch.setattr(owner, name, dying(getattr(owner, name), left))
            try:
                source.describe()
            except KeyboardInterrupt:
                killed = True
        assert source.describe() != first
        return str(source.describe()[0]["sha256"]), killed

    def dying(real: Callable[..., object], left: Iterator[int]) -> Callable[..., object]:
        def step(*words: object, **settings: object) -> object:
            if any(part in str(words[0]) for part in (".failed", ".missing", ".salt")) and next(left, None) is None:
                raise KeyboardInterrupt
            return real(*words, **settings)

        return step

    whole, killed = mended(tmp_path / "whole", 99)
    assert not killed
    found = [mended(tmp_path / str(steps), steps) for steps in range(9)]
    assert {sha256 for sha256, _ in found} == {whole}
    assert found[1][1]
    assert not found[-1][1]


def test_an_old_plan_is_made_anew(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC1")
    world.add("PMC2")
    cloud("PMC1,PMC2").describe()
    world.metadata("PMC1.1", is_retracted=True)
    source = cloud("PMC1,PMC2")
    assert source.planned()
    assert len(samples(read(source))) == 2
    (plan,) = source.store.root.glob("plans/*.sqlite")
    week = plan.stat().st_mtime - 7.1 * 86_400
    os.utime(plan, (week, week))
    assert not cloud("PMC1,PMC2").planned()
    # A run that has begun goes on with its plan, and keeps it from ageing.
    assert len(samples(read(source))) == 2
    assert cloud("PMC1,PMC2").planned()
    os.utime(plan, (week, week))
    source = cloud("PMC1,PMC2")
    assert reasons(read(source)) == {"retracted article": 1}
    assert source.notes() == ["the plan of the run that was stopped is 7 days old; a new one was made"]


@pytest.mark.parametrize("damage", ["empty", "noise", "half", "inside"])
def test_a_damaged_plan_is_made_anew(world: World, cloud: Make, damage: str) -> None:
    for number in range(1, 200):
        world.add(f"PMC{number}", media={})
    world.publish_inventory()
    source = cloud(inventory=True)
    told = source.describe()
    (plan,) = source.store.root.glob("plans/*.sqlite")
    data = plan.read_bytes()
    inside = data[:8192] + b"\xff" * 4096 + data[12288:]
    halves = {"half": data[: len(data) // 2], "inside": inside}
    plan.write_bytes({"empty": b"", "noise": b"no table" * 999, **halves}[damage])
    if damage == "inside":  # its beginning is in order, so that only reading on finds out
        with pytest.raises(AccessError, match="the plan is damaged"):
            list(cloud(inventory=True).units())
    assert len(list(cloud(inventory=True).units())) == 199
    assert cloud(inventory=True).describe() == told


def test_a_plan_that_another_run_dropped_is_told(world: World, cloud: Make) -> None:
    world.add("PMC1")
    world.add("PMC2")
    units = cloud("PMC1,PMC2").units()
    other = cloud("PMC1,PMC2")
    read(other)
    other.complete()
    with pytest.raises(
        AccessError, match=r"another run with this store has ended and dropped it.*run the same command"
    ):
        units[0:2]
    world.add("PMC1", 2)
    other.describe()
    with pytest.raises(AccessError, match="another run has made the plan anew"):
        units[0:2]


def test_a_torn_line_of_the_log_is_passed_over(world: World, cloud: Make) -> None:
    world.add("PMC1")
    source = cloud("PMC1")
    read(source)
    whole = source.store.traffic()
    for torn in ('{"phase": "fe', "\n7\n", '{"phase": "fetch"}\n', '{"phase": "x", "requests": "1"}\n'):
        source.store.append("traffic.jsonl", torn)
        assert source.store.traffic() == whole


def test_two_selections_share_a_store_while_an_article_changes(world: World, cloud: Make) -> None:
    world.add("PMC1", media={"f1.png": picture(1)})
    world.add("PMC2")
    one = cloud("PMC1")
    before = read(one)
    world.add("PMC1", media={"f1.png": picture(99)})
    assert {sample.image.data for sample in samples(read(cloud("PMC1,PMC2")))} == {picture(99), picture(2)}
    assert [item for unit in one.units() for item in one.read(unit)] == before


def test_servers_have_plans_of_their_own(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC1")
    cloud("PMC1").describe()
    world.add("PMC1", 2)
    mirror = cloud("PMC1", endpoint=server.endpoint.replace("127.0.0.1", "localhost"))
    assert mirror.units()[0].locator == ("PMC1", "2")
    assert mirror.lineage == cloud("PMC1").lineage
