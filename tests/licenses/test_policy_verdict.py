"""What follows for a fine-tuned model: each rule of the table of rights on inputs whose answer is known by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.licenses import terms
from medvlm.licenses.expressions import RESTRICTIVENESS, commercial_use, satisfied, symbols
from medvlm.licenses.policy import Verdict, verdict, verdict_of_parts
from medvlm.licenses.registry import Entry, get, load

TINY = get("medvlm/tiny-base")
PALIGEMMA = get("google/paligemma-3b-pt-448")
GEMMA = "LicenseRef-scancode-gemma-tou-2024-04-01"
PRIVATE = "none: private use only"


def model(**cells: Any) -> Entry:
    """Return the tiny base with some keys of its cells changed."""
    found = TINY.model_dump()
    for field, change in cells.items():
        found["cells"][field].update(change)
    return Entry.model_validate(found)


def licensed(code: str, weights: str) -> Entry:
    return model(code_license={"value": code}, weights_license={"value": weights})


CONDITIONAL = {field: {"value": "conditional"} for field in ("commercial_use", "may_share")}


@pytest.mark.parametrize(
    ("base", "data", "use", "share", "license"),
    [
        (TINY, {"CC-BY-4.0": 3, "CC0-1.0": 2}, "yes", "yes", "Apache-2.0"),
        (TINY, {"CC0-1.0": 2}, "yes", "yes", "Apache-2.0"),
        (TINY, {"CC-BY-SA-4.0": 1, "CC-BY-4.0": 1}, "yes", "conditional", "CC-BY-SA-4.0"),
        (TINY, {"CC-BY-SA-3.0": 1, "CC-BY-SA-4.0": 1}, "yes", "conditional", "CC-BY-SA-4.0"),
        (TINY, {"CC-BY-NC-4.0": 1}, "no", "conditional", "any license for non-commercial use"),
        (TINY, {"CC-BY-NC-SA-4.0": 1}, "no", "conditional", "CC-BY-NC-SA-4.0"),
        (TINY, {"CC-BY-ND-4.0": 1}, "conditional", "no", "none: private use only"),
        (TINY, {"LicenseRef-all-rights-reserved": 1, "CC0-1.0": 9}, "no", "no", "none: private use only"),
        (TINY, {"LicenseRef-own-data": 1, "CC0-1.0": 9}, "conditional", "no", "none: private use only"),
        (TINY, {"LicenseRef-PMC-TDM": 1}, "no", "no", "none: private use only"),
        (PALIGEMMA, {"CC-BY-4.0": 3}, "conditional", "conditional", GEMMA),
        (PALIGEMMA, {"CC-BY-NC-4.0": 3}, "no", "conditional", f"{GEMMA}, for non-commercial use only"),
        (get("CheXagent-2"), {"CC0-1.0": 1}, "no", "no", "none: private use only"),
        (get("LLaVA-Med v1.0"), {"CC0-1.0": 1}, "no", "no", "none: private use only"),
        (get("SigLIP"), {"CC0-1.0": 1}, "conditional", "conditional", "Apache-2.0"),
        (get("LXMERT"), {"CC0-1.0": 1}, "yes", "yes", "MIT"),
    ],
)
def test_verdict(base: Entry, data: dict[str, int], use: str, share: str, license: str) -> None:
    found = verdict(base, data)
    assert (found.commercial_use, found.may_share, found.license) == (use, share, license)


@pytest.mark.parametrize(
    ("base", "data"),
    [
        (None, {"CC0-1.0": 1}),
        (TINY, {}),
        (TINY, {"CC0-1.0": 0}),
        (TINY, {"": 4, "CC0-1.0": 1}),
        (TINY, {"NOASSERTION": 1}),
        (TINY, {"LicenseRef-mine": 1}),
        (get("R2Gen"), {"CC0-1.0": 1}),
        (licensed("MIT", "NOASSERTION"), {"CC0-1.0": 1}),
    ],
)
def test_missing_is_unknown_and_never_permissive(base: Entry | None, data: dict[str, int]) -> None:
    found = verdict(base, data, "some/model")
    assert (found.commercial_use, found.may_share) == ("unknown", "unknown")
    assert found.license.startswith("none yet")
    assert found.reasons


def test_the_input_that_forbids_is_named_first() -> None:
    found = verdict(PALIGEMMA, {"CC-BY-4.0": 900, "CC-BY-NC-4.0": 12})
    assert found.reasons[0].startswith("training data, 12 samples: CC-BY-NC-4.0: commercial use no")
    assert not any("900" in line for line in found.reasons)
    assert any("conflict" in line and "academic research" in line for line in found.reasons)
    assert verdict(None, {"CC0-1.0": 1}, "a/b").reasons == [
        "base model a/b: not in the license registry: commercial use unknown, sharing unknown"
    ]


def test_obligations() -> None:
    found = verdict(PALIGEMMA, {"CC-BY-4.0": 1, "CC0-1.0": 1})
    assert found.obligations == [
        "keep the copyright and license notice of Apache-2.0",
        f"pass on the terms of {GEMMA} and its use policy",
        *terms.of(GEMMA).of(GEMMA)[1:],
        "name the authors of the CC-BY-4.0 material (attribution file)",
    ]
    assert "not legal advice" in found.notice
    assert Verdict(**found.as_dict()) == found


def test_clashing_terms_are_reported_and_not_resolved() -> None:
    for base, data in (
        (TINY, {"CC-BY-SA-4.0": 1, "CC-BY-NC-SA-4.0": 1}),
        (PALIGEMMA, {"CC-BY-SA-4.0": 1}),
        (licensed("MIT", "GPL-3.0-only"), {"CC-BY-SA-4.0": 1}),
        # Version 1.0 lets nothing go under a later one.
        (TINY, {"CC-BY-SA-1.0": 1, "CC-BY-SA-4.0": 1}),
        (TINY, {"ODbL-1.0": 1, "CC-BY-SA-4.0": 1}),
    ):
        found = verdict(base, data)
        assert found.may_share == "unknown"
        assert any("each ask for their own terms" in line for line in found.reasons)


@pytest.mark.parametrize(
    "open_license", ["CC-BY-SA-4.0", "LicenseRef-CC-BY-SA-unversioned", "GPL-3.0-only", "ODbL-1.0"]
)
@pytest.mark.parametrize("closed", ["CC-BY-NC-4.0", "LicenseRef-CC-BY-NC-unversioned"])
def test_share_alike_and_noncommercial_clash(open_license: str, closed: str) -> None:
    found = verdict(TINY, {open_license: 1, closed: 1})
    assert (found.commercial_use, found.may_share) == ("no", "unknown")
    assert f"{open_license} lets everybody use what derives from it commercially, {closed} forbids that" in str(
        found.reasons
    )
    # Without the share-alike part it may be shared for non-commercial use.
    assert verdict(TINY, {closed: 1}).may_share == "conditional"


@pytest.mark.parametrize(
    ("base", "data", "use", "share", "license"),
    [
        # Copyleft code that only ran to make the weights does not reach them; weights and data under it do.
        (licensed("GPL-3.0-only", "Apache-2.0"), {"CC0-1.0": 1}, "conditional", "conditional", "Apache-2.0"),
        (licensed("AGPL-3.0-only", "MIT"), {"CC-BY-SA-4.0": 1}, "conditional", "conditional", "CC-BY-SA-4.0"),
        (licensed("MIT", "GPL-3.0-only"), {"CC0-1.0": 1}, "conditional", "conditional", "GPL-3.0-only"),
        # Dual licenses: the alternative with most rights.
        (licensed("MIT", "Apache-2.0 OR CC-BY-NC-4.0"), {"CC0-1.0": 1}, "yes", "yes", "Apache-2.0 OR CC-BY-NC-4.0"),
        (TINY, {"CC-BY-NC-SA-4.0 OR CC-BY-4.0": 1}, "yes", "yes", "Apache-2.0"),
        (TINY, {"CC-BY-SA-4.0 OR CC-BY-NC-ND-4.0": 1}, "yes", "conditional", "CC-BY-SA-4.0"),
        # Databases under share-alike.
        (TINY, {"ODbL-1.0": 1}, "yes", "conditional", "ODbL-1.0"),
        (TINY, {"CDLA-Sharing-1.0": 1}, "yes", "conditional", "CDLA-Sharing-1.0"),
        # What is written behind the version is no port, and not plain CC BY.
        *(
            (TINY, {id: 1}, "unknown", "unknown", "none yet: an input's license is unknown or two of them clash")
            for id in ("CC-BY-4.0-NC", "CC-BY-3.0-nd", "MIT WITH Commons-Clause")
        ),
        (TINY, {"CC-BY-4.0 AND (CC-BY-NC-4.0 OR CC-BY-ND-4.0)": 1}, "conditional", "no", "none: private use only"),
        # Every family of model licenses.
        *(
            (licensed("Apache-2.0", license), {"CC0-1.0": 1}, use, share, license if share != "no" else PRIVATE)
            for license, use, share in [
                ("LicenseRef-HAI-DEF", "conditional", "conditional"),
                ("LicenseRef-scancode-llama-2-license-2023", "conditional", "conditional"),
                ("LicenseRef-scancode-llama-3.1-license-2024", "conditional", "conditional"),
                ("LicenseRef-scancode-llama-3.2-license-2024", "conditional", "conditional"),
                ("LicenseRef-scancode-llama-3.3-license-2024", "conditional", "conditional"),
                ("LicenseRef-scancode-llama-4-license-2025", "conditional", "conditional"),
                ("LicenseRef-scancode-bigscience-open-rail-m", "conditional", "conditional"),
                ("LicenseRef-scancode-bigcode-open-rail-m-v1", "conditional", "conditional"),
                ("LicenseRef-Qwen-Research", "no", "conditional"),
                ("LicenseRef-MSRLA", "no", "conditional"),
                ("LicenseRef-OPT-175B", "no", "conditional"),
                ("LicenseRef-Apple-Sample-Code-1.1", "no", "conditional"),
                ("LicenseRef-MSR-Research", "no", "no"),
                ("LicenseRef-PhysioNet-credentialed", "no", "no"),
                ("LicenseRef-scancode-llama-license-2023", "no", "no"),
            ]
        ),
    ],
)
def test_rules_of_the_table(base: Entry, data: dict[str, int], use: str, share: str, license: str) -> None:
    found = verdict(base, data)
    assert (found.commercial_use, found.may_share, found.license) == (use, share, license)


@pytest.mark.parametrize(
    ("license", "words"),
    [
        (GEMMA, ["https://ai.google.dev/gemma/prohibited_use_policy", "NOTICE", "changed"]),
        ("LicenseRef-HAI-DEF", ["foundations/terms", "foundations/prohibited-use-policy", "NOTICE", "clinical use"]),
        ("LicenseRef-scancode-llama-2-license-2023", ["700 million", "NOTICE", "other language models"]),
        ("LicenseRef-scancode-llama-3.1-license-2024", ["700 million", '"Built with Llama"', 'name with "Llama"']),
        ("LicenseRef-scancode-llama-3.2-license-2024", ["European Union"]),
        ("LicenseRef-scancode-bigscience-open-rail-m", ["use restrictions"]),
        ("LicenseRef-Qwen-Research", ["non-commercial", '"Built with Qwen"', "copy of the license", "NOTICE"]),
        ("LicenseRef-OPT-175B", ["non-commercial", "copy of the license", "NOTICE"]),
        ("LicenseRef-PhysioNet-credentialed", ["private", "online services"]),
        ("GPL-3.0-only", ["offer the source"]),
        ("CC-BY-4.0", ["attribution file"]),
        ("CC-BY-NC-SA-4.0", ["attribution file", "non-commercial", "same license"]),
    ],
)
def test_what_each_license_asks_for(license: str, words: list[str]) -> None:
    text = " ".join(verdict(licensed("MIT", license), {"CC0-1.0": 1}).obligations)
    assert license in text
    for word in words:
        assert word in text


def test_the_choice_among_dual_licenses_is_said_and_only_its_duties_hold() -> None:
    found = verdict(licensed("MIT", "Apache-2.0"), {"CC-BY-SA-4.0 OR CC-BY-NC-4.0": 2})
    assert "of the alternatives CC-BY-SA-4.0 counts" in str(found.reasons)
    assert not any("CC-BY-NC" in line for line in found.obligations)


def test_what_forbids_is_named_and_only_that() -> None:
    found = verdict(PALIGEMMA, {"CC-BY-4.0": 900, "CC-BY-NC-4.0": 12, "CC-BY-NC-ND-4.0": 1, "": 3})
    assert found.forbids == [
        "training data, 12 samples: CC-BY-NC-4.0: forbids commercial use",
        "training data, 1 sample: CC-BY-NC-ND-4.0: forbids commercial use and sharing",
    ]
    assert verdict(TINY, {"CC0-1.0": 1}).forbids == []
    assert verdict(None, {"": 1}).forbids == [], "unknown forbids nothing, and permits nothing"
    forbidding = verdict(get("facebook/opt-350m"), {"CC0-1.0": 1}).forbids
    assert forbidding[0] == "weights of OPT: LicenseRef-OPT-175B: forbids commercial use"


def test_a_choice_within_a_license_stays_in_brackets() -> None:
    bases = {"a": licensed("MIT", "Apache-2.0 OR MIT"), "b": model_named("b", "BSD-3-Clause")}
    assert verdict_of_parts(bases, {"CC0-1.0": 1}).license == "(Apache-2.0 OR MIT) AND BSD-3-Clause"


def model_named(name: str, weights: str) -> Entry:
    return licensed("MIT", weights).model_copy(update={"name": name})


def test_data_that_is_not_prepared_yet_is_unknown() -> None:
    found = verdict_of_parts({"medvlm/tiny-base": TINY}, {}, ["data/pmc"])
    assert (found.commercial_use, found.may_share) == ("unknown", "unknown")
    assert found.reasons == ["training data data/pmc: not prepared: commercial use unknown, sharing unknown"]
    some = verdict_of_parts({"medvlm/tiny-base": TINY}, {"CC-BY-NC-4.0": 3}, ["data/pmc"])
    assert (some.commercial_use, some.may_share) == ("no", "unknown")


def test_a_model_as_it_is_needs_no_data() -> None:
    found = verdict_of_parts({"medvlm/tiny-base": TINY}, None)
    assert (found.commercial_use, found.may_share, found.license, found.reasons) == ("yes", "yes", "Apache-2.0", [])
    alone = verdict_of_parts({}, {"CC-BY-4.0": 3})
    assert (alone.commercial_use, alone.may_share) == ("yes", "yes")
    assert "no license of their own" in alone.license


def test_unverified_permission_is_a_condition() -> None:
    found = verdict(model(weights_license={"verified": "no"}, **CONDITIONAL), {"CC0-1.0": 1})
    assert found.commercial_use == "conditional"
    assert "unverified" in found.reasons[0]


LICENSES = st.sampled_from(
    ["CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-ND-4.0", "CC-BY-NC-4.0", "MIT", "", "LicenseRef-mine", GEMMA]
)


@given(st.sampled_from([None, *load()]), st.dictionaries(LICENSES, st.integers(1, 9)), LICENSES)
def test_one_more_input_never_widens_the_rights(base: Entry | None, data: dict[str, int], more: str) -> None:
    before, after = verdict(base, data or {"CC0-1.0": 1}), verdict(base, {**(data or {"CC0-1.0": 1}), more: 1})
    rank = RESTRICTIVENESS.index
    assert rank(after.commercial_use) <= rank(before.commercial_use)
    assert rank(after.may_share) <= rank(before.may_share)
    assert rank(after.commercial_use) <= rank(commercial_use(more))
    if base is not None:
        assert rank(after.commercial_use) <= rank(base.commercial_use)


IDS = st.sampled_from(
    [
        "CC0-1.0",
        "CC-BY-4.0",
        "CC-BY-SA-4.0",
        "CC-BY-ND-4.0",
        "CC-BY-NC-4.0",
        "MIT",
        "GPL-3.0-only",
        GEMMA,
        "LicenseRef-x",
    ]
)
EXPRESSIONS = st.recursive(
    IDS,
    lambda inner: st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map("({0[0]} {0[1]} {0[2]})".format),
    max_leaves=5,
)


@given(EXPRESSIONS)
def test_one_alternative_of_a_dual_license_gives_all_its_rights(expression: str) -> None:
    kept = terms.chosen(expression, "data")
    assert set(kept) <= set(symbols(expression))
    assert satisfied(expression, {key.lower() for key in kept}), "the ids kept are enough to have the license"
    assert commercial_use(" AND ".join(kept)) == commercial_use(expression)
    alone, whole = verdict(TINY, {" AND ".join(kept): 1}), verdict(TINY, {expression: 1})
    assert (alone.commercial_use, alone.may_share, alone.obligations) == (
        whole.commercial_use,
        whole.may_share,
        whole.obligations,
    )


@given(EXPRESSIONS, EXPRESSIONS)
def test_a_choice_more_never_narrows_commercial_use(left: str, right: str) -> None:
    rank = RESTRICTIVENESS.index
    both = verdict(TINY, {f"{left} OR {right}": 1}).commercial_use
    assert rank(both) == max(rank(verdict(TINY, {one: 1}).commercial_use) for one in (left, right))


def parts(*names: str) -> dict[str, Entry | None]:
    return {name: get(name) for name in names}


@pytest.mark.parametrize(
    ("names", "use", "share", "license"),
    [
        (("openai/clip-vit-base-patch16", "facebook/opt-350m"), "no", "conditional", "LicenseRef-OPT-175B"),
        (
            ("google/siglip-base-patch16-224", "meta-llama/Llama-2-7b-hf"),
            "conditional",
            "conditional",
            "LicenseRef-scancode-llama-2-license-2023",
        ),
        (("google/siglip-base-patch16-224", "HuggingFaceTB/SmolLM2-135M"), "conditional", "yes", "Apache-2.0"),
        (("LXMERT", "google/siglip-base-patch16-224"), "yes", "yes", "MIT AND Apache-2.0"),
    ],
)
def test_the_strictest_part_of_a_base_holds(names: tuple[str, ...], use: str, share: str, license: str) -> None:
    for order in (names, names[::-1]):
        found = verdict_of_parts(parts(*order), {"CC0-1.0": 1})
        assert (found.commercial_use, found.may_share) == (use, share)
    assert verdict_of_parts(parts(*names), {"CC0-1.0": 1}).license == license


def test_an_unknown_part_makes_the_whole_unknown() -> None:
    found = verdict_of_parts({"medvlm/tiny-base": TINY, "/my/tower": None}, {"CC0-1.0": 1})
    assert (found.commercial_use, found.may_share) == ("unknown", "unknown")
    assert any("/my/tower: not in the license registry" in reason for reason in found.reasons)


def test_parts_of_one_family_are_told_once() -> None:
    found = verdict_of_parts(parts("facebook/opt-350m", "facebook/opt-6.7b"), {"CC0-1.0": 1})
    assert found.reasons == verdict(get("OPT"), {"CC0-1.0": 1}).reasons
    clash = verdict_of_parts(parts("facebook/opt-350m", "google/paligemma-3b-pt-448"), {"CC0-1.0": 1})
    assert clash.may_share == "unknown"
    assert any("each ask for their own terms" in reason for reason in clash.reasons)
