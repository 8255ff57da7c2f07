"""Flamingo: a CLIP or SigLIP tower, a perceiver resampler, and gated cross-attention before the layers of any decoder.

Importing this package makes transformers' Auto classes know it, so a saved Flamingo loads as any other model does.
Flamingo: arXiv:2204.14198.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from medvlm.models.flamingo.configuration import FlamingoConfig
from medvlm.models.flamingo.modeling import FlamingoForConditionalGeneration
from medvlm.models.flamingo.processing import FlamingoProcessor

AutoConfig.register("flamingo", FlamingoConfig, exist_ok=True)
AutoModelForImageTextToText.register(FlamingoConfig, FlamingoForConditionalGeneration, exist_ok=True)
AutoProcessor.register(FlamingoConfig, FlamingoProcessor, exist_ok=True)

__all__ = ["FlamingoConfig", "FlamingoForConditionalGeneration", "FlamingoProcessor"]
