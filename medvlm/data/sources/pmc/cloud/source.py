"""`CloudSource`: articles of the PMC Cloud Service as units, fetched a chunk at a time and read from the store."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import urllib.parse
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2

from medvlm import __version__
from medvlm.data.sample import Credit, Reject, Sample
from medvlm.data.sources.base import Unit
from medvlm.data.sources.pmc import reader
from medvlm.data.sources.pmc.cloud import eutils
from medvlm.data.sources.pmc.cloud.fetch import NOT_ADMITTED, Request, fetch, record_key
from medvlm.data.sources.pmc.cloud.http import Retries, Traffic
from medvlm.data.sources.pmc.cloud.plan import MAX_IDLE_DAYS, PlanFile, PlannedUnits
from medvlm.data.sources.pmc.cloud.planning import Planner, Service
from medvlm.data.sources.pmc.cloud.selection import Selection
from medvlm.data.sources.pmc.cloud.store import Record, Store
from medvlm.data.sources.pmc.options import PmcOptions
from medvlm.data.sources.pmc.packages import Package, PackageError, printable
from medvlm.data.sources.pmc.rights import metadata_rights
from medvlm.errors import AccessError, UsageError
from medvlm.io import stable_hash
from medvlm.licenses.policy import parse_policy

DEFAULT_ENDPOINT = "https://pmc-oa-opendata.s3.amazonaws.com"
DEFAULT_EUTILS = "https://eutils.ncbi.nlm.nih.gov/entrez/eutils"
PATIENT = Retries()


class CloudSource:
    """Articles of PMC open access, chosen by id, by a search, or all.

    Which articles in which versions is planned once and holds until `complete`, so that a run that is stopped goes on
    with the same articles; a plan that no run has used for `MAX_IDLE_DAYS` is made anew, as articles may have been
    retracted since. Picklable; processes that share `store` share the plan and all that has been fetched.

    Args:
        selection: which articles.
        store: the folder for what is fetched.
        endpoint: the server with the bucket's objects.
        eutils: the server with the search.
        options: what is made of the figures; `limit` is of the plan, articles that are left out later included.
        license: the policy; only what it may admit is fetched.
        concurrency: requests at a time, of each process.
        api_key: NCBI's, for 10 searches a second in place of 3.
        allow_failed: count what cannot be fetched as "fetch failed" and go on.
        retries: how patiently.

    Raises:
        UsageError: a server is no http address.
    """

    name = "pmc"

    def __init__(
        self,
        selection: Selection,
        store: Path,
        *,
        endpoint: str = DEFAULT_ENDPOINT,
        eutils: str = DEFAULT_EUTILS,
        options: PmcOptions,
        license: str,
        concurrency: int = 16,
        api_key: str | None = None,
        allow_failed: bool = False,
        retries: Retries = PATIENT,
    ) -> None:
        self.selection = selection
        self.options = options
        self.license = license
        self.allow_failed = allow_failed
        servers = _address("--endpoint", endpoint), _address("--eutils", eutils)
        self.service = Service(*servers, concurrency, retries, api_key)
        self.store = Store(Path(store))
        self._named = frozenset(name for name in selection.ids if "." in name)
        self._begun = False
        self._renewed = ""
        self.traffic: dict[str, float] = dict.fromkeys(dataclasses.asdict(Traffic()), 0)
        """Requests, retries, bytes, objects, reused and seconds of this process; `store.traffic()` has all."""

    @property
    def lineage(self) -> str:
        """The hash of what is asked for; the server's state and address do not belong to it."""
        return self.selection.lineage()

    def describe(self) -> list[dict[str, Any]]:
        """Return the plan: where it is from, how many articles, its hash and size. It is made if there is none.

        Raises:
            AccessError: the service cannot be reached.
            InputError: a search finds nothing.
            UsageError: a search or the license policy cannot be understood.
        """
        facts = self._planned().facts()
        chosen = {"path": self.service.endpoint, "selection": self.selection.describe()}
        return [{**chosen, **{name: facts[name] for name in ("articles", "sha256", "bytes")}}]

    def units(self) -> PlannedUnits:
        """Return one unit for each article of the plan, sorted by name; they are read from disk as they are used.

        Raises:
            As `describe`.
        """
        return self._planned().units()

    def notes(self) -> list[str]:
        """Return what a person should know of the plan and of articles that did not come."""
        file = self._planned()
        facts, failed, missing = file.facts(), len(file.failed()), len({miss.article for miss in file.missing()})
        told = [self._renewed]
        if ignored := facts.get("ignored"):
            told.append(f"the search knows no {', '.join(ignored)}; it was made without them")
        if failed:
            told.append(
                f"{failed} of {facts['articles']} articles, or files of them, could not be fetched and are left out; "
                "run the same command again to fetch them"
            )
        if missing:
            told.append(
                f"{missing} of {facts['articles']} articles name files that the service does not have (HTTP 404); run "
                "the same command again later: it asks for them anew"
            )
        return [note for note in told if note]

    def planned(self) -> bool:
        """Tell whether an earlier run has left its plan, which this one goes on with."""
        return self._usable(self._plan_file())

    def complete(self) -> None:
        """Forget the plan, as its data set is finished: the next run asks the service anew for what has changed."""
        self._plan_file().drop()
        self._begun = False

    def prefetch(self, units: Sequence[Unit]) -> None:
        """Fetch what the units need and the store does not hold.

        Raises:
            AccessError: an article cannot be fetched (unless failures are allowed).
        """
        file = self._plan_file()
        file.used()
        key, lists = self._request_key(), file.lists
        request = Request(key, self.license, self.options, self.allow_failed, lists, self._named)
        traffic = Traffic()
        self._counted("fetch", traffic, fetch(units, request, self.store, self.service, traffic))

    def _counted(self, phase: str, traffic: Traffic, work: Coroutine[Any, Any, None]) -> None:
        """Do work on the network and count it, whether it succeeds or not."""
        try:
            asyncio.run(work)
        finally:
            self.store.log(phase, traffic)
            for name, value in dataclasses.asdict(traffic).items():
                self.traffic[name] += value

    def read(self, unit: Unit) -> Iterator[Sample | Reject | Credit]:
        """Yield what one article holds, from the store alone.

        Raises:
            AccessError: the store lacks what `prefetch` put there.
        """
        article = unit.locator[0]
        record = self.store.record(record_key(self._request_key(), unit, self._named), article, unit.version)
        if record is None or record.planned != unit.version:
            raise AccessError(f"{unit.name} is not in {self.store.root}; run the same command again to fetch it")
        for version, reason, detail in record.passed:
            yield Reject(self.name, f"{article}.{version}", "version unusable", printable(f"{reason}: {detail}"))
        if record.reason:
            yield Reject(self.name, unit.name, record.reason, printable(record.detail))
            return
        package = _StoredPackage(f"{article}.{record.version}", record, self.store)
        rights = metadata_rights(record.license_code)
        name = record.xml[0]
        yield from reader.read_xml(package, name, self.name, set(), self.options, rights, self.license, article)

    def card(self) -> dict[str, Any]:
        """Return the facts for the dataset card."""
        from medvlm.data.sources.pmc.source import PmcSource

        facts = PmcSource([]).card()
        problems = [
            "An article whose license PMC's metadata and its XML state differently counts under the stricter of them.",
            *facts["known_problems"],
        ]
        return {**facts, "known_problems": problems}

    def _plan_file(self) -> PlanFile:
        key = stable_hash([self.lineage, self.service.endpoint, self._term(), self.options.limit])[:16]
        return PlanFile(self.store.root / "plans", key)

    def _planned(self) -> PlanFile:
        """Return the finished plan; one process makes it, the others wait."""
        parse_policy(self.license)
        file = self._plan_file()
        if not self._usable(file):
            with file.locked():
                if not self._usable(file):
                    self._plan(file)
        self._begun = True
        return file

    def _usable(self, file: PlanFile) -> bool:
        """Tell whether there is a plan to go on with; a run that has begun goes on with its own, however old."""
        return file.sound() and (self._begun or file.idle_days() < MAX_IDLE_DAYS)

    def _plan(self, file: PlanFile) -> None:
        """Make the plan; the caller holds its lock."""
        if (days := file.idle_days()) >= MAX_IDLE_DAYS:
            self._renewed = f"the plan of the run that was stopped is {days:.0f} days old; a new one was made"
        file.clear_finished()
        traffic = Traffic()
        term, limit = self._term(), self.options.limit
        planner = Planner(self.selection, term, limit, file, self.store, self.service, traffic, self.allow_failed)
        self._counted("plan", traffic, planner.make())

    def _term(self) -> str:
        query = self.selection.query
        return eutils.filtered(query, self.license, self.options.since) if query else ""

    def _request_key(self) -> str:
        allowed = parse_policy(self.license)
        policy = allowed if isinstance(allowed, str) else sorted(allowed)
        # Another release may want other files of the same article.
        return stable_hash([__version__, policy, self.options.as_json()])[:16]


