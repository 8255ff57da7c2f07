"""The baseline registry: its schema, its rule on doubtful permissions, and that no fact of the source table is lost."""

from __future__ import annotations

import csv
import datetime
import json
from pathlib import Path
from typing import Any

import jsonschema
import license_expression
import pydantic
import pytest
import yaml

from medvlm.data.sources import SOURCES
from medvlm.errors import UsageError
from medvlm.licenses import registry
from medvlm.licenses.expressions import most_restrictive, symbols
from medvlm.licenses.refs import resolve
from medvlm.licenses.registry import Entry, find, get, load
from medvlm.resources import shipped

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


NAMES = (
    """
PaliGemma-3B pt-224|PaliGemma-3B pt-448|PaliGemma-3B pt-896|PaliGemma 2|GIT-base|GIT-large|GIT-OPT (heron)
GIT-LLaMA2 (heron)|GIT-MPT (heron)|LLaVA-Med v1.0|LLaVA-Med v1.5|Med-Flamingo|OpenFlamingo|Flamingo|IDEFICS
BLIP (v1, LAVIS)|BLIP-2|InstructBLIP|CoCa|FLAVA|ViLBERT|VisualBERT|LXMERT|UNITER|ViLT|MMBT|PixelBERT|SimVLM|data2vec|4M
SigLIP|CLIP|BiomedCLIP|PMC-CLIP|PMC-VQA / MedVInT|MedGemma 4B|RadFM|CheXagent-2|MAIRA-2|LLaVA-Rad|Med-PaLM M
HuatuoGPT-Vision-7B|HuatuoGPT-Vision-34B|Lingshu-7B|Lingshu-32B|RaDialog|R2Gen|R2GenGPT|Qwen2.5-VL-3B|Qwen2.5-VL-7B
SmolVLM|BiomedGPT|LLaVA-Med 1.0 RRG fine-tune|CXRMate|M2KT|Constant template
""".strip()
    .replace("\n", "|")
    .split("|")
)
"""The systems of the table that the registry began with, in its order."""


