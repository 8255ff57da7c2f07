"""What may be used: which samples a license policy admits."""

from __future__ import annotations

import functools

from medvlm.errors import UsageError
from medvlm.licenses import expressions

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
