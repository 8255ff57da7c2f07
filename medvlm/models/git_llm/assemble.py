"""Put a GIT-LLM together from an image tower and a language model, or refuse those that cannot be one."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    PreTrainedConfig,
)
from transformers.initialization import no_init_weights
from transformers.utils import logging

from medvlm.errors import InputError
from medvlm.models.git_llm.configuration import GitLlmConfig, has_class_token, tokens_of
from medvlm.models.git_llm.modeling import GitLlmForConditionalGeneration, text_attention
from medvlm.models.git_llm.processing import GitLlmProcessor
from medvlm.models.positions import resize_embeddings

TOWERS = ("clip_vision_model", "siglip_vision_model")

TESTED = {
    "biogpt", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "mpt", "olmo2", "opt",
    "phi", "phi3", "qwen2", "qwen3", "smollm3", "stablelm",
}  # fmt: skip
"""Families that the tests hold to GIT's mask; any other is probed when it is loaded."""


def vision_config(config: PreTrainedConfig) -> Any:
    """Return the tower's configuration out of a whole CLIP or SigLIP's, or of a tower's own.

    Raises:
        InputError: another architecture.
    """
    vision: Any = copy.deepcopy(getattr(config, "vision_config", config))
    if getattr(vision, "model_type", None) not in TOWERS:
        raise InputError(f"model.vision_tower: a {config.model_type} model; expected CLIP or SigLIP")
    if vision.model_type == "siglip_vision_model":
        # Its attention-pooling head is not used here, and breaks in 4-bit.
        vision.vision_use_head = False
    return vision


