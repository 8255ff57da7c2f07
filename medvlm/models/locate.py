"""Find a base model's files before anything heavy is loaded, and say at once what is missing."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm.errors import AccessError, InputError
from medvlm.io import sha256_bytes, stable_hash
from medvlm.recipe.models import ModelPart
from medvlm.resources import PACKAGE

TINY_BASE = "medvlm/tiny-base"
TINY_RANDOM = "medvlm/tiny-random"

PROBE_SECONDS = 3.0
"""How long an answer of the Hub is waited for; the whole error appears within five seconds."""

_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
"""What is downloaded beside the weights."""

# Formats of weights by preference. Pickled ones are read by torch's weights_only loader, which runs no code of theirs.
_WEIGHTS = {"model.safetensors": "model*.safetensors", "pytorch_model.bin": "pytorch_model*.bin"}


@dataclasses.dataclass(frozen=True, slots=True)
class Located:
    """A base model on this machine: a folder or a GGUF file; None for the untrained architecture, built by code."""

    id: str
    path: Path | None

    def config(self) -> dict[str, Any]:
        """Return its config.json (empty for the untrained architecture and for a GGUF file, which has none)."""
        if self.path is None or self.path.is_file():
            return {}
        loaded: dict[str, Any] = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        return loaded


def locate(model_id: str, revision: str | None = None, key: str = "model.id") -> Located:
    """Return where the model's files are, downloading them if they are on the Hub and may be had.

    Args:
        model_id: a Hub id, a folder, a GGUF file, or a packaged model.
        revision: on the Hub.
        key: where in the recipe it was named.

    Raises:
        InputError: a local folder or file is missing or holds no model.
        AccessError: gated, unknown or unreachable on the Hub; says what to accept, how to log in, and how to name a
            local copy. Raised within `PROBE_SECONDS` and without retries.
    """
    if is_random(model_id):
        return Located(model_id, None)
    if model_id == TINY_BASE:
        return Located(model_id, PACKAGE / "models" / "tiny_base")
    path = Path(model_id).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"{key}: no file {model_id}; name a GGUF file on this machine")
        return Located(model_id, path)
    if path.is_dir():
        return Located(model_id, _checked(path, key))
    if path.is_absolute() or model_id.startswith((".", "~")) or model_id.count("/") != 1:
        raise InputError(f"{key}: no folder {model_id}; name a folder with config.json, or a Hub id owner/name")
    cached = _cached(model_id, revision)
    return Located(model_id, cached or _download(model_id, revision, key))


def locate_parts(model: ModelPart) -> dict[str, Located]:
    """Return role -> where each checkpoint of the recipe's base lies; raises as `locate`."""
    return {
        role: locate(name, model.revision if role == "model" else None, _key(role))
        for role, name in model.parts.items()
    }


def _key(role: str) -> str:
    """Return where the recipe names the part of this role."""
    return "model.id" if role == "model" else f"model.{role}"


