"""License names: from the addresses people write to SPDX, and from SPDX to commercial use.

Identifiers are SPDX's where it has one. What SPDX does not name carries a `LicenseRef-` id: a Creative Commons license
named without its version is `LicenseRef-CC-BY-unversioned` (and `-NC`, `-SA`, `-ND`), a jurisdiction port that SPDX
does not list is `LicenseRef-CC-BY-3.0-KR`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

import license_expression

# From the most to the least restrictive: AND takes the first of its parts here, OR the last.
RESTRICTIVENESS = ("no", "unknown", "conditional", "yes")

# Lower case. What the license's own text says about commercial use.
_USE = {
    "yes": """
        cc0-1.0 cc-pdm-1.0 cc-pddc licenseref-public-domain pddl-1.0 odc-by-1.0 odbl-1.0 cdla-permissive-1.0
        cdla-permissive-2.0 cdla-sharing-1.0 unlicense mit mit-0 isc zlib apache-2.0 apache-1.1 bsl-1.0 0bsd
        bsd-1-clause bsd-2-clause bsd-2-clause-patent bsd-2-clause-views bsd-3-clause bsd-3-clause-attribution
        bsd-3-clause-clear bsd-3-clause-lbnl bsd-4-clause bsd-4-clause-uc bsd-source-code python-2.0 psf-2.0
        postgresql ncsa upl-1.0 licenseref-scancode-openmdw-1.0
    """,
    "conditional": """
        cc-sa-1.0 mpl-2.0 epl-2.0 lgpl-2.1-only lgpl-2.1-or-later lgpl-3.0-only lgpl-3.0-or-later gpl-2.0-only
        gpl-2.0-or-later gpl-3.0-only gpl-3.0-or-later agpl-3.0-only agpl-3.0-or-later
        licenseref-scancode-gemma-tou-2024-04-01 licenseref-scancode-llama-2-license-2023
        licenseref-scancode-llama-3.1-license-2024 licenseref-scancode-llama-3.2-license-2024
        licenseref-scancode-llama-3.3-license-2024 licenseref-scancode-llama-4-license-2025
        licenseref-scancode-bigscience-open-rail-m licenseref-scancode-bigscience-open-rail-m2
        licenseref-scancode-bigcode-open-rail-m-v1 licenseref-hai-def licenseref-own-data
    """,
    "no": """
        licenseref-all-rights-reserved licenseref-pmc-tdm licenseref-scancode-llama-license-2023 licenseref-msr-research
        licenseref-msrla licenseref-qwen-research licenseref-apple-sample-code-1.1 licenseref-physionet-credentialed
        licenseref-opt-175b licenseref-academic-only licenseref-elsevier-user licenseref-elsevier-tdm
        licenseref-wiley-tdm
    """,
}
_USE_BY_ID = {name: use for use, names in _USE.items() for name in names.split()}

# A jurisdiction; nothing that could be a term of the license, written in the wrong place.
_PORT = r"(?!nc\b|nd\b|sa\b)[a-z]{2}|igo|scotland"
CC_ID = re.compile(
    rf"(?:licenseref-)?cc-by(?P<terms>(?:-(?:nc|sa|nd)){{0,2}})-"
    rf"(?:(?P<version>[1-4]\.\d)(?:-(?P<port>{_PORT}))?|unversioned)",
    re.IGNORECASE,
)
"""An id of the CC BY family, SPDX's or medvlm's own, in any case."""
_CC_ADDRESS = re.compile(
    r"(?:www\.)?creativecommons\.org/+(?:licen[sc]es/+(?P<code>by(?:-(?:nc|sa|nd)){0,2})"
    r"|(?:licen[sc]es|publicdomain)/+(?P<public>cc0|zero|cc-zero|mark|pdm|publicdomain))(?:/+(?P<tail>.*))?"
)
_CC_LANGUAGE = r"(?!nc\b|nd\b|sa\b)[a-z]{2}(?:[-_](?!nc\b|nd\b|sa\b)(?:[a-z]{2}|han[st]|cyrl|latn|tarask|\d{3}))?|ast"
# Anything else behind the code may be a term ("for research only"): nobody knows what such an address means.
_CC_TAIL = re.compile(
    rf"(?:(?P<version>\d(?:\.\d)?)(?:/+|$))?(?:(?P<port>{_PORT})(?:/+|$))?"
    rf"(?:(?:deed|legalcode|license|rdf|index)(?:[-._](?:{_CC_LANGUAGE}))?(?:\.(?:html?|txt|php))?(?:/+|$))?"
    rf"(?:{_CC_LANGUAGE})?"
)
# Of the sentence around an address: marks with no letter behind them, or its next word after a mark.
_SENTENCE = re.compile(r"(?:(?:[,;*)\]]|%20)[^a-z]*|[.,;:/]+(?:which|that|this|the|and)|[^a-z0-9]+)$")
_LONGEST = 500
"""Letters of an address with a sentence around it."""
_CC_VERSIONS = ("1.0", "2.0", "2.1", "2.5", "3.0", "4.0")
_CC_ORDER = ("nc", "nd", "sa")
_CC_PUBLIC = {"mark": "CC-PDM-1.0", "pdm": "CC-PDM-1.0", "publicdomain": "CC-PDDC"}

# Host and path in lower case, with no `www.`, extension or trailing slash.
_ADDRESSES = {
    "apache.org/licenses/license-2.0": "Apache-2.0",
    "opensource.org/licenses/mit-license": "MIT",
    "opensource.org/licenses/apache2.0": "Apache-2.0",
    "opendatacommons.org/licenses/by/1-0": "ODC-By-1.0",
    "opendatacommons.org/licenses/by/1.0": "ODC-By-1.0",
    "opendatacommons.org/licenses/odbl/1-0": "ODbL-1.0",
    "opendatacommons.org/licenses/odbl/1.0": "ODbL-1.0",
    "opendatacommons.org/licenses/pddl/1-0": "PDDL-1.0",
    "opendatacommons.org/licenses/pddl/1.0": "PDDL-1.0",
    "unlicense.org": "Unlicense",
    "ai.google.dev/gemma/terms": "LicenseRef-scancode-gemma-tou-2024-04-01",
    "developers.google.com/health-ai-developer-foundations/terms": "LicenseRef-HAI-DEF",
    "elsevier.com/open-access/userlicense/1.0": "LicenseRef-Elsevier-user",
    "elsevier.com/tdm/userlicense/1.0": "LicenseRef-Elsevier-TDM",
    "doi.wiley.com/10.1002/tdm_license_1.1": "LicenseRef-Wiley-TDM",
}


@functools.lru_cache(maxsize=4096)
def commercial_use(license: str | None) -> str:
    """Return "yes", "no", "conditional" or "unknown" for an SPDX expression or LicenseRef.

    CC0, the public domain mark, CC BY, CC BY-SA and permissive software licenses are yes; CC BY-ND, copyleft software
    licenses and model licenses with a use policy conditional; any NC, TDM, and all rights reserved no. OR takes the
    most permissive of its parts, AND the most restrictive. None, a license that is not known and a malformed
    expression are unknown, never permissive.
    """
    tree = _parse(license)
    if tree is None:
        return "unknown"
    use: str = _walk(tree, _of_symbol, lambda uses: max(uses, key=RESTRICTIVENESS.index), most_restrictive)
    return use


def most_restrictive(uses: Iterable[str]) -> str:
    """Return the most restrictive of several answers: no, then unknown, conditional, yes. An empty list is unknown."""
    return min(uses, key=RESTRICTIVENESS.index, default="unknown")


def symbols(license: str | None) -> list[str]:
    """Return the license ids that an expression names, in order; none for an empty or malformed one."""
    tree = _parse(license)
    found: list[str] = []
    if tree is not None:
        _walk(tree, found.append, list, list)
    return list(dict.fromkeys(found))


def fold(
    license: str | None,
    leaf: Callable[[str], Any],
    either: Callable[[list[Any]], Any],
    both: Callable[[list[Any]], Any],
) -> Any:
    """Return an expression's value: an id's by `leaf`, an OR's by `either`, an AND's by `both`; None if malformed."""
    tree = _parse(license)
    return None if tree is None else _walk(tree, leaf, either, both)


def satisfied(license: str, allowed: Collection[str]) -> bool:
    """Return whether the ids in `allowed` (lower case) suffice for an expression: any of an OR, all of an AND."""
    tree = _parse(license)
    return tree is not None and bool(_walk(tree, lambda key: key.lower() in allowed, any, all))


def is_license_id(name: str) -> bool:
    """Return whether `name` is one license: an SPDX id, or a LicenseRef."""
    return bool(_spdx_id(name) or re.fullmatch(r"LicenseRef-[A-Za-z0-9.-]+", name, re.IGNORECASE))


def from_url(url: str | None) -> str | None:
    """Return the SPDX id or LicenseRef that a license's address stands for, or None where it is not known.

    With or without scheme and `www.`, any case, with jurisdiction, deed or legal code behind the version, and nothing
    else: more may be a restriction, which leaves an NC license one. White space inside is dropped, as articles break
    addresses over lines, and so are marks of the sentence around it.
    """
    address = re.sub(r"[\s\u200b-\u200d\u2060\ufeff]+", "", url or "").lower()
    address = re.sub(r"^[(<\[\"']*(?:https?:)?/*(?:www\.)?", "", address)
    address = re.split(r"[?#]", address)[0].rstrip(".,;:)>]\"'/")
    found = _CC_ADDRESS.fullmatch(_SENTENCE.sub("", address) if len(address) < _LONGEST else address)
    if found:
        tail = _CC_TAIL.fullmatch(found["tail"] or "")
        if not tail and "-nc" in (found["code"] or ""):
            tail = _CC_TAIL.match(re.split("[^0-9.]", found["tail"])[0])
        return _from_creative_commons(found, tail) if tail else None
    address = re.sub(r"\.(?:html?|txt|php|json)$", "", address)
    return _ADDRESSES.get(address) or _from_license_list(address)


def _parse(license: str | None) -> Any:
    """Return the syntax tree of an expression, or None where it is empty or malformed."""
    try:
        return license_expression.Licensing().parse(license or "")
    except Exception:
        # Besides its own errors the parser lets IndexError and TypeError through for texts like "()".
        return None


def _walk(tree: Any, leaf: Callable[[str], Any], either: Callable[[Any], Any], both: Callable[[Any], Any]) -> Any:
    """Fold a syntax tree. SPDX's exceptions (`WITH`) only widen a license, so the license alone decides.

    What else stands behind `WITH` may narrow it (the Commons Clause does): the license holds, and something unknown.
    """
    if isinstance(tree, license_expression.LicenseWithExceptionSymbol):
        license, exception = tree.license_symbol.key, tree.exception_symbol.key
        if exception.lower() in _spdx_exceptions():
            return leaf(license)
        return both([leaf(license), leaf(f"{license} WITH {exception}")])
    if isinstance(tree, license_expression.LicenseSymbol):
        return leaf(tree.key)
    parts = [_walk(part, leaf, either, both) for part in tree.args]
    return either(parts) if tree.operator.strip().upper() == "OR" else both(parts)


def _of_symbol(key: str) -> str:
    known = _USE_BY_ID.get(key.lower())
    if known:
        return known
    found = CC_ID.fullmatch(key)
    if not found:
        return "unknown"
    terms = found["terms"].lower().split("-")
    return "no" if "nc" in terms else "conditional" if "nd" in terms else "yes"


def _from_creative_commons(found: re.Match[str], tail: re.Match[str]) -> str:
    if found["public"]:
        return _CC_PUBLIC.get(found["public"], "CC0-1.0")
    terms = sorted(set(found["code"].split("-")[1:]), key=_CC_ORDER.index)
    name = "-".join(["CC-BY", *(term.upper() for term in terms)])
    if tail["version"] not in _CC_VERSIONS:
        return f"LicenseRef-{name}-unversioned"
    if not tail["port"]:
        return f"{name}-{tail['version']}"
    ported = f"{name}-{tail['version']}-{tail['port'].upper()}"
    return ported if _spdx_id(ported) else f"LicenseRef-{ported}"


def _from_license_list(address: str) -> str | None:
    """Read opensource.org/licenses/ID, opensource.org/license/ID and spdx.org/licenses/ID."""
    found = re.fullmatch(r"(?:opensource|spdx)\.org/licenses?/([a-z0-9.+-]+)", address)
    return _spdx_id(found[1]) if found else None


def _spdx_id(key: str) -> str | None:
    """Return a key as SPDX writes it, or None where SPDX does not list it."""
    return _spdx_ids().get(key.lower())


@functools.cache
def _spdx_ids() -> dict[str, str]:
    known = license_expression.get_spdx_licensing().known_symbols
    return {key.lower(): key for key, symbol in known.items() if not symbol.is_exception}


@functools.cache
def _spdx_exceptions() -> frozenset[str]:
    """Return the exceptions that SPDX itself lists, in lower case; ScanCode adds limits to them, as LicenseRefs."""
    known = license_expression.get_spdx_licensing().known_symbols
    found = (key.lower() for key, symbol in known.items() if symbol.is_exception)
    return frozenset(key for key in found if not key.startswith("licenseref-"))
