"""A Hub on this machine, for tests of uploads: repositories that are made, looked at and committed to."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclasses.dataclass
class Repo:
    """One repository, of data or of a model, and what lies in it."""

    private: bool
    files: dict[str, bytes] = dataclasses.field(default_factory=lambda: {".gitattributes": b""})
    commits: list[str] = dataclasses.field(default_factory=list)


class FakeHub:
    """Serves repositories to whoever shows `token`; `fail_with` answers every request with a status."""

    token = "hf_good"

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.fail_with: int | None = None
        self.asked: list[str] = []
        self.endpoint = ""

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, Any]:
        self.asked.append(f"{method} {path}")
        if self.fail_with:
            return self.fail_with, {"error": "no luck"}
        if token != f"Bearer {self.token}":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        found = re.fullmatch(
            r"/api/(?:datasets|models)/([\w-]+/[\w-]+)(?:/(tree|preupload|commit|revision)/main)?", path
        )
        if not found or found[1] not in self.repos:
            return 404, {"error": "Repository not found"}
        return getattr(self, f"_{found[2] or 'info'}")(self.repos[found[1]], found[1], body)

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        # Where no type is named, a model is meant.
        kind = "datasets/" if wanted.get("type") == "dataset" else ""
        url = {"url": f"{self.endpoint}/{kind}{name}", "name": name}
        if name in self.repos:
            return 409, {"error": "You already created this dataset repo", **url}
        self.repos[name] = Repo(wanted.get("visibility") == "private" or bool(wanted.get("private")))
        return 200, url

    def _info(self, repo: Repo, name: str, body: bytes) -> tuple[int, Any]:
        files = [{"rfilename": file} for file in repo.files]
        return 200, {"id": name, "private": repo.private, "sha": "0" * 40, "siblings": files, "tags": []}

    _revision = _info

    def _tree(self, repo: Repo, name: str, body: bytes) -> tuple[int, Any]:
        return 200, [{"type": "file", "path": file, "size": len(data), "oid": "0"} for file, data in repo.files.items()]

    def _preupload(self, repo: Repo, name: str, body: bytes) -> tuple[int, Any]:
        wanted = json.loads(body)["files"]
        told = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for one in wanted]
        return 200, {"files": told}

    def _commit(self, repo: Repo, name: str, body: bytes) -> tuple[int, Any]:
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                repo.commits.append(value["summary"])
            elif entry["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "deletedFile":
                del repo.files[value["path"]]
        url = f"{self.endpoint}/datasets/{name}/commit/{'1' * 40}"
        return 200, {"success": True, "commitOid": "1" * 40, "commitUrl": url, "hookOutput": ""}


@contextlib.contextmanager
def serve() -> Iterator[FakeHub]:
    """Run a hub on a free port."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            status, value = hub.answer(self.command, path, self.headers.get("Authorization", ""), body)
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _do

        def log_message(self, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
