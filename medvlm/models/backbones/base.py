"""What a backbone is: everything that differs between model families, and nothing else.

`Backbone` is what the rest of the house talks to. Its defaults are those of models that generate: pictures and prompt
go in, the next token's logits come out, and `vision_config` and a text configuration say how large they are. A family
that answers otherwise (from a closed vocabulary, by matching texts) or counts otherwise overrides them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from PIL import Image as PILImage

if TYPE_CHECKING:
    from medvlm.recipe.models import Recipe
    from medvlm.train.memory_trace import Shape

IGNORED = -100
"""Label of a position that has no loss."""


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One picture with its prefix (the prompt) and suffix (the target; None when generating)."""

    image: PILImage.Image | None
    """None where `pixels` is given, or for a prompt without a picture."""
    prefix: str
    suffix: str | None = None
    pixels: torch.Tensor | None = None
    """What a cache holds of the picture: pixel values [3, S, S] as the model takes them, the same in 8 bits (before
    scaling and normalizing), or the vision tower's features [N, D], which `models.features` hands past the tower."""
    more_images: tuple[PILImage.Image, ...] = ()
    """Further pictures of the same sample, in order; for backbones that take `several`."""
    shots: tuple[Example, ...] = ()
    """Answered examples shown before this one, each with its pictures, prefix and suffix; for `several`."""

    @property
    def images(self) -> tuple[PILImage.Image, ...]:
        """Return the example's own pictures in order, without those of its shots."""
        return (() if self.image is None else (self.image,)) + self.more_images


