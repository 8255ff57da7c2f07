"""One file a backbone: its components by name, and how a prompt and a target become model inputs."""

from __future__ import annotations

from medvlm.models.backbones.base import Backbone
from medvlm.registry import Registry

BACKBONES: Registry[type[Backbone]] = Registry(
    "backbone",
    {
        "git_llm": "medvlm.models.backbones.git_llm:GitLlmBackbone",
        "paligemma": "medvlm.models.backbones.paligemma:PaliGemmaBackbone",
    },
)
