"""What a chunk of articles needs, fetched into the store: metadata, then the XML, then the images that will be used.

An article that its metadata excludes costs one small file, one that its license excludes no image. Where metadata and
XML disagree on the license the stricter holds: what the metadata's code forbids is not fetched at all, and the XML
decides on the images of the rest. A code of an unknown license, or none, leaves the decision to the XML, which is
small. PMC's codes tell no version, so a policy of SPDX ids is asked by the family here and by the XML to the letter.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Sequence

from medvlm.data.sources.base import Unit
from medvlm.data.sources.pmc.cloud import eutils, protocol
from medvlm.data.sources.pmc.cloud.http import TOO_LARGE, Absent, FetchError, Http, Traffic
from medvlm.data.sources.pmc.cloud.planning import Service, all_of, metadata
from medvlm.data.sources.pmc.cloud.store import Record, Store
from medvlm.data.sources.pmc.options import PmcOptions
from medvlm.data.sources.pmc.packages import MAX_MEMBER_BYTES
from medvlm.data.sources.pmc.xml import MAX_XML_BYTES
from medvlm.errors import AccessError
from medvlm.licenses.expressions import commercial_use
from medvlm.licenses.policy import admit, parse_policy

FAILED = "fetch failed"
MANY_FAILED = 8
"""So many failures of a chunk, and nothing else, are no longer counted even where failures are allowed."""
NOT_ADMITTED = "license not admitted"


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What decides which files of an article are needed."""

    key: str
    """Names the records of this request in the store."""
    license: str
    options: PmcOptions
    allow_failed: bool
    failed: str
    """Name, within the store, of the list of articles that failed."""


def refusal(said: protocol.Metadata, license_policy: str) -> tuple[str, str] | None:
    """Return the reason why an article's metadata leaves it out, and its detail, or None.

    Raises:
        UsageError: the policy is malformed.
    """
    from medvlm.data.sources.pmc.rights import metadata_rights

    code = said.license_code or "no license code"
    if not said.open_access:
        return "not open access", code
    if said.retracted:
        return "retracted article", ""
    if said.historical_ocr:
        return "historical OCR only", ""
    rights = metadata_rights(said.license_code)
    if rights is None or rights.license is None:
        return None
    allowed, family = parse_policy(license_policy), eutils.family(rights.license)
    if family and isinstance(allowed, frozenset) and family in {eutils.family(name) for name in allowed}:
        return None
    reason = admit(license_policy, rights.license, commercial_use(rights.license))
    return (reason, f"PMC metadata: {code}") if reason else None


async def fetch(units: Sequence[Unit], request: Request, store: Store, service: Service, traffic: Traffic) -> None:
    """Fetch what the units need and is not there yet, and leave a record of each; `traffic` is added to.

    Raises:
        AccessError: an article cannot be fetched (unless such are allowed); what came so far is kept.
    """
    async with Http(service.concurrency, service.retries, traffic=traffic) as http:
        worker = _Worker(request, store, service, http)
        await all_of(worker.settle(unit) for unit in units)
    if worker.failed >= MANY_FAILED and not worker.fetched:
        raise AccessError(
            f"{service.endpoint}: all {worker.failed} articles asked for failed, so the server does; run the same "
            "command again later"
        )


