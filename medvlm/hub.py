"""Uploads to the Hugging Face Hub: data sets and models, named file by file, every failure in one line."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medvlm.errors import AccessError, InputError, UsageError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_LOGIN = "log in with 'hf auth login' or set HF_TOKEN, with a token that may write"
_HUB_MAKES = {".gitattributes", "README.md"}


@dataclasses.dataclass(frozen=True, slots=True)
class Pushed:
    """What was uploaded, and where it is."""

    url: str
    files: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.url} ({self.files} files, {self.bytes / 1e6:,.1f} MB)"


@dataclasses.dataclass(frozen=True, slots=True)
class Upload:
    """What goes up."""

    folder: Path
    names: Collection[str]
    """Files, relative to `folder`; nothing else is uploaded."""
    kind: Literal["dataset", "model"]
    marker: str
    """A file that every upload of this kind holds: a repository with files but without it is somebody else's."""
    message: str
    replaces: Sequence[str] = ()
    """Patterns of files of an earlier upload that go."""


def push(
    what: Upload, repo: str, *, private: bool, public_flag: str, token: str | None = None, endpoint: str | None = None
) -> Pushed:
    """Upload to the repository `repo`. One that was cut off is called again: what the Hub has is not sent twice.

    Args:
        what: the files.
        repo: `name/repository`, or `repository` for the account's own; made if absent.
        private: make it private. One that is there and public is then refused.
        public_flag: how a user says that a public one is meant, for that refusal.
        token: of the account; None takes the one that is saved or in HF_TOKEN.
        endpoint: address of another Hub; None takes the usual one.

    Raises:
        InputError: `repo` holds something else, or is public.
        UsageError: `repo` is no name of a repository.
        AccessError: the Hub cannot be reached or refuses the account.
    """
    sizes = {name: (what.folder / name).stat().st_size for name in what.names}
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token=token)
    with _errors(repo):
        place = api.create_repo(repo, repo_type=what.kind, private=private, exist_ok=True)
        _check(api, place.repo_id, what, private, public_flag)
        api.upload_folder(
            repo_id=place.repo_id,
            repo_type=what.kind,
            folder_path=what.folder,
            allow_patterns=list(sizes),
            delete_patterns=list(what.replaces) or None,
            commit_message=what.message,
        )
    return Pushed(str(place), len(sizes), sum(sizes.values()))


def _check(api: HfApi, repo: str, what: Upload, private: bool, public_flag: str) -> None:
    """Make sure that a repository is empty or holds an upload of ours, and is not public against the user's will."""
    info: Any = api.repo_info(repo, repo_type=what.kind)
    if private and info.private is False:
        raise InputError(f"{repo}: this repository is public; make it private on the Hub, or push {public_flag}")
    held = {entry.rfilename for entry in info.siblings or ()}
    if held - _HUB_MAKES and what.marker not in held:
        other = min(held - _HUB_MAKES)
        raise InputError(f"{repo}: this repository holds something else ({other}); push to another name")


@contextlib.contextmanager
def _errors(repo: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one line."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise UsageError(f'--push "{repo}" is no name of a repository; write it as account/name') from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        said = _short(error.server_message or str(error))
        advice = f"; {_LOGIN}" if status in (401, 403) else ""
        raise AccessError(f"{repo}: the Hub refuses the push (status {status}: {said}){advice}") from error
    except (httpx2.HTTPError, OSError, RuntimeError) as error:
        # RuntimeError is what the Hub's transfer library raises for all its failures.
        raise AccessError(f"{repo}: the push did not get through ({_short(str(error))}); try again online") from error


def _short(text: str) -> str:
    return " ".join(text.split())[:160] or "no reason given"
