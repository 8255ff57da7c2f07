"""The system's own Chromium, driven over its debugging pipe: what a page asks for, reports, measures and looks like.

The protocol is that of https://chromedevtools.github.io/devtools-protocol/: JSON objects, each ended by a NUL.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

PROGRAM = "chromium"
_QUIET = (
    "--headless --disable-gpu --disable-dev-shm-usage --no-first-run --disable-sync --disable-component-update "
    "--disable-background-networking --disable-extensions --remote-debugging-pipe"
)
_PATIENCE = 60


def _pipe() -> tuple[int, int]:
    """Return a pipe whose descriptors are none of the first ten."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]


class Browser:
    """One page of a headless Chromium; its events are kept in `events`."""

    def __init__(self, profile: Path) -> None:
        program = shutil.which(PROGRAM)
        if program is None:
            pytest.skip(f"no {PROGRAM} on this machine; install the system's package to look at reports in it")
        # Chromium's sandbox does not run as root.
        options = [*_QUIET.split(), *(["--no-sandbox"] if os.geteuid() == 0 else []), f"--user-data-dir={profile}"]
        to_read, self._out = _pipe()
        self._in, to_write = _pipe()
        # Chromium reads commands from descriptor 3 and answers on 4.
        actions = [
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, to_read, 3),
            (os.POSIX_SPAWN_DUP2, to_write, 4),
        ]
        self._process = os.posix_spawn(program, [program, *options, "about:blank"], os.environ, file_actions=actions)
        os.close(to_read)
        os.close(to_write)
        self._buffer = b""
        self._last = 0
        self._session = ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = ""
        self.call("Browser.close")
        os.waitpid(self._process, 0)
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the result of one command."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") != self._last:
                self.events.append(answer)
                continue
            assert "error" not in answer, f"{method}: {answer['error']}"
            found: dict[str, Any] = answer["result"]
            return found

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + _PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(end - time.monotonic(), 0))
            assert ready, f"{PROGRAM} says nothing any more"
            got = os.read(self._in, 1 << 16)
            assert got, f"{PROGRAM} ended"
            self._buffer += got
        first, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message

    def open(self, page: Path, width: int = 1280, dark: bool = False, media: str = "", script: bool = True) -> None:
        """Load a file in a window of that width and wait until it is there."""
        self.events.clear()
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression is in the page; works where the page's own script is off, too."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **typed)

    def requests(self) -> list[str]:
        """Return the addresses that were asked for, apart from those that hold their own data."""
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        addresses = [event["params"]["request"]["url"] for event in sent]
        return [address for address in addresses if not address.startswith("data:")]

    def complaints(self) -> list[str]:
        """Return what the console says: errors, and what the content security policy stopped."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in kinds]

    def picture(self, path: Path, full: bool = True) -> None:
        """Write a screenshot as PNG, of the whole page or of what a window shows."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(shot["data"]))

    def paper(self) -> bytes:
        """Return the page as it would be printed, as PDF."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])
