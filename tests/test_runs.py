"""Run folders: the newest finished one, unfinished ones, and folders that are no runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from medvlm.errors import InputError
from medvlm.runs import FINISHED, INTERRUPTED, Run, open_run, unfinished


def made(parent: Path, name: str, status: str, recipe_hash: str = "h") -> Run:
    run = Run.create(name, parent)
    run.record({"status": status, "recipe_hash": recipe_hash})
    if status == FINISHED:
        run.finish()
    return run


def test_latest_is_the_newest_finished_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run"):
        open_run(None, tmp_path)
    made(tmp_path, "a", FINISHED)
    second = made(tmp_path, "b", FINISHED)
    third = made(tmp_path, "c", INTERRUPTED)
    assert open_run(None, tmp_path).path.name == second.path.name
    assert (tmp_path / "latest").readlink() == Path(second.path.name)
    assert open_run(second.path.name, tmp_path).path == second.path
    with pytest.raises(InputError, match="is interrupted, not finished"):
        open_run(third.path)
    found = unfinished("h", tmp_path)
    assert found is not None
    assert found.path == third.path
    assert unfinished("other", tmp_path) is None


def test_two_runs_of_one_second_have_their_own_folders(tmp_path: Path) -> None:
    assert len({Run.create("same", tmp_path).path for _ in range(5)}) == 5


@pytest.mark.parametrize(("content", "said"), [(None, "no run.json"), ("{", "damaged"), ("\xff", "damaged")])
def test_half_written_folders(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=said):
        open_run(tmp_path)


def test_a_real_folder_called_latest_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    made(tmp_path, "a", FINISHED)
    assert not (tmp_path / "latest").is_symlink()
