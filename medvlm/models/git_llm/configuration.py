"""GIT-LLM's configuration: those of its image tower and language model, and the placeholder's id."""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec


@strict
class GitLlmConfig(PreTrainedConfig):  # type: ignore[misc]
    """What a GIT-LLM is made of.

    Args:
        vision_config: of a `clip_vision_model` or `siglip_vision_model`.
        text_config: of any decoder that `AutoModelForCausalLM` knows.
        image_token_id: stands where an image feature goes; never embedded, so it may lie past the vocabulary.
        projector_eps: of the projection's layer norm.
        tie_word_embeddings: of the whole; the language model's own configuration says whether it ties its own.
    """

    model_type = "git_llm"
    sub_configs_defaults = {  # noqa: RUF012 (transformers reads it from the class)
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="clip_vision_model"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="opt"),
    }
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    image_token_id: int = 0
    projector_eps: float = 1e-5
    tie_word_embeddings: bool = False

    @property
    def image_tokens(self) -> int:
        """Return how many tokens a picture takes."""
        return tokens_of(self.vision_config)


def tokens_of(vision: Any) -> int:
    """Return how many features a tower gives: one a patch, and CLIP's class token before them.

    A side need be no multiple of the patch (SigLIP So400m has 384 and 14): the tower does not see what is over.
    """
    return int((vision.image_size // vision.patch_size) ** 2) + has_class_token(vision.model_type)


def has_class_token(model_type: str) -> bool:
    """Return True where the tower puts a class token before its patches: CLIP does, SigLIP does not."""
    return model_type == "clip_vision_model"
