"""Put a Flamingo together from an image tower and a language model, or refuse those that cannot be one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers.initialization import no_init_weights

from medvlm.errors import InputError
from medvlm.models.flamingo.configuration import FlamingoConfig, cross_every_of
from medvlm.models.flamingo.modeling import FlamingoForConditionalGeneration
from medvlm.models.flamingo.processing import FlamingoProcessor
from medvlm.models.git_llm import assemble

TESTED = {
    "biogpt", "bloom", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "mpt",
    "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3", "smollm3", "stablelm",
}  # fmt: skip
"""Families that the tests hold to their own logits; any other is probed when it is loaded."""


def check_text(config: Any) -> None:
    """Raise where a configuration is no decoder of `AutoModelForCausalLM`.

    Raises:
        InputError: says which it is.
    """
    if config.model_type != "bloom":
        # GIT-LLM needs a mask that BLOOM refuses; here every family makes its own.
        assemble.check_text(config)


def processor_of(tower_path: Path, text_path: Path, config: Any) -> FlamingoProcessor:
    """Return the processor of a tower and a language model put together.

    Pictures are resized to a square, not cropped as CLIP's processor does: a finding may lie at the border.
    """
    made = assemble.processor_of(tower_path, text_path, config)
    return FlamingoProcessor(made.image_processor, made.tokenizer)


def configuration(vision: Any, text: Any, image_token_id: int, chunk_token_id: int, **sizes: Any) -> FlamingoConfig:
    """Return the configuration of a tower and a language model, gated blocks as far apart as the articles' have them.

    Args:
        vision: of the tower.
        text: of the language model.
        image_token_id: as the processor has it.
        chunk_token_id: likewise.
        sizes: others than the defaults of FlamingoConfig.
    """
    return FlamingoConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=image_token_id,
        chunk_token_id=chunk_token_id,
        **{"cross_every": cross_every_of(text), **sizes},
    )


def put_together(
    tower: Any, text: Any, processor: FlamingoProcessor, seed: int, dtype: torch.dtype, **sizes: Any
) -> FlamingoForConditionalGeneration:
    """Return one model of a tower and a language model, what lies between them drawn from `seed`.

    Args:
        tower: with weights.
        text: likewise.
        processor: of both.
        seed: of the new weights.
        dtype: of the new weights.
        sizes: as for `configuration`.

    Raises:
        InputError: the tokenizer's start or end token has no embedding; the language model keeps no list of layers.
    """
    processor.fit(text.get_input_embeddings().weight.shape[0])
    # A new configuration forgets the attention of its parts.
    attention = {"vision_config": tower.config._attn_implementation, "text_config": text.config._attn_implementation}
    config = configuration(
        tower.config, text.config, processor.image_token_id, processor.chunk_token_id, dtype=dtype, **sizes
    )
    config._attn_implementation = {"": attention["vision_config"], **attention}
    with no_init_weights():
        model = FlamingoForConditionalGeneration(config, tower, text)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # From the leaves up, as transformers does it.
        for module in reversed(list(model.projector.modules())):
            model._init_weights(module)
    begin_tokens(model, processor)
    model.projector.to(device=text.device, dtype=dtype)
    tower.to(text.device)
    model.generation_config = assemble.generation_config(text, processor, config)
    model.generation_config.suppress_tokens = unspoken(model, processor)
    assemble._carry_quantization(model, text)
    model.eval()
    return model


@torch.no_grad()
def begin_tokens(model: FlamingoForConditionalGeneration, processor: FlamingoProcessor) -> None:
    """Let <image> begin as what starts a text for the language model, and <|endofchunk|> as what ends one.

    They are rows of their own, trained with all that is new; the language model's rows and logits stay as they are.
    """
    tokenizer = processor.tokenizer
    end = tokenizer.eos_token_id
    start = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    embeddings: Any = model.get_input_embeddings()
    # As the module gives them: some families scale their embeddings there.
    rows = embeddings(torch.tensor([start, end], device=embeddings.weight.device))
    model.projector.tokens.weight.copy_(rows)


def unspoken(model: Any, processor: FlamingoProcessor) -> list[int] | None:
    """Return those of our tokens for which the language model has an output, which no training ever wanted."""
    rows = model.config.text_config.vocab_size
    found = [token for token in (processor.image_token_id, processor.chunk_token_id) if token < rows]
    return found or None


@torch.no_grad()
def check_layers(model: Any) -> None:
    """Raise where a family that no test covers does not pass its hidden states through our blocks, by trying.

    Args:
        model: a FlamingoForConditionalGeneration.

    Raises:
        InputError: with closed gates its logits change, or with open ones they do not, or an earlier token's do; or the
            next token's differ between one pass and a pass that goes on from the cache of another.
    """
    family = model.config.text_config.model_type
    if family in TESTED:
        return
    ids = torch.arange(4, 12, device=model.get_input_embeddings().weight.device)[None]
    shown = ids.clone()
    shown[0, 4] = model.config.image_token_id
    side = model.config.vision_config.image_size
    pixels = torch.ones(1, 1, 3, side, side, device=ids.device, dtype=model.dtype)
    gates = [gate for block in model.projector.blocks for gate in (block.attention_gate, block.feed_forward_gate)]
    before = copy.deepcopy(gates)
    problem = f"model.language_model: {family} passes nothing through blocks between its layers; choose another"
    blind = (
        f"model.language_model: {family} does not go on from a cache of keys and values as from the text itself, so it "
        "would write without having seen the picture; choose another, as OPT or Llama"
    )
    try:
        alone = model.language_model(input_ids=ids, use_cache=False).logits
        for gate in gates:
            gate.zero_()
        closed = model(input_ids=ids, use_cache=False).logits
        dark = model(input_ids=shown, pixel_values=pixels, use_cache=False).logits
        for gate in gates[::2]:
            gate.fill_(1.0)
        seen = model(input_ids=shown, pixel_values=pixels, use_cache=False).logits
        # Experts are multiplied in other groups when a later token changes, which rounds otherwise.
        if not torch.equal(alone, closed) or not _close(dark[:, :4], seen[:, :4]) or torch.equal(dark, seen):
            raise InputError(problem)
        problem = blind
        stepped = _stepped(model, shown, pixels)
        if stepped is None or not _close(stepped, seen[:, -1]):
            raise InputError(problem)
    except InputError:
        raise
    except Exception as error:
        raise InputError(problem) from error
    finally:
        for gate, value in zip(gates, before, strict=True):
            gate.copy_(value)


def _stepped(model: Any, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor | None:
    """Return the logits [B, V] of the last token, read after the others and their cache; None without a cache."""
    first = model(input_ids=ids[:, :-1], pixel_values=pixels, use_cache=True)
    cache = first.get("past_key_values")
    if cache is None:
        return None
    found: torch.Tensor = model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True).logits[:, -1]
    return found


def _close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Return True where logits are the same but for rounding, which a half-precision model does more of."""
    slack = 1e-3 if ours.dtype == torch.float32 else 0.05
    return float((ours - theirs).abs().max()) <= slack * float(theirs.abs().max())
