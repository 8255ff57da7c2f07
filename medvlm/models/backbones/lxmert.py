"""LXMERT (arXiv:1908.07490): one encoder for the question, one for regions, one across both; answers from a list.

The regions are patches of an image tower with the boxes of their grid, not a detector's: see `grid`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers import AutoConfig, AutoModel, LxmertConfig, LxmertForQuestionAnswering, PreTrainedModel

from medvlm.errors import RecipeError
from medvlm.models.backbones import classifier_parts as parts
from medvlm.models.backbones.grid import GridBackbone, GridClassifier, GridConfig

if TYPE_CHECKING:
    from medvlm.recipe.models import Recipe


class LxmertGridConfig(GridConfig):
    """Of an LXMERT on a grid of patches."""

    model_type = "lxmert_grid"


class LxmertGrid(GridClassifier):
    """An image tower, a projection and `LxmertForQuestionAnswering`."""

    config: LxmertGridConfig
    config_class = LxmertGridConfig

    @staticmethod
    def region_width(config: Any) -> int:
        """Return how many features of a region the classifier takes: 2048 of the published one."""
        return int(config.visual_feat_dim)

    @staticmethod
    def make_encoder(config: Any) -> PreTrainedModel:
        """Return an LxmertForQuestionAnswering."""
        encoder: PreTrainedModel = LxmertForQuestionAnswering(config)
        return encoder

    def classify(self, regions: torch.Tensor, image_mask: torch.Tensor, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Return logits [B, C]: see `GridClassifier.classify`."""
        boxes = grid_boxes(regions.shape[1], regions.device).to(regions.dtype).expand(len(regions), -1, -1)
        found = self.encoder(**inputs, visual_feats=regions, visual_pos=boxes, visual_attention_mask=image_mask)
        logits: torch.Tensor = found.question_answering_score
        return logits


def grid_boxes(patches: int, device: torch.device | None = None) -> torch.Tensor:
    """Return the boxes [N, 4] of a square grid's patches, row by row: left, top, right, bottom in shares of a side."""
    side = round(patches**0.5)
    if side * side != patches:
        raise ValueError(f"{patches} patches are no square grid")
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    corner = torch.stack([columns, rows], dim=-1).reshape(patches, 2)
    boxes: torch.Tensor = torch.cat([corner, corner + 1], dim=1) / side
    return boxes.to(device)


class LxmertBackbone(GridBackbone):
    """Turns questions and pictures into LXMERT's inputs: see `ClassifierBackbone`."""

    components: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        **GridBackbone.components,
        "head": ("encoder.answer_head.", "encoder.lxmert.pooler."),
    }
    model_class = LxmertGrid
    config_class = LxmertGridConfig
    text_type = "lxmert"
    new = ("answer_head.",)

    @classmethod
    def check(cls, recipe: Recipe, config: Any) -> None:
        """Raise as `ClassifierBackbone.check`, and where activations are to be computed again.

        Raises:
            RecipeError: transformers' LXMERT does not do that.
        """
        super().check(recipe, config)
        if recipe.train.activation_checkpointing:
            raise RecipeError("recipe", ["train.activation_checkpointing: true: lxmert has none; expected false"])

    @classmethod
    def encoder_class(cls) -> Any:
        """Return LxmertForQuestionAnswering."""
        return LxmertForQuestionAnswering

    @classmethod
    def tiny(cls, image_size: int | None, family: str | None) -> tuple[torch.nn.Module, Any]:
        """Return an LXMERT and its tower of 1.9 M parameters in all; InputError for a family: there is one."""
        sizes = {key: value for key, value in parts.TINY_TRANSFORMER.items() if key != "num_hidden_layers"}
        return cls.tiny_of(
            image_size,
            family,
            lambda vocabulary: LxmertConfig(
                vocab_size=vocabulary,
                visual_feat_dim=256,
                max_position_embeddings=128,
                num_qa_labels=2,
                l_layers=2,
                r_layers=1,
                x_layers=2,
                **sizes,
            ),
        )

    @classmethod
    def sized(cls, config: dict[str, Any], answers: Sequence[str]) -> dict[str, Any]:
        """Return a configuration for these answers, whose number LXMERT keeps under a name of its own."""
        found = super().sized(config, answers)
        return {**found, "text_config": {**found["text_config"], "num_qa_labels": max(2, len(answers))}}

    def _tell(self, config: Any) -> None:
        super()._tell(config)
        config.text_config.num_qa_labels = len(self.answers)

    @classmethod
    def amounts(
        cls, config: Any, tower_tokens: int, lengths: Sequence[int], labels: int, images: int
    ) -> dict[str, tuple[int, int]]:
        """Return component -> (tokens, pairs): see `Backbone.amounts`.

        LXMERT's layers do not all see the same tokens, so the language model's are a mean, by what each layer costs:
        such that the whole comes out right.
        """
        regions = cls.image_tokens_of(config)
        found = super().amounts(config, tower_tokens, lengths, labels, images)
        text = [length - regions for length in lengths]
        costs = Costs(config.text_config)
        tokens = sum(costs.tokens(words, regions) for words in text)
        pairs = sum(costs.pairs(words, regions) for words in text)
        return {**found, "language_model": (round(tokens), round(pairs)), "head": (len(lengths), 0)}

    @classmethod
    def last_layer(cls, model: Any) -> tuple[torch.nn.Module, str]:
        """Return the linear layer over the classes: see `ClassifierBackbone.last_layer`."""
        return model.encoder.answer_head.logit_fc, "3"


class Costs:
    """What tokens of the question and regions cost in LXMERT's layers, as a mean over all layers.

    Args:
        config: of LXMERT.
    """

    def __init__(self, config: Any) -> None:
        width, inner = config.hidden_size, config.intermediate_size
        self.layers = (config.l_layers, config.r_layers, config.x_layers)
        self.attention = 4 * width * width
        self.feed = 2 * width * inner
        self.entry = width * (config.visual_feat_dim + config.visual_pos_dim)

    def tokens(self, words: int, regions: int) -> float:
        """Return so many tokens as cost in all of LXMERT's layers what these do in theirs.

        What the last layer makes of the regions is not used and has no gradient. It is left out of the two thirds of
        the work that backward is where everything is trained.
        """
        language, vision, cross = self.layers
        layer = self.attention + self.feed
        both = words + regions
        work = self.entry * regions + layer * (language * words + vision * regions)
        # One cross-attention goes both ways; then each side has its own layer.
        work += cross * both * (self.attention + layer)
        unused = layer * regions + self.attention // 2 * (regions + words)
        # All layers a token: both sides of each of the last ones.
        whole = self.entry + layer * (language + vision) + cross * (self.attention + 2 * layer)
        return float((work - 2 / 3 * unused) / whole)

    def pairs(self, words: int, regions: int) -> float:
        """Return so many pairs of tokens as cost in all of LXMERT's attentions what these do in theirs.

        `train.flops` takes both modules of an attention, the products and the layer after them, for one each.
        """
        language, vision, cross = self.layers
        work = language * words**2 + vision * regions**2 + cross * (2 * words * regions + words**2 + regions**2)
        unused = regions**2 + words * regions
        return float((work - 2 / 3 * unused) / (2 * (language + vision + 3 * cross)))


AutoConfig.register(LxmertGridConfig.model_type, LxmertGridConfig)
AutoModel.register(LxmertGridConfig, LxmertGrid)
