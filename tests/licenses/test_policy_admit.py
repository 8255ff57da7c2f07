"""Which samples a license policy admits, and the reason for those it does not."""

from __future__ import annotations

import pytest

from medvlm.errors import UsageError
from medvlm.licenses.policy import admit


@pytest.mark.parametrize(
    ("policy", "license", "use", "reason"),
    [
        ("commercial", "CC-BY-4.0", "yes", None),
        ("commercial", "CC-BY-NC-4.0", "no", "license forbids commercial use"),
        ("commercial", "CC-BY-ND-4.0", "conditional", "license conditional"),
        ("commercial", None, "unknown", "license unknown"),
        (" Commercial ", "CC-BY-4.0", "yes", None),
        ("any", None, "unknown", None),
        ("any", "LicenseRef-all-rights-reserved", "no", None),
        ("CC-BY-4.0,CC-BY-NC-4.0", "CC-BY-NC-4.0", "no", None),
        ("cc-by-4.0, cc0-1.0", "CC0-1.0", "yes", None),
        ("CC-BY-4.0", "CC0-1.0", "yes", "license not in the list"),
        ("CC-BY-4.0", "MIT OR CC-BY-4.0", "yes", None),
        ("CC-BY-4.0", "MIT AND CC-BY-4.0", "yes", "license not in the list"),
        ("CC-BY-4.0", None, "unknown", "license unknown"),
        ("LicenseRef-PMC-TDM", "LicenseRef-PMC-TDM", "no", None),
    ],
)
def test_admit(policy: str, license: str | None, use: str, reason: str | None) -> None:
    assert admit(policy, license, use) == reason


@pytest.mark.parametrize("policy", ["", "comercial", "CC-BY-4.0,", "CC BY 4.0", "CC-BY-4.0;MIT", "MIT OR GPL"])
def test_a_malformed_policy_is_a_usage_error(policy: str) -> None:
    with pytest.raises(UsageError, match="no license id"):
        admit(policy, "CC-BY-4.0", "yes")
