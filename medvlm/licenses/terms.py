"""The table of rights: what each license asks of whoever passes on a model that was made from what it covers.

`share` is whether the model may be passed on, `obligations` what must go with it, `inherits` whether it stays under
this license's own terms. Whether it may be used commercially is `expressions.commercial_use`. The texts behind the ids
are those that `refs.resolve` names, and spdx.org's. What is not in this table, nor a Creative Commons license, nor a
software license whose use is known, is unknown. Bookkeeping, not legal advice.
"""

from __future__ import annotations

import dataclasses

from medvlm.licenses import expressions

COPYLEFT_PARTS = ("weights", "data")
"""A model is derived from weights and data; code that only ran to make it does not spread its license to it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """What a license asks of whoever passes on a work derived from what it covers."""

    share: str
    """yes, no, conditional or unknown."""
    obligations: tuple[str, ...] = ()
    inherits: bool = False
    """The derived work stays under this license's own terms."""

    def of(self, id: str) -> list[str]:
        """Return the obligations with the license's id filled in."""
        return [line.format(id=id) for line in self.obligations]


_NOTICE = "keep the copyright and license notice of {id}"
ATTRIBUTE = "name the authors of the {id} material (attribution file)"
_NONCOMMERCIAL = "share for non-commercial use only and pass on the terms of {id}"
_COPY = "give a copy of the license {id}, and put its notice in a file NOTICE"
_PRIVATE = "keep the model private: {id} allows no distribution of what derives from it"
_LLAMA_SIZE = "above 700 million monthly users at the model's release, ask Meta for a license of your own"


def _own_terms(*more: str) -> Terms:
    return Terms("conditional", ("pass on the terms of {id} and its use policy", *more), inherits=True)


def _llama(policy: str, *more: str) -> Terms:
    return _own_terms(
        f"use policy: {policy}",
        'show "Built with Llama" beside the model, and begin its name with "Llama"',
        _LLAMA_SIZE,
        *more,
    )


_NO_EU = "the multimodal models of {id} are not licensed to persons or companies of the European Union"

# Lower case.
_TABLE: dict[str, Terms] = {
    **dict.fromkeys(
        ["cc0-1.0", "cc-pdm-1.0", "cc-pddc", "pddl-1.0", "unlicense", "licenseref-public-domain", "0bsd", "mit-0"],
        Terms("yes"),
    ),
    "odc-by-1.0": Terms("yes", (ATTRIBUTE,)),
    **dict.fromkeys(
        ["odbl-1.0", "cdla-sharing-1.0"],
        Terms("conditional", (f"{ATTRIBUTE}; share under the same license",), inherits=True),
    ),
    "licenseref-scancode-gemma-tou-2024-04-01": _own_terms(
        "bind whoever receives the model to Gemma's prohibited use policy: "
        "https://ai.google.dev/gemma/prohibited_use_policy",
        "give a copy of https://ai.google.dev/gemma/terms, its notice in a file NOTICE, and say that the weights were "
        "changed",
    ),
    "licenseref-hai-def": _own_terms(
        "bind whoever receives the model to the terms at "
        "https://developers.google.com/health-ai-developer-foundations/terms and the policy at "
        "https://developers.google.com/health-ai-developer-foundations/prohibited-use-policy",
        "give a copy of the terms, and put their notice in a file NOTICE",
        "clinical use (diagnosis or treatment, in studies too) needs what health regulators ask for",
    ),
    "licenseref-scancode-llama-2-license-2023": _own_terms(
        "use policy: https://ai.meta.com/llama/use-policy",
        "put its notice in a file NOTICE",
        "do not improve other language models than Llama 2 with the model or its answers",
        _LLAMA_SIZE,
    ),
    "licenseref-scancode-llama-3.1-license-2024": _llama("https://www.llama.com/llama3_1/use-policy"),
    "licenseref-scancode-llama-3.2-license-2024": _llama("https://www.llama.com/llama3_2/use-policy", _NO_EU),
    "licenseref-scancode-llama-3.3-license-2024": _llama("https://www.llama.com/llama3_3/use-policy"),
    "licenseref-scancode-llama-4-license-2025": _llama("https://www.llama.com/llama4/use-policy", _NO_EU),
    **dict.fromkeys(
        [
            "licenseref-scancode-bigscience-open-rail-m",
            "licenseref-scancode-bigscience-open-rail-m2",
            "licenseref-scancode-bigcode-open-rail-m-v1",
        ],
        _own_terms("write the use restrictions of {id} into your own terms"),
    ),
    "licenseref-qwen-research": Terms(
        "conditional",
        (
            _NONCOMMERCIAL,
            _COPY,
            'show "Built with Qwen" or "Improved using Qwen" in the model\'s documentation',
        ),
        inherits=True,
    ),
    **dict.fromkeys(
        ["licenseref-apple-sample-code-1.1", "licenseref-msrla"],
        Terms("conditional", (_NONCOMMERCIAL,), inherits=True),
    ),
    "licenseref-opt-175b": Terms("conditional", (_NONCOMMERCIAL, _COPY), inherits=True),
    "licenseref-physionet-credentialed": Terms(
        "no",
        (
            _PRIVATE,
            "keep the data from third parties, online services too: https://physionet.org/news/post/llm-responsible-use",
        ),
    ),
    "licenseref-own-data": Terms(
        "no",
        (
            "keep the model with those who may see the data: {id} is data of your own that nobody else may have",
            "commercial use: ask whoever approved the use of the data (ethics committee, data protection, contracts)",
        ),
    ),
    **dict.fromkeys(
        [
            "licenseref-all-rights-reserved",
            "licenseref-pmc-tdm",
            "licenseref-elsevier-user",
            "licenseref-elsevier-tdm",
            "licenseref-wiley-tdm",
            "licenseref-msr-research",
            "licenseref-scancode-llama-license-2023",
        ],
        Terms("no", (_PRIVATE,)),
    ),
}


