"""The options of `prepare pmc` as the command line writes them, and as the manifest keeps them."""

from __future__ import annotations

import datetime
import json

import pytest

from medvlm.data.sources.pmc.options import PmcOptions, parse, parse_day
from medvlm.errors import UsageError


def test_defaults_are_those_of_the_record() -> None:
    assert parse() == PmcOptions()
    assert parse().as_json() == {}


def test_only_what_differs_is_told_and_as_json() -> None:
    options = parse(kinds="table, figure", article_type="case-report,review-article", since="2024-02", panels="split")
    told = options.as_json()
    assert json.loads(json.dumps(told)) == told
    assert told == {
        "kinds": ["figure", "table"],
        "article_types": ["case-report", "review-article"],
        "since": "2024-02-01",
        "panels": "split",
    }


def test_the_same_request_spelled_otherwise_is_the_same() -> None:
    assert parse(kinds="supplementary,figure", article_type=" b ,a") == parse(article_type="a,b,a")


@pytest.mark.parametrize(
    ("text", "day"), [("2024", (2024, 1, 1)), ("2024-05", (2024, 5, 1)), ("2024-5-31", (2024, 5, 31))]
)
def test_days(text: str, day: tuple[int, int, int]) -> None:
    assert parse_day(text) == datetime.date(*day)


@pytest.mark.parametrize("text", ["", "24", "2024-13", "2023-02-29", "05/31/2024", "0000", "2024-05-31T10"])
def test_no_days(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        parse_day(text)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"panels": "splt"}, 'did you mean "split"?'),
        ({"task": "captions"}, 'did you mean "caption"?'),
        ({"kinds": "figure,tabel"}, 'did you mean "table"?'),
    ],
)
def test_misspelt_names_get_the_nearest(given: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(**given)  # type: ignore[arg-type]
    assert told in str(caught.value)
