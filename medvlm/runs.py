"""A run folder: what training writes and evaluation reads, `runs/<time>-<name>/`, with `runs/latest` beside."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from medvlm.errors import InputError
from medvlm.io import write_json
from medvlm.recipe.models import Recipe
from medvlm.recipe.resolve import read_resolved

RUNS = Path("runs")

_held: set[IO[str]] = set()


def _let_go() -> None:
    """Close a forked child's copies of the locks: workers outlive a killed training by seconds, and would hold it."""
    for file in _held:
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_let_go)

FINISHED, RUNNING, INTERRUPTED, FAILED = "finished", "running", "interrupted", "failed"


class Run:
    """One run's folder.

    Args:
        path: the folder; it exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, name: str, parent: Path = RUNS) -> Run:
        """Make a new folder `parent/<YYYYmmdd-HHMMSS>-<name>`; a number is added where that is taken."""
        stem = f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{name}"
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            path = parent / (stem if number == 1 else f"{stem}-{number}")
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return cls(path)
        raise InputError(f"{parent}: too many runs of the same second; try again")

    @property
    def adapter(self) -> Path:
        """Where the trained adapter lies, beside whole components (`components.safetensors`)."""
        return self.path / "adapter"

    @property
    def model(self) -> Path:
        """Where a wholly trained model lies, if the language model was trained in full."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """Where training can go on from."""
        return self.path / "checkpoints"

    def evaluation(self, split: str) -> Path:
        """Return the folder of predictions and scores on `split`."""
        return self.path / "eval" / split

    def recipe(self) -> Recipe:
        """Return the resolved recipe of the run."""
        return read_resolved(self.path / "recipe.yaml")

    def facts(self) -> dict[str, Any]:
        """Return run.json.

        Raises:
            InputError: it is missing or malformed: half-written, or no run at all.
        """
        path = self.path / "run.json"
        try:
            facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"{self.path}: no run.json; this is not the folder of a run, or it is half-written"
            ) from None
        except (ValueError, UnicodeDecodeError):
            raise InputError(f"{path}: damaged; name another run") from None
        if not isinstance(facts, dict):
            raise InputError(f"{path}: damaged; name another run")
        return facts

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the folder for this process, so that two never train into one.

        Raises:
            InputError: another process holds it.
        """
        with open(self.path / ".lock", "w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(f"{self.path}: another process is training this run") from None
            _held.add(file)
            try:
                yield
            finally:
                _held.discard(file)

    def fitted(self) -> dict[str, Any]:
        """Return what the backbone took from the training rows (`Backbone.fit`); empty where it takes nothing.

        Raises:
            InputError: fitted.json is damaged.
        """
        path = self.path / "fitted.json"
        try:
            facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (ValueError, UnicodeDecodeError):
            raise InputError(f"{path}: damaged; train the run again") from None
        if not isinstance(facts, dict):
            raise InputError(f"{path}: damaged; train the run again")
        return facts

    def keep_fitted(self, facts: dict[str, Any]) -> None:
        """Write fitted.json."""
        write_json(self.path / "fitted.json", facts)

    def record(self, facts: dict[str, Any]) -> None:
        """Write run.json."""
        write_json(self.path / "run.json", facts)

    def finish(self) -> None:
        """Point `latest` beside the folder to this run, in one step."""
        link = self.path.parent / "latest"
        if link.exists() and not link.is_symlink():
            return
        temporary = self.path.parent / f".latest.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        temporary.symlink_to(self.path.name, target_is_directory=True)
        os.replace(temporary, link)


def open_run(name: str | Path | None, parent: Path = RUNS) -> Run:
    """Return the finished run called `name` (a path, or a folder's name under `parent`); the newest when None.

    Raises:
        InputError: there is none, or it is not finished.
    """
    if name is None:
        path = parent / "latest"
        if not path.is_dir():
            raise InputError(f"no finished run under {parent}/; run `medvlm finetune RECIPE` first, or name a run")
        path = path.resolve()
        with contextlib.suppress(ValueError):
            path = path.relative_to(Path.cwd())
    else:
        path = Path(name)
        if not path.is_dir() and (parent / name).is_dir():
            path = parent / name
        if not path.is_dir():
            raise InputError(f"{name}: no such run folder")
    run = Run(path)
    status = run.facts().get("status")
    if status == FAILED:
        why = run.facts().get("error") or "it does not say why"
        raise InputError(f"{path}: this run failed and has no model ({why}); name another run, or train again")
    if status != FINISHED:
        raise InputError(f"{path}: this run is {status}, not finished; go on with `medvlm finetune RECIPE --resume`")
    return run


def group_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what run.json says of the stages or variants that the run belongs to; empty where it stands alone.

    Keys: id, kind (stages or variants), member, members (all names in order), hash (of all their recipes).
    """
    group = facts.get("group")
    return dict(group) if isinstance(group, dict) and isinstance(group.get("id"), str) else {}


def groups(parent: Path = RUNS) -> dict[str, dict[str, Run]]:
    """Return group id -> member -> its newest run, the newest group first."""
    found: dict[str, dict[str, Run]] = {}
    if not parent.is_dir():
        return found
    for path in sorted(parent.iterdir(), reverse=True):
        if path.is_symlink() or not path.is_dir():
            continue
        with contextlib.suppress(InputError):
            group = group_of(Run(path).facts())
            if group:
                found.setdefault(group["id"], {}).setdefault(str(group.get("member")), Run(path))
    return dict(sorted(found.items(), reverse=True))


def unfinished(recipe_hash: str, parent: Path = RUNS) -> Run | None:
    """Return the newest run of the same resolved recipe that did not finish, or None."""
    if not parent.is_dir():
        return None
    for path in sorted(parent.iterdir(), reverse=True):
        if path.is_symlink() or not path.is_dir():
            continue
        with contextlib.suppress(InputError):
            facts = Run(path).facts()
            if facts.get("recipe_hash") == recipe_hash and facts.get("status") != FINISHED:
                return Run(path)
    return None