def weights_files(path: Path) -> list[Path]:
    """Return the files that hold a base's weights: of a folder, or the file itself."""
    return [path] if path.is_file() else sorted(path.glob("*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))


def weights_fingerprint(path: Path | None) -> str | None:
    """Return a hash that changes with a base's weights: of each file's name, size, and first and last mebibyte.

    Not of every byte: that would take minutes for the largest bases, at every start.
    """
    if path is None:
        return None
    parts: list[list[str | int]] = []
    for file in weights_files(path):
        size = file.stat().st_size
        with open(file, "rb") as stream:
            head = stream.read(1 << 20)
            stream.seek(max(0, size - (1 << 20)))
            parts.append([file.name, size, sha256_bytes(head), sha256_bytes(stream.read())])
    return stable_hash(parts)


def check_weights(facts: Mapping[str, Any]) -> None:
    """Raise where a run's base is no longer the one it was trained on.

    Raises:
        InputError: the weights differ from those that run.json recorded.
    """
    known = facts.get("model", {})
    for role, name in known.get("parts", {}).items():
        weights = known["weights"][role]
        if weights is None:
            continue
        found = locate(name, known.get("revision") if role == "model" else None, _key(role))
        if weights_fingerprint(found.path) != weights:
            raise InputError(f"{_key(role)}: {name} has other weights than when this run was trained; train it again")


def is_random(model_id: str) -> bool:
    """Return True for the untrained architectures: `medvlm/tiny-random`, or `medvlm/tiny-random-FAMILY`."""
    return model_id == TINY_RANDOM or model_id.startswith(f"{TINY_RANDOM}-")


def random_family(model_id: str) -> str | None:
    """Return FAMILY of `medvlm/tiny-random-FAMILY`, or None."""
    return model_id.removeprefix(f"{TINY_RANDOM}-") if model_id.startswith(f"{TINY_RANDOM}-") else None


def is_packaged(model_id: str) -> bool:
    """Return True for what comes with medvlm: the tiny base, and the untrained architectures."""
    return model_id == TINY_BASE or is_random(model_id)


def is_local(model_id: str) -> bool:
    """Return True where no network is needed: packaged, untrained, a folder, a file, or wholly in the cache."""
    path = Path(model_id).expanduser()
    here = path.is_file() if path.suffix == ".gguf" else path.is_dir()
    return is_packaged(model_id) or here or bool(_cached(model_id, None))


def locate_config(model_id: str, revision: str | None = None, key: str = "model.id") -> Located:
    """Return a folder with the model's config.json (or a GGUF file), without downloading its weights.

    Raises:
        AccessError, InputError: as `locate`.
    """
    path = Path(model_id).expanduser()
    on_hub = not is_local(model_id) and not path.is_absolute() and model_id.count("/") == 1
    if not on_hub or model_id.startswith((".", "~")) or path.suffix == ".gguf":
        return locate(model_id, revision, key)
    _probe(model_id, revision, key)
    from huggingface_hub import hf_hub_download

    try:
        return Located(model_id, Path(hf_hub_download(model_id, "config.json", revision=revision)).parent)
    except Exception as error:
        raise AccessError(f"{model_id}: config.json cannot be downloaded ({_short(error)}); try again") from error


def _checked(path: Path, key: str) -> Path:
    config = path / "config.json"
    if not config.is_file() and (path / "run.json").is_file():
        raise InputError(
            f"{key}: {path} is a run, not a model's folder; write its model with medvlm export {path} --merge --out "
            "FOLDER, and name that folder"
        )
    if not config.is_file():
        raise InputError(f"{key}: {path} holds no config.json, so it is not a model's folder")
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{key}: {config} is not JSON; copy the model again") from error
    if not _whole(path):
        raise InputError(
            f"{key}: {path} lacks weights (model.safetensors or pytorch_model.bin, or a part that their index names); "
            "copy the model again"
        )
    return path


def _whole(path: Path) -> bool:
    """Return True where every weight file of a format is there: all that its index names, or the one without."""
    for name in _WEIGHTS:
        index = path / f"{name}.index.json"
        if index.is_file():
            shards = set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values())
            if shards and all((path / shard).is_file() for shard in shards):
                return True
        elif (path / name).is_file():
            return True
    return False


def _cached(model_id: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(model_id, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError, ValueError):
        return None
    return path if (path / "config.json").is_file() and _whole(path) else None


def _download(model_id: str, revision: str | None, key: str) -> Path:
    _probe(model_id, revision, key)
    from huggingface_hub import list_repo_files, snapshot_download

    try:
        patterns = [*_FILES, _weights_pattern(list_repo_files(model_id, revision=revision))]
        return Path(snapshot_download(model_id, revision=revision, allow_patterns=patterns))
    except Exception as error:
        # The HTTP client's errors are no OSErrors.
        raise AccessError(
            f"{model_id}: the download broke off ({_short(error)}); run the same command again to go on, "
            f"{_or_local(key)}"
        ) from error


def _weights_pattern(files: Sequence[str]) -> str:
    """Return which weights to download: one format of those that the repository has, and no copies elsewhere in it."""
    for name, pattern in _WEIGHTS.items():
        if name in files or f"{name}.index.json" in files:
            return pattern
    return _WEIGHTS["model.safetensors"]


def _or_local(key: str) -> str:
    return f"or name a local copy with {key}=PATH"


def _probe(model_id: str, revision: str | None, key: str) -> None:
    """Ask the Hub once for the model's config.json, in a thread, since a name look-up may hang past any timeout."""
    page = f"https://huggingface.co/{model_id}"
    advice = f"accept its license at {page}, log in with `hf auth login`, {_or_local(key)}"
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise AccessError(f"{model_id}: HF_HUB_OFFLINE is set and the model is not in the cache; unset it, {advice}")
    failure: list[BaseException | None] = []

    def ask() -> None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        try:
            url = hf_hub_url(model_id, "config.json", revision=revision)
            get_hf_file_metadata(url, timeout=PROBE_SECONDS)
            failure.append(None)
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    error = failure[0] if failure else TimeoutError(f"no answer within {PROBE_SECONDS:g} s")
    if error is not None:
        raise AccessError(f"{model_id}: {_reason(error)}; {advice}") from error


def _reason(error: BaseException) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return "the weights are gated and this account has no access"
    if isinstance(error, RevisionNotFoundError):
        return "no such revision on the Hub"
    if isinstance(error, RepositoryNotFoundError):
        return "no such model on the Hub, or it is private or gated and you are not logged in"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "the Hub refuses this account, or you are not logged in"
    return f"the Hub cannot be reached ({_short(error)})"


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__
