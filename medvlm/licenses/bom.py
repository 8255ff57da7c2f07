"""A run's bill of materials as CycloneDX 1.6 JSON: the model and its card, its bases, data sets and software.

Written with cyclonedx-python-lib (extra `medvlm[bom]`) and checked against the schema that comes with it before a byte
is written. Of the schema's parts for machine learning the library knows the component types only; `modelCard` and
`data` are put into its JSON. Serial number and timestamp come from the run: the same run gives the same file.
"""

from __future__ import annotations

import datetime
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medvlm.errors import InputError, MedvlmError, MissingExtraError, UsageError
from medvlm.export.rights import data_of, licenses_of, stages
from medvlm.io import check_plain, sha256_file, stable_hash, write_text
from medvlm.licenses import check, expressions, model_card, registry
from medvlm.licenses.refs import resolve
from medvlm.models.locate import is_packaged, locate, weights_fingerprint
from medvlm.runs import Run

try:
    from cyclonedx.exception import MissingOptionalDependencyException
    from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense, License, LicenseExpression
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion
    from cyclonedx.spdx import is_supported_id
    from cyclonedx.validation.json import JsonStrictValidator
    from packageurl import PackageURL
except ImportError as error:
    raise MissingExtraError("a bill of materials", "bom") from error

VERSION = SchemaVersion.V1_6
MODEL = "model"
_FIRST = ("$schema", "bomFormat", "specVersion", "serialNumber", "version", "metadata")
"""What a reader looks for at the top of the file."""


def write(run: Run, path: Path | str) -> None:
    """Write the bill of materials of a finished run.

    Args:
        run: finished; its bases are hashed where they are at hand.
        path: of the JSON file; a bill of materials that is there is replaced.

    Raises:
        InputError: the run's facts are damaged.
        UsageError: as `check_place`.
        MedvlmError: what was built does not satisfy CycloneDX's schema.
        MissingExtraError: cyclonedx-python-lib's validator is not installed.
    """
    check_place(Path(path))
    write_text(path, text(run))


def check_place(path: Path) -> None:
    """Make sure that a bill of materials may be written at a path.

    Raises:
        UsageError: it is a folder or a device, or a file that is no bill of materials.
    """
    if path.is_dir():
        raise UsageError(f"{path}: a folder; name a file for the bill of materials, such as {path / 'bom.json'}")
    check_plain(path, "--bom")
    if not path.exists():
        return
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        old = None
    if not isinstance(old, dict) or old.get("bomFormat") != "CycloneDX":
        raise UsageError(f"{path}: there already, and no bill of materials; name another file, or remove it")


def text(run: Run) -> str:
    """Return what `write` writes; errors likewise."""
    facts, recipe = run.facts(), run.recipe()
    data = list(_data(run))
    bom = _bom(run, facts, data)
    found = json.loads(make_outputter(bom, OutputFormat.JSON, VERSION).output_as_string())
    refs = [str(component.bom_ref.value) for component in data]
    found["metadata"]["component"]["modelCard"] = model_card.card(run, recipe, refs)
    for component in found["components"]:
        if component["type"] == "data":
            component["data"] = [{"type": "dataset", "name": component["name"]}]
    del found["serialNumber"]
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"medvlm:{stable_hash(found)}")
    found["serialNumber"] = f"urn:uuid:{serial}"
    ordered = {key: found.pop(key) for key in _FIRST} | found
    whole = json.dumps(ordered, indent=2, ensure_ascii=False) + "\n"
    _validate(whole)
    return whole


def _validate(content: str) -> None:
    try:
        wrong = JsonStrictValidator(VERSION).validate_str(content)
    except MissingOptionalDependencyException as error:
        raise MissingExtraError("a bill of materials", "bom") from error
    if wrong is not None:
        what = " ".join(str(wrong).split())[:300]
        raise MedvlmError(f"the bill of materials does not satisfy CycloneDX {VERSION.to_version()}: {what}")


