"""The baseline registry: its schema, its rule on doubtful permissions, and that no fact of the source table is lost."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import license_expression
import pydantic
import pytest

from medvlm.errors import UsageError
from medvlm.licenses import registry
from medvlm.licenses.registry import Entry, find, get, load

FIELD_OF_COLUMN = {
    "params": "parameters",
    "code_license": "code_license",
    "weights_license": "weights_license",
    "training_data_license_note": "data_license",
    "commercial_use": "commercial_use",
    "gated": "gated",
    "may_share_finetune": "may_share",
    "license_conflict": "conflict",
    "published_scores": "scores",
    "evidence": "evidence",
    "verified": "verified",
}


@pytest.fixture(scope="module")
def table(realdata: Path) -> list[dict[str, str]]:
    path = realdata.parent / "reference" / "baselines.csv"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def row(**changes: Any) -> dict[str, Any]:
    return {**get("LXMERT").model_dump(), **changes}


def test_names_and_hub_ids_are_unique() -> None:
    entries = load()
    assert len(entries) >= 57
    names = [entry.name.lower() for entry in entries]
    assert len(set(names)) == len(names)
    hub_ids = [hub_id.lower() for entry in entries for hub_id in entry.hub_ids]
    assert len(set(hub_ids)) == len(hub_ids)
    assert all(hub_id.count("/") == 1 and " " not in hub_id for hub_id in hub_ids)


@pytest.mark.parametrize("entry", load(), ids=lambda entry: entry.name)
def test_every_entry_is_well_formed(entry: Entry) -> None:
    known = {key.lower() for key in license_expression.get_spdx_licensing().known_symbols}
    for license in (entry.code_license, entry.weights_license):
        for key in license_expression.Licensing().license_keys(license):
            assert key.lower() in known or key.startswith("LicenseRef-") or key in ("NOASSERTION", "NONE")
    for address in entry.evidence:
        assert address.startswith(("https://github.com/", "https://huggingface.co/")) or entry.repo == "medvlm"
        assert " " not in address
    # A verified row can be looked up; where nothing was checked there may be no address.
    assert entry.evidence or entry.verified == "no"
    assert not (entry.commercial_use == "yes" and (entry.conflict or "commercial_use" in entry.unverified))
    assert not (entry.may_share == "yes" and entry.conflict)


def test_doubt_is_never_permissive_in_the_schema() -> None:
    assert Entry.model_validate(row()).commercial_use == "yes"
    for doubt in ({"conflict": "card says otherwise"}, {"unverified": ["commercial_use"]}):
        with pytest.raises(pydantic.ValidationError, match="commercial_use is yes"):
            Entry.model_validate(row(**doubt))
    for wrong in ({"commercial_use": "maybe"}, {"extra": 1}, {"unverified": ["nothing"]}, {"gated": True}):
        with pytest.raises(pydantic.ValidationError):
            Entry.model_validate(row(**wrong))


def test_find_by_name_hub_id_and_repository() -> None:
    paligemma = find("GOOGLE/PaliGemma-3b-pt-448")
    assert paligemma is not None
    assert paligemma.name == "PaliGemma-3B pt-448"
    assert find("paligemma-3b PT-448") == paligemma
    assert paligemma.commercial_use == "conditional"
    assert paligemma.gated == "yes"
    vilt = find("dandelin/vilt")
    assert vilt is not None
    assert vilt.name == "ViLT"
    assert find("salesforce/LAVIS") is None, "several systems share that repository"
    assert find("") is None
    tiny = get("medvlm/tiny-base")
    assert (tiny.commercial_use, tiny.may_share, tiny.gated) == ("yes", "yes", "no")


def test_get_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match='did you mean "google/paligemma-3b-pt-448"'):
        get("google/paligema-3b-pt-448")


def test_marked_shows_what_is_unverified() -> None:
    assert get("GIT-base").marked("weights_license") == "MIT [unverified]"
    assert get("LXMERT").marked("weights_license") == "MIT"
    assert get("Flamingo").marked("data_license") == "not stated [unverified]"


def test_known_conflicts_are_reported_and_not_resolved() -> None:
    for name in ("LLaVA-Med v1.5", "CheXagent-2", "BiomedGPT", "GIT-MPT (heron)", "Qwen2.5-VL-7B"):
        entry = get(name)
        assert entry.conflict
        assert entry.commercial_use != "yes"


@pytest.mark.realdata
def test_every_system_of_the_table_is_there(table: list[dict[str, str]]) -> None:
    names = [row["system"] for row in table]
    assert len(names) == 56
    assert [entry.name for entry in load()][:56] == names


@pytest.mark.realdata
def test_no_fact_of_the_table_is_lost(table: list[dict[str, str]]) -> None:
    for line in table:
        entry = get(line["system"])
        for column, field in FIELD_OF_COLUMN.items():
            cell = line[column]
            if cell not in ("", "-"):
                assert cell in (getattr(entry, field), entry.note.get(field)), (entry.name, column)
        for word in line["hf_id_or_repo"].split("; "):
            known = (*entry.hub_ids, entry.repo, *entry.note.get("hub_ids", "").split("; "))
            assert word in known, (entry.name, word)


@pytest.mark.realdata
def test_unverified_cells_keep_their_mark(table: list[dict[str, str]]) -> None:
    for line in table:
        entry = get(line["system"])
        for column, field in FIELD_OF_COLUMN.items():
            if "[unverified" in line[column] and column not in ("verified", "evidence"):
                assert field in entry.unverified, (entry.name, column)
        if line["commercial_use"] != "yes" or line["license_conflict"]:
            assert entry.commercial_use != "yes"
        else:
            assert entry.commercial_use == "yes"


def test_a_broken_file_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "baselines.yaml"
    path.write_text("- name: x\n")
    monkeypatch.setattr(registry, "FILE", path)
    registry._entries.cache_clear()
    try:
        with pytest.raises(Exception, match=r"baselines.yaml: Entry hub_ids: Field required"):
            load()
    finally:
        monkeypatch.undo()
        registry._entries.cache_clear()
