"""License names: from the addresses and words people write to SPDX, and from SPDX to commercial use."""

from __future__ import annotations


def commercial_use(license: str | None) -> str:
    """Return "yes", "no", "conditional" or "unknown" for an SPDX expression or LicenseRef.

    CC0, the public domain mark, CC BY and CC BY-SA are yes; CC BY-ND conditional; any NC, TDM, and all rights reserved
    no; None is unknown. A license that is not known is unknown, never permissive.
    """
    raise AssertionError("written by the licenses room")