def check_text(config: Any) -> None:
    """Raise where a configuration is no decoder that GIT's mask can reach.

    Raises:
        InputError: no decoder, or BLOOM, whose ALiBi is made from a 2-D mask.
    """
    if config.model_type == "bloom":
        raise InputError(
            "model.language_model: BLOOM takes no mask of its own per query; choose another, as MPT or OPT"
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or not hasattr(config, "hidden_size"):
        raise InputError(
            f"model.language_model: a {config.model_type} model; expected a decoder of AutoModelForCausalLM"
        )


def text_config(path: Path) -> Any:
    """Return the configuration of a language model in a folder or a GGUF file; raises InputError as `_gguf`."""
    return AutoConfig.from_pretrained(_folder(path), local_files_only=True, **_gguf(path))


def _folder(path: Path) -> Path:
    return path.parent if path.suffix == ".gguf" else path


def _gguf(path: Path) -> dict[str, str]:
    """Return what `from_pretrained` needs to read a GGUF file, or nothing for a folder.

    Raises:
        InputError: the package that reads GGUF is missing.
    """
    if path.suffix != ".gguf":
        return {}
    import importlib.util

    if importlib.util.find_spec("gguf") is None:
        raise InputError(f"{path.name}: a GGUF file needs the package gguf; run: pip install 'medvlm[gguf]'")
    return {"gguf_file": path.name}


def load_tower(path: Path, options: Mapping[str, Any]) -> Any:
    """Return the image tower of a CLIP or SigLIP checkpoint, whole or vision-only.

    Raises:
        InputError: another architecture, or weights of the tower are missing.
    """
    config = vision_config(AutoConfig.from_pretrained(path, local_files_only=True))
    kept = {key: value for key, value in options.items() if key in ("dtype", "attn_implementation", "device_map")}
    # What a whole CLIP has besides its tower is reported at length, and meant to stay behind.
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        tower, facts = MODEL_MAPPING[type(config)].from_pretrained(
            path, config=config, local_files_only=True, output_loading_info=True, **kept
        )
    finally:
        logging.set_verbosity(verbosity)
    if facts["missing_keys"]:
        raise InputError(f"model.vision_tower: {path} lacks weights ({sorted(facts['missing_keys'])[0]}, ...)")
    return tower


def resize_tower(model: Any, image_size: int) -> bool:
    """Make the tower of a whole take images of this side; return whether position embeddings were resampled.

    Raises:
        RecipeError: the side is no multiple of the patch.
    """
    vision = model.config.vision_config
    embeddings = next(module for module in model.modules() if hasattr(module, "position_embedding"))
    changed = resize_embeddings(embeddings, image_size, class_token=has_class_token(vision.model_type))
    vision.image_size = image_size
    return changed


def load_text(path: Path, options: Mapping[str, Any]) -> Any:
    """Return a language model with weights, 4-bit but for its head where the options say so.

    Raises:
        InputError: no such decoder; a GGUF file that is to be 4-bit, or without the package for it.
    """
    config = text_config(path)
    check_text(config)
    options = {**options, "attn_implementation": text_attention(config, options.get("attn_implementation"))}
    quantization = options.pop("quantization_config", None)
    if quantization is not None:
        if path.suffix == ".gguf":
            raise InputError(f"{path.name}: a GGUF file cannot be loaded in 4 bits; set quantization.mode=none")
        options["quantization_config"] = spared(quantization, [head_name(config)])
    if path.suffix == ".gguf":
        # Else transformers may leave the weights packed, in layers that no adapter knows.
        options["quantization_config"] = GgufConfig(dequantize=True)
    with _no_gguf_bar():
        return AutoModelForCausalLM.from_pretrained(_folder(path), local_files_only=True, **_gguf(path), **options)


@contextlib.contextmanager
def _no_gguf_bar() -> Iterator[None]:
    """Keep transformers from drawing the one progress bar that its own switch does not reach."""
    from transformers import modeling_gguf_pytorch_utils as module

    bar = module.tqdm
    module.tqdm = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        module.tqdm = bar


def spared(quantization: Any, names: list[str]) -> Any:
    """Return the same quantization with just these modules left out."""
    changed = copy.deepcopy(quantization)
    changed.llm_int8_skip_modules = names
    return changed


def head_name(config: Any) -> str:
    """Return the name of a family's output layer: lm_head, embed_out, ..."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    name: str = next(name for name, module in model.named_modules() if module is head)
    return name


def processor_of(tower_path: Path, text_path: Path, config: Any) -> GitLlmProcessor:
    """Return the processor of a tower and a language model put together.

    Pictures are resized to a square, not cropped as CLIP's processor does: a finding may lie at the border.
    """
    images = AutoImageProcessor.from_pretrained(tower_path, local_files_only=True, backend="pil")
    images.size = {"height": config.image_size, "width": config.image_size}
    if hasattr(images, "do_center_crop"):
        images.do_center_crop = False
    tokenizer = AutoTokenizer.from_pretrained(_folder(text_path), local_files_only=True, **_gguf(text_path))
    return GitLlmProcessor(images, tokenizer, image_seq_length=tokens_of(config))


def put_together(
    tower: Any, text: Any, processor: GitLlmProcessor, seed: int, dtype: torch.dtype
) -> GitLlmForConditionalGeneration:
    """Return one model of a tower and a language model, the projection between them drawn from `seed`.

    Raises:
        InputError: the tokenizer's start or end token has no embedding.
    """
    processor.fit(text.get_input_embeddings().weight.shape[0])
    # A new configuration forgets the attention of its parts.
    attention = {"vision_config": tower.config._attn_implementation, "text_config": text.config._attn_implementation}
    config = GitLlmConfig(
        vision_config=tower.config, text_config=text.config, image_token_id=processor.image_token_id, dtype=dtype
    )
    config._attn_implementation = {"": attention["vision_config"], **attention}
    with no_init_weights():
        model = GitLlmForConditionalGeneration(config, tower, text)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.projector.linear.reset_parameters()
        model.projector.layer_norm.reset_parameters()
    model.projector.to(device=text.device, dtype=dtype)
    tower.to(text.device)
    model.generation_config = generation_config(text, processor, config)
    _carry_quantization(model, text)
    model.eval()
    return model


def generation_config(text: Any, processor: GitLlmProcessor, config: GitLlmConfig) -> GenerationConfig:
    """Return how to stop and to pad; the sampling that chat models ask for is left to the caller."""
    tokenizer = processor.tokenizer
    known = text.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *([known] if isinstance(known, int) else known or [])}
    within = config.image_token_id < text.config.vocab_size
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=sorted(ends) if len(ends) > 1 else tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=[config.image_token_id] if within else None,
    )


def _carry_quantization(model: Any, text: Any) -> None:
    """Tell the whole what the language model knows of its 4-bit layers, as if it had been loaded so."""
    if not getattr(text, "is_loaded_in_4bit", False):
        return
    for name in ("is_quantized", "is_loaded_in_4bit", "quantization_method", "hf_quantizer"):
        setattr(model, name, getattr(text, name))
    quantization = text.config.quantization_config
    head = next(name for name, module in model.named_modules() if module is model.get_output_embeddings())
    model.config.quantization_config = spared(quantization, ["vision_tower", "projector", head])
    del text.config.quantization_config


def check_mask(model: GitLlmForConditionalGeneration) -> None:
    """Raise where a family that no test covers does not obey GIT's mask, by changing one token and looking.

    Raises:
        InputError: text leaks backwards, the image does not see itself whole, or the family takes no such mask.
    """
    text: Any = model.config.text_config
    if text.model_type in TESTED and not getattr(text, "alibi", False):
        return
    weights: Any = model.get_input_embeddings().weight
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = torch.randn(3, 8, weights.shape[1]).to(weights) * weights.float().std().to(weights)
    plain = drawn[:1].clone()
    other_image, other_text = plain.clone(), plain.clone()
    other_image[0, 3], other_text[0, 7] = drawn[1, 3], drawn[2, 7]
    is_image = (torch.arange(8, device=weights.device) < 4).expand(3, 8)
    try:
        with torch.no_grad():
            logits = model.decode(torch.cat([plain, other_image, other_text]), is_image, use_cache=False).logits.float()
    except Exception as error:
        raise InputError(f"model.language_model: {text.model_type} refuses GIT's mask; choose another") from error
    same = torch.allclose(logits[0, :7], logits[2, :7], atol=1e-2 * float(logits.std()))
    if not same or torch.equal(logits[0, 0], logits[1, 0]):
        raise InputError(f"model.language_model: {text.model_type} does not obey GIT's mask; choose another")
