"""What may be used, sold and shared: the samples a license policy admits, and what follows for a fine-tuned model.

A fine-tune is as free as the least free of its inputs: code, base weights and every data set. Share-alike forces the
same license; no-derivatives and no-distribution leave private use; a missing license is unknown, never permissive;
disagreements are reported, not resolved. This is bookkeeping, not legal advice.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from medvlm.errors import UsageError
from medvlm.licenses import expressions
from medvlm.licenses.registry import Entry

NOT_LEGAL_ADVICE = "Derived by fixed rules from recorded licenses; not legal advice."

_REASONS = {
    "no": "license forbids commercial use",
    "unknown": "license unknown",
    "conditional": "license conditional",
}


def admit(policy: str, license: str | None, commercial_use: str) -> str | None:
    """Return None where a policy admits a license, else the short reason that is counted.

    Args:
        policy: "commercial" (admits `commercial_use` yes only), "any", or a comma-separated list of SPDX ids.
        license: SPDX expression or LicenseRef; None where none is stated.
        commercial_use: yes, no, conditional or unknown.

    Raises:
        UsageError: the policy is neither of the two words nor a list of license ids.
    """
    allowed = parse_policy(policy)
    if allowed == "any":
        return None
    if allowed == "commercial":
        return None if commercial_use == "yes" else _REASONS.get(commercial_use, "license unknown")
    if not license:
        return "license unknown"
    return None if expressions.satisfied(license, allowed) else "license not in the list"


@functools.cache
def parse_policy(policy: str) -> str | frozenset[str]:
    """Return "commercial", "any", or the listed license ids in lower case.

    Raises:
        UsageError: an id is empty, is no license id, or is one that neither SPDX nor medvlm knows.
    """
    word = policy.strip().lower()
    if word in ("commercial", "any"):
        return word
    names = [name.strip() for name in policy.split(",")]
    for name in names:
        if not expressions.is_license_id(name):
            raise UsageError(
                f'--license "{policy}": "{name}" is no license id; give "commercial", "any", or SPDX ids separated by '
                'commas, as in "CC-BY-4.0,CC0-1.0"'
            )
    return frozenset(name.lower() for name in names)


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What may be done with a fine-tuned model."""

    commercial_use: str
    """yes, no, conditional or unknown."""
    may_share: str
    """May the weights be passed on: yes, no, conditional or unknown."""
    license: str
    """What the fine-tune must carry: an SPDX id, the terms it inherits, or in words why there is none."""
    obligations: list[str]
    reasons: list[str]
    """One line for each input that is not plainly free, those that decide first."""
    notice: str = NOT_LEGAL_ADVICE

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as it is stored in run.json."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, slots=True)
class _Terms:
    """What a license asks of whoever passes on a work derived from what it covers."""

    share: str
    obligation: str = ""
    inherits: bool = False
    """The derived work stays under this license's own terms."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Input:
    """One thing that goes into a fine-tune."""

    label: str
    license: str
    use: str
    share: str
    remark: str = ""

    def __str__(self) -> str:
        text = f"{self.label}: {self.license}: commercial use {self.use}, sharing {self.share}"
        return f"{text} ({self.remark})" if self.remark else text


_NOTICE = "keep the copyright and license notice of {id}"
_ATTRIBUTE = "name the authors of the {id} material (attribution file)"
_PRIVATE = _Terms("no", "keep the model private: {id} allows no distribution of what derives from it")
_RESEARCH = _Terms("conditional", "share for non-commercial use only and pass on the terms of {id}", inherits=True)
_OWN_TERMS = _Terms("conditional", "pass on the terms of {id} and its use policy", inherits=True)

# Lower case; Creative Commons licenses are read from their ids, everything else is unknown.
_TERMS: dict[str, _Terms] = {
    **dict.fromkeys(
        ["cc0-1.0", "cc-pdm-1.0", "cc-pddc", "pddl-1.0", "unlicense", "licenseref-public-domain", "0bsd", "mit-0"],
        _Terms("yes"),
    ),
    **dict.fromkeys(["odc-by-1.0"], _Terms("yes", _ATTRIBUTE)),
    **dict.fromkeys(
        [
            "licenseref-scancode-gemma-tou-2024-04-01",
            "licenseref-scancode-llama-2-license-2023",
            "licenseref-scancode-llama-3.1-license-2024",
            "licenseref-scancode-llama-3.2-license-2024",
            "licenseref-scancode-llama-3.3-license-2024",
            "licenseref-scancode-llama-4-license-2025",
            "licenseref-scancode-bigscience-open-rail-m",
            "licenseref-scancode-bigscience-open-rail-m2",
            "licenseref-scancode-bigcode-open-rail-m-v1",
            "licenseref-hai-def",
        ],
        _OWN_TERMS,
    ),
    **dict.fromkeys(
        ["licenseref-qwen-research", "licenseref-apple-sample-code-1.1", "licenseref-msrla", "licenseref-opt-175b"],
        _RESEARCH,
    ),
    **dict.fromkeys(
        [
            "licenseref-all-rights-reserved",
            "licenseref-pmc-tdm",
            "licenseref-elsevier-user",
            "licenseref-elsevier-tdm",
            "licenseref-wiley-tdm",
            "licenseref-msr-research",
            "licenseref-physionet-credentialed",
            "licenseref-scancode-llama-license-2023",
        ],
        _PRIVATE,
    ),
}
_CC_TERMS = re.compile(r"(?:licenseref-)?cc-by(?P<terms>(?:-(?:nc|sa|nd))*)-(?:\d\.\d.*|unversioned)")


def verdict(model: Entry | None, data: Mapping[str, int], model_name: str = "") -> Verdict:
    """Return what follows for a model fine-tuned from `model` on `data`.

    Args:
        model: the base model's registry entry; None where the registry has none, which makes the verdict unknown.
        data: number of samples by license id (SPDX or LicenseRef); empty where it was not recorded.
        model_name: what the recipe calls the base model; used where there is no entry.
    """
    return verdict_of_parts({model_name: model}, data)


def verdict_of_parts(parts: Mapping[str, Entry | None], data: Mapping[str, int]) -> Verdict:
    """Return what follows for a model whose base is made of several: an image tower and a language model, say.

    The strictest of all inputs holds.

    Args:
        parts: what the recipe calls each -> its registry entry, None where the registry has none.
        data: as for `verdict`, of all stages of the training.
    """
    entries = {entry.name: entry for entry in parts.values() if entry is not None}
    inputs = [
        *(item for entry in entries.values() for item in _model_inputs(entry, "")),
        *(item for name, entry in parts.items() if entry is None for item in _model_inputs(None, name)),
        *_data_inputs(data),
    ]
    use = expressions.most_restrictive(item.use for item in inputs)
    share = expressions.most_restrictive(item.share for item in inputs)
    clash = _clash(inputs)
    if clash:
        share = expressions.most_restrictive([share, "unknown"])
    rank = expressions.RESTRICTIVENESS.index
    # Stable: the inputs that decide come first, in the order code, weights, data.
    doubtful = sorted(
        (item for item in inputs if (item.use, item.share) != ("yes", "yes")),
        key=lambda item: min(rank(item.use), rank(item.share)),
    )
    reasons = [*(str(item) for item in doubtful), *clash]
    reasons += [f"sources on {entry.name} conflict: {entry.conflict}" for entry in entries.values() if entry.conflict]
    return Verdict(use, share, _license_to_carry(inputs, share), _obligations(inputs), reasons)


def _model_inputs(model: Entry | None, name: str) -> Iterator[_Input]:
    if model is None:
        yield _Input(f"base model {name or '(unnamed)'}", "not in the license registry", "unknown", "unknown")
        return
    for label, field in (("code", "code_license"), ("weights", "weights_license")):
        license = getattr(model, field)
        use, share = expressions.commercial_use(license), _share(license)
        if field not in model.unverified:
            yield _Input(f"{label} of {model.name}", license, use, share)
            continue
        # An unverified permission stands under the condition that somebody confirms it.
        doubt = [expressions.most_restrictive([value, "conditional"]) for value in (use, share)]
        yield _Input(f"{label} of {model.name}", license, doubt[0], doubt[1], "unverified: confirm it at its source")
    if (model.commercial_use, model.may_share) != ("yes", "yes"):
        remark = model.note.get("commercial_use", "")
        yield _Input(f"registry entry {model.name}", "taken together", model.commercial_use, model.may_share, remark)


def _data_inputs(data: Mapping[str, int]) -> Iterator[_Input]:
    if not any(data.values()):
        yield _Input("training data", "licenses not recorded", "unknown", "unknown")
    for license, count in data.items():
        if count:
            label = f"training data, {count:,} sample{'s' if count != 1 else ''}"
            yield _Input(label, license or "none stated", expressions.commercial_use(license), _share(license))


def _share(license: str | None) -> str:
    """Return whether what derives from a license's work may be passed on; an expression counts as all its parts."""
    return expressions.most_restrictive(_terms(key).share for key in expressions.symbols(license))


