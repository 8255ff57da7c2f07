"""From a selection to its plan: the ids are gathered, then each article's version and ETag are asked for.

For ids and searches every article costs a listing (unless its version is named) and a conditional request for its
metadata, which is kept; for the inventory none, as its rows carry version and ETag.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
import re
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from medvlm.data.sources.pmc.cloud import eutils, inventory, protocol
from medvlm.data.sources.pmc.cloud.http import (
    Absent,
    Denied,
    FetchError,
    Http,
    Postponed,
    Reply,
    Retries,
    Traffic,
    Unfit,
)
from medvlm.data.sources.pmc.cloud.plan import PlanFile, Row, WorkTable
from medvlm.data.sources.pmc.cloud.selection import Selection, split_id
from medvlm.data.sources.pmc.cloud.store import Store
from medvlm.errors import AccessError

MAX_METADATA_BYTES = 16 << 20
_BATCH = 1024
_INSERTS = 50_000
_ETAG = re.compile(r"[\x21\x23-\x7e]{1,200}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True)
class Service:
    """Where to ask, and how."""

    endpoint: str
    eutils: str
    concurrency: int
    retries: Retries
    api_key: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Planner:
    """Makes the plan of one selection.

    Args:
        term: the selection's query with its filters; "" for other selections.
        limit: at most so many articles, the first by name.
        file: where the plan goes; the caller holds its lock.
        traffic: is added to.
        allow_failed: plan an article whose metadata cannot be had all the same, and leave it to fetching.
    """

    selection: Selection
    term: str
    limit: int | None
    file: PlanFile
    store: Store
    service: Service
    traffic: Traffic
    allow_failed: bool = False

    async def make(self) -> None:
        """Make the plan, or go on with one that was stopped while it was made.

        Raises:
            AccessError: the service cannot be reached or gives no proper answer.
            InputError: a search finds nothing.
            UsageError: a search cannot be understood.
        """
        work = WorkTable(self.file.building)
        try:
            async with Http(self.service.concurrency, self.service.retries, traffic=self.traffic) as http:
                if work.origin() is None:
                    work.clear()
                    work.chosen(self.limit, await self._choose(work, http))
                while batch := work.unresolved(_BATCH):
                    work.resolve(await all_of(self._row(*article, http) for article in batch))
                returned = await self._returned(work, http)
            self.file.finish(work, work.origin() or {}, returned)
        finally:
            work.close()

    async def _row(self, article: str, wanted: int | None, http: Http) -> Row:
        return await _resolved(article, wanted, self.store, http, self.service.endpoint, self.allow_failed)

    async def _returned(self, work: WorkTable, http: Http) -> set[str]:
        """Return the articles that lacked an object in an earlier run, are the same still, and have it now."""
        lacking = sorted(miss for miss in self.file.missing() if work.etag(miss.article) == miss.etag)
        there = await all_of(_exists(miss.url, http) for miss in lacking)
        return {miss.article for miss, now in zip(lacking, there, strict=True) if now}

    async def _choose(self, work: WorkTable, http: Http) -> dict[str, Any]:
        """Fill the work table; return where the choice came from."""
        if self.selection.inventory:
            return {"inventory": await self._all(work, http)}
        if self.selection.query:
            return {"search": self.term, "ignored": await self._search(work)}
        work.choose(split_id(name) for name in self.selection.ids)
        return {}

    async def _all(self, work: WorkTable, http: Http) -> str:
        endpoint = self.service.endpoint
        key, columns, paths = await inventory.fetch(http, endpoint, self.file.inventory)
        for path in paths:
            rows = inventory.rows(path, columns)
            while part := list(itertools.islice(rows, _INSERTS)):
                work.take_newest(part)
        if not work.count():
            raise AccessError(f"the inventory of {endpoint} lists no article; check --endpoint")
        return key

    async def _search(self, work: WorkTable) -> list[str]:
        """Gather the ids of a search, begun anew where the result changed between two pages.

        Returns:
            The words that the service passed over.
        """
        service = self.service
        pace = eutils.Pace(10 if service.api_key else 3)
        async with Http(1, service.retries, traffic=self.traffic, follow=False) as http:
            for _ in range(eutils.ROUNDS):
                work.clear()
                search = eutils.Search(http, service.eutils, self.term, pace, service.api_key)
                totals = set()
                async for ids in search.pages():
                    work.choose((name, None) for name in ids)
                    totals.add(search.total)
                if totals == {work.count()}:
                    return sorted(search.ignored)
        raise AccessError(
            f"{service.eutils}: the search gives other ids each time ({work.count()} of {search.total}); narrow "
            "--query, or choose from --inventory"
        )


async def _resolved(
    article: str, wanted: int | None, store: Store, http: Http, endpoint: str, allow_failed: bool
) -> Row:
    """Return the version to take and the ETag of its metadata, which is in the store then.

    Without a named version it is the newest that is listed, even where its metadata is missing: only fetching gives way
    to an older one, as it tells so and asks for the newest again.

    Raises:
        AccessError: the service fails.
    """
    version = wanted or 0
    try:
        if not version:
            version = max(await _versions(article, http, endpoint), default=0)
        etag = (await metadata(article, version, store, http, endpoint))[0] if version else ""
    except Absent:
        # Asked for by its version it is unknown; listed by the service it lacks only its metadata.
        return article, 0 if wanted else version, ""
    except (FetchError, protocol.Damaged) as error:
        if isinstance(error, Unfit) or (allow_failed and version and not isinstance(error, Postponed)):
            # Fetching meets it again, and tells how to do without the article, or counts it.
            return article, version, ""
        raise AccessError(f"{article}: {error}; run the same command again: it goes on where it stopped") from error
    return article, version, etag


async def _versions(article: str, http: Http, endpoint: str) -> list[int]:
    """Return the versions of an article, the newest first."""
    try:
        return await listed(article, http, endpoint)
    except (Absent, Denied) as error:
        # A bucket lists nothing under an unknown name; it does not deny the listing.
        raise AccessError(f"{error}: no bucket of PMC answers at {endpoint}; check --endpoint") from error


async def listed(article: str, http: Http, endpoint: str) -> list[int]:
    """Return the versions of an article that the service lists, the newest first.

    Raises:
        FetchError: the listing cannot be had.
        protocol.Damaged: it is none.
    """
    prefixes = await inventory.list_prefixes(http, endpoint, f"{article}.")
    return protocol.versions_in(prefixes, article)[::-1]


async def _exists(url: str, http: Http) -> bool:
    try:
        return await http.exists(url)
    except FetchError:
        return False  # the next plan asks again


async def metadata(article: str, version: int, store: Store, http: Http, endpoint: str) -> tuple[str, bytes]:
    """Return ETag and body of an article's metadata as the service has it now, and keep them.

    What the store holds is not sent again where it is still the same. An answer that is no metadata of the article, or
    not the one that its ETag is the md5 of, is asked for again and never kept.

    Raises:
        FetchError: it cannot be had.
    """
    url = protocol.object_url(endpoint, protocol.metadata_key(article, version))
    known = kept(article, version, store)
    reply = await http.get(url, MAX_METADATA_BYTES, known[0] if known else "", lambda reply: _misfit(reply, article))
    if reply.status == 304 and known:
        http.traffic.reused += 1
        return known
    etag = protocol.bare_etag(reply.etag)
    if not _ETAG.fullmatch(etag):
        etag = hashlib.md5(reply.body, usedforsecurity=False).hexdigest()
    store.put_metadata(article, version, etag, reply.body)
    return etag, reply.body


def kept(article: str, version: int, store: Store) -> tuple[str, bytes] | None:
    """Return ETag and body of an article's metadata in the store, None where it is absent or damaged."""
    known = store.metadata(article, version)
    return known if known and not protocol.misfit(known[1], article) else None


def _misfit(reply: Reply, article: str) -> str | None:
    etag, md5 = protocol.bare_etag(reply.etag), hashlib.md5(reply.body, usedforsecurity=False).hexdigest()
    if _MD5.fullmatch(etag) and md5 != etag:
        return f"md5 is {md5}, not {etag}"
    return protocol.misfit(reply.body, article)


async def all_of(work: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Return the results of all, in order; where one fails the others are stopped before its error goes on."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
