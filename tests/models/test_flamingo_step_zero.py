"""With closed gates a Flamingo is its language model, bit for bit: in every family, padded, and when it writes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from flamingo_tiny import CHUNK, END, FAMILIES, IMAGE, START, logits_of, model_of, open_gates, rows
from git_llm_tiny import VOCABULARY
from transformers import AutoConfig

from medvlm.errors import InputError
from medvlm.models.flamingo import assemble, crossing
from medvlm.models.git_llm.masks import positions

PROMPTS = [[1, IMAGE, 5, 6, CHUNK, IMAGE, IMAGE, 7, 8], [9, 10, IMAGE, 11, 12], [13, 14, 15]]


def alone(ids: torch.Tensor) -> torch.Tensor:
    """The same tokens as the language model knows them: what ours begin as stands in their place."""
    return ids.masked_fill(ids == IMAGE, START).masked_fill(ids == CHUNK, END)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_are_those_of_the_language_model(family: str, attention: str) -> None:
    model = model_of(family, attention, opened=False)
    for side in ("right", "left"):
        inputs = rows(PROMPTS, side=side)
        mask = inputs["attention_mask"]
        plain = {"input_ids": alone(inputs["input_ids"]), "attention_mask": mask}
        if model._takes_positions:
            plain["position_ids"] = positions(mask, 0, plain["input_ids"])
        expected = model.language_model(**plain, use_cache=False).logits
        assert torch.equal(logits_of(model, inputs), expected), side
        open_gates(model)
        # The pictures are looked at once the gates are open, or the test would say nothing.
        shown = (inputs["input_ids"] == IMAGE).cumsum(dim=1) > 0
        assert bool((logits_of(model, inputs) - expected)[shown].abs().amax(dim=1).gt(1e-3).all())
        open_gates(model, 0.0, 0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_writes_what_the_language_model_writes(family: str) -> None:
    model = model_of(family, opened=False)
    inputs = rows(PROMPTS, side="left")
    options: dict[str, Any] = {
        "max_new_tokens": 5, "min_new_tokens": 5, "pad_token_id": 0, "eos_token_id": 2, "do_sample": False,
        "return_dict_in_generate": True, "output_logits": True,
    }  # fmt: skip
    ours = model.generate(**inputs, **options)
    plain = model.language_model.generate(
        alone(inputs["input_ids"]), attention_mask=inputs["attention_mask"], **options
    )
    assert torch.equal(torch.stack(ours.logits), torch.stack(plain.logits))


@torch.no_grad()
def test_half_precision_keeps_it_bit_for_bit() -> None:
    model = model_of("llama", opened=False)
    model.language_model.to(torch.bfloat16)
    inputs = rows(PROMPTS)
    model.projector.tokens.weight.copy_(model.get_input_embeddings()(torch.tensor([START, END])))
    expected = model.language_model(
        input_ids=alone(inputs["input_ids"]),
        attention_mask=inputs["attention_mask"],
        position_ids=positions(inputs["attention_mask"], 0, inputs["input_ids"]),
    ).logits
    # What is trained is float32 beside it, with autocast and without.
    assert torch.equal(model(**inputs).logits, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(**inputs).logits, expected)


@pytest.mark.parametrize(("every", "places"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3]), (7, [0])])
def test_a_block_stands_before_every_nth_layer(every: int, places: list[int]) -> None:
    from flamingo_tiny import text_of

    text = text_of("llama")
    text.num_hidden_layers = 5
    model = model_of("llama", opened=False, cross_every=every, text_config=text)
    seen: list[str] = []
    for name, module in model.named_modules():
        if name in {f"projector.blocks.{n}" for n in range(5)} | {f"language_model.model.layers.{n}" for n in range(5)}:
            module.register_forward_pre_hook(lambda *_, name=name: seen.append(name.rsplit(".", 2)[1:][0] + name[-1]))
    logits_of(model, rows(PROMPTS))
    expected = []
    for number in range(5):
        expected += [f"blocks{places.index(number)}"] if number in places else []
        expected += [f"layers{number}"]
    assert seen == expected
    # The list of layers is as it was.
    layers = model.language_model.model.layers
    assert not any(isinstance(layer, crossing.Crossing) for layer in layers)


def test_the_layers_come_back_also_after_an_error() -> None:
    model = model_of("opt")
    plain = list(model.language_model.model.decoder.layers)
    with pytest.raises(ValueError, match="3 image tokens and no pixel_values"):
        model(input_ids=torch.tensor([[IMAGE, IMAGE, IMAGE, 4]]))
    with pytest.raises(RuntimeError):
        model(**rows([[IMAGE, 4, 5]]) | {"attention_mask": torch.ones(1, 9, dtype=torch.long)})
    assert list(model.language_model.model.decoder.layers) == plain


def test_two_threads_do_not_meet() -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = model_of("llama")
    batches = [rows([[1, IMAGE, 5 + number, 6, 7]]) for number in range(4)]
    expected = [logits_of(model, batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: logits_of(model, batch), batches * 5))
    for number, one in enumerate(found):
        assert torch.equal(one, expected[number % 4])


def test_what_keeps_no_list_of_layers_is_refused_in_one_line() -> None:
    from transformers import AutoModelForCausalLM, CTRLConfig, T5Config

    made = AutoModelForCausalLM.from_config(CTRLConfig(n_embd=32, dff=32, n_layer=2, n_head=2, vocab_size=64))
    with pytest.raises(InputError, match=r"^model\.language_model: ctrl keeps no one list .*; choose another, as OPT"):
        crossing.layers_name(made)
    with pytest.raises(InputError, match="a t5 model; expected a decoder"):
        assemble.check_text(T5Config())


def test_a_family_without_a_test_is_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")
    before = [parameter.clone() for parameter in model.parameters()]
    monkeypatch.setattr(assemble, "TESTED", set())
    assemble.check_layers(model)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    monkeypatch.setattr(crossing.Crossing, "forward", lambda self, hidden, *a, **k: self.layer(hidden, *a, **k))
    with pytest.raises(InputError, match=r"^model\.language_model: llama passes nothing through blocks .* another$"):
        assemble.check_layers(model)


def unproven(family: str) -> Any:
    """A tiny Flamingo on a family that no other test covers."""
    sizes = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "vocab_size": VOCABULARY,
    }  # fmt: skip
    kind = type(AutoConfig.for_model(family))
    return model_of("llama", text_config=kind(**{k: v for k, v in sizes.items() if hasattr(kind(), k)}))


@pytest.mark.parametrize("family", ["mixtral", "cohere"])
def test_a_family_that_is_probed_writes_as_it_reads(family: str) -> None:
    model = unproven(family)
    assemble.check_layers(model)
    inputs = rows([[1, IMAGE, 31, 32]], side="left")
    options: dict[str, Any] = {
        "max_new_tokens": 4, "min_new_tokens": 4, "pad_token_id": 0, "eos_token_id": 2, "do_sample": False,
        "return_dict_in_generate": True, "output_logits": True,
    }  # fmt: skip
    cached, whole = (torch.stack(model.generate(**inputs, **options, use_cache=use).logits) for use in (True, False))
    assert torch.allclose(cached, whole, atol=1e-3)


@pytest.mark.parametrize("family", ["rwkv", "mamba", "recurrent_gemma"])
def test_a_family_that_keeps_its_state_elsewhere_is_refused(family: str) -> None:
    with pytest.raises(InputError, match=rf"^model\.language_model: {family} .*; choose another[^\n]*$"):
        assemble.check_layers(unproven(family))


@torch.no_grad()
def test_another_thread_has_the_language_model_to_itself() -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = model_of("llama")
    ids = torch.arange(4, 9)[None]
    expected = model.language_model(ids, use_cache=False).logits
    layers = model.language_model.model.layers
    blocks = dict(enumerate(model.projector.blocks))
    with crossing.crossed(layers, blocks, None, {}), ThreadPoolExecutor(1) as pool:

        @torch.no_grad()
        def alone_there() -> torch.Tensor:
            found: torch.Tensor = model.language_model(ids, use_cache=False).logits
            return found

        assert torch.equal(pool.submit(alone_there).result(), expected)
        # This one runs through the blocks, whose feed-forward gates are open.
        assert not torch.equal(alone_there(), expected)


def test_every_family_that_goes_unprobed_is_tested() -> None:
    assert set(FAMILIES) == assemble.TESTED
