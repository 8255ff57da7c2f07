"""ViLT (arXiv:2102.03334): question tokens and image patches in one transformer, answers from a closed vocabulary.

Published ViLT keeps a picture's shape, pads the batch, and takes patches in random order. Here every picture is a
square of one size, as for the other backbones, so that all patches are real; they are taken in their own order. The
result is the same up to rounding, since attention has no order but that of the position embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import ViltConfig, ViltForQuestionAnswering
from transformers.models.vilt.processing_vilt import ViltProcessor

from medvlm.models.backbones import classifier_parts as parts
from medvlm.models.backbones.base import width
from medvlm.models.backbones.classifier import ClassifierBackbone
from medvlm.models.positions import image_tokens


class SquareVilt(ViltForQuestionAnswering):  # type: ignore[misc]
    """`ViltForQuestionAnswering` for square pictures of one size, without chance in the order of patches."""

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return logits [B, C], and the rest of `ViltForQuestionAnswering`'s output.

        Args:
            input_ids, attention_mask, token_type_ids: [B, T].
            pixel_values: [B, 3, S, S].
            image_mask: [B, N] of ones, N patches and the class token; None is that.
            kwargs: as `ViltForQuestionAnswering` takes them.
        """
        if pixel_values is not None:
            kwargs["image_embeds"] = self.image_embeds(pixel_values)
            # The name is that of pixels; what it is compared with are the embeddings.
            shape = kwargs["image_embeds"].shape[:2]
            kwargs["pixel_mask"] = pixel_values.new_ones(shape) if image_mask is None else image_mask
        return super().forward(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, **kwargs
        )

    def set_attn_implementation(
        self, attn_implementation: str | dict[str, Any], allow_all_kernels: bool = False
    ) -> None:
        """Do nothing: ViLT's attention is always eager."""

    def image_embeds(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the class token and all patches with their position embeddings [B, N, D]."""
        embeddings = self.vilt.embeddings
        patches = embeddings.patch_embeddings(pixel_values).flatten(2).transpose(1, 2)
        whole = torch.cat([embeddings.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        embedded: torch.Tensor = embeddings.dropout(whole + embeddings.position_embeddings)
        # Trained in float32 beside a transformer in half precision, whose norms take no more.
        return embedded.to(embeddings.text_embeddings.word_embeddings.weight.dtype)


class ViltBackbone(ClassifierBackbone):
    """Turns questions and pictures into ViLT's inputs: see `ClassifierBackbone`."""

    components: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        # The patches' embeddings are all there is before the transformer.
        "vision_tower": (
            "vilt.embeddings.patch_embeddings.",
            "vilt.embeddings.cls_token.",
            "vilt.embeddings.position_embeddings.",
        ),
        "projector": (),
        "language_model": "vilt.",
        "head": ("classifier.", "vilt.pooler."),
    }

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> torch.nn.Module:
        """Return a SquareVilt of these dimensions."""
        model: torch.nn.Module = SquareVilt(ViltConfig.from_dict(dict(config)))
        return model

    @classmethod
    def load(cls, paths: Mapping[str, Path], options: Mapping[str, Any], seed: int) -> tuple[torch.nn.Module, Any]:
        """Return model and processor of a checkpoint, whose head, if it has one, is replaced by `fit`.

        Raises:
            InputError: weights beside the head are missing.
        """
        model = parts.classifier(SquareVilt, paths["model"], options, seed, ("classifier.", "vilt.pooler."))
        return model, cls.processor_of(paths)

    @classmethod
    def processor_of(cls, paths: Mapping[str, Path]) -> Any:
        """Return a ViltProcessor whose pictures are squares, normalized as the checkpoint's."""
        return parts.processor(ViltProcessor, paths["model"], cls.image_size_of)

    @classmethod
    def tiny(cls, image_size: int | None, family: str | None) -> tuple[torch.nn.Module, Any]:
        """Return a ViLT of 0.7 M parameters; raises InputError for a family, since there is one."""
        parts.no_family("vilt", family)
        size = image_size or parts.TINY_SIZE
        tokenizer, vocabulary = parts.tiny_tokenizer()
        config = ViltConfig(
            vocab_size=vocabulary,
            image_size=size,
            patch_size=parts.TINY_PATCH,
            max_position_embeddings=128,
            num_labels=2,
            **parts.TINY_TRANSFORMER,
        )
        model = SquareVilt(config)
        parts.begin_with_places(model.vilt.embeddings.position_embeddings, size, class_token=True)
        return model, ViltProcessor(parts.squares(size), tokenizer)

    @classmethod
    def image_size_of(cls, config: Any) -> int:
        """Return the side of the square image in pixels."""
        return int(config.image_size)

    @classmethod
    def patch_size_of(cls, config: Any) -> int:
        """Return the side of a patch in pixels."""
        return int(config.patch_size)

    @classmethod
    def image_tokens_of(cls, config: Any) -> int:
        """Return (image size / patch size)², and one for the class token."""
        return int((config.image_size // config.patch_size) ** 2) + 1

    @classmethod
    def resized(cls, config: dict[str, Any], image_size: int) -> dict[str, Any]:
        """Return the configuration for images of this side; RecipeError where its patches do not fit."""
        image_tokens(image_size, ViltConfig.from_dict(config).patch_size)
        return {**config, "image_size": image_size}

    @classmethod
    def resize(cls, model: torch.nn.Module, processor: Any, image_size: int) -> bool:
        """Make model and processor take images of this side; return whether position embeddings were resampled.

        They are resampled as ViLT itself does for every picture: linearly, corners on corners.
        """
        config: Any = model.config
        processor.image_processor.size = {"height": image_size, "width": image_size}
        if config.image_size == image_size:
            return False
        parts.resize_patches(model.get_submodule("vilt.embeddings"), image_size, config.patch_size)
        config.image_size = image_size
        return True

    @classmethod
    def widths(cls, config: Any) -> dict[str, int]:
        """Return heads x head dimension of the transformer."""
        return {"language_model": width(config)}

    @classmethod
    def amounts(
        cls, config: Any, tower_tokens: int, lengths: Sequence[int], labels: int, images: int
    ) -> dict[str, tuple[int, int]]:
        """Return component -> (tokens, pairs): see `Backbone.amounts`."""
        return {
            "vision_tower": (images * (tower_tokens - 1), 0),
            "projector": (0, 0),
            "language_model": (sum(lengths), sum(length * length for length in lengths)),
            "head": (len(lengths), 0),
        }

    @classmethod
    def last_layer(cls, model: Any) -> tuple[torch.nn.Module, str]:
        """Return the classifier's last linear layer: see `ClassifierBackbone.last_layer`."""
        return model.classifier, "3"