class _Worker:
    """Fetches articles side by side; two that share an object wait for one download."""

    def __init__(self, request: Request, store: Store, service: Service, http: Http) -> None:
        self._request = request
        self._store = store
        self._service = service
        self._http = http
        self.fetched = self.failed = 0
        self._articles = asyncio.Semaphore(service.concurrency)
        # An article may be large, and its tree many times as large.
        self._parsing = asyncio.Semaphore(2)
        self._on_the_way: dict[str, asyncio.Lock] = collections.defaultdict(asyncio.Lock)

    async def settle(self, unit: Unit) -> None:
        """Make the store ready for reading one article."""
        article, version = unit.locator[0], int(unit.locator[1])
        if self._settled(unit):
            self._http.traffic.reused += 1
            return
        async with self._articles:
            record = await self._record(unit, article, version)
        if record.reason == FAILED:
            self.failed += 1
        else:
            self.fetched += 1
        if _has_failed(record):
            self._store.append(self._request.failed, f"{article}\n")
        self._store.put_record(self._request.key, article, record)

    def _settled(self, unit: Unit) -> bool:
        record = self._store.record(self._request.key, unit.locator[0])
        if record is None or not unit.version or record.planned != unit.version or _has_failed(record):
            return False
        needed = [md5 for md5 in (record.xml[1], *record.media.values()) if md5]
        return all(self._store.holds(md5) for md5 in needed)

    async def _record(self, unit: Unit, article: str, version: int) -> Record:
        blank = Record(unit.version, version=version)
        if not version:
            return dataclasses.replace(blank, reason="article not found", detail="not in the PMC Cloud Service")
        try:
            etag, body = await self._metadata(unit, article, version)
            record, errors = await self._files(blank, article, body)
            if errors:
                # The article may have changed since the plan was made: then its files are those of the new metadata.
                newer, body = await metadata(article, version, self._store, self._http, self._service.endpoint)
                if newer != etag:
                    record, errors = await self._files(blank, article, body)
        except FetchError as error:
            return dataclasses.replace(blank, reason=self._why(unit, error), detail=error.detail)
        absent = {name: (self._why(unit, error), error.detail) for name, error in errors.items()}
        if "" in absent:
            return dataclasses.replace(blank, reason=absent[""][0], detail=absent[""][1])
        return dataclasses.replace(record, absent={**record.absent, **absent})

    def _why(self, unit: Unit, error: FetchError) -> str:
        """Return the reason that is counted for an error.

        Raises:
            AccessError: it is one that another run may not meet, and failures are not allowed.
        """
        if isinstance(error, Absent) or error.reason == TOO_LARGE:
            return error.reason
        if self._request.allow_failed:
            return FAILED
        raise AccessError(
            f"{unit.name}: {error}; what has come is kept: run the same command again, or leave such articles out with "
            "--skip-failed"
        ) from error

    async def _metadata(self, unit: Unit, article: str, version: int) -> tuple[str, bytes]:
        known = self._store.metadata(article, version)
        if known and known[0] == unit.version:
            self._http.traffic.reused += 1
            return known
        return await metadata(article, version, self._store, self._http, self._service.endpoint)

    async def _files(self, blank: Record, article: str, body: bytes) -> tuple[Record, dict[str, FetchError]]:
        """Fetch an article's files; return its record, and the errors by name of the medium ("": the XML)."""
        try:
            said = protocol.read_metadata(body, article, blank.version)
        except protocol.Damaged as error:
            return dataclasses.replace(blank, reason="metadata damaged", detail=str(error)), {}
        why = refusal(said, self._request.license)
        if why is None and said.xml is None:
            why = "no xml", "the metadata names none"
        if why or said.xml is None:
            return dataclasses.replace(blank, reason=why[0] if why else "", detail=why[1] if why else ""), {}
        failed = await self._object(said.xml, MAX_XML_BYTES)
        if failed:
            return blank, {"": failed}
        async with self._parsing:
            names = await asyncio.to_thread(self._wanted, said, said.xml.md5)
        results = await all_of(self._object(said.media[name], MAX_MEMBER_BYTES) for name in names)
        errors = {name: error for name, error in zip(names, results, strict=True) if error}
        others = dict.fromkeys(sorted(said.media.keys() - set(names)), (NOT_ADMITTED, ""))
        record = dataclasses.replace(
            blank,
            license_code=said.license_code,
            xml=(said.xml.name, said.xml.md5),
            media={name: said.media[name].md5 for name in names if name not in errors},
            absent={**others, **{name: ("object refused", what) for name, what in said.refused.items()}},
        )
        return record, errors

    def _wanted(self, said: protocol.Metadata, md5: str) -> list[str]:
        from medvlm.data.sources.pmc import reader

        data = self._store.read_object(md5)
        if data is None:
            raise AccessError(f"{self._store.object(md5)} is damaged; run the same command again to fetch it anew")
        request = self._request
        return reader.wanted(data, sorted(said.media), request.license, request.options, said.license_code)

    async def _object(self, remote: protocol.Remote, cap: int) -> FetchError | None:
        """Have one object in the store; return the error where it cannot be."""
        async with self._on_the_way[remote.md5]:
            if self._store.holds(remote.md5):
                self._http.traffic.reused += 1
                return None
            url = protocol.object_url(self._service.endpoint, remote.key)
            try:
                await self._http.download(url, self._store.object(remote.md5), remote.md5, cap)
            except FetchError as error:
                return error
        return None


def _has_failed(record: Record) -> bool:
    return record.reason == FAILED or any(reason == FAILED for reason, _ in record.absent.values())
