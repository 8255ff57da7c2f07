"""The files of a dataset repository on the Hugging Face Hub, fetched into a folder that a source reads as --input.

    HF_HOME/medvlm/account--name@COMMIT-PATTERNS/       the files; no links, as the Hub's own cache has: they lead out
    HF_HOME/medvlm/account--name@COMMIT-PATTERNS.json   written when all are there: what was asked for, each file's size

A folder holds one commit, and of it one choice of files: nothing of another commit or choice is read with it.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm.data.sources.facts import Facts
from medvlm.errors import AccessError, InputError, UsageError
from medvlm.io import stable_hash, write_json

_COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch(
    repo: str, facts: Facts, endpoint: str | None = None, patterns: Sequence[str] | None = None
) -> tuple[Path, str]:
    """Return the folder with the files of `repo` that the source needs, and account/name@commit; each comes only once.

    Of the source's own repository the files of `patterns` are taken; all files of another one, and of a revision of its
    own that is laid out in another way. Where the Hub cannot be reached, a whole copy of before is taken.

    Args:
        repo: account/name, or account/name@revision.
        facts: of the source.
        endpoint: address of another Hub; None takes the usual one.
        patterns: of the files; None takes `facts.hub_files`.

    Raises:
        UsageError: `repo` is no name of a repository.
        InputError: the repository has none of the files.
        AccessError: it is not there, gated, or the Hub cannot be reached and no whole copy lies here.
    """
    from huggingface_hub import HfApi, snapshot_download

    name, _, given = repo.partition("@")
    revision = given or "main"
    chosen = list(facts.hub_files if patterns is None else patterns) if name == facts.hub else []
    kept = _kept(name, revision, chosen)
    if kept and _COMMIT.fullmatch(revision):
        return kept
    instead = f"or download by hand ({facts.download}) and give --input"
    try:
        with _told(repo, name, instead):
            told = HfApi(endpoint=endpoint).dataset_info(name, revision=revision)
    except _Unreachable:
        if kept:
            return kept
        raise
    commit, every = str(told.sha), [file.rfilename for file in told.siblings or ()]
    files = _of(chosen, every, bool(given))
    if not files:
        raise InputError(f"{name}: holds none of {', '.join(chosen) or 'the files'}; {instead}")
    place = _home() / _folder(name, commit, chosen)
    allowed = chosen if len(files) < len(every) else None
    with _told(repo, name, instead):
        snapshot_download(
            name, repo_type="dataset", revision=commit, local_dir=place, allow_patterns=allowed, endpoint=endpoint
        )
    return _keep(place, name, commit, revision, files)


class _Unreachable(AccessError):
    """The Hub did not answer."""


@contextlib.contextmanager
def _told(repo: str, name: str, instead: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one line."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except HFValidationError as error:
        raise UsageError(f'--hub "{repo}" is no name of a repository; write it as account/name') from error
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        raise AccessError(f"{name}: {_why(error)}, {instead}") from error
    except (httpx2.HTTPError, OSError, RuntimeError) as error:
        said = " ".join(str(error).split())[:160]
        raise _Unreachable(f"{name}: the download did not get through ({said}); try again, {instead}") from error


def _home() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "medvlm"


def _folder(name: str, commit: str, patterns: Sequence[str]) -> str:
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '--', name)}@{commit}-{stable_hash(list(patterns))[:8]}"


def _of(patterns: list[str], files: list[str], named: bool) -> list[str]:
    """Return the files that are needed: those of the patterns; all without patterns, or of a named revision without."""
    # As the Hub's client matches them.
    found = [file for file in files if any(fnmatch.fnmatch(file, pattern) for pattern in patterns)]
    return found or (files if named or not patterns else [])


def _keep(place: Path, name: str, commit: str, revision: str, files: list[str]) -> tuple[Path, str]:
    """Note that all files are there; return the folder and account/name@commit.

    Raises:
        AccessError: one is not there.
    """
    lacking = next((file for file in files if not (place / file).is_file()), None)
    if lacking:
        raise AccessError(f"{name}: {lacking} did not come; try again")
    sizes = {file: (place / file).stat().st_size for file in files}
    write_json(place.with_name(f"{place.name}.json"), {"commit": commit, "revision": revision, "files": sizes})
    return place, f"{name}@{commit}"


def _kept(name: str, revision: str, patterns: Sequence[str]) -> tuple[Path, str] | None:
    """Return the whole copy of a revision that was asked for last, if one lies here."""
    notes = sorted(_home().glob(f"{_folder(name, '*', patterns)}.json"), key=lambda note: -note.stat().st_mtime_ns)
    for note in notes:
        told, place = _read(note), note.with_suffix("")
        commit = str(told.get("commit"))
        if revision in (told.get("revision"), commit) and _whole(place, told.get("files")):
            return place, f"{name}@{commit}"
    return None


def _read(note: Path) -> Mapping[str, Any]:
    try:
        told = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _whole(place: Path, files: Any) -> bool:
    """Whether all files lie here in the size they came in."""
    there = files.items() if isinstance(files, dict) else ()
    return bool(there) and all((place / name).is_file() and (place / name).stat().st_size == n for name, n in there)


def _why(error: Exception) -> str:
    """Return what the Hub's client means and what to do; it wraps what a server answered in an error of its own."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    told = error if isinstance(error, HfHubHTTPError) else error.__cause__
    if isinstance(told, GatedRepoError):
        return "gated; agree to its terms on the Hub, then log in with 'hf auth login'"
    if isinstance(told, RepositoryNotFoundError):
        return "no such data set on the Hub, or a private one; check the name and your login"
    status = getattr(getattr(told, "response", None), "status_code", None)
    if status is not None:
        return f"the Hub refuses (status {status}); try again later"
    return "the Hub cannot be reached; go online"
