"""The bill of materials against CycloneDX's schema, read back by the library, and against the run's own files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import ComponentType
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from medvlm.errors import InputError, MedvlmError, UsageError
from medvlm.export.card import _data
from medvlm.export.rights import card_license, notices, of_run
from medvlm.io import write_json
from medvlm.licenses import bom, model_card
from medvlm.models.locate import weights_fingerprint
from medvlm.resources import PACKAGE
from medvlm.runs import Run

MakeRun = Callable[..., Path]
SCORES = {
    "schema": 2,
    "n": 20,
    "rows": {"model": {"cider": 1.25, "vqa": None}, "constant": {"cider": 1.5}},
    "intervals": {"model": {"cider": [1.0, 1.5]}},
    "slices": [
        {"column": "modality", "value": "CT", "n": 12, "rows": {"model": {"cider": [1.125, 0.5, 2.0]}}},
    ],
    "warnings": ["cider: the model does not beat the constant answer"],
}


def built(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bom.text(Run(run)))
    return found


def parts(found: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [one for one in found["components"] if one["type"] == kind]


def properties(component: dict[str, Any]) -> dict[str, str]:
    return {one["name"].removeprefix("medvlm:"): one["value"] for one in component["properties"]}


def test_it_satisfies_the_schema_and_the_library_reads_it_back(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(licenses={"CC-BY-4.0": 6, "LicenseRef-CC-BY-unversioned": 1, "unknown": 1})
    write_json(run / "eval" / "test" / "scores.json", SCORES)
    bom.write(Run(run), tmp_path / "out" / "bom.json")
    text = (tmp_path / "out" / "bom.json").read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    # What the library has no types for is left out before it reads.
    plain = json.loads(text)
    assert list(plain)[1:3] == ["bomFormat", "specVersion"]
    plain["metadata"]["component"].pop("modelCard")
    for component in plain["components"]:
        component.pop("data", None)
    read = Bom.from_json(plain)  # type: ignore[attr-defined]
    assert read.metadata.component.type is ComponentType.MACHINE_LEARNING_MODEL
    assert {component.type for component in read.components} == {
        ComponentType.MACHINE_LEARNING_MODEL,
        ComponentType.DATA,
        ComponentType.LIBRARY,
    }
    assert read.metadata.timestamp.isoformat() == "2026-01-01T01:02:03+00:00"


def test_the_same_run_gives_the_same_file_and_another_another(make_run: MakeRun) -> None:
    run = make_run()
    first = bom.text(Run(run))
    assert bom.text(Run(run)) == first
    write_json(run / "eval" / "test" / "scores.json", SCORES)
    assert built(run)["serialNumber"] != json.loads(first)["serialNumber"]


def test_hashes_are_those_of_the_files(make_run: MakeRun) -> None:
    run = make_run()
    (run / "adapter").mkdir()
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"tuned")
    found = built(run)
    (file,) = found["metadata"]["component"]["components"]
    assert file["name"] == "adapter/adapter_model.safetensors"
    assert file["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"tuned").hexdigest()}]
    (base,) = parts(found, "machine-learning-model")
    weights = (PACKAGE / "models" / "tiny_base" / "model.safetensors").read_bytes()
    assert base["components"][0]["hashes"][0]["content"] == hashlib.sha256(weights).hexdigest()


def test_another_base_than_the_one_trained_on_is_not_hashed(make_run: MakeRun) -> None:
    run = make_run()
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    facts["model"]["weights"] = {"model": "0" * 64}
    write_json(run / "run.json", facts)
    (base,) = parts(built(run), "machine-learning-model")
    assert "components" not in base
    assert properties(base)["weights_fingerprint"] == "0" * 64


def test_a_base_of_the_hub_has_revision_address_license_and_evidence(make_run: MakeRun) -> None:
    commit = "ABCDEF" + "0" * 34
    name = "google/paligemma-3b-pt-448"
    model = {"id": name, "parts": {"model": name}, "revision": commit, "weights": {}}
    found = built(make_run(base=name, model=model))
    (base,) = parts(found, "machine-learning-model")
    assert base["version"] == commit
    purl = PackageURL.from_string(base["purl"])
    assert (purl.type, purl.namespace, purl.name, purl.version) == (
        "huggingface",
        "google",
        "paligemma-3b-pt-448",
        commit.lower(),
    )
    (license,) = base["licenses"]
    assert license["license"]["name"].startswith("LicenseRef-scancode-gemma-tou-2024-04-01: Gemma Terms of Use")
    assert license["license"]["url"].startswith("https://")
    assert {one["type"] for one in base["externalReferences"]} == {"evidence"}
    said = properties(found["metadata"]["component"])
    assert (said["commercial_use"], said["may_share"]) == ("conditional", "conditional")
    assert "not legal advice" in said["notice"]


def test_a_base_in_the_cache_of_the_hub_gives_commit_and_hashes_without_reading_it(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, commit = b"weights", "1234abcd" * 5
    digest = hashlib.sha256(content).hexdigest()
    snapshot = tmp_path / "models--google--paligemma-3b-pt-448" / "snapshots" / commit
    blobs = snapshot.parent.parent / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    (blobs / digest).write_bytes(content)
    (snapshot / "model.safetensors").symlink_to(blobs / digest)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, local_files_only, **__: str(snapshot))
    monkeypatch.setattr(bom, "sha256_file", lambda path: pytest.fail(f"{path} is read"))
    name = "google/paligemma-3b-pt-448"
    model = {
        "id": name,
        "parts": {"model": name},
        "revision": None,
        "weights": {"model": weights_fingerprint(snapshot)},
    }
    (base,) = parts(built(make_run(base=name, model=model)), "machine-learning-model")
    assert base["version"] == commit
    assert base["components"][0]["hashes"][0]["content"] == digest


def test_a_base_of_two_parts_has_two_components(make_run: MakeRun) -> None:
    named = {"vision_tower": "google/siglip-base-patch16-224", "language_model": "/some/where/llm.gguf"}
    found = built(make_run(model={"parts": named, "revision": None, "weights": {"vision_tower": "1" * 64}}))
    bases = {properties(one)["role"]: one for one in parts(found, "machine-learning-model")}
    assert {role: one["name"] for role, one in bases.items()} == named
    assert bases["vision_tower"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert "purl" not in bases["language_model"]
    assert properties(bases["language_model"])["weights_license"] == "not in the license registry"


def test_data_sets_with_their_licenses(make_run: MakeRun) -> None:
    first = make_run("first", licenses={"CC-BY-4.0": 6, "LicenseRef-PMC-TDM": 2})
    found = built(make_run("second", start=first, licenses={"CC0-1.0": 3, "unknown": 1}))
    earlier, second = parts(found, "data")
    assert earlier["licenses"] == [{"expression": "CC-BY-4.0 AND LicenseRef-PMC-TDM"}]
    assert properties(earlier)["rows:LicenseRef-PMC-TDM"] == "2"
    assert second["licenses"] == [{"license": {"id": "CC0-1.0"}}, {"license": {"name": "none stated"}}]
    assert second["data"][0]["type"] == "dataset"
    refs = [one["ref"] for one in found["metadata"]["component"]["modelCard"]["modelParameters"]["datasets"]]
    assert refs == [earlier["bom-ref"], second["bom-ref"]]
    assert properties(found["metadata"]["component"])["forbidden_by"].startswith("training data, 2 samples")
    depends = next(one for one in found["dependencies"] if one["ref"] == "model")
    assert set(depends["dependsOn"]) == {one["bom-ref"] for one in found["components"]}


def test_software_of_the_run_has_package_addresses(make_run: MakeRun) -> None:
    found = parts(built(make_run()), "library")
    versions = {one["name"]: PackageURL.from_string(one["purl"]).version for one in found}
    assert versions == {"medvlm": "0.1.0", "torch": "2.13.0+cpu"}


def test_scores_stand_in_the_model_card(make_run: MakeRun) -> None:
    run = make_run()
    assert "quantitativeAnalysis" not in built(run)["metadata"]["component"]["modelCard"]
    write_json(run / "eval" / "test" / "scores.json", SCORES)
    card = built(run)["metadata"]["component"]["modelCard"]
    interval = {"lowerBound": "1", "upperBound": "1.5"}
    sliced = {"lowerBound": "0.5", "upperBound": "2"}
    place = "test, n = 12, model, modality: CT"
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "cider", "value": "1.25", "slice": "test, n = 20, model", "confidenceInterval": interval},
        {"type": "cider", "value": "1.5", "slice": "test, n = 20, constant answer"},
        {"type": "cider", "value": "1.125", "slice": place, "confidenceInterval": sliced},
    ]
    limits = card["considerations"]["technicalLimitations"]
    assert "test: cider: the model does not beat the constant answer" in limits
    assert any("not a medical device" in line for line in limits)
    assert model_card.CONSIDERATIONS["technicalLimitations"] == limits[:-1], "the table itself is not changed"


def test_what_is_damaged_is_told_and_nothing_is_written(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = make_run(), tmp_path / "bom.json"
    (run / "eval" / "test").mkdir(parents=True)
    (run / "eval" / "test" / "scores.json").write_text("{")
    with pytest.raises(InputError, match=r"scores\.json: damaged"):
        bom.write(Run(run), out)
    (run / "eval" / "test" / "scores.json").unlink()
    monkeypatch.setattr(model_card, "CONSIDERATIONS", {"technicalLimitations": [], "users": "one text"})
    with pytest.raises(MedvlmError, match=r"does not satisfy CycloneDX 1\.6"):
        bom.write(Run(run), out)
    monkeypatch.undo()
    with pytest.raises(InputError, match="finished is no time"):
        bom.write(Run(make_run("late", finished="yesterday")), out)
    assert not out.exists()


@pytest.mark.parametrize("content", ['{"schema": 1, "status": "finished"}', "not JSON", None])
def test_it_replaces_nothing_but_a_bill_of_materials(make_run: MakeRun, tmp_path: Path, content: str | None) -> None:
    run, path = Run(make_run()), tmp_path / "here"
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)
    with pytest.raises(UsageError, match=r"here: (a folder|there already)"):
        bom.write(run, path)
    assert path.is_dir() if content is None else path.read_text() == content
    os.mkfifo(tmp_path / "device")
    with pytest.raises(UsageError, match="is no plain file"):
        bom.write(run, tmp_path / "device")
    bom.write(run, tmp_path / "bom.json")
    bom.write(run, tmp_path / "bom.json")


def test_a_license_with_a_limit_beside_it_is_not_the_license_alone(make_run: MakeRun) -> None:
    run = make_run(base="google/paligemma-3b-pt-448", licenses={"CC-BY-NC-4.0": 3})
    rights = of_run(Run(run))
    assert rights.verdict["license"] == "LicenseRef-scancode-gemma-tou-2024-04-01, for non-commercial use only"
    assert card_license(rights.verdict)["license"] == "other"
    assert "licenses" not in built(run)["metadata"]["component"]


@pytest.mark.parametrize("license", ["LicenseRef-OPT-175B", "LicenseRef-Qwen-Research"])
def test_notices_that_licenses_ask_for(license: str) -> None:
    (text,) = notices([license])
    assert "is licensed under the" in text
    assert "All Rights Reserved." in text


def test_rows_whose_license_was_not_recorded_are_shown(make_run: MakeRun) -> None:
    part = {"path": "data/x", "fingerprint": "f", "rows": 8}
    for licenses, counts in ((None, {"unknown": "8"}), ({"CC0-1.0": 5}, {"CC0-1.0": "5", "unknown": "3"})):
        run = make_run(data=[{**part, "licenses": licenses}])
        (data,) = parts(built(run), "data")
        said = properties(data)
        assert {key[5:]: said[key] for key in said if key.startswith("rows:")} == counts
        assert all(f"{license} ({count})" in _data(of_run(Run(run))) for license, count in counts.items())
    assert parts(built(make_run("silent", data=[])), "data") == []
