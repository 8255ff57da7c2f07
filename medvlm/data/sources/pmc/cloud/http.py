"""One HTTP client for a chunk of work: connections kept alive, requests bounded, failures retried, traffic counted.

What is worth another try (timeouts, resets, short bodies, 408, 425, 429, 5xx, a wrong md5) is tried again after a
wait that doubles and is drawn at random up to its full length, or after what the server's Retry-After asks. So is
a 403, but less often: a server that is overloaded or set wrongly denies what it has. All else is final.
"""

from __future__ import annotations

import asyncio
import dataclasses
import email.utils
import functools
import hashlib
import math
import os
import random
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import httpx2
import tenacity

from medvlm import __version__
from medvlm.io import disk_errors

USER_AGENT = f"medvlm/{__version__} (data set builder)"
MAX_REDIRECTS = 5
TOO_LARGE = "object too large"

_T = TypeVar("_T")
_AGAIN = (408, 425, 429)
_ABSENT = (404, 410)
_DENIED_ATTEMPTS = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Retries:
    """How often and how patiently a request is tried again; times in seconds."""

    attempts: int = 8
    base: float = 0.5
    """The first wait is at most this long, each next one at most twice the one before."""
    longest: float = 60.0
    """No wait is longer, unless Retry-After asks for it."""
    asked: float = 600.0
    """How long Retry-After may ask to wait; a server that asks for more is left alone."""
    connect: float = 15.0
    read: float = 30.0
    """How long to wait for the next bytes."""
    whole: float = 900.0
    """How long one answer may take in all: a server that trickles is a server that hangs."""


