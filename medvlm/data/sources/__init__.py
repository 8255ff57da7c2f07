"""The sources that `medvlm prepare NAME` knows, found by name and imported on first use."""

from __future__ import annotations

from medvlm.data.sources.base import Source
from medvlm.registry import Registry

SOURCES: Registry[type[Source]] = Registry(
    "source",
    {
        "pmc": "medvlm.data.sources.pmc.source:PmcSource",
        "phantom": "medvlm.data.sources.phantom.source:PhantomSource",
        "vqa-rad": "medvlm.data.sources.vqa_rad:VqaRadSource",
    },
)