def may_pass_on(license: str | None, *, changed: bool) -> str:
    """Return whether copies of a work may be passed on: yes, no, conditional or unknown.

    An expression counts as all its parts. No-derivatives licenses allow it only for what is as it was.

    Args:
        license: SPDX expression or LicenseRef; None where none is stated, which is unknown.
        changed: the copies were shrunk, cropped or changed otherwise.
    """
    keys = expressions.symbols(license)
    if changed:
        return expressions.most_restrictive(_terms(key).share for key in keys)
    return expressions.most_restrictive("conditional" if _no_derivatives(key) else _terms(key).share for key in keys)


def _no_derivatives(key: str) -> bool:
    found = _CC_TERMS.fullmatch(key.lower())
    return bool(found and "nd" in found["terms"].split("-"))


def _terms(key: str) -> _Terms:
    known = _TERMS.get(key.lower())
    if known:
        return known
    found = _CC_TERMS.fullmatch(key.lower())
    if found:
        return _creative_commons(found["terms"].split("-"))
    use = expressions.commercial_use(key)
    if use == "yes":
        return _Terms("yes", _NOTICE)
    if use == "conditional":
        return _Terms("conditional", "offer the source as {id} asks and keep it under {id}", inherits=True)
    return _Terms("no" if use == "no" else "unknown")


