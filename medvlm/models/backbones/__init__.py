"""One file a backbone: its components by name, and how a prompt and a target become model inputs."""

from __future__ import annotations

from medvlm.models.backbones.base import Backbone
from medvlm.registry import Registry

_HERE = "medvlm.models.backbones"

BACKBONES: Registry[type[Backbone]] = Registry(
    "backbone",
    {
        "git_llm": f"{_HERE}.git_llm:GitLlmBackbone",
        "paligemma": f"{_HERE}.paligemma:PaliGemmaBackbone",
        "git": f"{_HERE}.git:GitBackbone",
        "blip2": f"{_HERE}.blip2:Blip2Backbone",
        "generic": f"{_HERE}.generic:GenericBackbone",
        "flamingo": f"{_HERE}.flamingo:FlamingoBackbone",
        "vilt": f"{_HERE}.vilt:ViltBackbone",
        "visual_bert": f"{_HERE}.visual_bert:VisualBertBackbone",
        "lxmert": f"{_HERE}.lxmert:LxmertBackbone",
        "flava": f"{_HERE}.flava:FlavaBackbone",
        "contrastive": f"{_HERE}.contrastive:ContrastiveBackbone",
    },
)

_BY_TYPE = {
    "blip-2": "blip2",
    "instructblip": "blip2",
    "clip": "contrastive",
    "siglip": "contrastive",
    "visual_bert_grid": "visual_bert",
    "lxmert_grid": "lxmert",
}
"""`model_type` of a checkpoint's configuration -> the backbone that loads it, where the names differ."""


def name_of_type(model_type: str) -> str:
    """Return the backbone's name for a checkpoint of this `model_type`: its own, or `generic`.

    Whether transformers has a model with pictures and text of that type, `generic` finds out when it loads it.
    """
    if model_type in BACKBONES.names():
        return model_type
    return _BY_TYPE.get(model_type, "generic")


def kind_of_type(model_type: str) -> type[Backbone]:
    """Return the backbone for a checkpoint of this `model_type`."""
    return BACKBONES.get(name_of_type(model_type))
