"""Data sets read from the Hub: a server on this machine that serves one repository, and all that can go wrong."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from medvlm.data.sources.facts import Facts
from medvlm.data.sources.hub_files import fetch
from medvlm.errors import AccessError, InputError, MedvlmError, UsageError

FILES = {"data/train-0.parquet": b"train", "data/test-0.parquet": b"test", "huge.zip": b"not asked for"}
FACTS = Facts("x", "X", "X.", ("vqa",), "2", "CC0-1.0", "none", "X from example.org", "x.json", hub="me/x",
              hub_files=("data/*.parquet",))  # fmt: skip
COMMIT = "1" * 40


class Handler(BaseHTTPRequestHandler):
    """Answers as the Hub does for dataset repositories."""

    status = 200
    code = ""
    asked: list[str]
    files = FILES
    commit = COMMIT

    def _answer(self) -> None:
        type(self).asked.append(f"{self.command} {self.path}")
        name = re.fullmatch(
            r"/(?:api/)?datasets/me/x/(?:(tree|revision)/\w+|resolve/\w+/(.+))", self.path.partition("?")[0]
        )
        if type(self).status != 200 or not name:
            status = type(self).status if type(self).status != 200 else 404
            return self._send(status, b"{}", {"X-Error-Code": type(self).code} if type(self).code else {})
        if name[1] == "revision":
            told = {
                "id": "me/x",
                "sha": self.commit,
                "siblings": [{"rfilename": file} for file in self.files],
                "tags": [],
            }
            return self._send(200, json.dumps(told).encode(), {})
        if name[1] == "tree":
            tree = [{"type": "file", "path": f, "size": len(d), "oid": f"{len(d):040}"} for f, d in self.files.items()]
            return self._send(200, json.dumps(tree).encode(), {})
        data = self.files[name[2]]
        return self._send(200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": self.commit})

    do_GET = do_HEAD = _answer

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(Handler, "asked", [], raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def names(folder: Path) -> list[str]:
    files = (path.relative_to(folder) for path in folder.rglob("*.*") if path.is_file())
    return sorted(file.as_posix() for file in files if ".cache" not in file.parts)


def test_only_the_files_of_the_source_come_and_only_once(hub: str) -> None:
    folder, told = fetch("me/x@main", FACTS, hub)
    assert told == f"me/x@{COMMIT}"
    assert names(folder) == ["data/test-0.parquet", "data/train-0.parquet"]
    assert (folder / "data/test-0.parquet").read_bytes() == b"test"
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    before = sum(line.startswith("GET /datasets") for line in Handler.asked)
    assert fetch("me/x@main", FACTS, hub) == (folder, told)
    assert sum(line.startswith("GET /datasets") for line in Handler.asked) == before
    asked = len(Handler.asked)
    assert fetch(told, FACTS, hub) == (folder, told)
    assert len(Handler.asked) == asked, "a commit does not change"


def test_a_cache_below_a_folder_named_cache(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / ".cache" / "huggingface"))
    assert fetch("me/x", FACTS, hub)[0].is_dir()


def test_files_that_the_repository_took_away_are_not_read(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = fetch("me/x", FACTS, hub)
    monkeypatch.setattr(Handler, "commit", "2" * 40)
    monkeypatch.setattr(Handler, "files", {"data/train-0-of-2.parquet": b"tr", "data/train-1-of-2.parquet": b"ain"})
    second, told = fetch("me/x", FACTS, hub)
    assert told == f"me/x@{'2' * 40}"
    assert names(second) == ["data/train-0-of-2.parquet", "data/train-1-of-2.parquet"]
    assert names(first) == ["data/test-0.parquet", "data/train-0.parquet"]


def test_offline_a_whole_copy_is_taken_and_half_a_one_is_not(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, told = fetch("me/x", FACTS, hub)
    gone = "http://127.0.0.1:9"
    assert fetch("me/x", FACTS, gone) == fetch(told, FACTS, gone) == (folder, told)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("me/x", FACTS) == (folder, told)
    (folder / "data/test-0.parquet").unlink()
    with pytest.raises(AccessError, match="did not get through"):
        fetch("me/x", FACTS)


def test_other_repositories_come_whole(hub: str) -> None:
    import dataclasses

    other = dataclasses.replace(FACTS, hub="them/x", hub_files=("train.json",))
    assert names(fetch("me/x", other, hub)[0]) == sorted(FILES)
    own = dataclasses.replace(FACTS, hub_files=("train.json",))
    assert names(fetch("me/x@converted", own, hub)[0]) == sorted(FILES)
    assert names(fetch("me/x", own, hub, ["*.zip"])[0]) == ["huge.zip"]


@pytest.mark.parametrize(
    ("repo", "status", "code", "kind", "words"),
    [
        ("no name of a repository", 200, "", UsageError, "account/name"),
        ("me/gone", 200, "", AccessError, "status 404"),
        ("me/x", 403, "GatedRepo", AccessError, "agree to its terms"),
        ("me/x", 500, "", AccessError, "status 500"),
    ],
)
def test_failures_are_one_line(
    hub: str, monkeypatch: pytest.MonkeyPatch, repo: str, status: int, code: str, kind: type[MedvlmError], words: str
) -> None:
    monkeypatch.setattr(Handler, "status", status)
    monkeypatch.setattr(Handler, "code", code)
    with pytest.raises(kind, match=words) as caught:
        fetch(repo, FACTS, hub)
    assert "\n" not in str(caught.value)
    assert kind is UsageError or "X from example.org" in str(caught.value)


def test_no_server(hub: str) -> None:
    with pytest.raises(AccessError, match=r"cannot be reached|did not get through"):
        fetch("me/x", FACTS, "http://127.0.0.1:9")


def test_a_repository_without_the_files(hub: str) -> None:
    import dataclasses

    with pytest.raises(InputError, match=r"holds none of train\.json"):
        fetch("me/x", dataclasses.replace(FACTS, hub_files=("train.json",)), hub)
