"""Results reach a pipe while a bar moves on the terminal."""

from __future__ import annotations

import io
import os
import pty

import pytest

from medvlm.cli.common import progress, say


def test_results_go_to_the_pipe_and_not_to_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = pty.openpty()
    piped = io.StringIO()
    with open(reading, "rb", closefd=True), open(writing, "w", encoding="utf-8") as terminal:
        assert os.isatty(writing)
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setattr("sys.stdout", piped)
        with progress("predict") as bar:
            bar.update(1, 2)
            say("a.png: a nodule")
    assert piped.getvalue() == "a.png: a nodule\n"
