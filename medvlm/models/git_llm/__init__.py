"""GIT-LLM: a CLIP or SigLIP tower, a projection, and any decoder language model behind GIT's attention mask.

Importing this package makes transformers' Auto classes know it, so a saved GIT-LLM loads as any other model does.
GIT: arXiv:2205.14100.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from medvlm.models.git_llm.configuration import GitLlmConfig
from medvlm.models.git_llm.modeling import GitLlmForConditionalGeneration
from medvlm.models.git_llm.processing import GitLlmProcessor

AutoConfig.register("git_llm", GitLlmConfig, exist_ok=True)
AutoModelForImageTextToText.register(GitLlmConfig, GitLlmForConditionalGeneration, exist_ok=True)
AutoProcessor.register(GitLlmConfig, GitLlmProcessor, exist_ok=True)

__all__ = ["GitLlmConfig", "GitLlmForConditionalGeneration", "GitLlmProcessor"]
