"""What may be used, sold and shared: the samples a license policy admits, and what follows for a fine-tuned model.

A fine-tune is as free as the least free of its inputs: code, base weights and every data set. Share-alike forces the
same license; no-derivatives and no-distribution leave private use; a missing license is unknown, never permissive; of a
dual license (OR) the alternative with most rights counts; disagreements are reported, not resolved. `terms` holds the
table of rights. This is bookkeeping, not legal advice.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from medvlm.errors import UsageError
from medvlm.licenses import expressions, terms
from medvlm.licenses.registry import Entry, Field

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


def of_sample(license: str | None, scope: str | None, third_party: bool | None) -> str:
    """Return what a sample counts as in training: its license; "unknown" where none is stated.

    An article's license gives nothing of a third party's picture in it, unless the figure has its own (`scope` figure):
    what the article asks holds, and what the third party asks is unknown.
    """
    if third_party and scope != "figure":
        return f"({license}) AND unknown" if license else "unknown"
    return license or "unknown"


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
    forbids: list[str] = dataclasses.field(default_factory=list)
    """The inputs that forbid commercial use or sharing, with what they forbid."""

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as it is stored in run.json."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, slots=True)
class Input:
    """One thing that goes into a fine-tune."""

    part: str
    """code, weights, data, or entry: what the registry says of a model taken together."""
    label: str
    license: str
    use: str
    share: str
    remark: str = ""

    def __str__(self) -> str:
        text = f"{self.label}: {self.license}: commercial use {self.use}, sharing {self.share}"
        return f"{text} ({self.remark})" if self.remark else text

    @property
    def keys(self) -> list[str]:
        """The license ids that hold; none where no license is stated."""
        if self.part == "entry":
            return []
        return [key for key in terms.chosen(self.license, self.part) if _is_id(key)]

    @property
    def forbids(self) -> str | None:
        """What the input forbids, in one line."""
        what = [word for word, right in (("commercial use", self.use), ("sharing", self.share)) if right == "no"]
        return f"{self.label}: {self.license}: forbids {' and '.join(what)}" if what else None


def verdict(model: Entry | None, data: Mapping[str, int], model_name: str = "") -> Verdict:
    """Return what follows for a model fine-tuned from `model` on `data`.

    Args:
        model: the base model's registry entry; None where the registry has none, which makes the verdict unknown.
        data: number of samples by license id (SPDX or LicenseRef); empty where it was not recorded.
        model_name: what the recipe calls the base model; used where there is no entry.
    """
    return verdict_of_parts({model_name: model}, data)


def verdict_of_parts(
    parts: Mapping[str, Entry | None],
    data: Mapping[str, int] | None,
    not_prepared: Sequence[str] = (),
    gone: Iterable[str] = (),
    unrecorded: Sequence[str] = (),
) -> Verdict:
    """Return what follows for a model whose base is made of several: an image tower and a language model, say.

    The strictest of all inputs holds.

    Args:
        parts: what the recipe calls each -> its registry entry, None where the registry has none.
        data: as for `verdict`, of all stages of the training; None where nothing is trained at all.
        not_prepared: data sets that will be trained on, of which nothing is known yet.
        gone: runs that the training started from and that are not there, so that their data is not known.
        unrecorded: runs that do not say what they were trained on.
    """
    return decide(inputs(parts, data, not_prepared, gone, unrecorded), conflicts(parts))


def conflicts(parts: Mapping[str, Entry | None]) -> list[str]:
    """Return a line for each system whose sources disagree."""
    entries = {entry.name: entry for entry in parts.values() if entry is not None}
    return [f"sources on {entry.name} conflict: {entry.conflict}" for entry in entries.values() if entry.conflict]


def decide(items: Sequence[Input], conflicts: Sequence[str] = ()) -> Verdict:
    """Return the verdict that follows from all inputs: the strictest holds.

    Args:
        items: in the order code, weights, data.
        conflicts: lines on sources that disagree; they are told, and change nothing by themselves.
    """
    use = expressions.most_restrictive(item.use for item in items)
    share = expressions.most_restrictive(item.share for item in items)
    clash = _clash(items)
    if clash:
        share = expressions.most_restrictive([share, "unknown"])
    rank = expressions.RESTRICTIVENESS.index
    # Stable: the inputs that decide come first, in the order code, weights, data.
    doubtful = sorted(
        (item for item in items if (item.use, item.share) != ("yes", "yes")),
        key=lambda item: min(rank(item.use), rank(item.share)),
    )
    reasons = [*(str(item) for item in doubtful), *clash, *conflicts]
    forbids = [item.forbids for item in doubtful if item.forbids]
    return Verdict(use, share, _license_to_carry(items, share), _obligations(items), reasons, forbids=forbids)


def inputs(
    parts: Mapping[str, Entry | None],
    data: Mapping[str, int] | None,
    not_prepared: Sequence[str] = (),
    gone: Iterable[str] = (),
    unrecorded: Sequence[str] = (),
) -> list[Input]:
    """Return all that goes into a fine-tune, in the order code, weights, data; arguments as `verdict_of_parts`."""
    entries = {entry.name: entry for entry in parts.values() if entry is not None}
    return [
        *(Input("weights", f"run {run} that it starts from", "gone", "unknown", "unknown") for run in gone),
        *(item for entry in entries.values() for item in _model_inputs(entry, "")),
        *(item for name, entry in parts.items() if entry is None for item in _model_inputs(None, name)),
        *(Input("data", f"training data {path}", "not prepared", "unknown", "unknown") for path in not_prepared),
        *(Input("data", f"training data of run {run}", "not recorded", "unknown", "unknown") for run in unrecorded),
        *(_data_inputs(data) if data or (data is not None and not not_prepared and not unrecorded) else ()),
    ]


def _model_inputs(model: Entry | None, name: str) -> Iterator[Input]:
    if model is None:
        label = f"base model {name or '(unnamed)'}"
        yield Input("weights", label, "not in the license registry", "unknown", "unknown")
        return
    for part, field in _PARTS:
        license = getattr(model, field)
        use, share = expressions.commercial_use(license), _share(license, part)
        if field not in model.unverified:
            yield Input(part, f"{part} of {model.name}", license, use, share, _alternatives(license, part))
            continue
        # An unverified permission stands under the condition that somebody confirms it.
        doubt = [expressions.most_restrictive([value, "conditional"]) for value in (use, share)]
        remark = "unverified: confirm it at its source"
        yield Input(part, f"{part} of {model.name}", license, doubt[0], doubt[1], remark)
    if (model.commercial_use, model.may_share) != ("yes", "yes"):
        words = model.note.get("commercial_use", "")
        remark = f"on record: {words}" if words else ""
        label = f"registry entry {model.name}"
        yield Input("entry", label, "taken together", model.commercial_use, model.may_share, remark)


_PARTS: tuple[tuple[str, Field], ...] = (("code", "code_license"), ("weights", "weights_license"))


def _alternatives(license: str, part: str) -> str:
    """Return what of a dual license (OR) is counted, in words; empty where there is no choice."""
    kept = terms.chosen(license, part)
    return "" if set(kept) == set(expressions.symbols(license)) else f"of the alternatives {' AND '.join(kept)} counts"


def _data_inputs(data: Mapping[str, int]) -> Iterator[Input]:
    if not any(data.values()):
        yield Input("data", "training data", "licenses not recorded", "unknown", "unknown")
    for license, count in data.items():
        if count:
            label = f"training data, {count:,} sample{'s' if count != 1 else ''}"
            use, share = expressions.commercial_use(license), _share(license, "data")
            yield Input("data", label, license or "none stated", use, share, _alternatives(license, "data"))


def _share(license: str | None, part: str) -> str:
    """Return whether what derives from a license's work may be passed on."""
    return expressions.most_restrictive(terms.of(key, part).share for key in terms.chosen(license, part))