def of(key: str, part: str = "weights") -> Terms:
    """Return what a license asks.

    Args:
        key: one id, no expression.
        part: what it covers: "weights", "data", or "code" that only runs to make the model.
    """
    known = _TABLE.get(key.lower())
    if known:
        return known
    found = expressions.CC_ID.fullmatch(key)
    if found:
        return _creative_commons(found["terms"].lower().split("-"))
    use = expressions.commercial_use(key)
    if use == "yes":
        return Terms("yes", (_NOTICE,))
    if use == "conditional" and part in COPYLEFT_PARTS:
        return Terms("conditional", ("offer the source as {id} asks and keep it under {id}",), inherits=True)
    if use == "conditional":
        return Terms("conditional", ("offer the source of the code, if you pass the code on, as {id} asks",))
    return Terms("no" if use == "no" else "unknown")


def _creative_commons(terms: list[str]) -> Terms:
    if "nd" in terms:
        return Terms("no", ("keep the model private: {id} allows no distribution of adapted material",))
    obligations = [ATTRIBUTE]
    if "nc" in terms:
        obligations[0] += "; share for non-commercial use only"
    if "sa" in terms:
        obligations[0] += "; share under the same license"
        return Terms("conditional", tuple(obligations), inherits=True)
    return Terms("conditional" if "nc" in terms else "yes", tuple(obligations))


def is_creative_commons(key: str) -> bool:
    """Return whether an id is one of the CC BY family."""
    return expressions.CC_ID.fullmatch(key) is not None


def no_derivatives(key: str) -> bool:
    """Return whether an id is one of Creative Commons' no-derivatives licenses."""
    found = expressions.CC_ID.fullmatch(key)
    return bool(found and "nd" in found["terms"].lower().split("-"))


def chosen(license: str | None, part: str = "weights") -> list[str]:
    """Return the ids that hold: all of an AND, and of an OR those of the alternative with most rights.

    Rights to commercial use go before rights to share.

    None for an empty or malformed expression.
    """

    def rights(keys: list[str]) -> tuple[int, int]:
        rank = expressions.RESTRICTIVENESS.index
        shares = expressions.most_restrictive(of(key, part).share for key in keys)
        return rank(expressions.most_restrictive(map(expressions.commercial_use, keys))), rank(shares)

    found = expressions.fold(license, lambda key: [key], lambda parts: max(parts, key=rights), _joined)
    return list(dict.fromkeys(found or []))


def _joined(parts: list[list[str]]) -> list[str]:
    return [key for keys in parts for key in keys]