def _bom(run: Run, facts: Mapping[str, Any], data: list[Component]) -> Bom:
    model = _model(run, facts)
    bases = list(_bases(run, facts))
    software = list(_software(facts))
    tools = [component for component in software if component.name == "medvlm"]
    metadata = BomMetaData(
        component=model, timestamp=_time(run, facts), tools=ToolRepository(components=[_tool(one) for one in tools])
    )
    bom = Bom(components=[*bases, *data, *software], metadata=metadata, serial_number=uuid.UUID(int=0))
    bom.register_dependency(model, [*bases, *data, *software])
    return bom


def _tool(component: Component) -> Component:
    return Component(type=ComponentType.APPLICATION, name=component.name, version=component.version, bom_ref="tool")


def _time(run: Run, facts: Mapping[str, Any]) -> datetime.datetime:
    said = facts.get("finished") or facts.get("started")
    try:
        return datetime.datetime.fromisoformat(str(said))
    except ValueError:
        raise InputError(f"{run.path}/run.json: finished is no time: {said!r}; the run is damaged") from None


def _model(run: Run, facts: Mapping[str, Any]) -> Component:
    """Return the fine-tuned model: its files with hashes, the verdict on it, and its license where it has one."""
    finding = check.check(str(run.path)).findings[0]
    verdict = finding.verdict
    folders = [folder for folder in (run.adapter, run.model) if folder.is_dir()]
    files = sorted(file for folder in folders for file in folder.rglob("*.safetensors"))
    said = {
        "recipe_hash": facts.get("recipe_hash"),
        "commercial_use": verdict.commercial_use,
        "may_share": verdict.may_share,
        "license": verdict.license,
        "notice": verdict.notice,
    }
    lists = {"forbidden_by": verdict.forbids, "obligation": verdict.obligations, "reason": verdict.reasons}
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=str(facts.get("name") or run.path.name),
        version=run.path.resolve().name,
        bom_ref=MODEL,
        description=finding.what,
        licenses=_licenses([verdict.license]) if expressions.symbols(verdict.license) else [],
        components=[_file(file, run.path) for file in files],
        properties=[
            *_properties(said),
            *(Property(name=f"medvlm:{key}", value=line) for key, lines in lists.items() for line in lines),
        ],
    )


def _file(file: Path, folder: Path) -> Component:
    name = file.relative_to(folder).as_posix()
    return Component(type=ComponentType.FILE, name=name, bom_ref=f"file:{name}", hashes=[_sha256(sha256_file(file))])


def _bases(run: Run, facts: Mapping[str, Any]) -> Iterator[Component]:
    """Yield each part of the base, with revision, registry's license and evidence, and hashes where it is at hand."""
    said = facts.get("model") or {}
    parts = said.get("parts") or run.recipe().model.parts
    for role, name in parts.items():
        entry = registry.of_model(name)
        kept = (said.get("weights") or {}).get(role)
        revision = said.get("revision") if role == "model" else None
        path = _at_hand(name, revision, kept)
        if revision is None and path is not None and path.parent.name == "snapshots":
            # The Hub's cache names a snapshot by its commit.
            revision = path.name
        on_hub = entry is not None and name.lower() in (id.lower() for id in entry.hub_ids) and entry.repo != "medvlm"
        yield Component(
            type=ComponentType.MACHINE_LEARNING_MODEL,
            name=name,
            version=revision,
            bom_ref=f"base:{role}",
            licenses=_licenses([entry.weights_license]) if entry else [],
            purl=_hub_url(name, revision) if on_hub else None,
            components=[
                Component(type=ComponentType.FILE, name=file, bom_ref=f"base:{role}:{file}", hashes=[_sha256(digest)])
                for file, digest in _weights(path)
            ],
            external_references=_evidence(entry) if entry else [],
            properties=_properties(
                {
                    "role": role,
                    "weights_fingerprint": kept,
                    "code_license": entry.marked("code_license") if entry else "not in the license registry",
                    "weights_license": entry.marked("weights_license") if entry else "not in the license registry",
                    "conflict": entry.conflict if entry else None,
                }
            ),
        )


