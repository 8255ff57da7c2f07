"""`medvlm prepare ... --push REPO`: a finished data set uploaded to the Hugging Face Hub.

What goes up is named one by one: the shards that the manifest lists, the manifest, and the plain files beside it. A
data set with licenses that do not let copies be passed on is refused, for a private repository too, and so is one with
pictures of third parties under no license of their own, unless that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from medvlm import hub
from medvlm.data import cards
from medvlm.data.output import MANIFEST, read_manifest
from medvlm.errors import InputError, LicenseError
from medvlm.hub import Pushed, Upload
from medvlm.licenses.policy import may_pass_on


def push(
    folder: Path,
    repo: str,
    *,
    private: bool,
    third_party: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
) -> Pushed:
    """Upload the data set in `folder` to the dataset repository `repo`; shards of an earlier push go.

    A push that was cut off is called again: what the Hub has is not sent twice.

    Args:
        folder: a finished data set of `prepare`; its log and its stores are never uploaded.
        repo: `name/set`, or `set` for the account's own; made if absent.
        private: make it private. One that is there and public is then refused.
        third_party: upload pictures of third parties, too, to which only their article's license was applied.
        token: of the account; None takes the one that is saved or in HF_TOKEN.
        endpoint: address of another Hub; None takes the usual one.

    Raises:
        InputError: no whole data set lies in `folder`, or `repo` holds something else.
        LicenseError: a license in the data set does not allow copies to be passed on, or third parties have rights.
        UsageError: `repo` is no name of a repository.
        AccessError: the Hub cannot be reached or refuses the account.
    """
    manifest = _whole(folder)
    check_licenses(manifest)
    if not third_party:
        check_third_parties(folder, manifest)
    upload = Upload(
        folder,
        files(folder, manifest),
        "dataset",
        MANIFEST,
        f"Upload data set {manifest['fingerprint'][:16]}, made with medvlm {manifest['medvlm']}",
        replaces=["data/*.parquet"],
    )
    return hub.push(upload, repo, private=private, public_flag="with --public", token=token, endpoint=endpoint)


def files(folder: Path, manifest: Mapping[str, Any]) -> dict[str, int]:
    """Return the names of what is uploaded, relative to `folder`, with their sizes in bytes."""
    plain = [name for name in (MANIFEST, cards.NAME, *cards.FILES) if (folder / name).is_file()]
    return {name: (folder / name).stat().st_size for name in [*(shard["name"] for shard in manifest["shards"]), *plain]}


def check_licenses(manifest: Mapping[str, Any]) -> None:
    """Make sure that every license of a data set lets copies of its samples be passed on.

    No-derivatives licenses do so only for unchanged copies: not where pictures were shrunk or cut into panels,
    questions made from captions, or reports cleaned.

    Raises:
        LicenseError: one does not; the message names all.
    """
    settings = manifest["settings"]
    changed = [f"--max-side {settings['max_side']}"] if settings.get("max_side") else []
    changed += ["--panels split"] if settings.get("panels") == "split" else []
    changed += ["--task vqa"] if settings.get("task") == "vqa" else []
    changed += [f"--sections {settings['sections']}"] if settings.get("sections") else []
    barred = [
        f"{license} ({count:,})"
        for license, count in manifest["licenses"].items()
        if may_pass_on(license, changed=bool(changed)) in ("no", "unknown")
    ]
    if barred:
        why = (
            f"; no-derivatives licenses do not where {' and '.join(changed)} changed pictures or texts"
            if changed
            else ""
        )
        raise LicenseError(
            f"not pushed: licenses in this data set do not let copies be passed on, samples in brackets: "
            f"{', '.join(barred)}{why}; prepare it again with --license commercial or a list of ids that do"
        )


def check_third_parties(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Make sure that no picture of a third party is there under the license of its article alone.

    An article's license gives nothing that belongs to somebody else; a license of the figure itself does.

    Raises:
        LicenseError: there are such pictures; the message says how many.
    """
    if not manifest["counts"]["third_party"].get("yes"):
        return
    count, first = 0, ""
    for shard in manifest["shards"]:
        with pq.ParquetFile(folder / shard["name"]) as file:
            for batch in file.iter_batches(8192, columns=["id", "third_party", "license_scope"]):
                found = [
                    row["id"] for row in batch.to_pylist() if row["third_party"] and row["license_scope"] != "figure"
                ]
                count += len(found)
                first = first or "".join(found[:1])
    if count:
        raise LicenseError(
            f"not pushed: {count:,} samples hold a picture, or a part of one, of a third party that states no license "
            f"for it (the first is {first}); leave them out in a copy (with datasets, filter by third_party), or push "
            "them with --push-third-party where their owners allow it"
        )


def _whole(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder}: no finished data set of medvlm prepare lies here; prepare it before pushing")
    for shard in manifest["shards"]:
        path = folder / shard["name"]
        if not path.is_file() or path.stat().st_size != shard["bytes"]:
            raise InputError(f"{path}: missing or of another size than the manifest says; prepare the data set again")
    return manifest
