"""What the PMC Cloud Service says: its addresses, listings, metadata and inventory manifest. Knows nothing of HTTP.

Described in PMC's pages on its article data sets; keys, null values and namespaces as its answers of 2026 have them.
"""

from __future__ import annotations

import dataclasses
import json
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

from lxml import etree

BUCKET = "pmc-oa-opendata"
INVENTORY = f"inventory-reports/{BUCKET}/metadata/"
MAX_MEDIA = 10_000
"""Media files of one article; the largest have some hundred."""

_ADDRESS = re.compile(r"s3://([^/]+)/(.+)\?md5=([0-9a-f]{32})", re.DOTALL | re.IGNORECASE)
_INVENTORY_DAY = re.compile(re.escape(INVENTORY) + r"(\d{4}-\d\d-\d\dT\d\d-\d\dZ)/")
_METADATA_KEY = re.compile(r"metadata/(PMC[1-9]\d{0,11})\.([1-9]\d{0,5})\.json")


class Damaged(Exception):
    """An answer is not what the service promises; the text says in what."""


@dataclasses.dataclass(frozen=True, slots=True)
class Remote:
    """One object of the bucket that metadata names."""

    name: str
    """Its base name, free of slashes and control characters."""
    key: str
    md5: str


@dataclasses.dataclass(frozen=True, slots=True)
class Metadata:
    """What one `metadata/PMC<id>.<v>.json` says of an article."""

    open_access: bool
    retracted: bool
    historical_ocr: bool
    license_code: str | None
    xml: Remote | None
    media: dict[str, Remote]
    refused: dict[str, str]
    """Media that are not to be fetched: name -> what is wrong with its address."""


def metadata_key(article: str, version: int) -> str:
    """Return where the metadata of one version lies."""
    return f"metadata/{article}.{version}.json"


def object_url(endpoint: str, key: str) -> str:
    """Return the address of an object; all but letters, digits and `-._~/` is percent-encoded."""
    return f"{endpoint.rstrip('/')}/{urllib.parse.quote(key)}"


def listing_url(endpoint: str, prefix: str, token: str = "") -> str:
    """Return the address that lists what lies under a prefix (S3's ListObjectsV2); `token` continues a listing."""
    query = {"list-type": "2", "prefix": prefix, "delimiter": "/"}
    if token:
        query["continuation-token"] = token
    return f"{endpoint.rstrip('/')}/?{urllib.parse.urlencode(query)}"


def read_listing(body: bytes) -> tuple[list[str], str]:
    """Return the prefixes of a listing, and the token of its next page ("" on the last).

    Raises:
        Damaged: it is no listing, or it is cut short without saying how to go on.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(body, parser)
    except (etree.LxmlError, ValueError) as error:
        raise Damaged(f"the listing is not XML: {error}") from error
    if etree.QName(root).localname != "ListBucketResult":
        raise Damaged(f"the listing is a <{etree.QName(root).localname}>")
    prefixes = [element.text or "" for element in root.iterfind("{*}CommonPrefixes/{*}Prefix")]
    if (root.findtext("{*}IsTruncated") or "").strip() != "true":
        return prefixes, ""
    token = root.findtext("{*}NextContinuationToken") or ""
    if not token:
        raise Damaged("the listing is cut short and names no continuation token")
    return prefixes, token


def versions_in(prefixes: list[str], article: str) -> list[int]:
    """Return the versions of an article among the prefixes of a listing ("PMC123.2/"), ascending."""
    form = re.compile(re.escape(article) + r"\.([1-9]\d{0,5})/")
    return sorted(int(match[1]) for prefix in prefixes if (match := form.fullmatch(prefix)))


def newest_inventory(prefixes: list[str]) -> str:
    """Return the prefix of the latest dated inventory.

    Raises:
        Damaged: there is none.
    """
    days = [prefix for prefix in prefixes if _INVENTORY_DAY.fullmatch(prefix)]
    if not days:
        raise Damaged("no dated inventory is listed")
    return max(days)


def read_manifest(body: bytes) -> tuple[list[tuple[str, str]], tuple[int, int]]:
    """Return the data files of an inventory as (key, md5), and the columns of Key and ETag in them.

    Raises:
        Damaged: it is no manifest of a gzipped CSV inventory of this bucket.
    """
    manifest = _json_object(body, "the inventory's manifest")
    columns = [name.strip().lower() for name in str(manifest.get("fileSchema", "")).split(",")]
    if manifest.get("fileFormat", "CSV") != "CSV" or "key" not in columns or "etag" not in columns:
        raise Damaged("the inventory's manifest names no CSV files with Key and ETag")
    listed = manifest.get("files")
    files = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    if not files or not all(_is_key(entry.get("key")) for entry in files):
        raise Damaged("the inventory's manifest names no files")
    sums = [(str(entry["key"]), str(entry.get("MD5checksum") or "").lower()) for entry in files]
    return sums, (columns.index("key"), columns.index("etag"))


def _is_key(key: Any) -> bool:
    return isinstance(key, str) and key.startswith("inventory-reports/") and ".." not in key.split("/")


def read_rows(rows: Iterator[list[str]], columns: tuple[int, int]) -> Iterator[tuple[str, int, str]]:
    """Yield (article, version, ETag) of an inventory's rows; rows of other objects are passed over."""
    key, etag = columns
    for row in rows:
        if len(row) > max(columns) and (match := _METADATA_KEY.fullmatch(urllib.parse.unquote(row[key]))):
            yield match[1], int(match[2]), bare_etag(row[etag])


