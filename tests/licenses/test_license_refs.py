"""Every license id that medvlm writes leads to a text: by SPDX, by ScanCode's list, or by the table of its own ids."""

from __future__ import annotations

import re
from pathlib import Path

import license_expression
import pytest

from medvlm.licenses.refs import OWN, resolve
from medvlm.resources import PACKAGE, shipped

ID = re.compile(r"licenseref-[a-z0-9.-]*[a-z0-9]", re.IGNORECASE)
STEMS = ("licenseref-scancode", "licenseref-scancode-llama", "licenseref-cc")
"""Beginnings of ids, as prose and code that builds ids have them."""


def _files() -> list[Path]:
    folders = [
        (PACKAGE, ("*.py", "*.yaml", "*.j2")),
        (shipped("recipes"), ("*.yaml",)),
        (shipped("data_cards"), ("*.md",)),
    ]
    return [path for folder, patterns in folders for pattern in patterns for path in sorted(folder.rglob(pattern))]


def test_every_id_in_the_package_resolves() -> None:
    found = {id for path in _files() for id in ID.findall(path.read_text(encoding="utf-8"))}
    assert len(found) > 20
    unknown = sorted(id for id in found if resolve(id) is None and id.lower() not in STEMS)
    assert not unknown


@pytest.mark.parametrize("id", ["LicenseRef-CC-BY-4.0-NC", "LicenseRef-CC-BY-4.0", "CC-BY-3.0-US"])
def test_what_is_no_id_of_medvlm_has_no_text(id: str) -> None:
    assert resolve(id) is None


@pytest.mark.parametrize("id", OWN)
def test_own_ids_are_needed_and_have_an_address(id: str) -> None:
    spdx = {key.lower() for key in license_expression.get_spdx_licensing().known_symbols}
    assert id.lower() not in spdx
    found = resolve(id.upper().replace("LICENSEREF", "LicenseRef"))
    assert found is not None
    assert found.id == id
    assert found.title
    assert re.fullmatch(r"https?://\S+\.\S+", found.address)


@pytest.mark.parametrize(
    ("id", "address"),
    [
        ("LicenseRef-CC-BY-unversioned", "https://creativecommons.org/licenses/by/"),
        ("LicenseRef-CC-BY-NC-SA-unversioned", "https://creativecommons.org/licenses/by-nc-sa/"),
        ("LicenseRef-CC-BY-2.0-KR", "https://creativecommons.org/licenses/by/2.0/kr/"),
        (
            "LicenseRef-scancode-gemma-tou-2024-04-01",
            "https://scancode-licensedb.aboutcode.org/gemma-tou-2024-04-01.html",
        ),
    ],
)
def test_families_of_ids(id: str, address: str) -> None:
    found = resolve(id)
    assert found is not None
    assert found.address == address


@pytest.mark.parametrize(
    "id", ["MIT", "LicenseRef-mine", "LicenseRef-scancode-no-such-license", "", "LicenseRef-CC-BY"]
)
def test_what_nobody_described(id: str) -> None:
    assert resolve(id) is None
