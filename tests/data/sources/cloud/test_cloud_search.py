"""A search as a list of articles: its filters, its pages, its pace, and the errors that come with HTTP 200."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable

import pytest
from cloud_run import read, samples
from conftest import HASTY
from pmc_server import Server, World

from medvlm.data.sources.pmc.cloud import CloudSource, Retries
from medvlm.data.sources.pmc.cloud.eutils import FILTERS, Pace, family, filtered
from medvlm.data.sources.pmc.options import PmcOptions
from medvlm.errors import AccessError, InputError, UsageError

Make = Callable[..., CloudSource]
FREE = '("cc0 license"[filter] OR "cc by license"[filter] OR "cc by-sa license"[filter])'


@pytest.mark.parametrize(
    ("policy", "since", "expected"),
    [
        ("any", None, '(heart) AND "open access"[filter]'),
        ("commercial", None, f'(heart) AND "open access"[filter] AND {FREE}'),
        ("CC-BY-4.0", None, '(heart) AND "open access"[filter] AND ("cc by license"[filter])'),
        (
            "CC-BY-NC-4.0,CC0-1.0",
            None,
            '(heart) AND "open access"[filter] AND ("cc0 license"[filter] OR "cc by-nc license"[filter])',
        ),
        # No filter names this license, so none may keep its articles out.
        ("CC-BY-4.0,LicenseRef-public-domain", None, '(heart) AND "open access"[filter]'),
        (
            "any",
            datetime.date(2024, 2, 29),
            '(heart) AND "open access"[filter] AND ("2024/02/29"[pdat] : "3000"[pdat])',
        ),
    ],
)
def test_the_policy_becomes_filters(policy: str, since: datetime.date | None, expected: str) -> None:
    assert filtered(" heart\n", policy, since) == expected


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        ("CC-BY-4.0", "CC-BY"),
        ("LicenseRef-CC-BY-unversioned", "CC-BY"),
        ("LicenseRef-CC-BY-NC-ND-unversioned", "CC-BY-NC-ND"),
        ("cc-by-nc-sa-3.0-igo", "CC-BY-NC-SA"),
        ("CC0-1.0", "CC0"),
        ("MIT", ""),
        ("CC-BYTE-1.0", ""),
        ("LicenseRef-PMC-TDM", ""),
    ],
)
def test_families(license: str, expected: str) -> None:
    assert family(license) == expected
    assert all(family(f"{name}-4.0") == name for name in FILTERS)


def test_a_search_finds_articles(world: World, server: Server, cloud: Make) -> None:
    for number in (1, 2, 3):
        world.add(f"PMC{number}")
    world.found = ["3", "1"]
    source = cloud(query="heart[title]", options=PmcOptions(since=datetime.date(2020, 1, 1)))
    assert {sample.pmcid for sample in samples(read(source))} == {"PMC1", "PMC3"}
    (form,) = server.forms
    assert form["db"] == "pmc"
    assert form["term"] == filtered("heart[title]", "commercial", datetime.date(2020, 1, 1))
    assert (form["retmode"], form["retmax"], form["retstart"]) == ("json", "10000", "0")
    assert "api_key" not in form
    assert source.describe()[0]["selection"] == "query: heart[title]"


def test_a_search_of_several_pages(world: World, server: Server, cloud: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medvlm.data.sources.pmc.cloud.eutils.PAGE", 3)
    monkeypatch.setattr("medvlm.data.sources.pmc.cloud.planning.eutils.Pace", lambda rate: Pace(1e6))
    numbers = [str(number) for number in range(20, 10, -1)]
    for number in numbers:
        world.add(f"PMC{number}")
    world.found = numbers
    source = cloud(query="heart", options=PmcOptions(limit=8))
    assert [unit.name for unit in source.units()] == [f"PMC{number}" for number in range(11, 19)]
    assert [form["retstart"] for form in server.forms] == ["0", "3", "6", "9"]


def test_a_result_that_changes_on_the_way_is_asked_for_anew(
    world: World, server: Server, cloud: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medvlm.data.sources.pmc.cloud.eutils.PAGE", 2)
    monkeypatch.setattr("medvlm.data.sources.pmc.cloud.planning.eutils.Pace", lambda rate: Pace(1e6))
    for number in (1, 2, 3):
        world.add(f"PMC{number}")
    world.found = ["1", "2", "3"]
    server.search_answers = [
        {"esearchresult": {"count": "3", "idlist": ["3", "2"]}},
        {"esearchresult": {"count": "3", "idlist": ["2"]}},
    ]
    assert len(cloud(query="heart").units()) == 3
    server.search_answers = [{"esearchresult": {"count": "3", "idlist": ["1", "1", "2"]}}] * 3
    with pytest.raises(AccessError, match=r"other ids each time \(2 of 3\)"):
        cloud(query="lung").units()


@pytest.mark.parametrize(
    "hitch",
    [
        (429, {"error": "API rate limit exceeded", "api-key": "1.2.3.4", "count": "4", "limit": "3"}),
        {"error": "API rate limit exceeded", "count": "4", "limit": "3"},
        {"esearchresult": {"ERROR": "Search Backend failed:\n  timeout"}},
        {"esearchresult": "down"},
        {"header": {}},
        ["?"],
        (500, {}),
        (502, {}),
    ],
)
def test_a_hitch_is_asked_again(world: World, server: Server, cloud: Make, hitch: object) -> None:
    world.add("PMC1")
    world.found = ["1"]
    server.search_answers = [hitch]
    assert len(cloud(query="heart", api_key="K").units()) == 1
    assert [form["api_key"] for form in server.forms] == ["K", "K"]


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        ({"esearchresult": {"count": "0", "idlist": []}}, InputError, r"nothing found; the search was \(heart\) AND"),
        (
            {
                "esearchresult": {
                    "count": "0",
                    "idlist": [],
                    "errorlist": {"phrasesnotfound": ["hart"], "fieldsnotfound": []},
                }
            },
            InputError,
            r"nothing found \(unknown words: hart\)",
        ),
        (
            {"esearchresult": {"count": "9", "idlist": ["1"], "errorlist": {"fieldsnotfound": ["titel"]}}},
            UsageError,
            "the search knows no field titel",
        ),
        ({"esearchresult": {"count": "many", "idlist": ["1"]}}, AccessError, "tells no count"),
        ({"esearchresult": {"count": "5", "idlist": []}}, AccessError, "ids 0 to 5 of the search do not come"),
        ((400, {"error": "bad"}), AccessError, "the search cannot be made: .*HTTP 400"),
        ((302, {}), AccessError, "the search cannot be made: .*HTTP 302"),
    ],
)
def test_what_no_second_try_mends(
    server: Server, cloud: Make, answer: object, error: type[Exception], told: str
) -> None:
    server.search_answers = [answer]
    with pytest.raises(error, match=told):
        cloud(query="heart").units()
    assert len(server.forms) == 1


def test_a_service_that_stays_down(server: Server, cloud: Make) -> None:
    server.search_answers = [{"error": "API rate limit exceeded"}] * 9
    with pytest.raises(AccessError, match=r"the service says: API rate limit exceeded \(2 attempts\); run the same"):
        cloud(query="heart", retries=Retries(attempts=2, base=0.01)).units()


def test_metadata_decides_whatever_the_filter_found(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC1", code="CC BY-NC")
    world.add("PMC2", is_pmc_openaccess=False)
    world.found = ["1", "2"]
    assert samples(read(cloud(query="heart"))) == []
    assert server.asked("PMC1.1/") == server.asked("PMC2.1/") == []


def test_words_that_were_passed_over_are_told(world: World, server: Server, cloud: Make) -> None:
    world.add("PMC1")
    world.found = ["1"]
    warned = {"phrasesignored": ["of"], "quotedphrasesnotfound": ['"hart lung"'], "outputmessages": []}
    server.search_answers = [{"esearchresult": {"count": "1", "idlist": ["1"], "warninglist": warned}}]
    assert cloud(query="hart lung").notes() == ['the search knows no "hart lung", of; it was made without them']
    assert cloud(query="heart").notes() == cloud("PMC1").notes() == []


@pytest.mark.parametrize("rate", [3, 10])
def test_no_second_sees_more_requests_than_allowed(rate: int) -> None:
    now = 100.0
    times: list[float] = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    async def run() -> None:
        nonlocal now
        pace = Pace(rate, lambda: now, sleep)
        for number in range(50):
            await pace.turn()
            times.append(now)
            now += 0.01 if number % 7 else 1.5  # answers come fast, sometimes late

    asyncio.run(run())
    assert all(sum(start <= time < start + 0.999 for time in times) <= rate for start in times)
    assert times[6] - times[1] == pytest.approx(5 / rate, abs=0.02)


@pytest.mark.parametrize(("key", "rate"), [(None, 3), ("K", 10)])
def test_the_key_sets_the_pace(
    world: World, server: Server, cloud: Make, monkeypatch: pytest.MonkeyPatch, key: str | None, rate: int
) -> None:
    rates = []
    monkeypatch.setattr("medvlm.data.sources.pmc.cloud.planning.eutils.Pace", lambda r: rates.append(r) or Pace(1e6))
    world.add("PMC1")
    world.found = ["1"]
    cloud(query="heart", api_key=key, retries=HASTY).units()
    assert rates == [rate]
