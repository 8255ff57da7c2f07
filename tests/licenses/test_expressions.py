"""License addresses and expressions against tables written by hand from the issue and from SPDX's list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.licenses.expressions import (
    RESTRICTIVENESS,
    commercial_use,
    from_url,
    is_license_id,
    most_restrictive,
    satisfied,
    symbols,
)

USES = [
    ("CC0-1.0", "yes"),
    ("CC-PDM-1.0", "yes"),
    ("LicenseRef-public-domain", "yes"),
    ("CC-BY-4.0", "yes"),
    ("cc-by-3.0", "yes"),
    ("CC-BY-3.0-IGO", "yes"),
    ("CC-BY-SA-4.0", "yes"),
    ("LicenseRef-CC-BY-unversioned", "yes"),
    ("LicenseRef-CC-BY-SA-unversioned", "yes"),
    ("LicenseRef-CC-BY-2.0-KR", "yes"),
    ("CC-BY-ND-4.0", "conditional"),
    ("LicenseRef-CC-BY-ND-unversioned", "conditional"),
    ("CC-BY-NC-4.0", "no"),
    ("CC-BY-NC-SA-3.0-DE", "no"),
    ("CC-BY-NC-ND-4.0", "no"),
    ("LicenseRef-CC-BY-NC-unversioned", "no"),
    ("LicenseRef-PMC-TDM", "no"),
    ("LicenseRef-all-rights-reserved", "no"),
    ("LicenseRef-own-data", "conditional"),
    ("MIT", "yes"),
    ("Apache-2.0", "yes"),
    ("BSD-2-Clause", "yes"),
    ("BSD-3-Clause", "yes"),
    ("BSD-3-Clause-No-Nuclear-License", "unknown"),
    ("GPL-3.0-or-later", "conditional"),
    ("LicenseRef-scancode-gemma-tou-2024-04-01", "conditional"),
    (None, "unknown"),
    ("", "unknown"),
    ("  ", "unknown"),
    ("NOASSERTION", "unknown"),
    ("NONE", "unknown"),
    ("CC-BY-9", "unknown"),
    ("CC BY 4.0", "unknown"),
    ("LicenseRef-mine", "unknown"),
    ("MIT OR CC-BY-NC-4.0", "yes"),
    ("MIT AND CC-BY-NC-4.0", "no"),
    ("CC-BY-4.0 AND LicenseRef-mine", "unknown"),
    ("CC-BY-NC-4.0 AND LicenseRef-mine", "no"),
    ("CC-BY-ND-4.0 OR LicenseRef-mine", "conditional"),
    ("MIT AND (Apache-2.0 OR CC-BY-NC-4.0)", "yes"),
    ("(MIT OR Apache-2.0) AND CC-BY-NC-4.0", "no"),
    ("Apache-2.0 WITH LLVM-exception", "yes"),
    ("GPL-2.0-only WITH Classpath-exception-2.0", "conditional"),
    ("MIT WITH LicenseRef-scancode-commons-clause", "unknown"),
    ("Apache-2.0 WITH Commons-Clause", "unknown"),
    ("CC-BY-4.0 WITH NC", "unknown"),
    ("CC-BY-NC-4.0 WITH anything", "no"),
    ("CC-BY-4.0-NC", "unknown"),
    ("CC-BY-3.0-nc", "unknown"),
    ("CC-BY-4.0-nd", "unknown"),
    ("CC-BY-3.0-SA", "unknown"),
    ("LicenseRef-CC-BY-4.0-NC", "unknown"),
    ("CC-BY-4.0-commercial", "unknown"),
    ("LicenseRef-CC-BY-NC-2.5-SCOTLAND", "no"),
    ("MIT OR", "unknown"),
    ("(MIT", "unknown"),
    ("()", "unknown"),
]

ADDRESSES = [
    ("http://creativecommons.org/licenses/by/4.0/", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by/4.0", "CC-BY-4.0"),
    ("https://www.creativecommons.org/licenses/by/4.0/", "CC-BY-4.0"),
    ("creativecommons.org/licenses/by/4.0/", "CC-BY-4.0"),
    ("//creativecommons.org/licenses/by/4.0/", "CC-BY-4.0"),
    ("HTTP://CreativeCommons.ORG/Licenses/BY/4.0/", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by/4.0/legalcode", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by/4.0/legalcode.de", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by-nc/4.0/deed.pt-br", "CC-BY-NC-4.0"),
    ("https://creativecommons.org/licenses/by/4.0/?ref=chooser-v1", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by/4.0/#who", "CC-BY-4.0"),
    ("(https://creativecommons.org/licenses/by/4.0/).", "CC-BY-4.0"),
    ("http://creativecommons.org/licenses/by-nc/\n 4.0/", "CC-BY-NC-4.0"),
    ("http://creativecommons.org/licenses/by-nc-nd/4.0/", "CC-BY-NC-ND-4.0"),
    ("http://creativecommons.org/licenses/by-nd-nc/1.0/", "CC-BY-NC-ND-1.0"),
    ("http://creativecommons.org/licenses/by-nc-sa/3.0/igo/", "CC-BY-NC-SA-3.0-IGO"),
    ("http://creativecommons.org/licenses/by/3.0/igo/legalcode", "CC-BY-3.0-IGO"),
    ("http://creativecommons.org/licenses/by/3.0/us/", "CC-BY-3.0-US"),
    ("http://creativecommons.org/licenses/by/3.0/us/deed.en_US", "CC-BY-3.0-US"),
    ("http://creativecommons.org/licenses/by-sa/2.0/uk/", "CC-BY-SA-2.0-UK"),
    ("http://creativecommons.org/licenses/by/2.0/kr", "LicenseRef-CC-BY-2.0-KR"),
    ("http://creativecommons.org/licenses/by-nc/2.5/scotland/", "LicenseRef-CC-BY-NC-2.5-SCOTLAND"),
    ("http://creativecommons.org/licenses/by/", "LicenseRef-CC-BY-unversioned"),
    ("http://creativecommons.org/licenses/by-nc-sa/7.0", "LicenseRef-CC-BY-NC-SA-unversioned"),
    ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
    ("https://creativecommons.org/publicdomain/zero/1.0/legalcode", "CC0-1.0"),
    ("http://creativecommons.org/licenses/CC0/1.0", "CC0-1.0"),
    ("http://creativecommons.org/publicdomain/mark/1.0/", "CC-PDM-1.0"),
    ("http://creativecommons.org/licenses/publicdomain/", "CC-PDDC"),
    ("http://www.opensource.org/licenses/mit-license.php", "MIT"),
    ("https://opensource.org/license/mit/", "MIT"),
    ("http://www.opensource.org/licenses/BSD-3-Clause", "BSD-3-Clause"),
    ("https://www.apache.org/licenses/LICENSE-2.0.txt", "Apache-2.0"),
    ("https://spdx.org/licenses/CC-BY-SA-4.0.html", "CC-BY-SA-4.0"),
    ("https://ai.google.dev/gemma/terms", "LicenseRef-scancode-gemma-tou-2024-04-01"),
    ("http://www.elsevier.com/open-access/userlicense/1.0/", "LicenseRef-Elsevier-user"),
    (None, None),
    ("", None),
    ("CC BY 4.0", None),
    ("https://creativecommons.org/", None),
    ("https://creativecommons.org/licenses/", None),
    ("https://creativecommons.org/licenses/by-xx/4.0/", None),
    ("http://creativecommons.org/licenses/by/nc/4.0/", None),
    ("https://creativecommons.org/licenses/by/nc-nd/4.0/", None),
    ("http://creativecommons.org/licenses/by/-nc/4.0", None),
    ("https://creativecommons.org/licenses/by/4.0-nc/", None),
    ("https://creativecommons.org/licenses/by/4.0/nc", None),
    ("https://creativecommons.org/licenses/by/3.0/nd/legalcode", None),
    ("https://creativecommons.org/licenses/by/4.0/noncommercial", None),
    ("https://creativecommons.org/licenses/by/ncnd/4.0/", None),
    ("https://creativecommons.org/licenses/by/4.0/ncsa", None),
    ("https://creativecommons.org/licenses/by/bync/4.0", None),
    ("https://creativecommons.org/licenses/by/noncomm/4.0", None),
    ("https://creativecommons.org/licenses/by/4.0/non_commercial", None),
    ("https://creativecommons.org/licenses/by/4.0/non%20commercial", None),
    ("https://creativecommons.org/licenses/by/no_derivatives/4.0", None),
    ("https://creativecommons.org/licenses/by/4.0/ no commercial use", None),
    ("https://creativecommons.org/licenses/by/4.0/ for research only", None),
    ("https://creativecommons.org/licenses/by/4.0/legalcode/only", None),
    ("https://creativecommons.org/licenses/by/for members", None),
    ("https://creativecommons.org/publicdomain/zero/1.0/ only for members", None),
    ("https://creativecommons.org/publicdomain/zero/1.0/deed.de", "CC0-1.0"),
    ("https://creativecommons.org/licenses/by/4.0/deed.zh-hans/", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by/4.0/legalcode.txt", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by/4.0/deed-en", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by/4.0/deed.ast", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by/4.0/deed.be-tarask", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by/4.0/deed.es-419", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by/4.0/rdf", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by/4.0/index.html", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by/3.0/us/license", "CC-BY-3.0-US"),
    ("https://creativecommons.org/licenses/by/4.0/%20", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by/4.0/*", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by/4.0/,which", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by/4.0/\u200b\u201d).", "CC-BY-4.0"),
    ("https://creativecommons.org/licenses/by/4.0/*nc", None),
    ("https://creativecommons.org/licenses/by/4.0/%20nc", None),
    ("https://creativecommons.org/licenses/by/4.0/)(nc)", None),
    ("https://creativecommons.org/licenses/by/4.0/, which is non-commercial", None),
    ("https://creativecommons.org/licenses/by/4.0/deed.no-comm", None),
    ("https://creativecommons.org/licenses/by-nd/4.0/for members", None),
    ("https://creativecommons.org/licenses/by-nc/4.0/for members", "CC-BY-NC-4.0"),
    ("https://creativecommons.org/licenses/by-nc-sa/3.0,and more", "CC-BY-NC-SA-3.0"),
    ("https://creativecommons.org/licenses/by-nc-nd/some words", "LicenseRef-CC-BY-NC-ND-unversioned"),
    ("https://creativecommons.org.example.org/licenses/by/4.0/", None),
    ("https://example.org/creativecommons.org/licenses/by/4.0/", None),
    ("https://example.org/?to=http://creativecommons.org/licenses/by/4.0/", None),
    ("https://opensource.org/licenses/no-such-license", None),
]

NAMES = st.sampled_from([name for name, _ in USES if name and " " not in name and "(" not in name])


@pytest.mark.parametrize(("license", "use"), USES)
def test_commercial_use(license: str | None, use: str) -> None:
    assert commercial_use(license) == use


@pytest.mark.parametrize(("url", "license"), ADDRESSES)
def test_from_url(url: str | None, license: str | None) -> None:
    assert from_url(url) == license


@given(st.text())
def test_any_text_has_an_answer_and_never_a_permissive_one_by_accident(text: str) -> None:
    assert commercial_use(text) in RESTRICTIVENESS
    if commercial_use(text) == "yes":
        assert all(is_license_id(name) for name in symbols(text))
    found = from_url(text)
    assert found is None or is_license_id(found)


@given(
    st.sampled_from(["by", "by-sa", "by-nd", "by-nc", "by-nc-sa", "by-nc-nd"]),
    st.sampled_from(["1.0", "2.0", "2.5", "3.0", "4.0"]),
    st.sampled_from(["", "/", "/us/", "/igo/", "/legalcode", "/deed.fr", "/jp/deed.ja"]),
    st.sampled_from(["", "http://", "https://", "https://www.", "//"]),
    st.booleans(),
)
def test_addresses_keep_their_terms(code: str, version: str, tail: str, head: str, upper: bool) -> None:
    url = f"{head}creativecommons.org/licenses/{code}/{version}{tail}"
    license = from_url(url.upper() if upper else url)
    assert license is not None
    assert f"CC-{code.upper()}-{version}" in license
    assert commercial_use(license) == ("no" if "nc" in code else "conditional" if "nd" in code else "yes")


@given(st.sampled_from(["by", "by-sa", "by-nd", "by-nc", "by-nc-sa", "by-nc-nd"]), st.text(max_size=12))
def test_what_stands_behind_an_address_never_makes_it_freer(code: str, junk: str) -> None:
    license = from_url(f"https://creativecommons.org/licenses/{code}/4.0/{junk}")
    assert "nc" not in code or commercial_use(license) == "no"
    assert "nd" not in code or commercial_use(license) != "yes"


@given(NAMES, NAMES)
def test_and_restricts_and_or_permits(left: str, right: str) -> None:
    ranks = sorted(RESTRICTIVENESS.index(commercial_use(name)) for name in (left, right))
    assert RESTRICTIVENESS.index(commercial_use(f"{left} AND {right}")) == ranks[0]
    assert RESTRICTIVENESS.index(commercial_use(f"{left} OR {right}")) == ranks[1]


def test_most_restrictive() -> None:
    assert most_restrictive(["yes", "conditional", "unknown"]) == "unknown"
    assert most_restrictive(["yes", "conditional"]) == "conditional"
    assert most_restrictive(["unknown", "no"]) == "no"
    assert most_restrictive([]) == "unknown"


def test_symbols_and_satisfied() -> None:
    assert symbols("MIT AND (Apache-2.0 OR MIT)") == ["MIT", "Apache-2.0"]
    assert symbols("MIT AND") == []
    assert satisfied("MIT OR CC-BY-4.0", {"cc-by-4.0"})
    assert not satisfied("MIT AND CC-BY-4.0", {"cc-by-4.0"})
    assert not satisfied("", {"mit"})
    assert satisfied("MIT WITH LLVM-exception", {"mit"})
    assert not satisfied("MIT WITH Commons-Clause", {"mit"})
