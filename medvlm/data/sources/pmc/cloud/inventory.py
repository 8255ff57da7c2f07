"""The daily inventory of the bucket as (article, version, ETag), streamed: eight million rows never lie in memory."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from medvlm.data.sources.pmc.cloud import protocol
from medvlm.data.sources.pmc.cloud.http import FetchError, Http
from medvlm.errors import AccessError

MAX_ANSWER_BYTES = 16 << 20
MAX_FILE_BYTES = 8 << 30
"""One gzipped CSV; all of them were some 0.4 GB in 2026."""


async def fetch(http: Http, endpoint: str, folder: Path) -> tuple[str, tuple[int, int], list[Path]]:
    """Fetch the newest inventory's files to `folder`; those that lie there already are taken as they are.

    Returns:
        The manifest's key, the columns of Key and ETag, and the files.

    Raises:
        AccessError: the inventory cannot be had, or is none.
    """
    try:
        prefix = protocol.newest_inventory(await list_prefixes(http, endpoint, protocol.INVENTORY))
        key = f"{prefix}manifest.json"
        reply = await http.get(protocol.object_url(endpoint, key), MAX_ANSWER_BYTES)
        files, columns = protocol.read_manifest(reply.body)
        paths = []
        for number, (name, md5) in enumerate(files):
            path = folder / f"{prefix.rstrip('/').rpartition('/')[2]}-{number:05d}.csv.gz"
            if not path.exists():
                await http.download(protocol.object_url(endpoint, name), path, md5, MAX_FILE_BYTES)
            paths.append(path)
    except (FetchError, protocol.Damaged) as error:
        raise AccessError(f"the inventory of {endpoint} cannot be had: {error}; try again later") from error
    return key, columns, paths


async def list_prefixes(http: Http, endpoint: str, prefix: str) -> list[str]:
    """Return all prefixes below a prefix, of all pages of the listing.

    Raises:
        FetchError: the listing cannot be had.
        protocol.Damaged: it is none, or its pages go round in a circle.
    """
    found: list[str] = []
    tokens = {""}
    token = ""
    while True:
        reply = await http.get(protocol.listing_url(endpoint, prefix, token), MAX_ANSWER_BYTES)
        prefixes, token = protocol.read_listing(reply.body)
        found += prefixes
        if not token:
            return found
        if token in tokens:
            raise protocol.Damaged("the pages of the listing go round in a circle")
        tokens.add(token)


def rows(path: Path, columns: tuple[int, int]) -> Iterator[tuple[str, int, str]]:
    """Yield (article, version, ETag) of one gzipped CSV without a header.

    Raises:
        AccessError: the file is damaged; it is removed, so that the next run fetches it anew.
    """
    try:
        with gzip.open(path, "rb") as packed, io.TextIOWrapper(packed, encoding="utf-8", newline="") as text:
            yield from protocol.read_rows(csv.reader(text), columns)
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        path.unlink(missing_ok=True)
        raise AccessError(f"{path}: the inventory is damaged ({error}); run the same command again") from error
