"""A local server that speaks the protocol of the PMC Cloud Service and of ESearch, over articles made up for tests.

It keeps a log of all requests and injects faults: `server.faults["f1.png"] = ["500", "reset"]` spoils the first two
requests whose path holds that text, `server.always["f1.png"] = "404"` all of them.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import PIL.Image

BUCKET = "pmc-oa-opendata"
CC_BY = "https://creativecommons.org/licenses/by/4.0/"
_COUNTING = threading.Lock()
_LISTING = '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def picture(shade: int) -> bytes:
    """Return a small PNG; another one for each number."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (12, 9), (shade % 256, shade // 256 % 256, 40)).save(buffer, "PNG")
    return buffer.getvalue()


def jats(article: str, figures: list[str], address: str | None, kind: str, year: int, more: str = "") -> bytes:
    """Return an article with one figure for each file name; `more` is added to its body."""
    said = f'<license xlink:href="{address}"><p>Terms.</p></license>' if address else ""
    body = "".join(
        f'<fig id="F{n}"><label>Figure {n}</label><caption><p>Axial CT number {n} of {article}.</p></caption>'
        f'<graphic xlink:href="{name}"/></fig>'
        for n, name in enumerate(figures, 1)
    )
    return (
        f'<article xmlns:xlink="http://www.w3.org/1999/xlink" article-type="{kind}"><front><journal-meta>'
        "<journal-title-group><journal-title>Tests</journal-title></journal-title-group></journal-meta><article-meta>"
        f'<article-id pub-id-type="pmc">{article}</article-id><title-group><article-title>On {article}</article-title>'
        f'</title-group><pub-date pub-type="epub"><day>2</day><month>3</month><year>{year}</year></pub-date>'
        f"<permissions>{said}</permissions></article-meta></front><body><sec><p>See.</p>{body}{more}</sec></body></article>"
    ).encode()


