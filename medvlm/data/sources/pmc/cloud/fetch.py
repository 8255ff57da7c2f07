"""What a chunk of articles needs, fetched into the store: metadata, then the XML, then the images that will be used.

An article that its metadata excludes costs one small file, one that its license excludes no image. Where metadata and
XML disagree on the license the stricter holds: what the metadata's code forbids is not fetched at all, and the XML
decides on the images of the rest. A code of an unknown license, or none, leaves the decision to the XML, which is
small. PMC's codes tell no version, so a policy of SPDX ids is asked by the family here and by the XML to the letter.

A version without its metadata, or whose XML is no article, gives way to the one before it, and a picture's file that is
missing or cannot be decoded to its next form, as when articles are read from a folder.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Mapping, Sequence, Set

from medvlm.data.sources.base import Unit
from medvlm.data.sources.pmc.cloud import eutils, protocol
from medvlm.data.sources.pmc.cloud.http import (
    TOO_LARGE,
    Absent,
    FetchError,
    Http,
    Postponed,
    Refused,
    Traffic,
)
from medvlm.data.sources.pmc.cloud.plan import CAME_SINCE
from medvlm.data.sources.pmc.cloud.planning import Service, all_of, kept, listed, metadata
from medvlm.data.sources.pmc.cloud.store import Record, Store
from medvlm.data.sources.pmc.options import PmcOptions
from medvlm.data.sources.pmc.packages import MAX_MEMBER_BYTES
from medvlm.data.sources.pmc.xml import MAX_XML_BYTES, XmlError
from medvlm.errors import AccessError
from medvlm.licenses.expressions import commercial_use
from medvlm.licenses.policy import admit, parse_policy

FAILED = "fetch failed"
MISSING = "object missing"
MANY_LOST = 8
"""So many articles that failed or are missing, and none that came since the run began, are no longer counted."""
LOST_IN_A_ROW = 100
"""The same where some came before: the server has gone meanwhile."""
_CAME = "came"
"""The line of the tally that a piece of work leaves in which an article came, in place of the names of those lost."""
NOT_ADMITTED = "license not admitted"


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What decides which files of an article are needed."""

    key: str
    """Names the records of this request in the store."""
    license: str
    options: PmcOptions
    allow_failed: bool
    lists: Mapping[str, str]
    """Names, within the store, of the run's lists (`PlanFile.lists`)."""
    named: frozenset[str] = frozenset()
    """Articles whose version was asked for ("PMC1.2"): no other one is taken."""


