"""Flamingo's configuration: those of its image tower and language model, and the sizes of what lies between them."""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec


@strict
class FlamingoConfig(PreTrainedConfig):  # type: ignore[misc]
    """What a Flamingo is made of (sizes: arXiv:2204.14198, table 5 and section A.1).

    Args:
        vision_config: of a `clip_vision_model` or `siglip_vision_model`.
        text_config: of any decoder that `AutoModelForCausalLM` knows and that keeps a list of its layers.
        image_token_id: stands where a picture is shown; the language model has no row for it.
        chunk_token_id: ends an answered example before the prompt; likewise.
        latents: vectors that the resampler makes of a picture.
        resampler_layers: of the resampler.
        cross_every: before every so many decoder layers, the first among them, stands a gated block.
        heads: of the resampler's attention and the gated blocks'.
        head_dim: of each head.
        feed_forward: inner width of their feed-forward layers, in widths.
        norm_eps: of their layer norms.
        tie_word_embeddings: of the whole; the language model's own configuration says whether it ties its own.
    """

    model_type = "flamingo"
    sub_configs_defaults = {  # noqa: RUF012 (transformers reads it from the class)
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="clip_vision_model"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="opt"),
    }
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    image_token_id: int = 0
    chunk_token_id: int = 0
    latents: int = 64
    resampler_layers: int = 6
    cross_every: int = 1
    heads: int = 8
    head_dim: int = 64
    feed_forward: int = 4
    norm_eps: float = 1e-5
    tie_word_embeddings: bool = False

    @property
    def crossed(self) -> list[int]:
        """Return the numbers of the decoder layers that a gated block stands before."""
        text: Any = self.text_config
        return list(range(0, int(text.num_hidden_layers), self.cross_every))


def cross_every_of(text_config: Any) -> int:
    """Return before every how many layers of a language model this large a gated block stands.

    Flamingo has one before each layer of 1.4 B parameters (width 2048), each 4th of 7 B (4096) and each 7th of 70 B
    (8192; arXiv:2204.14198, table 1); OpenFlamingo has each 2nd of 3 B (2560; arXiv:2308.01390, table 1).
    """
    width = int(text_config.hidden_size)
    return next(every for least, every in ((8192, 7), (4096, 4), (2304, 2), (0, 1)) if width >= least)