def _address(option: str, text: str) -> str:
    try:
        parts = urllib.parse.urlsplit(text)
        httpx2.URL(text)
        host = (parts.hostname or "").encode("idna")  # as it is looked up
        sound = parts.scheme in ("http", "https") and host and parts.port != 0 and not re.search(r"\s", text)
    except (ValueError, httpx2.InvalidURL):
        sound = False
    if not sound or parts.query or parts.fragment:
        raise UsageError(f'{option} "{text[:200]}" is no address of a server; give one like {DEFAULT_ENDPOINT}')
    return text.rstrip("/")


class _StoredPackage(Package):
    """The files of one article in the store; media that were not fetched are names that cannot be read."""

    def __init__(self, name: str, record: Record, store: Store) -> None:
        super().__init__(name)
        self._store = store
        self._md5 = {record.xml[0]: record.xml[1], **record.media}
        self._absent = record.absent
        self._names = sorted({*self._md5, *record.absent})

    def names(self) -> list[str]:
        return self._names

    def read(self, name: str) -> bytes:
        if name not in self._md5:
            reason, detail = self._absent.get(name, (NOT_ADMITTED, ""))
            raise PackageError(reason, printable(detail))
        data = self._store.read_object(self._md5[name])
        if data is None:
            where = self._store.object(self._md5[name])
            raise AccessError(f"{where} is damaged or gone; run the same command again to fetch it")
        return data