def record_key(key: str, unit: Unit, named: Set[str]) -> str:
    """Return what names an article's record in the store: a version that was asked for gives way to no other one."""
    return f"{key}-named" if ".".join(unit.locator) in named else key


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
        AccessError: an article cannot be fetched (unless such are allowed), or none in a row; what came is kept.
    """
    async with Http(service.concurrency, service.retries, traffic=traffic) as http:
        worker = _Worker(request, store, service, http)
        await all_of(worker.settle(unit) for unit in units)
    tally = request.lists["tally"]
    if worker.came:
        store.append(tally, _CAME + "\n")
    elif worker.lost:
        store.append(tally, "".join(f"{name}\n" for name in worker.lost))
    if lost := _lost_in_a_row(store, tally):
        # The next run is to judge the server anew.
        store.forget(tally)
        raise AccessError(
            f"{service.endpoint}: none of the last {lost} articles asked for came, so the server fails; run the same "
            "command again later"
        )
    # Only now is it sure that the chunk is done without them.
    for name, lines in worker.notes.items():
        for line in lines:
            store.append(request.lists[name], line)


def _lost_in_a_row(store: Store, tally: str) -> int:
    """Return how many articles of the run were lost since the last one that came, 0 where these are few.

    One that was tried several times (a chunk is begun anew where its worker was killed) is one.
    """
    lines, none_came = store.tail(tally)
    lost = set()
    for line in reversed(lines):
        if line == _CAME:
            none_came = False
            break
        lost.add(line)
    return len(lost) if len(lost) >= (MANY_LOST if none_came else LOST_IN_A_ROW) else 0


class _Unusable(Exception):
    """A version of an article cannot be read. `record` is what there is of it."""

    def __init__(self, record: Record, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.record = record
        self.told = (record.version, reason, detail)


@dataclasses.dataclass(slots=True)
class _Found:
    """What came of one version of an article."""

    record: Record
    errors: dict[str, FetchError] = dataclasses.field(default_factory=dict)
    """By name of the medium; "": the XML."""
    unreadable: XmlError | None = None


class _Worker:
    """Fetches articles side by side; two that share an object wait for one download."""

    def __init__(self, request: Request, store: Store, service: Service, http: Http) -> None:
        self._request = request
        self._store = store
        self._service = service
        self._http = http
        self.came = False
        """Whether the XML of an article came."""
        self.lost: list[str] = []
        """Articles whose metadata or XML failed or is missing; what metadata excludes is neither."""
        self.notes: dict[str, list[str]] = {"failed": [], "missing": []}
        """Lines for the run's lists."""
        self._articles = asyncio.Semaphore(service.concurrency)
        # An article may be large, and its tree many times as large.
        self._parsing = asyncio.Semaphore(2)
        self._on_the_way: dict[str, asyncio.Lock] = collections.defaultdict(asyncio.Lock)

    async def settle(self, unit: Unit) -> None:
        """Make the store ready for reading one article."""
        if self._settled(unit):
            self._http.traffic.reused += 1
            return
        before = self._store.record(self._key(unit), unit.name, unit.version)
        async with self._articles:
            record = await self._record(unit)
        if record.xml[1]:
            self.came = True
        elif record.reason in (FAILED, MISSING):
            self.lost.append(unit.name)
        if _has_failed(record):
            self.notes["failed"].append(f"{unit.name}\n")
        elif before and _has_failed(before):
            self.notes["failed"].append(f"{CAME_SINCE}{unit.name}\n")
        self.notes["missing"] += [f"{unit.name}\t{unit.version}\t{url}\n" for url in record.missing]
        self._store.put_record(self._key(unit), unit.name, record)

    def _key(self, unit: Unit) -> str:
        return record_key(self._request.key, unit, self._request.named)

    def _settled(self, unit: Unit) -> bool:
        record = self._store.record(self._key(unit), unit.name, unit.version)
        if record is None or not unit.version or record.missing or _has_failed(record):
            return False
        needed = [md5 for md5 in (record.xml[1], *record.media.values()) if md5]
        return all(self._store.holds(md5) for md5 in needed)

    async def _record(self, unit: Unit) -> Record:
        """Return what the newest version gives that can be used, or why there is none."""
        blank = Record(unit.version, version=int(unit.locator[1]))
        if not blank.version:
            return dataclasses.replace(blank, reason="article not found", detail="not in the PMC Cloud Service")
        try:
            try:
                return await self._version(unit, blank)
            except _Unusable as error:
                return await self._older(unit, error)
        except FetchError as error:
            return dataclasses.replace(blank, reason=self._why(unit, error), detail=error.detail)

    async def _older(self, unit: Unit, newest: _Unusable) -> Record:
        """Return what the next version gives that can be used, else what there is of the newest."""
        passed, missing = [newest.told], [*newest.record.missing]
        for version in await self._versions_before(unit.name, newest.record.version):
            try:
                record = await self._version(unit, Record(unit.version, version=version))
            except _Unusable as error:
                passed.append(error.told)
                missing += error.record.missing
            else:
                return dataclasses.replace(record, passed=tuple(passed), missing=(*missing, *record.missing))
        return newest.record

    async def _versions_before(self, article: str, version: int) -> list[int]:
        """Return the older versions that the service lists, the newest first; none where one was named.

        Raises:
            FetchError: they cannot be had now, so that nothing is known of them.
        """
        if version <= 1 or f"{article}.{version}" in self._request.named:
            return []
        try:
            return [older for older in await listed(article, self._http, self._service.endpoint) if older < version]
        except Absent:  # a mirror may list nothing
            return []
        except protocol.Damaged as error:
            raise Refused(FAILED, self._service.endpoint, f"the listing of {article}: {error}") from error

    async def _version(self, unit: Unit, blank: Record) -> Record:
        """Fetch what one version of an article needs.

        Raises:
            FetchError: it cannot be had.
            _Unusable: the service lacks its metadata or XML, or the XML is no article.
        """
        try:
            etag, body = await self._metadata(unit, blank.version)
            found = await self._files(blank, unit.name, body)
            if found.errors or found.unreadable:
                # The article may have changed since the plan was made: then its files are those of the new metadata.
                newer, body = await self._asked(unit.name, blank.version)
                if newer != etag:
                    found = await self._files(blank, unit.name, body)
        except Absent as error:
            raise _missing(blank, "metadata", error) from error
        if isinstance(failed := found.errors.get(""), Absent):
            raise _missing(blank, "xml", failed)
        if failed:
            raise failed
        absent = {name: (self._why(unit, error), error.detail) for name, error in found.errors.items()}
        missing = sorted({error.url for error in found.errors.values() if isinstance(error, Absent)})
        record = dataclasses.replace(found.record, absent={**found.record.absent, **absent}, missing=tuple(missing))
        if found.unreadable:
            raise _Unusable(record, found.unreadable.reason, found.unreadable.detail)
        return record

    def _why(self, unit: Unit, error: FetchError) -> str:
        """Return the reason that is counted for an error.

        Raises:
            AccessError: it is one that another run may not meet, and failures are not allowed.
        """
        if isinstance(error, Absent) or error.reason == TOO_LARGE:
            return error.reason
        if isinstance(error, Postponed):
            raise AccessError(
                f"{unit.name}: {error}; what has come is kept: run the same command again then"
            ) from error
        if self._request.allow_failed:
            return FAILED
        raise AccessError(
            f"{unit.name}: {error}; what has come is kept: run the same command again, or leave such articles out with "
            "--skip-failed"
        ) from error

    async def _metadata(self, unit: Unit, version: int) -> tuple[str, bytes]:
        known = kept(unit.name, version, self._store)
        if known and known[0] == unit.version:
            self._http.traffic.reused += 1
            return known
        return await self._asked(unit.name, version)

    async def _asked(self, article: str, version: int) -> tuple[str, bytes]:
        return await metadata(article, version, self._store, self._http, self._service.endpoint)

    async def _files(self, blank: Record, article: str, body: bytes) -> _Found:
        """Fetch an article's files."""
        try:
            said = protocol.read_metadata(body, article, blank.version)
        except protocol.Damaged as error:
            return _Found(dataclasses.replace(blank, reason="metadata damaged", detail=str(error)))
        why = refusal(said, self._request.license)
        if why is None and said.xml is None:
            why = "no xml", "the metadata names none"
        if why or said.xml is None:
            return _Found(dataclasses.replace(blank, reason=why[0] if why else "", detail=why[1] if why else ""))
        if failed := await self._object(said.xml, MAX_XML_BYTES):
            return _Found(blank, {"": failed})
        record = dataclasses.replace(blank, license_code=said.license_code, xml=(said.xml.name, said.xml.md5))
        try:
            async with self._parsing:
                wanted = await asyncio.to_thread(self._wanted, said, article, said.xml.md5)
        except XmlError as error:
            return _Found(record, unreadable=error)
        tried: dict[str, FetchError | None] = {}
        for one in await all_of(self._picture(said, names) for names in wanted):
            tried.update(one)
        others = dict.fromkeys(sorted(said.media.keys() - tried.keys()), (NOT_ADMITTED, ""))
        record = dataclasses.replace(
            record,
            media={name: said.media[name].md5 for name, error in tried.items() if not error},
            absent={**others, **{name: ("object refused", what) for name, what in said.refused.items()}},
        )
        return _Found(record, {name: error for name, error in tried.items() if error})

    def _wanted(self, said: protocol.Metadata, article: str, md5: str) -> list[list[str]]:
        from medvlm.data.sources.pmc import reader

        asked, names = self._request, sorted(said.media)
        return reader.wanted_forms(self._held(md5), names, asked.license, asked.options, said.license_code, article)

    def _held(self, md5: str) -> bytes:
        data = self._store.read_object(md5)
        if data is None:
            raise AccessError(f"{self._store.object(md5)} is damaged; run the same command again to fetch it anew")
        return data

    async def _picture(self, said: protocol.Metadata, names: list[str]) -> dict[str, FetchError | None]:
        """Fetch a picture's forms until one is whole; return those that were tried, each with its error."""
        tried: dict[str, FetchError | None] = {}
        for name in names:
            error = tried[name] = await self._object(said.media[name], MAX_MEMBER_BYTES)
            if error and not (isinstance(error, Absent) or error.reason == TOO_LARGE):
                break  # it may come yet
            if not error and (name == names[-1] or await self._decodes(said.media[name].md5)):
                break
        return tried

    async def _decodes(self, md5: str) -> bool:
        from medvlm.data.look import PictureError, examine

        async with self._parsing:
            try:
                await asyncio.to_thread(lambda: examine(self._held(md5)))
            except PictureError:
                return False
        return True

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


def _missing(blank: Record, what: str, error: Absent) -> _Unusable:
    record = dataclasses.replace(blank, reason=MISSING, detail=error.detail, missing=(error.url,))
    return _Unusable(record, MISSING, f"{what}: {error.detail}")


def _has_failed(record: Record) -> bool:
    return record.reason == FAILED or any(reason == FAILED for reason, _ in record.absent.values())
