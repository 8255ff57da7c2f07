"""What a license says of passing on copies of the very work, unchanged or changed."""

from __future__ import annotations

import pytest

from medvlm.licenses.policy import may_pass_on


@pytest.mark.parametrize(
    ("license", "as_it_is", "changed"),
    [
        ("CC0-1.0", "yes", "yes"),
        ("CC-BY-4.0", "yes", "yes"),
        ("LicenseRef-CC-BY-3.0-KR", "yes", "yes"),
        ("CC-BY-SA-4.0", "conditional", "conditional"),
        ("CC-BY-NC-4.0", "conditional", "conditional"),
        ("CC-BY-ND-4.0", "conditional", "no"),
        ("LicenseRef-CC-BY-NC-ND-unversioned", "conditional", "no"),
        ("CC-BY-ND-4.0 AND LicenseRef-all-rights-reserved", "no", "no"),
        ("LicenseRef-all-rights-reserved", "no", "no"),
        ("LicenseRef-own-data", "no", "no"),
        ("LicenseRef-PMC-TDM", "no", "no"),
        ("LicenseRef-nobody-knows", "unknown", "unknown"),
        ("none stated", "unknown", "unknown"),
        (None, "unknown", "unknown"),
    ],
)
def test_copies(license: str | None, as_it_is: str, changed: str) -> None:
    assert may_pass_on(license, changed=False) == as_it_is
    assert may_pass_on(license, changed=True) == changed