def bare_etag(header: str | None) -> str:
    """Return an ETag as the inventory writes it: without quotes and weakness."""
    return (header or "").strip().removeprefix("W/").strip('"')


def misfit(body: bytes, article: str) -> str | None:
    """Return why bytes are no metadata of an article at all (a sign-in page, half a file), or None."""
    try:
        said = _json_object(body, "the metadata")
    except Damaged as error:
        return str(error)
    return None if said.get("pmcid") == article else f"the metadata speaks of {str(said.get('pmcid'))[:40]}"


def read_metadata(body: bytes, article: str, version: int) -> Metadata:
    """Return what a metadata object says. What it does not say plainly counts as the stricter answer.

    Raises:
        Damaged: it is not JSON of the promised form, or speaks of another article.
    """
    said = _json_object(body, "the metadata")
    if said.get("pmcid") != article or said.get("version") != version:
        raise Damaged(f"the metadata speaks of {str(said.get('pmcid'))[:40]}.{str(said.get('version'))[:40]}")
    folder = f"{article}.{version}"
    code = said.get("license_code")
    xml = _remote(said["xml_url"], folder) if said.get("xml_url") else None
    if isinstance(xml, str):
        raise Damaged(f"xml_url: {xml}")
    media, refused = _media(said.get("media_urls"), folder)
    return Metadata(
        open_access=said.get("is_pmc_openaccess") is True,
        retracted=said.get("is_retracted", False) is not False,
        historical_ocr=said.get("is_historical_ocr", False) is not False,
        license_code=code.strip() or None if isinstance(code, str) else None,
        xml=xml,
        media=media,
        refused=refused,
    )


def _media(urls: Any, folder: str) -> tuple[dict[str, Remote], dict[str, str]]:
    if urls is not None and not (isinstance(urls, list) and len(urls) <= MAX_MEDIA):
        raise Damaged(f"media_urls is no list of at most {MAX_MEDIA}")
    media: dict[str, Remote] = {}
    refused: dict[str, str] = {}
    for number, url in enumerate(urls or ()):
        remote = _remote(url, folder)
        if isinstance(remote, Remote):
            media.setdefault(remote.name, remote)
        else:
            refused[f"media {number + 1}"] = remote
    return media, refused


def _remote(url: Any, folder: str) -> Remote | str:
    """Return the object behind an address, or what is wrong with it: it must lie beside its article."""
    shown = ascii(url)[:120]
    match = _ADDRESS.fullmatch(url) if isinstance(url, str) else None
    if match is None:
        return f"{shown} is no s3 address with an md5"
    bucket, key, md5 = match[1], match[2], match[3].lower()
    name = key.removeprefix(f"{folder}/")
    if bucket != BUCKET or name == key or not is_plain_name(name):
        return f"{shown} lies outside {BUCKET}/{folder}/"
    return Remote(name, key, md5)


def is_plain_name(name: str) -> bool:
    """Tell whether a name is one of a file in a folder: no path, control character, or lone surrogate."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= 512 and name not in (".", "..") and not re.search(r"[/\\\x00-\x1f\x7f]", name)


def _json_object(body: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{what} is not JSON: {error}"[:200]) from error
    if not isinstance(value, dict):
        raise Damaged(f"{what} is no JSON object")
    return value