@dataclasses.dataclass(slots=True)
class Traffic:
    """What went over the network."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0
    objects: int = 0
    """Files fetched and found whole."""
    reused: int = 0
    """Files and metadata that the store had already."""
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    body: bytes
    etag: str


class FetchError(Exception):
    """A request failed for good. `reason` is short; the text adds the address and what happened."""

    def __init__(self, reason: str, url: str, detail: str = "") -> None:
        super().__init__(f"{url}: {detail or reason}")
        self.reason = reason
        self.url = url
        self.detail = detail or reason


class Absent(FetchError):
    """The server says that there is no such object: 404, 410."""


class Refused(FetchError):
    """The answer is one that no retry mends: too large, a redirect loop, another status."""


class Postponed(FetchError):
    """The server asks to wait longer than is waited."""


class Exhausted(FetchError):
    """All attempts failed."""


class Denied(Exhausted):
    """All attempts were answered with 403."""


class Unfit(Exhausted):
    """Answers came whole, but none that was a proper one."""


class _Again(Exception):
    """This attempt failed; another one may not.

    Args:
        why: what happened.
        after: seconds that the server asks to wait.
        kind: the error that this one becomes where it is the last.
        most: no attempt after so many.
    """

    def __init__(
        self, why: str, after: float | None = None, kind: type[Exhausted] = Exhausted, most: float = math.inf
    ) -> None:
        super().__init__(why)
        self.after = after
        self.kind = kind
        self.most = most


class Http:
    """An asynchronous client; use it as a context manager within one event loop.

    Args:
        concurrency: requests at a time.
        retries: see `Retries`.
        traffic: where to count; a new one where none is given.
        follow: whether redirects are followed (a mirror may send to its own store).
        sleep: how waits are waited.
    """

    def __init__(
        self,
        concurrency: int,
        retries: Retries,
        *,
        traffic: Traffic | None = None,
        follow: bool = True,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.traffic = traffic if traffic is not None else Traffic()
        self._retries = retries
        self._sleep = sleep
        self._gate = asyncio.Semaphore(concurrency)
        self._client = httpx2.AsyncClient(
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(connect=retries.connect, read=retries.read, write=retries.read, pool=None),
            limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            follow_redirects=follow,
            max_redirects=MAX_REDIRECTS,
            verify=_certificates(),
        )

    async def __aenter__(self) -> Http:
        self._began = time.monotonic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.traffic.seconds += time.monotonic() - self._began
        await self._client.aclose()

    async def get(
        self, url: str, cap: int, etag: str = "", check: Callable[[Reply], str | None] | None = None
    ) -> Reply:
        """Return the answer to a GET; 304 where `etag` is given and still that of the object.

        Args:
            url: of the object.
            cap: more bytes are refused.
            etag: of what is known already.
            check: says why a whole answer is none and worth another try, or None.

        Raises:
            FetchError: see its kinds; `Unfit` where no answer passes the check.
        """
        headers = {"If-None-Match": f'"{etag}"'} if etag else {}

        async def attempt() -> Reply:
            async with self._client.stream("GET", url, headers=headers) as response:
                reply = await self._whole(response, url, cap)
            why = check(reply) if check and reply.status != 304 else None
            if why:
                raise _Again(why, kind=Unfit)
            return reply

        return await self._persist(attempt, url)

    async def exists(self, url: str) -> bool:
        """Tell whether the server gives an object, without reading it.

        Raises:
            FetchError: it does not say.
        """

        async def attempt() -> bool:
            async with self._client.stream("GET", url) as response:
                _judge(response, url)
            return True

        try:
            return await self._persist(attempt, url)
        except Absent:
            return False

    async def post(
        self,
        url: str,
        form: Mapping[str, str],
        cap: int,
        check: Callable[[bytes], str | None],
        turn: Callable[[], Awaitable[None]],
    ) -> bytes:
        """Return the answer to a form.

        Args:
            check: says why an answer is worth another try, or None.
            turn: waited for before each attempt: a service may allow only so many requests a second.

        Raises:
            FetchError: as `get`.
        """

        async def attempt() -> bytes:
            await turn()
            async with self._client.stream("POST", url, data=dict(form)) as response:
                reply = await self._whole(response, url, cap)
            why = check(reply.body)
            if why:
                raise _Again(why)
            return reply.body

        return await self._persist(attempt, url)

    async def download(self, url: str, target: Path, md5: str, cap: int) -> int:
        """Fetch a file to `target`, whole and with the given md5 ("": none known) or not at all; return its size.

        Raises:
            FetchError: as `get`; `Exhausted` too where the md5 stays wrong.
            ResourceError: the disk is full.
        """

        async def attempt() -> int:
            async with self._client.stream("GET", url) as response:
                return await self._save(response, url, target, md5, cap)

        with disk_errors(target):
            size = await self._persist(attempt, url)
        self.traffic.objects += 1
        return size

    async def _save(self, response: httpx2.Response, url: str, target: Path, md5: str, cap: int) -> int:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".part-", dir=target.parent)
        digest, size = hashlib.md5(usedforsecurity=False), 0
        try:
            with open(handle, "wb") as file:
                async for block in self._blocks(response, url, cap):
                    digest.update(block)
                    file.write(block)
                    size += len(block)
            if md5 and digest.hexdigest() != md5:
                raise _Again(f"md5 is {digest.hexdigest()}, not {md5}")
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return size

    async def _whole(self, response: httpx2.Response, url: str, cap: int) -> Reply:
        body = b"".join([block async for block in self._blocks(response, url, cap)])
        return Reply(response.status_code, body, response.headers.get("ETag", ""))

    async def _blocks(self, response: httpx2.Response, url: str, cap: int) -> AsyncIterator[bytes]:
        """Yield the body as it was sent, its length checked against the header's and the cap."""
        _judge(response, url)
        told = response.headers.get("Content-Length", "")
        expected = int(told) if told.isdecimal() else None
        if expected is not None and expected > cap:
            raise Refused(TOO_LARGE, url, f"{expected} bytes; at most {cap} are taken")
        size = 0
        async for block in response.aiter_raw():
            size += len(block)
            self.traffic.bytes += len(block)
            if size > cap:
                raise Refused(TOO_LARGE, url, f"more than {cap} bytes")
            yield block
        if expected is not None and size != expected and response.status_code != 304:
            raise _Again(f"{size} of {expected} bytes came")

    async def _persist(self, attempt: Callable[[], Awaitable[_T]], url: str) -> _T:
        """Make attempts until one succeeds, fails for good, or they are used up."""

        async def once() -> _T:
            async with self._gate:
                self.traffic.requests += 1
                try:
                    async with asyncio.timeout(self._retries.whole):
                        return await attempt()
                except _Again as error:
                    if error.after is not None and error.after > self._retries.asked:
                        most = self._retries.asked
                        said = f"{error}: the server asks to wait {error.after:.0f} s, {most:.0f} s are the most"
                        raise Postponed("fetch failed", url, said) from error
                    raise
                except httpx2.TooManyRedirects as error:
                    raise Refused("redirect loop", url, str(error)) from error
                except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
                    raise Refused("bad address", url, str(error)) from error
                except TimeoutError as error:
                    raise _Again(f"not whole after {self._retries.whole:g} s") from error
                except httpx2.HTTPError as error:
                    raise _Again(f"{type(error).__name__} {error}".strip()) from error

        retrying = tenacity.AsyncRetrying(
            sleep=self._sleep,
            stop=self._enough,
            wait=self._wait,
            retry=tenacity.retry_if_exception_type(_Again),
            before_sleep=self._count,
            reraise=True,
        )
        try:
            return await retrying(once)
        except _Again as error:
            attempts = retrying.statistics["attempt_number"]
            raise error.kind("fetch failed", url, f"{error} ({attempts} attempts)") from error

    def _enough(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        return state.attempt_number >= min(self._retries.attempts, error.most if isinstance(error, _Again) else 1)

    def _count(self, state: tenacity.RetryCallState) -> None:
        self.traffic.retries += 1

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.after if isinstance(error, _Again) else None
        longest = self._retries.longest
        if asked is not None:
            # A little later than asked, and not all at once.
            return asked + random.uniform(0, self._retries.base)
        return random.uniform(0, min(longest, self._retries.base * 2 ** (state.attempt_number - 1)))


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Return what all clients trust; to load it takes longer than to fetch a small file."""
    return httpx2.create_ssl_context()


def _judge(response: httpx2.Response, url: str) -> None:
    """Raise what an answer's status means, unless it is a success or 304."""
    status = response.status_code
    if status in (200, 304):
        return
    if status in _ABSENT:
        raise Absent("object missing", url, f"HTTP {status}")
    if status == 403:
        raise _Again("HTTP 403", kind=Denied, most=_DENIED_ATTEMPTS)
    if status in _AGAIN or status >= 500:
        raise _Again(f"HTTP {status}", retry_after(response.headers.get("Retry-After"), time.time()))
    raise Refused("unexpected answer", url, f"HTTP {status}")


def retry_after(header: str | None, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number, or a date; None where it says nothing usable."""
    text = (header or "").strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
