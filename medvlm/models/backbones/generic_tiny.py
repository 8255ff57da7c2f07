"""The families of chat models, small: real classes, random weights, tokens and chat template of the published form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from medvlm.errors import InputError
from medvlm.models import tiny, tiny_tokenizers
from medvlm.models.backbones.generic_processor import assemble
from medvlm.registry import nearest

WIDTH = 128
TOWER: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
DECODER: dict[str, Any] = {**TOWER, "num_key_value_heads": 2, "initializer_range": tiny.INITIAL}

QWEN_TEMPLATE = (
    "{% for turn in messages %}"
    "{% if loop.first and turn['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ turn['role'] }}\n"
    "{% for part in turn['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IDEFICS3_TEMPLATE = (
    "<|im_start|>{% for turn in messages %}{{ turn['role'] | capitalize }}"
    "{{ ':' if turn['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in turn['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}"
    "<start_of_turn>{{ 'model' if turn['role'] == 'assistant' else turn['role'] }}\n"
    "{% for part in turn['content'] %}"
    "{{ '<start_of_image>' if part['type'] == 'image' else part['text'] | trim }}{% endfor %}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAVA_TEMPLATE = (
    "{% for turn in messages %}{{ turn['role'] | upper }}: "
    "{% for part in turn['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in turn['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """A model's configuration and its processor."""

    config: Any
    processor: Any


def tiny_model(image_size: int | None, family: str | None) -> tuple[torch.nn.Module, Any]:
    """Return a small untrained model of a family (weights of torch's current seed), and its processor.

    Args:
        image_size: side of the square picture in pixels; None is 112.
        family: one of `FAMILIES`; None is smolvlm.

    Raises:
        InputError: no such family.
    """
    from transformers import AutoModelForImageTextToText

    name = family or "smolvlm"
    if name not in FAMILIES:
        known = ", ".join(f"medvlm/tiny-random-{one}" for one in FAMILIES)
        hint = nearest(name, list(FAMILIES))
        raise InputError(f"model.id: medvlm/tiny-random-{name}: no such family{hint}; expected one of {known}")
    made = FAMILIES[name](image_size or tiny.IMAGE_SIZE)
    model: torch.nn.Module = AutoModelForImageTextToText.from_config(made.config)
    if name == "gemma3":
        # Made of zeros, through which no picture would be seen.
        torch.nn.init.normal_(
            model.get_parameter("model.multi_modal_projector.mm_input_projection_weight"), std=tiny.INITIAL
        )
    return model, made.processor


