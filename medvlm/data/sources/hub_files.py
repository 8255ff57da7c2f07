"""The files of a dataset repository on the Hugging Face Hub, fetched into a folder that a source reads as --input."""

from __future__ import annotations

import re
from pathlib import Path

from medvlm.data.sources.facts import Facts
from medvlm.errors import AccessError, InputError, UsageError


def fetch(repo: str, facts: Facts, endpoint: str | None = None) -> Path:
    """Return the folder with the files of `repo` that the source needs; what was fetched before is not fetched again.

    They lie in `medvlm/` of the Hub's cache (HF_HOME), as plain files: links, as the Hub's own cache has them, lead out
    of their folder.

    Args:
        repo: account/name, or account/name@revision.
        facts: of the source: `hub_files` are the patterns of the files.
        endpoint: address of another Hub; None takes the usual one.

    Raises:
        UsageError: `repo` is no name of a repository.
        InputError: the repository has none of the files.
        AccessError: it is not there, gated, or the Hub cannot be reached.
    """
    import httpx2
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = repo.partition("@")
    place = Path(constants.HF_HOME) / "medvlm" / re.sub(r"[^\w.-]+", "--", repo)
    instead = f"or download by hand ({facts.download}) and give --input"
    try:
        snapshot_download(
            name,
            repo_type="dataset",
            revision=revision or None,
            local_dir=place,
            allow_patterns=list(facts.hub_files) or None,
            endpoint=endpoint,
        )
    except HFValidationError as error:
        raise UsageError(f'--hub "{repo}" is no name of a repository; write it as account/name') from error
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        raise AccessError(f"{name}: {_why(error)}, {instead}") from error
    except (httpx2.HTTPError, OSError, RuntimeError) as error:
        said = " ".join(str(error).split())[:160]
        raise AccessError(f"{name}: the download did not get through ({said}); try again, {instead}") from error
    if not any(file.is_file() for file in place.rglob("*") if ".cache" not in file.parts):
        raise InputError(f"{name}: holds none of {', '.join(facts.hub_files)}; {instead}")
    return place


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