class Backbone:
    """A model family: which components it has, how examples become its inputs, and what it answers.

    Args:
        processor: the checkpoint's.
        image_tokens: how many tokens stand for a picture, as `image_tokens_of` says.
        max_prefix_tokens: of the recipe's budget.
        max_suffix_tokens: of the recipe's budget.
    """

    components: ClassVar[Mapping[str, str | tuple[str, ...]]]
    """vision_tower, projector, language_model -> prefix (or prefixes) of their parameters' names in the bare
    transformers model. The fourth, head, is the module that `get_output_embeddings` returns, or is named here, too."""

    quantizable: ClassVar[str | None] = "language_model"
    """The one component that may be 4-bit; None where none may."""

    output: ClassVar[Literal["text", "class", "match"]] = "text"
    """What an answer is: generated, the likeliest of a closed vocabulary, or the training text that matches best."""

    several: ClassVar[bool] = False
    """Takes several pictures a sample, and few-shot examples with their pictures."""

    packs: ClassVar[bool] = True
    """Has `collate_packed`."""

    caches: ClassVar[bool] = True
    """Pictures may come from a cache, as pixel values or as features of the tower."""

    image_processor: Any
    """The checkpoint's image processor."""

    def __init__(self, processor: Any, *, image_tokens: int, max_prefix_tokens: int, max_suffix_tokens: int) -> None:
        raise NotImplementedError

    @classmethod
    def takes(cls, model_type: str) -> bool:
        """Return True where this backbone is the one for a checkpoint of this type."""
        from medvlm.models.backbones import kind_of_type

        return kind_of_type(model_type) is cls

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> torch.nn.Module:
        """Return the model of these dimensions with no meaningful weights (made on the meta device for a census)."""
        raise NotImplementedError

    @classmethod
    def load(cls, paths: Mapping[str, Path], options: Mapping[str, Any], seed: int) -> tuple[torch.nn.Module, Any]:
        """Return model and processor.

        Args:
            paths: role -> folder or file, the roles as in `ModelPart.parts`.
            options: keyword arguments for `from_pretrained`: dtype, attn_implementation, and with quantization
                quantization_config and device_map; `sizes` where the recipe sets some of what is new.
            seed: of weights that no checkpoint has.
        """
        raise NotImplementedError

    @classmethod
    def processor_of(cls, paths: Mapping[str, Path]) -> Any:
        """Return the processor of checkpoints that lie here, role by role as in `load`, without their weights."""
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(str(paths["model"]), local_files_only=True, backend="pil")

    @classmethod
    def tiny(cls, image_size: int | None, family: str | None) -> tuple[torch.nn.Module, Any]:
        """Return a small model of the real architecture with random weights (of torch's current seed), and a processor.

        Args:
            image_size: side of the square image; None takes the usual one.
            family: which of several architectures; None where there is one.

        Raises:
            InputError: no such family.
        """
        raise NotImplementedError

    @classmethod
    def compose(cls, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the configuration of the whole model from those of its parts, role by role."""
        return dict(configs["model"])

    @classmethod
    def components_of(cls, config: Any) -> dict[str, tuple[str, ...]]:
        """Return component -> the prefixes of its parameters' names in a model of this configuration."""
        return {name: (one,) if isinstance(one, str) else tuple(one) for name, one in cls.components.items()}

    @classmethod
    def image_size_of(cls, config: Any) -> int | None:
        """Return the side of the square image in pixels; None where pictures keep their shape."""
        return int(config.vision_config.image_size)

    @classmethod
    def patch_size_of(cls, config: Any) -> int:
        """Return of what the side of a picture must be a multiple, in pixels."""
        return int(config.vision_config.patch_size)

    @classmethod
    def resized(cls, config: dict[str, Any], image_size: int) -> dict[str, Any]:
        """Return a configuration (as `compose` makes it) for images of this side.

        Raises:
            RecipeError: the patches do not fit into it.
        """
        from transformers import AutoConfig

        from medvlm.models.positions import image_tokens

        vision = {**config["vision_config"], "image_size": image_size}
        # Through its class, so that what the configuration leaves out has its default.
        patch: int = AutoConfig.for_model(**vision).patch_size
        # A checkpoint's own size need be no multiple (384 of 14): what is over is not seen.
        if image_size != config["vision_config"].get("image_size"):
            image_tokens(image_size, patch)
        return {**config, "vision_config": vision}

    @classmethod
    def image_tokens_of(cls, config: Any) -> int:
        """Return how many tokens stand for a picture in a model of this configuration, at most."""
        raise NotImplementedError

    @classmethod
    def in_sequence(cls, image_tokens: int) -> int:
        """Return how many of a picture's tokens stand in the text model's sequence: all, unless it looks aside."""
        return image_tokens

    @classmethod
    def takes_sdpa(cls, config: Any) -> bool:
        """Return True where the text model computes scaled dot-product attention by torch's own function."""
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

        family = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config.get_text_config()), None)
        return bool(getattr(family, "_supports_sdpa", False))

    @classmethod
    def resize(cls, model: torch.nn.Module, processor: Any, image_size: int) -> bool:
        """Make model and processor take images of this side; return whether position embeddings were resampled."""
        raise NotImplementedError

    @classmethod
    def widths(cls, config: Any) -> dict[str, int]:
        """Return component -> heads x head dimension of its attention."""
        return {"vision_tower": width(config.vision_config), "language_model": width(config.get_text_config())}

    @classmethod
    def amounts(
        cls, config: Any, tower_tokens: int, lengths: Sequence[int], labels: int, images: int
    ) -> dict[str, tuple[int, int]]:
        """Return component -> (tokens, pairs of tokens in attention) of one training batch, for `train.flops`.

        Parts of a component have keys of their own, as `running` names them.

        Args:
            config: of the model.
            tower_tokens: inside the vision tower, for one picture.
            lengths: true tokens of each example, as `true_lengths` gives them.
            labels: positions with a loss.
            images: pictures, as `images_in` counts them.
        """
        return {
            "vision_tower": (images * tower_tokens, images * tower_tokens**2),
            "projector": (images * cls.image_tokens_of(config), 0),
            "language_model": (sum(lengths), sum(length * length for length in lengths)),
            "head": (labels, 0),
        }

    @classmethod
    def amounts_in(
        cls, config: Any, tower_tokens: int, inputs: Mapping[str, torch.Tensor]
    ) -> dict[str, tuple[int, int]]:
        """Return what `amounts` does, of a batch that `collate` or `collate_packed` made."""
        labels = int((inputs["labels"] != IGNORED).sum())
        return cls.amounts(config, tower_tokens, cls.true_lengths(inputs), labels, cls.images_in(inputs))

    @classmethod
    def running(
        cls, model: torch.nn.Module, members: Mapping[str, Sequence[tuple[str, torch.nn.Module]]]
    ) -> list[tuple[str, str, torch.nn.Module]]:
        """Return (key of `amounts`, name, module) in the order in which modules run, for `train.flops`.

        Args:
            model: with its adapters.
            members: component -> its modules by name. Where those of one run over different tokens, they go under keys
                such as projector/text. After an empty key begins what does not depend on anything before it.
        """
        return [(component, name, module) for component, some in members.items() for name, module in some]

    @classmethod
    def images_in(cls, inputs: Mapping[str, torch.Tensor]) -> int:
        """Return the number of pictures in a batch."""
        pictures = inputs.get("pixel_values")
        return 0 if pictures is None else len(pictures)

    @classmethod
    def labels_in(cls, inputs: Mapping[str, torch.Tensor]) -> int:
        """Return the number of losses that a batch is divided by under `train.loss: token`."""
        return int((inputs["labels"][:, 1:] != IGNORED).sum())

    @classmethod
    def true_lengths(cls, inputs: Mapping[str, torch.Tensor]) -> list[int]:
        """Return the tokens of every example in a batch without padding, image tokens included."""
        from medvlm.train.flops import true_lengths

        return true_lengths(inputs)

    @classmethod
    def fake_inputs(cls, model: Any, shape: Shape, device: torch.device) -> dict[str, Any]:
        """Return the inputs of a training step on tensors without contents, pictures passed through the tower.

        Args:
            model: on such tensors (see `train.memory_trace`).
            shape: of the batch.
            device: of the tensors.
        """
        from medvlm.train.memory_trace import embedded_inputs

        return embedded_inputs(cls, model, shape, device)

    @classmethod
    def fake_loss(cls, model: Any, shape: Shape, device: torch.device) -> torch.Tensor:
        """Return the loss of such a step, where `output` is not "text"."""
        raise NotImplementedError

    @classmethod
    def check(cls, recipe: Recipe, config: Any) -> None:
        """Raise where the recipe does not go with a model of this configuration; called before anything is trained.

        Raises:
            RecipeError: says which keys.
        """

    def follow(self, model: torch.nn.Module, recipe: Recipe) -> None:
        """Take what of the recipe the backbone goes by, right after `load`; `model` is bare and without adapters."""

    def updated(self, model: torch.nn.Module) -> None:
        """Put back within its bounds what an update of the weights has moved; `model` may be wrapped."""

    @classmethod
    def planned(cls, config: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Return the configuration as `fit` would leave it; pairs are (prefix, suffix) of the training rows."""
        return config

    def fit(
        self, model: torch.nn.Module, pairs: Sequence[tuple[str, str]], earlier: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Take from the training rows what must be known before the first step, and return it as JSON takes it.

        Args:
            model: bare; a head may be sized.
            pairs: prefix and suffix of every training row.
            earlier: what the run returned whose weights this one begins from.
        """
        return {}

    def restore(self, model: torch.nn.Module, facts: Mapping[str, Any]) -> None:
        """Make model and backbone what `fit` made them, from what it returned.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is of another form.
        """

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return padded model inputs for training: suffixes present, padding on the right.

        Returns:
            at least input_ids, attention_mask, labels [B, T], and pixel_values [B, ...] where there are pictures;
            logits_to_keep [B, T] bool where the model takes it.
        """
        raise NotImplementedError

    def collate_packed(self, examples: Sequence[Example], pack_tokens: int | None) -> dict[str, torch.Tensor]:
        """Return the same examples in as few rows of at most `pack_tokens` tokens as fit, blind to each other.

        Returns:
            the keys of `collate`; attention_mask is [R, 1, T, T] bool (True where attended), position_ids [R, T]
            restart with each example, `example_ids` [R, T] hold the number of each label's example in `examples` (-1
            elsewhere; for the loss, not the model), and pixel_values are in the order of the rows.
        """
        raise NotImplementedError

    def collate_prompts(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return padded model inputs for generation: no suffixes, padding on the left."""
        raise NotImplementedError

    def losses(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, torch.Tensor],
        *,
        count: torch.Tensor | int | None = None,
        per_example: bool = False,
        smoothing: float = 0.0,
        chunk: int = 256,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the loss with its graph, the sum of losses by example [E], and how many each example has [E].

        Args:
            model: bare or wrapped (PEFT, autocast, data parallel); its forward is called once.
            inputs: what `collate` or `collate_packed` made.
            count: by what the sum is divided, see `labels_in`; what is at hand when None.
            per_example: mean over examples of each one's mean.
            smoothing: share of the probability spread over all classes.
            chunk: label positions whose logits exist at one time.
        """
        from medvlm.train.loss import forward_loss

        return forward_loss(model, inputs, count=count, per_example=per_example, smoothing=smoothing, chunk=chunk)

    def answer(
        self, model: Any, inputs: Mapping[str, torch.Tensor], max_new_tokens: int, search: Mapping[str, Any]
    ) -> list[str]:
        """Return the answers to what `collate_prompts` made.

        Args:
            model: in evaluation mode, on the inputs' device.
            inputs: of a batch.
            max_new_tokens: at most so many are generated.
            search: more for `generate`: do_sample, num_beams, logits_processor.
        """
        tokens = model.generate(**inputs, max_new_tokens=max_new_tokens, **search)
        return self.decode(tokens[:, inputs["input_ids"].shape[1] :])

    def text_tokens(self, prefix: str, suffix: str) -> tuple[int, int]:
        """Return how many tokens prefix and suffix take, after truncation, image tokens apart."""
        raise NotImplementedError

    def prompt_length(self, example: Example) -> int:
        """Return how many tokens `collate_prompts` makes of an example, for backbones that take `several`.

        Its pictures are counted, not looked at: each is taken to be as many tokens as `image_tokens_of` says.
        """
        raise NotImplementedError

    def decode(self, tokens: torch.Tensor) -> list[str]:
        """Return the texts of generated tokens [B, T], special tokens removed."""
        raise NotImplementedError


def width(config: Any) -> int:
    """Return heads x head dimension of a transformer's configuration."""
    heads = int(config.num_attention_heads)
    head = getattr(config, "head_dim", None) or int(config.hidden_size) // heads
    return heads * int(head)
