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
        "slake": "medvlm.data.sources.slake:SlakeSource",
        "path-vqa": "medvlm.data.sources.path_vqa:PathVqaSource",
        "pmc-vqa": "medvlm.data.sources.pmc_vqa:PmcVqaSource",
        "roco": "medvlm.data.sources.roco:RocoSource",
        "rocov2": "medvlm.data.sources.rocov2:Rocov2Source",
        "iu-xray": "medvlm.data.sources.iu_xray:IuXraySource",
        "mimic-cxr": "medvlm.data.sources.mimic_cxr:MimicCxrSource",
        "m3it": "medvlm.data.sources.m3it:M3itSource",
        "folder": "medvlm.data.sources.folder:FolderSource",
        "jsonl": "medvlm.data.sources.jsonl:JsonlSource",
        "dicom": "medvlm.data.sources.dicom.source:DicomSource",
    },
)
