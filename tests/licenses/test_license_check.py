"""What `check` says of runs, recipes, data sets and systems whose answers are known by hand."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prepared import write_folder

from medvlm.data.mixture import Mixture
from medvlm.data.rows import Shards
from medvlm.data.sources.phantom.base_grammar import base_samples
from medvlm.errors import InputError, LicenseError, UsageError
from medvlm.export.rights import data_of, of_run
from medvlm.licenses import registry
from medvlm.licenses.check import Finding, check, lines, require
from medvlm.recipe.load import check as check_recipe
from medvlm.recipe.models import DataPart
from medvlm.report.context import read
from medvlm.report.document import Table
from medvlm.report.licensing import license_blocks
from medvlm.runs import Run
from medvlm.train.group import rights

MakeRun = Callable[..., Path]
GEMMA = "google/paligemma-3b-pt-448"


def only(target: Path | str) -> Finding:
    (finding,) = check(str(target)).findings
    return finding


def test_a_run_on_free_data(make_run: MakeRun) -> None:
    found = only(make_run())
    assert (found.verdict.commercial_use, found.verdict.may_share, found.verdict.license) == (
        "yes",
        "yes",
        "Apache-2.0",
    )
    assert found.verdict.forbids == []
    assert any("attribution file" in line for line in found.verdict.obligations)
    assert [item.part for item in found.inputs] == ["code", "weights", "data", "data"]


def test_the_input_that_forbids_is_named(make_run: MakeRun) -> None:
    run = make_run(licenses={"CC-BY-4.0": 6, "CC-BY-NC-ND-4.0": 1})
    found = check(str(run))
    assert found.findings[0].verdict.forbids == [
        "training data, 1 sample: CC-BY-NC-ND-4.0: forbids commercial use and sharing"
    ]
    text = "\n".join(lines(found))
    assert "forbidden by\n    - training data, 1 sample: CC-BY-NC-ND-4.0" in text
    assert text.endswith("not legal advice.")


def test_gemma_asks_for_its_policy_and_notice(make_run: MakeRun) -> None:
    found = check(str(make_run(base=GEMMA)))
    text = "\n".join(lines(found))
    assert "https://ai.google.dev/gemma/prohibited_use_policy" in text
    assert "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms" in text
    assert found.findings[0].verdict.commercial_use == "conditional"
    assert "conflict" in text, "what the sources disagree about is told"


def test_an_earlier_stage_counts_and_a_lost_one_is_unknown(make_run: MakeRun, tmp_path: Path) -> None:
    first = make_run("first", licenses={"CC-BY-NC-4.0": 5})
    second = make_run("second", start=first)
    assert only(second).verdict.commercial_use == "no"
    assert any("5 samples: CC-BY-NC-4.0" in line for line in only(second).verdict.forbids)
    lost = only(make_run("third", start=tmp_path / "runs" / "gone"))
    assert (lost.verdict.commercial_use, lost.verdict.may_share) == ("unknown", "unknown")
    assert "gone" in lost.verdict.reasons[0]
    shutil.rmtree(first)
    assert only(second).verdict.commercial_use == "unknown"
    recorded = of_run(Run(second)).verdict
    assert (recorded["commercial_use"], recorded["may_share"]) == ("unknown", "unknown")


def test_a_recipe_from_a_run_whose_own_start_is_gone(make_run: MakeRun, tmp_path: Path, mixed_data: Path) -> None:
    second = make_run("second", start=tmp_path / "runs" / "gone")
    path = tmp_path / "more.yaml"
    stages = f"- {{name: a, model: {{start: {second}}}}}\n- {{name: b, model: {{start: {make_run('other')}}}}}\n"
    path.write_text(f"name: more\nmodel: {{id: medvlm/tiny-base}}\ndata: [{{path: {mixed_data}}}]\nstages:\n{stages}")
    for finding in check(str(path)).findings:
        assert any("runs/gone that it starts from: gone" in line for line in finding.verdict.reasons), finding.name


def test_one_folder_twice_by_task_counts_twice(make_run: MakeRun) -> None:
    common = {"path": "data/m", "fingerprint": "a" * 64}
    closed = {**common, "rows": 5, "tasks": ["caption"], "licenses": {"CC-BY-NC-4.0": 5}}
    free = {**common, "rows": 7, "tasks": ["vqa"], "licenses": {"CC0-1.0": 7}}
    run = make_run(data=[closed, free])
    assert only(run).verdict.commercial_use == "no"
    assert of_run(Run(run)).licenses == {"CC-BY-NC-4.0": 5, "CC0-1.0": 7}
    assert [part["licenses"] for part in data_of([Run(run), Run(run)])] == [{"CC-BY-NC-4.0": 5}, {"CC0-1.0": 7}]
    second = make_run("second", data=[free], start=make_run("first", data=[closed]))
    assert only(second).verdict.commercial_use == "no"


@pytest.mark.parametrize("other", [{}, {"licenses": None}, {"licenses": {"CC0-1.0": 3}}])
def test_rows_without_a_recorded_license_are_unknown_beside_others(make_run: MakeRun, other: dict[str, Any]) -> None:
    known = {"path": "data/a", "fingerprint": "a" * 64, "rows": 5, "licenses": {"CC0-1.0": 5}}
    run = make_run(data=[known, {"path": "data/b", "fingerprint": "b" * 64, "rows": 800, **other}])
    assert (only(run).verdict.commercial_use, only(run).verdict.may_share) == ("unknown", "unknown")
    later = check_recipe(
        {"name": "x", "model": {"id": "medvlm/tiny-base", "start": str(run)}, "data": [{"path": "d"}]}, ""
    )
    assert rights(later, [{"path": "d", "licenses": {"CC0-1.0": 2}}])["commercial_use"] == "unknown"
    silent = make_run("silent", data=None)
    assert only(make_run("after", start=silent)).verdict.commercial_use == "unknown"


@pytest.mark.parametrize("count", [None, "5", -1, 5.0, True])
def test_counts_that_are_none_are_told(make_run: MakeRun, count: Any) -> None:
    run = make_run(data=[{"path": "d", "rows": 5, "licenses": {"CC-BY-NC-4.0": count, "CC0-1.0": 3}}])
    with pytest.raises(InputError, match=r"run\.json: damaged: .* rows of CC-BY-NC-4\.0"):
        check(str(run))


def test_a_folder_does_not_get_the_rights_of_what_it_is_called(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LXMERT", "HuggingFaceTB/SmolLM2-135M", "medvlm/tiny-base"):
        Path(name).mkdir(parents=True)
    assert registry.find("LXMERT") is not None
    assert registry.of_model("LXMERT") is None
    assert registry.of_model("HuggingFaceTB/SmolLM2-135M") is None
    assert registry.of_model("medvlm/tiny-base") is not None, "the packaged base is what this name means, always"
    run = make_run(base="HuggingFaceTB/SmolLM2-135M", licenses={"CC0-1.0": 1})
    assert only(run).verdict.commercial_use == "unknown"
    assert of_run(Run(run)).verdict["commercial_use"] == "unknown"


def test_what_a_third_party_owns_is_not_under_the_license_of_its_article(tmp_path: Path) -> None:
    rows = [next(iter(base_samples(3, index))) for index in range(2)]
    common = {"license": "CC-BY-4.0", "commercial_use": "yes", "third_party": True}
    borrowed = dataclasses.replace(rows[0], **common, license_scope="article")
    licensed = dataclasses.replace(rows[1], **common, license_scope="figure")
    write_folder(tmp_path / "both", {"train": [borrowed, licensed]})
    write_folder(tmp_path / "own", {"train": [licensed]})
    counted = Mixture([DataPart(path=str(tmp_path / "both"))], "train", 0).licenses()
    assert counted == {"(CC-BY-4.0) AND unknown": 1, "CC-BY-4.0": 1}
    assert only(tmp_path / "both").verdict.commercial_use == "unknown"
    closed = dataclasses.replace(borrowed, license="CC-BY-NC-4.0", commercial_use="no")
    write_folder(tmp_path / "closed", {"train": [closed]})
    found = only(tmp_path / "closed").verdict
    assert (found.commercial_use, found.may_share) == ("no", "unknown"), "the article's license still forbids"
    assert "for non-commercial use only" in found.obligations[0]
    assert only(tmp_path / "own").verdict.commercial_use == "yes"


def test_a_baseline_is_judged_without_data(make_run: MakeRun) -> None:
    found = only(make_run(kind="baseline", licenses={}))
    assert (found.verdict.commercial_use, found.verdict.license) == ("yes", "Apache-2.0")
    assert found.what == "the model as it is: medvlm/tiny-base"
    assert only(make_run("other", base="nobody/knows", kind="baseline", licenses={})).verdict.may_share == "unknown"


def test_a_run_whose_data_licenses_were_not_recorded_is_unknown(make_run: MakeRun) -> None:
    assert only(make_run(licenses={})).verdict.commercial_use == "unknown"


def test_a_recipe_before_its_data_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = only("tiny")
    assert (found.verdict.commercial_use, found.verdict.may_share) == ("unknown", "unknown")
    assert "training data data/pmc: not prepared" in found.verdict.reasons[0]


def test_a_recipe_with_data(mixed_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\nmodel: {{id: medvlm/tiny-base}}\ndata: [{{path: {mixed_data}}}]\n")
    found = only(path)
    assert (found.verdict.commercial_use, found.verdict.may_share) == ("no", "unknown")
    assert found.verdict.forbids == ["training data, 1 sample: CC-BY-NC-4.0: forbids commercial use"]
    assert not any("CC0" in item.license for item in found.inputs), "only rows for training count"


def test_stages_inherit_and_variants_do_not(mixed_data: Path, tmp_path: Path) -> None:
    common = "name: mine\nmodel: {id: medvlm/tiny-base}\n"
    overlays = f"- {{name: a, data: [{{path: {mixed_data}}}]}}\n- {{name: b, data: [{{path: nowhere}}]}}\n"
    answers = {}
    for kind in ("stages", "variants"):
        path = tmp_path / f"{kind}.yaml"
        path.write_text(f"{common}{kind}:\n{overlays}")
        found = check(str(path))
        assert [finding.name for finding in found.findings] == ["a", "b"]
        answers[kind] = [finding.verdict.commercial_use for finding in found.findings]
    assert answers == {"stages": ["no", "no"], "variants": ["no", "unknown"]}


def test_a_recipe_that_starts_from_a_run(make_run: MakeRun, mixed_data: Path, tmp_path: Path) -> None:
    run = make_run(base=GEMMA)
    path = tmp_path / "more.yaml"
    model = f"{{id: medvlm/tiny-base, start: {run}}}"
    path.write_text(f"name: more\nmodel: {model}\ndata: [{{path: {mixed_data}}}]\n")
    assert "weights of PaliGemma-3B pt-448" in {item.label for item in only(path).inputs}
    path.write_text(path.read_text().replace(str(run), "runs/no-such"))
    assert "run runs/no-such that it starts from: gone" in str(only(path).verdict.reasons)


def test_a_prepared_data_set_counts_all_its_rows(mixed_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Licenses alone are read: the texts of a large data set may be more than fits in memory.
    monkeypatch.delattr(Shards, "texts")
    found = only(mixed_data)
    assert "3 rows" in found.what
    assert {item.license for item in found.inputs} == {"CC-BY-NC-4.0", "unknown", "CC0-1.0"}
    assert (found.verdict.commercial_use, found.verdict.may_share) == ("no", "unknown")


@pytest.mark.parametrize(
    ("name", "use", "share"),
    [
        ("vqa-rad", "yes", "yes"),
        ("phantom", "yes", "yes"),
        ("pmc", "unknown", "unknown"),
        ("embedded sample", "no", "no"),
        (GEMMA, "conditional", "conditional"),
        ("LLaVA-Med v1.0", "no", "no"),
        ("R2Gen", "unknown", "unknown"),
    ],
)
def test_a_system_of_the_registry(name: str, use: str, share: str) -> None:
    found = check(name)
    assert found.kind == "system"
    assert (found.findings[0].verdict.commercial_use, found.findings[0].verdict.may_share) == (use, share)


def test_targets_that_are_none(tmp_path: Path, make_run: MakeRun) -> None:
    with pytest.raises(UsageError, match='did you mean "paligemma448"'):
        check("paligema448")
    with pytest.raises(UsageError, match="is no run, recipe"):
        check("x" * 300)
    with pytest.raises(InputError, match=r"no run\.json"):
        check(str(tmp_path))
    with pytest.raises(InputError, match="data is no list of data sets"):
        check(str(make_run("broken", data={"licenses": 3})))
    with pytest.raises(InputError, match="running"):
        check(str(make_run(status="running")))


def test_require(make_run: MakeRun) -> None:
    free, gemma, closed = (
        check(str(make_run(*arguments)))
        for arguments in (("free",), ("gemma", GEMMA), ("closed", "medvlm/tiny-base", {"CC-BY-NC-4.0": 1}))
    )
    require(free, "commercial")
    require(free, "share")
    with pytest.raises(LicenseError, match=r"commercial use is conditional: .*--accept-conditions"):
        require(gemma, "commercial")
    require(gemma, "commercial", accept_conditions=True)
    with pytest.raises(LicenseError, match=r"commercial use is no: training data, 1 sample: CC-BY-NC-4.0"):
        require(closed, "commercial", accept_conditions=True)
    require(closed, "share", accept_conditions=True)
    unknown = check("R2Gen")
    for need in ("commercial", "share"):
        with pytest.raises(LicenseError, match="is unknown"):
            require(unknown, need, accept_conditions=True)
    with pytest.raises(UsageError, match='did you mean "share"'):
        require(free, "shared")


def test_json_holds_verdict_inputs_and_texts(make_run: MakeRun) -> None:
    found = check(str(make_run(base=GEMMA))).as_dict()
    assert "not legal advice" in found["notice"]
    (finding,) = found["findings"]
    assert {"commercial_use", "may_share", "license", "obligations", "reasons", "forbids", "inputs"} <= finding.keys()
    assert finding["texts"]["LicenseRef-scancode-gemma-tou-2024-04-01"].startswith("Gemma Terms of Use, https://")


def test_what_an_earlier_stage_recorded_still_holds_when_it_is_gone(make_run: MakeRun) -> None:
    first = make_run("first", licenses={"LicenseRef-PMC-TDM": 5, "CC-BY-SA-4.0": 5})
    second = make_run("second", start=first)
    second = make_run("second", start=first, license=only(second).verdict.as_dict())
    shutil.rmtree(first)
    recipe = {"name": "x", "model": {"id": "medvlm/tiny-base", "start": str(second)}, "data": [{"path": "d"}]}
    later = rights(check_recipe(recipe, ""), [{"path": "d", "licenses": {"CC0-1.0": 1}}])
    for found in (only(second).verdict.as_dict(), of_run(Run(second)).verdict, read(second).verdict().as_dict(), later):
        assert (found["commercial_use"], found["may_share"]) == ("no", "no")
        assert any("CC-BY-SA-4.0" in line for line in found["obligations"])


def test_both_stages_on_the_same_rows_count_them_once(make_run: MakeRun) -> None:
    part = {"path": "data/x", "fingerprint": "f", "rows": 10, "licenses": {"CC-BY-SA-4.0": 10}}
    first = make_run("first", data=[{**part, "tasks": ["a", "b"]}])
    second = make_run("second", data=[{**part, "tasks": ["b", "a"]}], start=first)
    later = rights(Run(second).recipe(), [{**part, "tasks": ["b", "a"]}])
    told = "training data, 10 samples: CC-BY-SA-4.0: commercial use yes, sharing conditional"
    assert later["reasons"] == only(second).verdict.reasons == read(second).verdict().reasons == [told]


def test_a_run_without_data_is_unknown_and_invents_none(make_run: MakeRun) -> None:
    silent = make_run("silent", data=[])
    found = of_run(Run(make_run("after", start=silent)))
    assert [part["path"] for part in found.data] == ["data/after"]
    assert f"training data of run {silent}: not recorded" in found.verdict["reasons"][0]
    assert of_run(Run(silent)).data == []
    assert only(silent).verdict.commercial_use == "unknown"


@pytest.mark.parametrize("damage", [{"tasks": 5}, {"tasks": [1]}, {"path": None}])
def test_data_that_is_none_is_told(make_run: MakeRun, damage: dict[str, Any]) -> None:
    run = make_run(data=[{"path": "d", "rows": 5, "licenses": {"CC0-1.0": 5}, **damage}])
    with pytest.raises(InputError, match=r"run\.json: damaged"):
        only(run)


@pytest.mark.parametrize(("weights", "use"), [("same", "yes"), ("other", "unknown"), (None, "unknown")])
def test_an_export_has_its_recorded_rights_with_its_own_weights_only(
    make_run: MakeRun, weights: str | None, use: str
) -> None:
    free = {"commercial_use": "yes", "may_share": "yes", "license": "Apache-2.0"}
    exported = {"data": [{"path": "d", "title": "The set", "licenses": {"CC0-1.0": 3}}], "weights": weights}
    model = {"id": "merged", "parts": {"model": "merged"}, "weights": {"model": "same"}}
    run = make_run(kind="baseline", license=free, exported=exported, model=model)
    assert only(run).verdict.commercial_use == read(run).verdict().commercial_use == use
    tables = [block.rows for block in license_blocks(read(run)) if isinstance(block, Table)]
    assert (["data: The set", "CC0-1.0", "3"] in tables[0]) == (use == "yes")
