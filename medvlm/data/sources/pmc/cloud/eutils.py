"""PubMed Central's search (ESearch of the E-utilities) as a list of article ids.

NCBI's manual allows 3 requests a second, 10 with an API key, and gives at most 10,000 ids an answer; further ones of a
database other than PubMed come by raising `retstart`. A result that changes between two pages is asked for anew.

The license policy and the earliest day are added to the query to keep out most of what would be refused later; the
metadata of each article decides. An article that no filter knows a license of is not found under a policy that asks
for one. Article types are not added: JATS's have no documented counterpart in the search, so the article itself tells.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from medvlm.data.sources.pmc.cloud.http import FetchError, Http
from medvlm.errors import AccessError, InputError, UsageError
from medvlm.licenses.expressions import commercial_use
from medvlm.licenses.policy import parse_policy

PAGE = 10_000
"""Ids of one answer; ESearch gives no more."""
MAX_ANSWER_BYTES = 16 << 20
ROUNDS = 3
"""How often a result that changes while it is read is begun anew."""

FILTERS = {
    "CC0": '"cc0 license"[filter]',
    "CC-BY": '"cc by license"[filter]',
    "CC-BY-SA": '"cc by-sa license"[filter]',
    "CC-BY-ND": '"cc by-nd license"[filter]',
    "CC-BY-NC": '"cc by-nc license"[filter]',
    "CC-BY-NC-SA": '"cc by-nc-sa license"[filter]',
    "CC-BY-NC-ND": '"cc by-nc-nd license"[filter]',
}
"""License family -> the filter of PubMed Central's user guide."""

_UNKNOWN = (
    ("errorlist", "phrasesnotfound"),
    ("warninglist", "phrasesignored"),
    ("warninglist", "quotedphrasesnotfound"),
)


class Pace:
    """Lets requests through at even distances, so that no second sees more than `per_second` of them."""

    def __init__(
        self,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._distance = 1 / per_second
        self._clock = clock
        self._sleep = sleep
        self._next = clock()

    async def turn(self) -> None:
        """Wait for the next free place."""
        now = self._clock()
        place = max(now, self._next)
        self._next = place + self._distance
        if place > now:
            await self._sleep(place - now)


def family(license: str) -> str:
    """Return a license's Creative Commons family without version and port: "CC-BY-NC", "CC0"; "" for others."""
    bare = license.upper().removeprefix("LICENSEREF-")
    return next((name for name in sorted(FILTERS, key=len, reverse=True) if f"{bare}-".startswith(f"{name}-")), "")


def filtered(query: str, license_policy: str, since: datetime.date | None = None) -> str:
    """Return the query with what the service can look at beforehand: open access, license, day of publication.

    Raises:
        UsageError: the policy is malformed.
    """
    parts = [f"({' '.join(query.split())})", '"open access"[filter]']
    licenses = [FILTERS[name] for name in _families(license_policy)]
    if licenses:
        parts.append(f"({' OR '.join(licenses)})")
    if since is not None:
        parts.append(f'("{since:%Y/%m/%d}"[pdat] : "3000"[pdat])')
    return " AND ".join(parts)


def _families(license_policy: str) -> list[str]:
    """Return the families that a policy may admit; none where it admits what no filter names."""
    allowed = parse_policy(license_policy)
    if allowed == "any":
        return []
    if allowed == "commercial":
        return [name for name in FILTERS if commercial_use("CC0-1.0" if name == "CC0" else f"{name}-4.0") == "yes"]
    named = {family(license) for license in allowed}
    return [] if "" in named else [name for name in FILTERS if name in named]


class Search:
    """One query, asked page by page.

    Args:
        http: a client that follows no redirects, so that the key goes nowhere else.
        address: of the E-utilities, without the name of the service.
        term: the query with its filters.
        pace: shared by all requests to this address.
        api_key: NCBI's, for more requests a second.
    """

    def __init__(self, http: Http, address: str, term: str, pace: Pace, api_key: str | None = None) -> None:
        self._http = http
        self._url = f"{address.rstrip('/')}/esearch.fcgi"
        self._term = term
        self._pace = pace
        self._key = api_key
        self.total = 0
        self.ignored: set[str] = set()
        """Words of the query that the service does not know and passed over."""

    async def pages(self) -> AsyncIterator[list[str]]:
        """Yield the ids ("PMC123") page by page; a page may repeat ids of one before.

        Raises:
            AccessError: the service fails or cuts its answers short.
            InputError: nothing is found.
            UsageError: the query names a field that there is not, or cannot be read.
        """
        start, self.total = 0, 1
        while start < self.total:
            answer = await self._ask(start)
            self.total = _count(answer, self._url)
            if not self.total:
                unknown = f" (unknown words: {', '.join(sorted(self.ignored))})" if self.ignored else ""
                raise InputError(f"--query: nothing found{unknown}; the search was {self._term}")
            ids = [f"PMC{int(text)}" for text in answer.get("idlist") or () if str(text).isdecimal()]
            if not ids:
                raise AccessError(f"{self._url}: ids {start} to {self.total} of the search do not come; narrow --query")
            yield ids
            start += len(ids)

    async def _ask(self, start: int) -> dict[str, Any]:
        form = {
            "db": "pmc",
            "term": self._term,
            "retmode": "json",
            "retmax": str(PAGE),
            "retstart": str(start),
            "tool": "medvlm",
        }
        if self._key:
            form["api_key"] = self._key
        try:
            body = await self._http.post(self._url, form, MAX_ANSWER_BYTES, _hitch, self._pace.turn)
        except FetchError as error:
            raise AccessError(f"the search cannot be made: {error}; run the same command again later") from error
        answer: dict[str, Any] = _result(body)
        listed = answer.get("errorlist")
        errors: dict[str, Any] = listed if isinstance(listed, dict) else {}
        self.ignored |= _passed_over(answer)
        if fields := errors.get("fieldsnotfound"):
            raise UsageError(f"--query: the search knows no field {', '.join(map(str, fields))[:200]}")
        return answer


def _result(body: bytes) -> dict[str, Any]:
    """Return the `esearchresult` of an answer that `_hitch` found whole."""
    answer = json.loads(body, strict=False)["esearchresult"]
    assert isinstance(answer, dict)
    return answer


def _hitch(body: bytes) -> str | None:
    """Return why an answer is none and is to be asked for again: errors come with HTTP 200, in the JSON."""
    try:
        answer = json.loads(body, strict=False)
    except (ValueError, RecursionError):
        return "the answer is not JSON"
    result = answer.get("esearchresult") if isinstance(answer, dict) else None
    error = (answer.get("error") if isinstance(answer, dict) else None) or (
        result.get("ERROR") if isinstance(result, dict) else "no esearchresult in the answer"
    )
    return f"the service says: {' '.join(str(error).split())[:200]}" if error else None


def _count(answer: dict[str, Any], url: str) -> int:
    text = str(answer.get("count", ""))
    if not text.isdecimal():
        raise AccessError(f"{url}: the answer tells no count; run the same command again later")
    return int(text)


def _passed_over(answer: dict[str, Any]) -> set[str]:
    """Return the words that a search was made without."""
    lists = [(answer.get(part), name) for part, name in _UNKNOWN]
    return {str(word)[:100] for said, name in lists if isinstance(said, dict) for word in said.get(name) or ()}
