"""Full-size models with random weights for the GPU benchmark, built on the device: nothing is downloaded or stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX, SUFFIX = 16, 64
"""Text tokens of every example: a question, and a caption of some 45 words."""

_CLIP_B16 = {
    "model_type": "clip_vision_model", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "patch_size": 16, "projection_dim": 512,
}  # fmt: skip
"""arXiv:2103.00020, table 20."""
_LLAMA2_7B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip
"""arXiv:2302.13971 (table 2) and arXiv:2307.09288."""
_TINY_TEXT = {"num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
_TINY_VISION = {**_TINY_TEXT, "image_size": 64}

MODELS: dict[str, dict[str, Any]] = {
    "paligemma-3b-448": {"backbone": "paligemma", "model": {"id": "google/paligemma-3b-pt-448"}},
    "git-llama-7b-448": {
        "backbone": "git_llm",
        "model": {
            "backbone": "git_llm",
            "vision_tower": "openai/clip-vit-base-patch16",
            "language_model": "meta-llama/Llama-2-7b-hf",
        },
    },
}
"""By name, as in the results: which backbone, and the recipe's `model`."""


def recipe(name: str, method: str, *, checkpointing: bool = False, liger: bool = False, compiled: bool = False) -> Any:
    """Return the recipe of a model trained by `lora` or `qlora`, on the language model's linear layers."""
    from medvlm.recipe.load import check

    # GIT-LLM's projector has no weights of its own to begin with, so it is trained.
    projector = "full" if MODELS[name]["backbone"] == "git_llm" else "frozen"
    raw = {
        "name": f"{name}-{method}",
        "model": {**MODELS[name]["model"], "dtype": "bfloat16", "image_size": 448},
        "quantization": {"mode": "nf4" if method == "qlora" else "none", "compute_dtype": "bfloat16"},
        "adapters": {"language_model": {"kind": "lora", "r": 16, "alpha": 32}, "projector": projector},
        "data": [{"path": "random"}],
        "train": {
            "activation_checkpointing": checkpointing,
            "liger": "on" if liger else "off",
            "compile": compiled,
        },
    }
    return check(raw, name)


def dimensions(name: str, kind: Any, tiny: bool) -> dict[str, Any]:
    """Return the whole model's configuration at 448 px; `tiny` shrinks every side of it."""
    from medvlm.models.published import PUBLISHED

    if MODELS[name]["backbone"] == "paligemma":
        config = dict(PUBLISHED["google/paligemma-3b-pt-448"])
    else:
        config = kind.compose({"vision_tower": dict(_CLIP_B16), "language_model": dict(_LLAMA2_7B)})
    vision, text = dict(config["vision_config"]), dict(config["text_config"])
    vision["image_size"] = 448
    if tiny:
        vision |= _TINY_VISION | {"patch_size": 16}
        text |= _TINY_TEXT | {"head_dim": 32, "num_key_value_heads": 1, "vocab_size": 512}
        if "projection_dim" in config:
            config |= {"projection_dim": 128, "hidden_size": 128, "image_token_index": 511}
    return {**config, "vision_config": vision, "text_config": text}


def build(name: str, method: str, device: str, tiny: bool, seed: int) -> tuple[Any, Any, type]:
    """Return (model with adapters, recipe, backbone), random weights in bfloat16, the decoder in 4 bits for `qlora`."""
    import torch

    from medvlm.models import adapters
    from medvlm.models.backbones import BACKBONES

    kind = BACKBONES.get(MODELS[name]["backbone"])
    asked = recipe(name, method)
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model: Any = kind.build(dimensions(name, kind, tiny))
    finally:
        torch.set_default_dtype(before)
    if method == "qlora":
        quantize_decoder(model, kind, device)
    model = adapters.apply(model, asked.adapters, kind).to(device)
    adapters.trainable_in_float32(model)
    return model.train(), asked, kind


def quantize_decoder(model: Any, kind: Any, device: str) -> None:
    """Replace the decoder's linear layers by NF4 ones with doubly quantized constants, one after the other."""
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    from medvlm.models import quantize

    for name in quantize.would_be_quantized(model, kind):
        old = model.get_submodule(name)
        with torch.device("meta"):
            made: Any = Linear4bit(old.in_features, old.out_features, old.bias is not None, torch.bfloat16, True, "nf4")
        made.weight = Params4bit(old.weight.data.cpu(), quant_type="nf4", compress_statistics=True, module=made).to(
            device
        )
        made.bias = old.bias
        model.set_submodule(name, made)
    model.is_loaded_in_4bit = True
    quantize.check(model, kind)
    if device == "cpu":
        quantize.mend_cpu_layers(model)


def inputs(
    model: Any, kind: Any, batch: int, device: str, seed: int, *, prefix: int = PREFIX, suffix: int = SUFFIX
) -> dict[str, Any]:
    """Return a training batch of random pictures and tokens, in the form that the backbone's `collate` gives."""
    import torch

    from medvlm.models.backbones.rows import pad_rows

    config = model.config
    tokens = kind.image_tokens_of(config)
    image_token = getattr(config, "image_token_id", None)
    if image_token is None:
        image_token = config.image_token_index
    draw = torch.Generator().manual_seed(seed)
    # Below the image token's own id, in every vocabulary used.
    text = torch.randint(5, 500, (batch, prefix + suffix), generator=draw).tolist()
    made = pad_rows([[image_token] * tokens + row[:prefix] for row in text], [row[prefix:] for row in text], 0)
    if config.model_type == "paligemma":
        made["token_type_ids"] = (made["labels"] != -100).long()
    size = config.vision_config.image_size
    made["pixel_values"] = torch.rand(batch, 3, size, size, generator=draw) * 2 - 1
    return {name: value.to(device) for name, value in made.items()}


def traffic(model: Any, kind: Any, flops: Any, made: Mapping[str, Any], checkpointing: bool) -> int:
    """Return the bytes that matrix products at least move in a step, each reading and writing device memory once.

    Forward reads input and weight and writes the output; backward by the input reads the output's gradient and the
    weight and writes the input's gradient; checkpointing runs forward again. A 4-bit weight is read as half a byte a
    number, and written and read again in 16 bits each time. Norms, activations, softmax and the optimizer are left out.
    """
    import torch
    from bitsandbytes.nn import Linear4bit

    from medvlm.train.flops import modules_of

    batch = len(made["input_ids"])
    rows = {
        "vision_tower": batch * flops.tower_tokens,
        "projector": batch * flops.kind.image_tokens_of(flops.config),
        "language_model": made["attention_mask"].sum().item(),
        "head": (made["labels"] != -100).sum().item(),
    }
    total = 0
    for component, count in rows.items():
        rates = flops.rates[component]
        passes = 1 + (rates.backward > 0) + (checkpointing and rates.again > 0)
        for _, module in modules_of(model, kind, component):
            if isinstance(module, torch.nn.Linear):
                weight = module.in_features * module.out_features
                held = weight // 2 + 4 * weight if isinstance(module, Linear4bit) else 2 * weight
                total += passes * (held + 2 * count * (module.in_features + module.out_features))
    return int(total)