def row(cells: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return LXMERT's entry with some keys, and some keys of its cells, changed."""
    found = {**get("LXMERT").model_dump(), **changes}
    for field, change in (cells or {}).items():
        found["cells"][field] = {**(found["cells"][field] or NEW), **change}
    return found


NEW = {"verified": "yes", "date": "2026-11-21", "evidence": ["https://example.org/card"]}


def test_all_systems_of_the_first_table_are_there_and_more() -> None:
    names = [entry.name for entry in load()]
    assert len(NAMES) == 56
    assert names[:56] == NAMES
    data = [entry.name for entry in load("data")]
    assert sorted(data) == sorted(["embedded sample", *SOURCES.names()])
    assert [entry.name for entry in load("method")] == ["Constant template"]
    assert len(load("model")) == len(names) - len(data) - 1


def test_names_and_hub_ids_are_unique() -> None:
    entries = load()
    names = [entry.name.lower() for entry in entries]
    assert len(set(names)) == len(names)
    hub_ids = [hub_id.lower() for entry in entries for hub_id in entry.hub_ids]
    assert len(set(hub_ids)) == len(hub_ids)
    assert all(hub_id.count("/") == 1 and " " not in hub_id for hub_id in hub_ids)


@pytest.mark.parametrize("entry", load(), ids=lambda entry: entry.name)
def test_every_entry_is_well_formed(entry: Entry) -> None:
    known = {key.lower() for key in license_expression.get_spdx_licensing().known_symbols}
    licenses = [entry.code_license, entry.weights_license]
    if entry.kind == "data":
        licenses.append(entry.data_license or "")
    for license in licenses:
        keys = license_expression.Licensing().license_keys(license)
        assert keys
        for key in keys:
            assert key.lower() in known or resolve(key) or key in ("NOASSERTION", "NONE")
    for address in entry.evidence:
        assert address.startswith("https://") or (shipped("recipes").parent / address).is_file(), address
        assert " " not in address
    used = {key for _, cell in entry.each() for key in cell.evidence}
    assert set(entry.sources) - used <= {"osf", "paper"} or entry.unverified, "a source that bears on nothing"
    for field in ("commercial_use", "may_share"):
        if getattr(entry, field) == "yes":
            assert not entry.conflict
            assert not {field, "code_license", "weights_license", "data_license"} & set(entry.unverified)


def test_every_cell_says_when_and_by_what() -> None:
    today = datetime.date.today().isoformat()
    for entry in load():
        for field, cell in entry.each():
            assert "2026-11" <= cell.date <= max(today, "2026-11-30"), (entry.name, field)
            if cell.verified == "yes":
                assert entry.addresses(cell), (entry.name, field)
            else:
                # Closed systems have no place where to check.
                assert cell.evidence or not (entry.hub_ids or entry.repo), (entry.name, field)


@pytest.mark.parametrize("field", ["commercial_use", "may_share"])
def test_doubt_is_never_permissive_in_the_schema(field: str) -> None:
    assert Entry.model_validate(row()).commercial_use == "yes"
    for cell in (field, "code_license", "weights_license", "data_license"):
        other = {"may_share" if field == "commercial_use" else "commercial_use": {"value": "conditional"}}
        doubt = row({**other, cell: {"verified": "no"}})
        with pytest.raises(pydantic.ValidationError, match=f"{field} is yes although nobody has verified {cell}"):
            Entry.model_validate(doubt)
        assert Entry.model_validate(
            row(
                {**other, cell: {"verified": "no"}, field: {"value": "conditional"}}
                if (cell != field)
                else {**other, field: {"value": "conditional", "verified": "no"}}
            )
        )
    with pytest.raises(pydantic.ValidationError, match="although its sources conflict"):
        Entry.model_validate(row({"conflict": {"value": "card says otherwise"}}))


@pytest.mark.parametrize(
    "wrong",
    [
        row({"commercial_use": {"value": "maybe"}}),
        row({"gated": {"value": True}}),
        row({"code_license": {"date": "last week"}}),
        row({"code_license": {"verified": "partly"}}),
        row({"code_license": {"evidence": []}}),
        row({"code_license": {"evidence": ["nowhere"]}}),
        row({"code_license": {"extra": 1}}),
        row(extra=1),
        row(kind="toy"),
    ],
)
def test_the_schema_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Entry.model_validate(wrong)


def test_the_schema_beside_the_file_is_the_one_that_is_checked() -> None:
    assert registry.SCHEMA.read_text(encoding="utf-8") == registry.schema_text()
    rows = yaml.load(registry.FILE.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    for entry in rows:
        for cell in entry["cells"].values():
            cell.setdefault("value", None)
    validator = jsonschema.Draft202012Validator(json.loads(registry.SCHEMA.read_text(encoding="utf-8")))
    assert not list(validator.iter_errors(rows))
    rows[0]["cells"]["gated"]["value"] = "perhaps"
    assert list(validator.iter_errors(rows))


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
    assert names == NAMES


@pytest.mark.realdata
def test_no_fact_of_the_table_is_lost(table: list[dict[str, str]]) -> None:
    for line in table:
        entry = get(line["system"])
        for column, field in FIELD_OF_COLUMN.items():
            cell = line[column]
            if cell not in ("", "-"):
                note = entry.note.get(field, "")
                assert cell in (getattr(entry, field), note) or note.startswith(f"{cell}; "), (entry.name, column)
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
        elif set(entry.unverified) & {"commercial_use", "code_license", "weights_license", "data_license"}:
            assert entry.commercial_use == "conditional"
            assert entry.note["commercial_use"] == "yes"
        else:
            assert entry.commercial_use == "yes"


STRICTER = {
    "Salesforce/blip2-opt-2.7b": "facebook/opt-2.7b",
    "Salesforce/blip2-opt-6.7b-coco": "facebook/opt-6.7b",
    "Salesforce/instructblip-vicuna-7b": "HuggingFaceM4/idefics-9b",
    "llava-hf/llava-1.5-7b-hf": "meta-llama/Llama-2-7b-hf",
    "turing-motors/heron-chat-git-Llama-2-7b-v0": "meta-llama/Llama-2-7b-hf",
}
"""Weights -> those of the same or the same kind of language model (LLaMA 1 for Vicuna's first), which they hold."""


@pytest.mark.parametrize(("whole", "part"), STRICTER.items())
def test_weights_allow_no_more_than_those_they_hold(whole: str, part: str) -> None:
    outer, inner = find(whole), find(part)
    assert outer is not None
    assert inner is not None
    assert most_restrictive([outer.commercial_use, inner.commercial_use]) == outer.commercial_use
    terms = set(symbols(inner.weights_license))
    assert terms <= set(symbols(outer.weights_license))


def test_a_broken_file_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "baselines.yaml"
    path.write_text("- name: x\n  kind: model\n  checked: no\n  cells: {code_license: {verified: no, date: 2026-11}}\n")
    monkeypatch.setattr(registry, "FILE", path)
    registry._entries.cache_clear()
    try:
        with pytest.raises(
            Exception, match=r"baselines.yaml: x: cells.code_license.value: Input should be a valid string"
        ):
            load()
    finally:
        monkeypatch.undo()
        registry._entries.cache_clear()


@pytest.mark.parametrize(
    ("data", "note", "allowed"),
    [
        (None, None, False),
        ("web-scale, not released", None, False),
        ("C4 and others, each under its own license", None, False),
        (None, "yes: the makers answer for all of their data", True),
        ("COCO/VG", None, True),
    ],
)
def test_weights_of_unknown_data_are_no_plain_yes(data: str | None, note: str | None, allowed: bool) -> None:
    told = row({"commercial_use": {"value": "yes", "note": note}, "data_license": {"value": data}})
    if allowed:
        assert Entry.model_validate(told).commercial_use == "yes"
    else:
        with pytest.raises(pydantic.ValidationError, match="training data's license is not stated"):
            Entry.model_validate(told)
