"""VisualBERT (arXiv:1908.03557): regions of the picture among the question's tokens in one BERT, answers from a list.

The regions are patches of an image tower, not a detector's: see `grid`. transformers gives all regions one position, so
where a patch lies is known only by what the tower's features say of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedModel,
    VisualBertConfig,
    VisualBertForQuestionAnswering,
)

from medvlm.models.backbones import classifier_parts as parts
from medvlm.models.backbones.grid import GridBackbone, GridClassifier, GridConfig


class VisualBertGridConfig(GridConfig):
    """Of a VisualBERT on a grid of patches."""

    model_type = "visual_bert_grid"


class VisualBertGrid(GridClassifier):
    """An image tower, a projection and `VisualBertForQuestionAnswering`."""

    config: VisualBertGridConfig
    config_class = VisualBertGridConfig
    supports_gradient_checkpointing = True

    @staticmethod
    def region_width(config: Any) -> int:
        """Return how many features of a region the classifier takes: 2048 of the published ones."""
        return int(config.visual_embedding_dim)

    @staticmethod
    def make_encoder(config: Any) -> PreTrainedModel:
        """Return a VisualBertForQuestionAnswering, without the pooler that it does not use."""
        encoder: PreTrainedModel = VisualBertForQuestionAnswering(config)
        return without_pooler(encoder)

    def classify(self, regions: torch.Tensor, image_mask: torch.Tensor, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Return logits [B, C]: see `GridClassifier.classify`."""
        logits: torch.Tensor = self.encoder(**inputs, visual_embeds=regions, visual_attention_mask=image_mask).logits
        return logits


def without_pooler(encoder: Any) -> PreTrainedModel:
    """Return a VisualBertForQuestionAnswering without its pooler: it answers from the question's last token."""
    encoder.visual_bert.pooler = None
    made: PreTrainedModel = encoder
    return made


class VisualBertBackbone(GridBackbone):
    """Turns questions and pictures into VisualBERT's inputs: see `ClassifierBackbone`."""

    components: ClassVar[Mapping[str, str | tuple[str, ...]]] = {**GridBackbone.components, "head": "encoder.cls."}
    model_class = VisualBertGrid
    config_class = VisualBertGridConfig
    text_type = "visual_bert"
    new = ("cls.",)

    @classmethod
    def encoder_class(cls) -> Any:
        """Return VisualBertForQuestionAnswering."""
        return VisualBertForQuestionAnswering

    @classmethod
    def trimmed(cls, encoder: Any) -> PreTrainedModel:
        """Return the classifier without the pooler that it does not use."""
        return without_pooler(encoder)

    @classmethod
    def tiny(cls, image_size: int | None, family: str | None) -> tuple[torch.nn.Module, Any]:
        """Return a VisualBERT and its tower of 1.3 M parameters in all; InputError for a family: there is one."""
        return cls.tiny_of(
            image_size,
            family,
            lambda vocabulary: VisualBertConfig(
                vocab_size=vocabulary,
                visual_embedding_dim=256,
                max_position_embeddings=128,
                num_labels=2,
                pad_token_id=0,
                **parts.TINY_TRANSFORMER,
            ),
        )

    @classmethod
    def amounts(
        cls, config: Any, tower_tokens: int, lengths: Sequence[int], labels: int, images: int
    ) -> dict[str, tuple[int, int]]:
        """Return component -> (tokens, pairs): see `Backbone.amounts`.

        The layer that takes regions to the encoder's width does not see the question, so the language model's tokens
        are a mean, by what its layers cost: such that the whole comes out right.
        """
        found = super().amounts(config, tower_tokens, lengths, labels, images)
        text, regions = config.text_config, cls.image_tokens_of(config)
        entry = text.visual_embedding_dim * text.hidden_size
        layers = text.num_hidden_layers * text.hidden_size * (4 * text.hidden_size + 2 * text.intermediate_size)
        tokens = (layers * sum(lengths) + entry * regions * len(lengths)) / (layers + entry)
        pairs = found["language_model"][1]
        return {**found, "language_model": (round(tokens), pairs), "head": (len(lengths), 0)}

    @classmethod
    def last_layer(cls, model: Any) -> tuple[torch.nn.Module, str]:
        """Return the linear layer over the classes: see `ClassifierBackbone.last_layer`."""
        return model.encoder, "cls"


AutoConfig.register(VisualBertGridConfig.model_type, VisualBertGridConfig)
AutoModel.register(VisualBertGridConfig, VisualBertGrid)