def may_pass_on(license: str | None, *, changed: bool) -> str:
    """Return whether copies of a work may be passed on: yes, no, conditional or unknown.

    An expression counts as all its parts. No-derivatives licenses allow it only for what is as it was.

    Args:
        license: SPDX expression or LicenseRef; None where none is stated, which is unknown.
        changed: the copies were shrunk, cropped or changed otherwise.
    """
    keys = expressions.symbols(license)
    if changed:
        return expressions.most_restrictive(terms.of(key).share for key in keys)
    return expressions.most_restrictive(
        "conditional" if terms.no_derivatives(key) else terms.of(key).share for key in keys
    )


def _is_id(key: str) -> bool:
    return key not in ("NOASSERTION", "NONE") and expressions.is_license_id(key)


def _inherited(items: Sequence[Input]) -> list[str]:
    """Return the licenses that the fine-tune must stay under; of one share-alike license only the newest version."""
    newest: dict[str, str] = {}
    for key in sorted({key for item in items for key in item.keys if terms.of(key, item.part).inherits}):
        # CC BY-SA lets adapted material go under a later version of the same license; version 1.0 does not.
        later = terms.is_creative_commons(key) and "-1.0" not in key
        newest[re.sub(r"-(?:\d\.\d.*|unversioned)$", "", key) if later else key] = key
    return list(newest.values())


def _clash(items: Sequence[Input]) -> list[str]:
    """Return a line for each pair of demands that no one license satisfies; they are reported, not resolved."""
    forced = _inherited(items)
    lines = []
    if forced[1:]:
        lines.append(f"{' and '.join(forced)} each ask for their own terms: no one license satisfies all")
    # Share-alike and copyleft licenses grant commercial use to everybody; Gemma's and its like allow stricter terms.
    open_to_all = [key for key in forced if terms.is_creative_commons(key) or not key.lower().startswith("licenseref-")]
    open_to_all = [key for key in open_to_all if expressions.commercial_use(key) != "no"]
    closed = [key for item in items if item.part != "code" for key in item.keys if _noncommercial(key)]
    if open_to_all and closed:
        lines.append(
            f"{open_to_all[0]} lets everybody use what derives from it commercially, {closed[0]} forbids that: "
            "no one license satisfies both"
        )
    return lines


def _noncommercial(key: str) -> bool:
    return expressions.commercial_use(key) == "no"


def _license_to_carry(items: Sequence[Input], share: str) -> str:
    if share == "no":
        return "none: private use only"
    if share == "unknown":
        return "none yet: an input's license is unknown or two of them clash"
    forced, closed = _inherited(items), any(item.use == "no" for item in items)
    if forced:
        # What is for non-commercial use may lie in another input, and the license to inherit says nothing of it.
        return f"{forced[0]}, for non-commercial use only" if closed and not _noncommercial(forced[0]) else forced[0]
    if closed:
        return "any license for non-commercial use"
    weights = list(dict.fromkeys(item.license for item in items if item.part == "weights"))
    if weights[1:]:
        weights = [f"({license})" if " OR " in license.upper() else license for license in weights]
    return " AND ".join(weights) or "any: the data ask for no license of their own"


def _obligations(items: Sequence[Input]) -> list[str]:
    lines = (line for item in items for key in item.keys for line in terms.of(key, item.part).of(key))
    return list(dict.fromkeys(lines))
