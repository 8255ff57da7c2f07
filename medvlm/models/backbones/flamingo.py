"""Flamingo: `<image>`, the prompt and a line end, then the answer and its end token; answered examples may come first.

Text is causal, and each token looks at the last picture before it (arXiv:2204.14198); the loss is on the answer only.
Of two pictures of one sample the prompt looks at the second; what the first shows reaches it by its `<image>` token.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

import medvlm.models.flamingo  # noqa: F401 (so that transformers' Auto classes know it)
from medvlm.errors import InputError
from medvlm.models.backbones.base import Backbone, Example
from medvlm.models.backbones.rows import pack_rows, pad_prompts, pad_rows, pixel_values, texts
from medvlm.models.features import skip_tower
from medvlm.models.flamingo import FlamingoConfig, FlamingoForConditionalGeneration, assemble
from medvlm.models.flamingo.processing import FlamingoProcessor, by_row
from medvlm.models.git_llm import assemble as parts
from medvlm.models.git_llm.configuration import has_class_token, tokens_of
from medvlm.models.positions import resize_embeddings
from medvlm.models.quantize import mend_cpu_layers
from medvlm.train.flops import bare

if TYPE_CHECKING:
    from medvlm.train.memory_trace import Shape


class FlamingoBackbone(Backbone):
    """Turns examples into Flamingo's inputs.

    Args:
        processor: a FlamingoProcessor.
        image_tokens: latents of a picture; one token stands for it in the text.
        max_prefix_tokens: the last so many tokens of each prompt are kept, start token and line end apart.
        max_suffix_tokens: each answer is cut to so many tokens, its end token included and always kept.
    """

    components: ClassVar = {
        "vision_tower": "vision_tower.",
        "projector": "projector.",
        "language_model": "language_model.",
    }
    quantizable = "language_model"
    several = True

    def __init__(self, processor: Any, *, image_tokens: int, max_prefix_tokens: int, max_suffix_tokens: int) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.image_processor = processor.image_processor
        self.image_tokens = image_tokens
        self.image_token_id: int = processor.image_token_id
        self.max_prefix_tokens = max_prefix_tokens
        self.max_suffix_tokens = max_suffix_tokens

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> torch.nn.Module:
        """Return a FlamingoForConditionalGeneration of these dimensions."""
        model: torch.nn.Module = FlamingoForConditionalGeneration(FlamingoConfig.from_dict(dict(config)))
        return model

    @classmethod
    def load(cls, paths: Mapping[str, Path], options: Mapping[str, Any], seed: int) -> tuple[torch.nn.Module, Any]:
        """Return model and processor: a saved Flamingo, or a new one of an image tower and a language model.

        Args:
            paths: `model`, a saved Flamingo; or `vision_tower`, a CLIP or SigLIP, and `language_model`, a folder or a
                GGUF file.
            options: as in `Backbone`.
            seed: of the new weights.

        Raises:
            InputError: another architecture, a family that keeps no list of layers, or a GGUF file without its package.
        """
        options = dict(options)
        sizes = options.pop("sizes", {})
        if "model" in paths:
            model, processor = _saved(paths["model"], options)
        else:
            tower = parts.load_tower(paths["vision_tower"], options)
            assemble.check_text(parts.text_config(paths["language_model"]))
            text = parts.load_text(paths["language_model"], options)
            processor = cls.processor_of(paths)
            dtype = options.get("dtype", torch.float32)
            model = assemble.put_together(tower, text, processor, seed, dtype, **sizes)
        if "quantization_config" in options and not torch.cuda.is_available():
            # Before the first forward pass, which would repack the weights.
            mend_cpu_layers(model)
        assemble.check_layers(model)
        return model, processor

    @classmethod
    def processor_of(cls, paths: Mapping[str, Path]) -> Any:
        """Return the processor of a saved Flamingo, or of a tower and a language model put together."""
        if "model" in paths:
            return super().processor_of(paths)
        from transformers import AutoConfig

        vision = parts.vision_config(AutoConfig.from_pretrained(paths["vision_tower"], local_files_only=True))
        return assemble.processor_of(paths["vision_tower"], paths["language_model"], vision)

    @classmethod
    def tiny(cls, image_size: int | None, family: str | None) -> tuple[torch.nn.Module, Any]:
        """Return a CLIP tower and a LLaMA of four layers each, eight latents a picture, and their processor.

        Raises:
            InputError: a family is named; there is one.
        """
        from transformers import CLIPVisionConfig, LlamaConfig, LlamaTokenizer
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        from medvlm.models import tiny, tiny_tokenizers

        if family is not None:
            raise InputError(f"model.id: flamingo has one untrained form, no {family}; expected medvlm/tiny-random")
        side = image_size or tiny.IMAGE_SIZE
        square = {"height": side, "width": side}
        vocabulary, merges = tiny_tokenizers.sentencepiece(["<unk>", "<s>", "</s>"])
        processor = FlamingoProcessor(
            CLIPImageProcessorPil(size=square, crop_size=square), LlamaTokenizer(vocab=vocabulary, merges=merges)
        )
        sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
        ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
        rows = tiny_tokenizers.rounded(len(processor.tokenizer))
        config = assemble.configuration(
            CLIPVisionConfig(**sizes, image_size=side, patch_size=tiny.PATCH_SIZE),
            LlamaConfig(**sizes, **ends, initializer_range=tiny.INITIAL, vocab_size=rows),
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
        processor.fit(rows)
        return model, processor

    @classmethod
    def compose(cls, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the configuration of the whole: the saved one, or that of the two parts, as `load` makes it.

        Raises:
            InputError: as `load`.
        """
        if "model" in configs:
            return dict(configs["model"])
        from transformers import AutoConfig

        vision, text = (AutoConfig.for_model(**configs[role]) for role in ("vision_tower", "language_model"))
        assemble.check_text(text)
        # The tokens' ids are the tokenizer's to say; a plan does not depend on them.
        whole = assemble.configuration(parts.vision_config(vision), text, text.vocab_size, text.vocab_size + 1)
        config: dict[str, Any] = whole.to_dict()
        return config

    @classmethod
    def image_tokens_of(cls, config: Any) -> int:
        """Return the latents of a picture."""
        return int(config.latents)

    @classmethod
    def in_sequence(cls, image_tokens: int) -> int:
        """Return 1: the latents are looked at, the text holds `<image>`."""
        return 1

    @classmethod
    def resize(cls, model: torch.nn.Module, processor: Any, image_size: int) -> bool:
        """Make model and processor take images of `image_size`; return whether position embeddings were resampled."""
        config: Any = model.config
        vision = config.vision_config
        embeddings = next(module for module in model.modules() if hasattr(module, "position_embedding"))
        changed = resize_embeddings(embeddings, image_size, class_token=has_class_token(vision.model_type))
        vision.image_size = image_size
        processor.image_processor.size = {"height": image_size, "width": image_size}
        if hasattr(processor.image_processor, "crop_size"):
            processor.image_processor.crop_size = {"height": image_size, "width": image_size}
        return changed

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

    def _suffix(self, text: str | None) -> list[int]:
        tokens: list[int] = self.processor.answer_tokens(text or "", self.max_suffix_tokens)
        return tokens

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

    def decode(self, tokens: torch.Tensor) -> list[str]:
        """Return the texts of generated tokens [B, T], special tokens and outer blanks removed."""
        return texts(self.tokenizer, tokens)


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


def _saved(path: Path, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return a saved Flamingo and its processor."""
    from transformers import AutoConfig, AutoProcessor

    config = AutoConfig.from_pretrained(path, local_files_only=True)
    if config.model_type != "flamingo":
        raise InputError(f"model.id: {path} is a {config.model_type} model; expected flamingo")
    options = dict(options)
    quantization = options.pop("quantization_config", None)
    if quantization is not None:
        head = f"language_model.{parts.head_name(config.text_config)}"
        options["quantization_config"] = parts.spared(quantization, ["vision_tower", "projector", head])
    model = FlamingoForConditionalGeneration.from_pretrained(path, local_files_only=True, **options)
    processor = AutoProcessor.from_pretrained(path, local_files_only=True, backend="pil")
    processor.fit(model.get_input_embeddings().weight.shape[0])
    return model, processor
