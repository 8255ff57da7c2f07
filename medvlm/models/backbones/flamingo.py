"""Flamingo: `<image>`, the prompt and a line end, then the answer and its end token; answered examples may come first.

Text is causal, and each token looks at the last picture before it (arXiv:2204.14198); the loss is on the answer only.
Of two pictures of one sample the prompt looks at the second; what the first shows reaches it by its `<image>` token.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from medvlm.models.backbones.base import Example
from medvlm.models.backbones.rows import pack_rows, pad_prompts, pad_rows, pixel_values
from medvlm.models.backbones.two_parts import TwoParts
from medvlm.models.features import skip_tower

# What is imported from here makes transformers' Auto classes know it.
from medvlm.models.flamingo import FlamingoConfig, FlamingoForConditionalGeneration, FlamingoProcessor, assemble
from medvlm.models.flamingo.processing import by_row
from medvlm.models.git_llm.configuration import tokens_of
from medvlm.train.flops import bare

if TYPE_CHECKING:
    from medvlm.train.memory_trace import Shape


class FlamingoBackbone(TwoParts):
    """Turns examples into Flamingo's inputs.

    Args:
        processor: a FlamingoProcessor.
        image_tokens: latents of a picture; one token stands for it in the text.
        max_prefix_tokens: the last so many tokens of each prompt are kept, start token and line end apart.
        max_suffix_tokens: each answer is cut to so many tokens, its end token included and always kept.
    """

    model_class = FlamingoForConditionalGeneration
    config_class = FlamingoConfig
    processor_class = FlamingoProcessor
    assembly: ClassVar = assemble
    quantizable = "language_model"
    several = True

    @classmethod
    def prove(cls, model: Any) -> None:
        """Raise InputError where the language model's family passes nothing through the gated blocks."""
        assemble.check_layers(model)

    @classmethod
    def together(cls, vision: Any, text: Any) -> FlamingoConfig:
        """Return the configuration of the whole for those of its parts."""
        # The tokens' ids are the tokenizer's to say; a plan does not depend on them.
        return assemble.configuration(vision, text, text.vocab_size, text.vocab_size + 1)

    @classmethod
    def tiny_of(cls, vision: Any, text: Any, processor: Any) -> torch.nn.Module:
        """Return the untrained Flamingo of two small configurations, with 16 latents a picture."""
        config = assemble.configuration(
            vision,
            text,
            processor.image_token_id,
            processor.chunk_token_id,
            latents=16,
            resampler_layers=2,
            cross_every=2,
            heads=4,
            head_dim=32,
            feed_forward=2,
        )
        model = FlamingoForConditionalGeneration(config)
        assemble.begin_tokens(model, processor)
        model.generation_config.suppress_tokens = assemble.unspoken(model, processor)
        processor.fit(text.vocab_size)
        made: torch.nn.Module = model
        return made

    @classmethod
    def image_tokens_of(cls, config: Any) -> int:
        """Return the latents of a picture."""
        return int(config.latents)

    @classmethod
    def in_sequence(cls, image_tokens: int) -> int:
        """Return 1: the latents are looked at, the text holds `<image>`."""
        return 1

    @classmethod
    def images_in(cls, inputs: Mapping[str, torch.Tensor]) -> int:
        """Return the number of pictures in a batch, what stands after the last of a row not counted."""
        pictures = inputs.get("pixel_values")
        return 0 if pictures is None else int(inputs["image_counts"].sum())

    @classmethod
    def widths(cls, config: Any) -> dict[str, int]:
        """Return heads x head dimension of every attention: the resampler's and the gated blocks' are the same."""
        between = config.heads * config.head_dim
        return {**super().widths(config), "projector/latents": between, "projector/text": between}

    @classmethod
    def amounts(
        cls, config: Any, tower_tokens: int, lengths: Sequence[int], labels: int, images: int
    ) -> dict[str, tuple[int, int]]:
        """Return what runs over what (see `Backbone`): text, latents, what latents attend to, what text attends to.

        The pictures of a batch are taken to be spread evenly over its examples.
        """
        features, latents = tokens_of(config.vision_config), images * config.latents
        seen, text = images * (features + config.latents), sum(lengths)
        return {
            **super().amounts(config, tower_tokens, lengths, labels, images),
            "projector": (0, 0),
            "projector/seen": (seen, 0),
            "projector/latents": (latents, seen * config.latents),
            "projector/looked": (latents, 0),
            "projector/text": (text, text * latents // max(1, len(lengths))),
        }

    @classmethod
    def running(
        cls, model: torch.nn.Module, members: Mapping[str, Sequence[tuple[str, torch.nn.Module]]]
    ) -> list[tuple[str, str, torch.nn.Module]]:
        """Return the modules in the order in which they run, the gated blocks between the decoder's layers."""
        config: Any = model.config
        found: list[tuple[tuple[float, int], str, str, torch.nn.Module]] = []
        for component, some in members.items():
            for name, module in some:
                place = bare(name)
                layer = re.search(r"^language_model\.\D*\.(\d+)\.", place)
                block = re.search(r"^projector\.blocks\.(\d+)\b", place)
                rate = _rate(place) if component == "projector" else component
                # The tower, the resampler and what embeds text; block and layer by turns; the head.
                order = (0.0, 0) if component != "head" else (2.0, 0)
                if block is not None:
                    order = (1.0, 2 * config.crossed[int(block[1])])
                elif layer is not None:
                    order = (1.0, 2 * int(layer[1]) + 1)
                found.append((order, rate, name, module))
        return [(rate, name, module) for _, rate, name, module in sorted(found, key=lambda one: one[0])]

    @classmethod
    def fake_inputs(cls, model: Any, shape: Shape, device: torch.device) -> dict[str, Any]:
        """Return the inputs of a training step on tensors without contents, pictures passed through the resampler."""
        config = model.config
        vision, each = config.vision_config, max(1, -(-shape.images // shape.rows))
        if shape.features:
            skip_tower(model, cls)
            pictures = torch.empty(
                shape.images, tokens_of(vision), vision.hidden_size, device=device, dtype=model.dtype
            )
        else:
            pictures = torch.empty(shape.images, 3, vision.image_size, vision.image_size, device=device)
        found = model.get_image_features(pictures)
        rest = found.new_zeros(shape.rows * each - len(found), *found.shape[1:])
        ids = torch.zeros(shape.rows, shape.length, dtype=torch.long, device=device)
        square = (shape.rows, 1, shape.length, shape.length)
        eager = config.get_text_config()._attn_implementation == "eager"
        return {
            "inputs_embeds": model.embed(ids),
            "image_latents": torch.cat([found, rest]).reshape(shape.rows, each, *found.shape[1:]),
            "image_places": ids,
            "attention_mask": torch.zeros(square, device=device, dtype=torch.float32 if eager else torch.bool),
            "position_ids": ids,
            "logits_to_keep": torch.zeros(shape.labels, dtype=torch.long, device=device),
        }

    def _shots(self, example: Example) -> list[int]:
        """Return the start token and the answered examples before an example."""
        made: list[int] = list(self.processor.start_tokens)
        most = (self.max_prefix_tokens, self.max_suffix_tokens)
        for shot in example.shots:
            made += self.processor.shown(shot.prefix, shot.suffix or "", _count(shot), most)
        return made

    def _prefix(self, example: Example) -> list[int]:
        asked: list[int] = self.processor.asked(example.prefix, _count(example), self.max_prefix_tokens)
        return self._shots(example) + asked

    def text_tokens(self, prefix: str, suffix: str) -> tuple[int, int]:
        """Return (prompt tokens with start token and line end, answer tokens with the end token), after truncation."""
        return len(self._prefix(Example(None, prefix))), len(self._suffix(suffix))

    def prompt_length(self, example: Example) -> int:
        """Return how many tokens `collate_prompts` makes of an example; see `Backbone`."""
        return len(self._prefix(example))

    def pictures(self, rows: Sequence[Sequence[Example]]) -> dict[str, torch.Tensor]:
        """Return the pictures of each row's examples.

        Returns:
            pixel_values [B, M, 3, S, S] (or features [B, M, N, D] of a cache), zeros after a row's last picture, and M
            is 1 where no row has one; image_counts [B].
        """
        shown = [[picture for example in row for picture in _pictures(example)] for row in rows]
        counts = [len(row) for row in shown]
        flat = [picture for row in shown for picture in row]
        if flat:
            values = by_row(pixel_values(self.image_processor, flat), counts)
        else:
            side = self.image_processor.size["height"]
            values = torch.zeros(len(rows), 1, 3, side, side)
        return {"pixel_values": values, "image_counts": torch.tensor(counts)}

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return training inputs, padded on the right.

        Returns:
            input_ids, attention_mask, labels [B, T], logits_to_keep [B, T] bool (see `rows.pad_rows`), and
            what `pictures` returns.
        """
        prefixes = [self._prefix(example) for example in examples]
        suffixes = [self._suffix(example.suffix) for example in examples]
        rows = pad_rows(prefixes, suffixes, self.tokenizer.pad_token_id)
        return {**rows, **self.pictures([[example] for example in examples])}

    def collate_packed(self, examples: Sequence[Example], pack_tokens: int | None) -> dict[str, torch.Tensor]:
        """Return training inputs in few rows, the examples of a row blind to each other: see `Backbone`."""
        packed = pack_rows(
            [self._prefix(example) for example in examples],
            [self._suffix(example.suffix) for example in examples],
            [0] * len(examples),
            pad=self.tokenizer.pad_token_id,
            pack_tokens=pack_tokens,
        )
        owners = packed.inputs["example_ids"]
        rows = [[examples[number] for number in row[row >= 0].unique_consecutive().tolist()] for row in owners]
        return {**packed.inputs, **self.pictures(rows)}

    def collate_prompts(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return generation inputs, padded on the left: input_ids, attention_mask [B, T], and pictures."""
        rows = pad_prompts([self._prefix(example) for example in examples], self.tokenizer.pad_token_id)
        return {**rows, **self.pictures([[example] for example in examples])}


def _pictures(example: Example) -> list[Example]:
    """Return an example's pictures in order, those of its shots first, each as an example of its own."""
    own = [Example(image, "") for image in example.images]
    if example.pixels is not None:
        own.insert(0, dataclasses.replace(example, shots=(), more_images=()))
    return [picture for shot in example.shots for picture in _pictures(shot)] + own


def _rate(place: str) -> str:
    """Return over what a module of the projector runs, by its bare name."""
    seen = re.search(r"\.(k_proj|v_proj)\b", place) is not None
    if place.startswith("projector.blocks."):
        return "projector/looked" if seen else "projector/text"
    return "projector/seen" if seen else "projector/latents"


def _count(example: Example) -> int:
    """Return how many pictures an example shows itself."""
    return len(example.images) + (example.pixels is not None)
