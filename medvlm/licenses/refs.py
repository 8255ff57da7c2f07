"""Licenses that SPDX does not list: title and address of the text behind every LicenseRef that medvlm writes.

Ids that begin with `LicenseRef-scancode-` are those of the ScanCode license list, which license-expression carries;
all others are medvlm's own and stand in the table below.
"""

from __future__ import annotations

import dataclasses
import functools

import license_expression

from medvlm.licenses import expressions


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """What a license id stands for."""

    id: str
    title: str
    address: str
    """Where its text can be read; for a status that has no text, where the status is explained."""


_SCANCODE = "licenseref-scancode-"
_TITLES = {
    "gemma-tou-2024-04-01": "Gemma Terms of Use",
    "llama-license-2023": "LLaMA license of 2023 (research only)",
    "llama-2-license-2023": "Llama 2 Community License",
    "llama-3.1-license-2024": "Llama 3.1 Community License",
    "llama-3.2-license-2024": "Llama 3.2 Community License",
    "llama-3.3-license-2024": "Llama 3.3 Community License",
    "llama-4-license-2025": "Llama 4 Community License",
    "bigscience-open-rail-m": "BigScience OpenRAIL-M",
    "bigscience-open-rail-m2": "CreativeML and BigScience OpenRAIL-M, second wording",
    "bigcode-open-rail-m-v1": "BigCode OpenRAIL-M 1",
    "openmdw-1.0": "OpenMDW 1.0",
}
"""Of the licenses that the table of rights knows; ScanCode's list here holds keys only."""

OWN = {
    "LicenseRef-HAI-DEF": (
        "Health AI Developer Foundations Terms of Use",
        "https://developers.google.com/health-ai-developer-foundations/terms",
    ),
    "LicenseRef-MSR-Research": (
        "Microsoft Research license of LLaVA-Med (research only, no distribution)",
        "https://github.com/microsoft/LLaVA-Med/blob/d406e3f/LICENSE",
    ),
    "LicenseRef-MSRLA": ("Microsoft Research License Agreement", "https://huggingface.co/microsoft/maira-2"),
    "LicenseRef-Qwen-Research": (
        "Qwen Research License Agreement",
        "https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct/blob/main/LICENSE",
    ),
    "LicenseRef-Apple-Sample-Code-1.1": (
        "Apple Sample Code License 1.1 as the weights of 4M carry it",
        "https://github.com/apple/ml-4m/blob/cda590f/LICENSE_WEIGHTS",
    ),
    "LicenseRef-OPT-175B": (
        "OPT-175B License Agreement",
        "https://github.com/facebookresearch/metaseq/blob/67a3a81/projects/OPT/MODEL_LICENSE.md",
    ),
    "LicenseRef-PhysioNet-credentialed": (
        "PhysioNet Credentialed Health Data Use Agreement 1.5.0",
        "https://github.com/MIT-LCP/license-and-dua/blob/main/DataUseAgreement-v1.5.0.md",
    ),
    "LicenseRef-academic-only": (
        "academic use only, as the README of BiomedGPT words it",
        "https://github.com/taokz/BiomedGPT/blob/2c739bd/README.md#L5",
    ),
    "LicenseRef-all-rights-reserved": (
        "all rights reserved: no license is granted",
        "https://www.wipo.int/treaties/en/ip/berne/",
    ),
    "LicenseRef-own-data": (
        "data of one's own that nobody else may have; what else is allowed is for their owner to say",
        "https://eur-lex.europa.eu/eli/reg/2016/679/oj",
    ),
    "LicenseRef-public-domain": (
        "public domain, as the work itself says without naming a mark",
        "https://creativecommons.org/publicdomain/",
    ),
    "LicenseRef-PMC-TDM": (
        "text and data mining of PubMed Central's author manuscripts",
        "https://pmc.ncbi.nlm.nih.gov/tools/textmining/",
    ),
    "LicenseRef-Elsevier-user": ("Elsevier user license 1.0", "https://www.elsevier.com/open-access/userlicense/1.0/"),
    "LicenseRef-Elsevier-TDM": ("Elsevier TDM user license 1.0", "https://www.elsevier.com/tdm/userlicense/1.0/"),
    "LicenseRef-Wiley-TDM": ("Wiley TDM license 1.1", "http://doi.wiley.com/10.1002/tdm_license_1.1"),
}
"""Id -> title, address."""


@functools.lru_cache(maxsize=1024)
def resolve(id: str) -> Reference | None:
    """Return what a LicenseRef stands for; None for an SPDX id, and for one that nobody has described."""
    for key, (title, address) in OWN.items():
        if key.lower() == id.lower():
            return Reference(key, title, address)
    return _creative_commons(id) or _of_scancode(id)


def _creative_commons(id: str) -> Reference | None:
    """Read the ids of `expressions.from_url` for what SPDX lacks: no version, or a port to another jurisdiction."""
    found = expressions.CC_ID.fullmatch(id)
    if not found or not id.lower().startswith("licenseref-") or (found["version"] and not found["port"]):
        return None
    code = f"by{found['terms']}".lower()
    name = f"Creative Commons {code.upper()}"
    if not found["version"]:
        return Reference(id, f"{name}, named without its version", f"https://creativecommons.org/licenses/{code}/")
    place = f"{code}/{found['version']}/{found['port'].lower()}/"
    return Reference(
        id, f"{name} {found['version']} {found['port'].upper()}", f"https://creativecommons.org/licenses/{place}"
    )


def _of_scancode(id: str) -> Reference | None:
    if not id.lower().startswith(_SCANCODE):
        return None
    key = _scancode_keys().get(id.lower())
    if key is None:
        return None
    return Reference(id, _TITLES.get(key, key), f"https://scancode-licensedb.aboutcode.org/{key}.html")


@functools.cache
def _scancode_keys() -> dict[str, str]:
    """Return SPDX id in lower case -> ScanCode's own key."""
    listed = license_expression.get_license_index()
    return {one["spdx_license_key"].lower(): one["license_key"] for one in listed if one.get("spdx_license_key")}