def _creative_commons(terms: list[str]) -> _Terms:
    if "nd" in terms:
        return _Terms("no", "keep the model private: {id} allows no distribution of adapted material")
    obligation = _ATTRIBUTE
    if "nc" in terms:
        obligation += "; share for non-commercial use only"
    if "sa" in terms:
        return _Terms("conditional", obligation + "; share under the same license", inherits=True)
    return _Terms("conditional" if "nc" in terms else "yes", obligation)


def _keys(inputs: list[_Input]) -> list[str]:
    """Return the license ids that the inputs name, each once, in order."""
    return list(dict.fromkeys(key for item in inputs for key in expressions.symbols(item.license) if _is_id(key)))


def _is_id(key: str) -> bool:
    return key not in ("NOASSERTION", "NONE") and expressions.is_license_id(key)


def _inherited(inputs: list[_Input]) -> list[str]:
    """Return the licenses that the fine-tune must stay under; of one share-alike license only the newest version."""
    newest: dict[str, str] = {}
    for key in sorted(key for key in _keys(inputs) if _terms(key).inherits):
        # CC BY-SA lets adapted material go under a later version of the same license.
        newest[re.sub(r"-(?:\d\.\d.*|unversioned)$", "", key) if _CC_TERMS.fullmatch(key.lower()) else key] = key
    return list(newest.values())


def _clash(inputs: list[_Input]) -> list[str]:
    """Return a line where two licenses each force their own terms on the fine-tune."""
    forced = _inherited(inputs)
    return [f"{' and '.join(forced)} each ask for their own terms: no one license satisfies all"] if forced[1:] else []


def _license_to_carry(inputs: list[_Input], share: str) -> str:
    if share == "no":
        return "none: private use only"
    if share == "unknown":
        return "none yet: an input's license is unknown or two of them clash"
    forced = _inherited(inputs)
    if forced:
        return forced[0]
    if any(item.use == "no" for item in inputs):
        return "any license for non-commercial use"
    weights = dict.fromkeys(item.license for item in inputs if item.label.startswith("weights of"))
    return " AND ".join(weights) or "none yet"


def _obligations(inputs: list[_Input]) -> list[str]:
    lines = (_terms(key).obligation.format(id=key) for key in _keys(inputs))
    return list(dict.fromkeys(line for line in lines if line))