def _idefics3(side: int, kind: str) -> Made:
    import transformers
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    vocabulary, merges = tiny_tokenizers.byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    words = transformers.GPT2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
    )
    rows = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    _add_special(words, ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *rows])
    pictures_kind, config_kind, processor_kind, sizes = {
        "idefics3": (
            Idefics3ImageProcessorPil,
            transformers.Idefics3Config,
            transformers.Idefics3Processor,
            transformers.models.idefics3.configuration_idefics3.Idefics3VisionConfig,
        ),
        "smolvlm": (
            SmolVLMImageProcessorPil,
            transformers.SmolVLMConfig,
            transformers.models.smolvlm.processing_smolvlm.SmolVLMProcessor,
            transformers.models.smolvlm.configuration_smolvlm.SmolVLMVisionConfig,
        ),
    }[kind]
    square = {"longest_edge": side}
    pictures = pictures_kind(size=square, max_image_size=square, do_image_splitting=False)
    config = config_kind(
        vision_config=sizes(**TOWER, image_size=side, patch_size=tiny.PATCH_SIZE),
        text_config=transformers.LlamaConfig(**DECODER, **_vocabulary(words)),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    length = (side // tiny.PATCH_SIZE) ** 2 // 4
    return Made(
        config, assemble(processor_kind, pictures, words, image_seq_len=length, chat_template=IDEFICS3_TEMPLATE)
    )


def _qwen(side: int) -> Made:
    import transformers
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    vocabulary, merges = tiny_tokenizers.byte_level(["<|endoftext|>"])
    words = transformers.Qwen2Tokenizer(vocab=vocabulary, merges=merges, eos_token="<|im_end|>")
    _add_special(words, special)
    ids = dict(zip(special, words.convert_tokens_to_ids(special), strict=True))
    vision = {**TOWER, "depth": TOWER["num_hidden_layers"], "num_heads": TOWER["num_attention_heads"]}
    vision = {key: value for key, value in vision.items() if not key.startswith("num_") or key == "num_heads"}
    config = transformers.Qwen2_5_VLConfig(
        # A window of four merged patches, smaller than the picture, as the published one is.
        vision_config=Qwen2_5_VLVisionConfig(
            **vision, out_hidden_size=WIDTH, window_size=56, fullatt_block_indexes=[3], patch_size=tiny.PATCH_SIZE
        ),
        text_config={
            **DECODER,
            **_vocabulary(words),
            "model_type": "qwen2_5_vl_text",
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1e6},
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    config.vision_config.image_size = side
    pictures = Qwen2VLImageProcessorPil(size={"shortest_edge": side**2, "longest_edge": side**2})
    return Made(config, assemble(transformers.Qwen2_5_VLProcessor, pictures, words, chat_template=QWEN_TEMPLATE))


def _gemma3(side: int) -> Made:
    import transformers
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    special = ["<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    vocabulary, merges = tiny_tokenizers.sentencepiece(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    words = transformers.GemmaTokenizer(
        vocab=vocabulary,
        merges=merges,
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    )
    _add_special(words, special)
    tokens = (side // tiny.PATCH_SIZE // 2) ** 2
    config = transformers.Gemma3Config(
        vision_config=transformers.SiglipVisionConfig(
            **TOWER, image_size=side, patch_size=tiny.PATCH_SIZE, vision_use_head=False
        ),
        text_config=transformers.Gemma3TextConfig(
            **DECODER,
            **_vocabulary(words),
            head_dim=32,
            query_pre_attn_scalar=32,
            sliding_window=64,
            # Five local layers to a global one in the published model; here both kinds, too.
            layer_types=["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
        ),
        mm_tokens_per_image=tokens,
        boi_token_index=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=words.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=words.convert_tokens_to_ids("<image_soft_token>"),
    )
    pictures = Gemma3ImageProcessorPil(size={"height": side, "width": side}, do_pan_and_scan=False)
    return Made(
        config,
        assemble(transformers.Gemma3Processor, pictures, words, image_seq_length=tokens, chat_template=GEMMA_TEMPLATE),
    )


def _llava(side: int) -> Made:
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = _llama_tokenizer(["<image>", "<pad>"])
    words.pad_token = "<pad>"
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**TOWER, image_size=side, patch_size=tiny.PATCH_SIZE),
        text_config=transformers.LlamaConfig(**DECODER, **_vocabulary(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=(side // tiny.PATCH_SIZE) ** 2,
    )
    pictures = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return Made(
        config,
        assemble(
            transformers.LlavaProcessor,
            pictures,
            words,
            patch_size=tiny.PATCH_SIZE,
            vision_feature_select_strategy="default",
            # The class token, which the strategy takes away again.
            num_additional_image_tokens=1,
            chat_template=LLAVA_TEMPLATE,
        ),
    )


def _idefics(side: int) -> Made:
    import transformers
    from transformers.models.idefics.configuration_idefics import IdeficsPerceiverConfig, IdeficsVisionConfig
    from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil

    extra = ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    # Rounded before the three are added, which have embeddings of their own.
    words = _llama_tokenizer([])
    base = tiny_tokenizers.rounded(len(words))
    words.add_tokens([f"<unused{number}>" for number in range(base - len(words))])
    _add_special(words, extra)
    words.pad_token = "<unk>"
    sizes = {key: value for key, value in TOWER.items() if key != "hidden_size"}
    config = transformers.IdeficsConfig(
        **{key: value for key, value in DECODER.items() if key != "num_key_value_heads"},
        vocab_size=base,
        additional_vocab_size=len(extra),
        # Published ones were trained; with gates at 0 the pictures would not be seen at all.
        alpha_initializer="normal",
        alphas_initializer_range=1.0,
        alpha_type="vector",
        cross_layer_interval=2,
        qk_layer_norms=True,
        use_resampler=True,
        perceiver_config=IdeficsPerceiverConfig(
            use_resampler=True, resampler_n_latents=16, resampler_depth=2, resampler_n_heads=4, resampler_head_dim=32
        ),
        vision_config=IdeficsVisionConfig(embed_dim=WIDTH, **sizes, image_size=side, patch_size=tiny.PATCH_SIZE),
        freeze_text_layers=False,
        freeze_vision_layers=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return Made(config, assemble(transformers.IdeficsProcessor, IdeficsImageProcessorPil(image_size=side), words))


def _llama_tokenizer(extra: list[str]) -> Any:
    from transformers import LlamaTokenizer

    vocabulary, merges = tiny_tokenizers.sentencepiece(["<unk>", "<s>", "</s>"])
    words = LlamaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=True)
    _add_special(words, extra)
    return words


def _add_special(words: Any, tokens: list[str]) -> None:
    from tokenizers import AddedToken

    words.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens], special_tokens=True)


def _vocabulary(words: Any) -> dict[str, Any]:
    return {
        "vocab_size": tiny_tokenizers.rounded(len(words)),
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }


FAMILIES: dict[str, Callable[[int], Made]] = {
    "smolvlm": lambda side: _idefics3(side, "smolvlm"),
    "idefics3": lambda side: _idefics3(side, "idefics3"),
    "qwen2_5_vl": _qwen,
    "gemma3": _gemma3,
    "llava": _llava,
    "idefics": _idefics,
}
"""Name after `medvlm/tiny-random-` -> what makes it for pictures of a side in pixels."""