def _hub_url(name: str, revision: str | None) -> PackageURL:
    owner, _, model = name.partition("/")
    return PackageURL(type="huggingface", namespace=owner, name=model, version=revision.lower() if revision else None)


def _evidence(entry: registry.Entry) -> list[ExternalReference]:
    addresses = [address for address in entry.evidence if address.startswith("https://")]
    return [ExternalReference(type=ExternalReferenceType.EVIDENCE, url=XsUri(address)) for address in addresses]


def _at_hand(name: str, revision: str | None, kept: str | None) -> Path | None:
    """Return where a base lies, if it is on this machine and is what the run was trained on; nothing is downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        if is_packaged(name) or Path(name).expanduser().exists():
            path = locate(name).path
        else:
            path = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, InputError, OSError):
        return None
    return path if kept is not None and weights_fingerprint(path) == kept else None


def _weights(path: Path | None) -> Iterator[tuple[str, str]]:
    """Yield name and SHA-256 of a base's weights."""
    if path is None:
        return
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))
    for file in files:
        # The Hub's cache names a large file by its SHA-256.
        blob = file.resolve().name
        yield file.name, blob if re.fullmatch("[0-9a-f]{64}", blob) else sha256_file(file)


def _data(run: Run) -> Iterator[Component]:
    """Yield each data set of the runs it started from and of the run, with its rows by license."""
    for number, part in enumerate(data_of(reversed(stages(run)))):
        counts = licenses_of([part])
        said = {
            "fingerprint": part.get("fingerprint"),
            "rows": part.get("rows"),
            "tasks": ", ".join(part.get("tasks") or []) or None,
            "weight": part.get("weight"),
            "synthetic": part.get("synthetic"),
            **{f"rows:{license or 'none stated'}": count for license, count in counts.items()},
        }
        yield Component(
            type=ComponentType.DATA,
            name=str(part.get("title") or Path(str(part.get("path"))).name),
            version=str(part.get("fingerprint") or "")[:16] or None,
            bom_ref=f"data:{number}",
            description=f"{part.get('rows')} rows for training",
            licenses=_licenses(counts),
            properties=_properties(said),
        )


def _software(facts: Mapping[str, Any]) -> Iterator[Component]:
    for name, version in (facts.get("versions") or {}).items():
        # A build's mark such as +cpu is part of the version; the package index's address has it escaped.
        purl = PackageURL(type="pypi", name=name, version=version)
        yield Component(type=ComponentType.LIBRARY, name=name, version=version, bom_ref=f"pypi:{name}", purl=purl)


def _licenses(stated: Iterable[str]) -> list[License]:
    """Return licenses as the schema has them: one by its id or title, several as one expression that holds wholly.

    What is no license id (none stated, unknown, no assertion) is named in words, beside the others by name.
    """
    keys = list(dict.fromkeys(stated))
    ids = [key for license in keys for key in expressions.symbols(license)]
    known = bool(ids) and all(expressions.is_license_id(key) and key not in ("NOASSERTION", "NONE") for key in ids)
    if known and all(expressions.symbols(license) for license in keys) and (len(keys) > 1 or len(ids) > 1):
        alone = [f"({license})" if len(expressions.symbols(license)) > 1 else license for license in keys]
        return [LicenseExpression(" AND ".join(alone) if len(keys) > 1 else keys[0])]
    return [_license(key) for key in keys]


def _license(key: str) -> License:
    if is_supported_id(key):
        return DisjunctiveLicense(id=key)
    reference = resolve(key)
    if reference:
        return DisjunctiveLicense(name=f"{reference.id}: {reference.title}", url=XsUri(reference.address))
    return DisjunctiveLicense(name=key if key not in ("", "unknown", "NOASSERTION", "NONE") else "none stated")


def _properties(said: Mapping[str, Any]) -> list[Property]:
    return [Property(name=f"medvlm:{key}", value=str(value)) for key, value in said.items() if value is not None]


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)
