"""A full disk is told as such, in whatever words a library says it."""

from __future__ import annotations

import errno
import multiprocessing
import resource
import signal
from pathlib import Path

import pytest

from medvlm.errors import ResourceError
from medvlm.io import resource_errors


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("form", ["errno", "text", "cause"])
def test_numbers_and_texts(tmp_path: Path, number: int, form: str) -> None:
    # As the Rust library of safetensors words what the system returned.
    worded = RuntimeError(f"Error while serializing: I/O error: it did not work (os error {number})")
    caused = ValueError("not written")
    caused.__cause__ = OSError(number, "x")
    error = {"errno": OSError(number, "x"), "text": worded, "cause": caused}[form]
    with pytest.raises(ResourceError, match="no space left on the disk; again"), resource_errors(tmp_path, "", "again"):
        raise error


def test_other_errors_pass(tmp_path: Path) -> None:
    for error in (OSError(errno.EACCES, "x"), RuntimeError("I/O error (os error 13)"), KeyError("os")):
        with pytest.raises(type(error)), resource_errors(tmp_path / "not" / "there", ""):
            raise error


def _write(library: str, folder: Path) -> None:
    import safetensors.torch
    import torch

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    values = torch.zeros(100_000)
    try:
        with resource_errors(folder, ""):
            if library == "torch":
                torch.save(values, folder / "values")
            else:
                safetensors.torch.save_file({"values": values}, folder / "values")
    except ResourceError:
        raise SystemExit(7) from None


@pytest.mark.parametrize("library", ["torch", "safetensors"])
def test_what_the_libraries_say_at_a_limit(tmp_path: Path, library: str) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_write, args=(library, tmp_path))
    child.start()
    child.join(60)
    assert child.exitcode == 7