class World:
    """What the server serves: the bucket's objects by key, and what a search finds."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.found: list[str] = []
        self.page = 1000

    def add(
        self,
        article: str,
        version: int = 1,
        *,
        media: dict[str, bytes] | None = None,
        code: str | None = "CC BY",
        address: str | None = CC_BY,
        kind: str = "research-article",
        year: int = 2024,
        more: str = "",
        **changes: Any,
    ) -> None:
        """Put one version of an article into the bucket; `changes` are made to its metadata, None removes a key."""
        media = {"f1.png": picture(int(article[3:]))} if media is None else media
        folder = f"{article}.{version}"
        xml = jats(article, list(media), address, kind, year, more)
        files = {f"{folder}/{folder}.xml": xml, f"{folder}/{folder}.txt": b"text", f"{folder}/{folder}.pdf": b"%PDF"}
        self.objects |= files | {f"{folder}/{name}": data for name, data in media.items()}
        said = {
            "pmcid": article,
            "version": version,
            "pmid": 1,
            "doi": None,
            "title": "On tests",
            "is_pmc_openaccess": True,
            "is_manuscript": False,
            "is_historical_ocr": False,
            "is_retracted": False,
            "license_code": code,
            "xml_url": self.address(f"{folder}/{folder}.xml"),
            "text_url": self.address(f"{folder}/{folder}.txt"),
            "pdf_url": self.address(f"{folder}/{folder}.pdf"),
        }
        if media:
            said["media_urls"] = [self.address(f"{folder}/{name}") for name in media]
        said |= changes
        self.objects[f"metadata/{folder}.json"] = json.dumps(said).encode()

    def address(self, key: str) -> str:
        return f"s3://{BUCKET}/{key}?md5={md5(self.objects[key])}"

    def metadata(self, folder: str, **changes: Any) -> None:
        """Change the metadata of an article; the value `...` removes a key."""
        said = json.loads(self.objects[f"metadata/{folder}.json"]) | changes
        said = {key: value for key, value in said.items() if value is not ...}
        self.objects[f"metadata/{folder}.json"] = json.dumps(said).encode()

    def publish_inventory(
        self, day: str = "2026-09-07T01-00Z", schema: str = "Bucket, Key, LastModifiedDate, ETag", files: int = 1
    ) -> None:
        """Put an inventory of all metadata into the bucket, its columns in the order of `schema`."""
        keys = sorted(key for key in self.objects if key.startswith("metadata/"))
        parts = [keys[n::files] for n in range(files)]
        listed = []
        for number, part in enumerate(parts):
            lines = []
            for key in part:
                cells = {
                    "Bucket": BUCKET,
                    "Key": key,
                    "LastModifiedDate": "2026-01-08T11:47:59.000Z",
                    "ETag": md5(self.objects[key]),
                }
                lines.append(",".join(f'"{cells[name]}"' for name in schema.split(", ")))
            data = gzip.compress("\n".join(lines).encode() + b"\n", mtime=0)
            name = f"inventory-reports/{BUCKET}/metadata/data/{day}-{number}.csv.gz"
            self.objects[name] = data
            listed.append({"key": name, "size": len(data), "MD5checksum": md5(data)})
        manifest = {"sourceBucket": BUCKET, "fileFormat": "CSV", "fileSchema": schema, "files": listed}
        self.objects[f"inventory-reports/{BUCKET}/metadata/{day}/manifest.json"] = json.dumps(manifest).encode()
        self.objects[f"inventory-reports/{BUCKET}/metadata/hive/dt={day}/symlink.txt"] = b""


class Server:
    """The world behind an address."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.faults: dict[str, list[str]] = {}
        self.always: dict[str, str] = {}
        self.log: list[str] = []
        """The path of each request, decoded; of a search its form."""
        self.conditional: list[str] = []
        """The paths that were asked for with If-None-Match."""
        self.agents: set[str] = set()
        self.forms: list[dict[str, str]] = []
        self.search_answers: list[Any] = []
        """Answers to give before the true ones: JSON values, or (status, JSON value)."""
        self.lock = threading.Lock()
        self.dead_after: int | None = None
        """So many requests are answered, then all connections are cut."""
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._http = _Quiet(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.eutils = f"{self.endpoint}/entrez/eutils"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def forget(self) -> None:
        """Empty the logs, once the requests of clients that have gone are all in them."""
        until = time.monotonic() + 2
        while self._http.open and time.monotonic() < until:
            time.sleep(0.005)
        with self.lock:
            self.log.clear()
            self.conditional.clear()
            self.forms.clear()

    def asked(self, text: str) -> list[str]:
        """Return the requests whose path holds `text`."""
        return [path for path in self.log if text in path]

    def fault(self, path: str) -> str:
        with self.lock:
            if self.dead_after is not None:
                self.dead_after -= 1
                if self.dead_after < 0:
                    return "reset"
            for text, names in self.faults.items():
                if text in path and names:
                    return names.pop(0)
            return next((name for text, name in self.always.items() if text in path), "")


@contextlib.contextmanager
def serving(world: World) -> Iterator[Server]:
    server = Server(world)
    try:
        yield server
    finally:
        server.close()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    open = 0
    """Connections that are being served."""

    def process_request(self, request: Any, client_address: Any) -> None:
        with _COUNTING:
            self.open += 1
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with _COUNTING:
                self.open -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that a client gave up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement
    server_state: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing."""

    def do_GET(self) -> None:
        state = self.server_state
        path, _, query = self.path.partition("?")
        key = urllib.parse.unquote(path).lstrip("/")
        shown = f"{key}?{urllib.parse.unquote(query)}" if query else key
        with state.lock:
            state.log.append(shown)
            state.agents.add(self.headers.get("User-Agent", ""))
            if self.headers.get("If-None-Match"):
                state.conditional.append(key)
        fault = state.fault(shown)
        if query:
            body: bytes | None = self._listing(dict(urllib.parse.parse_qsl(query)))
        else:
            body = state.world.objects.get(key)
        self._answer(body, fault)

    def do_POST(self) -> None:
        state = self.server_state
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        with state.lock:
            state.log.append(f"esearch {form.get('retstart')}")
            state.forms.append(form)
            given = state.search_answers.pop(0) if state.search_answers else None
        status = 200
        if isinstance(given, tuple):
            status, given = given
        if given is None:
            found = state.world.found
            start, most = int(form["retstart"]), min(int(form["retmax"]), 10_000)
            given = {"esearchresult": {"count": str(len(found)), "idlist": found[start : start + most]}}
        self._send(status, json.dumps(given).encode())

    def _listing(self, query: dict[str, str]) -> bytes:
        world = self.server_state.world
        prefix = query["prefix"]
        inside = [key[len(prefix) :] for key in world.objects if key.startswith(prefix)]
        folders = sorted({rest.partition("/")[0] for rest in inside if "/" in rest})
        start = int(query.get("continuation-token", "0"))
        part = folders[start : start + world.page]
        more = start + world.page < len(folders)
        token = f"<NextContinuationToken>{start + world.page}</NextContinuationToken>" if more else ""
        names = "".join(f"<CommonPrefixes><Prefix>{prefix}{name}/</Prefix></CommonPrefixes>" for name in part)
        cut = f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}"
        return f"{_LISTING}<Name>{BUCKET}</Name><Prefix>{prefix}</Prefix>{cut}{names}</ListBucketResult>".encode()

    def _answer(self, body: bytes | None, fault: str) -> None:
        name, _, value = fault.partition(":")
        if name == "reset":
            self._cut()
        elif name == "redirect":
            self._send(302, b"", {"Location": self.path})
        elif name.isdecimal():
            self._send(int(name), b"<Error/>", {"Retry-After": value} if value else {})
        elif body is None:
            self._send(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif name == "slow":
            time.sleep(float(value))
            self._send(200, body)
        elif name == "short":
            self._send(200, body[: len(body) // 2], {"Content-Length": str(len(body))}, close=True)
        elif name == "huge":
            self._send(200, body, {"Content-Length": str(1 << 50)}, close=True)
        elif name == "flip":
            self._send(200, bytes([body[0] ^ 1]) + body[1:])
        elif name == "cut":
            self._send(200, body[:-1])
        elif name == "etag":
            self._send(200, value.encode(), {"ETag": f'"{md5(body)}"'})
        elif name == "text":
            self._send(200, value.encode())
        elif self.headers.get("If-None-Match") == f'"{md5(body)}"':
            self._send(304, b"", {"ETag": f'"{md5(body)}"'})
        else:
            self._send(200, body, {"ETag": f'"{md5(body)}"'})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, close: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        if close:
            self.close_connection = True

    def _cut(self) -> None:
        """End the connection with a reset in place of an answer."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
        self.rfile.close()
        self.wfile = io.BytesIO()  # type: ignore[assignment]
