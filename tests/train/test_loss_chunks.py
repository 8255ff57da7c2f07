"""The chunked loss against plain transformers, a slow reference in float64, and what may be held in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from medvlm.models import tiny
from medvlm.models.backbones.base import IGNORED, Example
from medvlm.models.backbones.paligemma import PaliGemmaBackbone
from medvlm.train import loss as losses
from medvlm.train.loss import FrozenHeadLoss, Post, examples_in, forward_loss, suffix_loss


def examples() -> list[Example]:
    from PIL import Image

    texts = ["a nodule", "a large left pleural effusion.", "no", "Findings: clear."]
    return [Example(Image.new("RGB", (40, 40), (60 * i, 9, 9)), "caption en", t) for i, t in enumerate(texts)]


@pytest.fixture(scope="module")
def paligemma() -> tuple[Any, PaliGemmaBackbone]:
    torch.manual_seed(0)
    model, processor = tiny.random_model()
    return model, PaliGemmaBackbone(processor, image_tokens=64, max_prefix_tokens=64, max_suffix_tokens=64)


@pytest.fixture
def fresh(paligemma: tuple[Any, PaliGemmaBackbone]) -> Any:
    """The model alone, its settings and gradients as at first afterwards."""
    model = paligemma[0]
    yield model
    model.zero_grad()
    model.requires_grad_(True)
    model.config.get_text_config().final_logit_softcapping = None


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], atol: float = 1e-6) -> None:
    assert one.keys() == two.keys()
    assert one
    for name in one:
        assert torch.allclose(one[name], two[name], atol=atol), name


@pytest.mark.parametrize("cap", [None, 4.0])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("chunk", [3, 256])
def test_loss_and_gradients_are_those_of_transformers_with_full_logits(
    cap: float | None, frozen: bool, chunk: int, paligemma: tuple[Any, PaliGemmaBackbone], fresh: Any
) -> None:
    fresh.config.get_text_config().final_logit_softcapping = cap
    fresh.lm_head.weight.requires_grad_(not frozen)
    inputs = paligemma[1].collate(examples())
    plain = fresh(**{k: v for k, v in inputs.items() if k != "logits_to_keep"}).loss
    expected = gradients(fresh, plain)
    ours, sums, counts = forward_loss(fresh, inputs, chunk=chunk)
    assert torch.allclose(ours, plain, atol=1e-6)
    assert_same(gradients(fresh, ours), expected)
    assert counts.tolist() == (inputs["labels"] != IGNORED).sum(dim=1).tolist()
    assert float(sums.sum() / counts.sum()) == pytest.approx(plain.item(), abs=1e-6)
    assert not sums.requires_grad


@pytest.mark.parametrize("per_example", [True, False])
@pytest.mark.parametrize("count", [None, 7])
def test_means_smoothing_and_counts_are_those_of_the_loss_over_logits(
    per_example: bool, count: int | None, paligemma: tuple[Any, PaliGemmaBackbone]
) -> None:
    model, backbone = paligemma
    inputs = backbone.collate(examples())
    rest = {k: v for k, v in inputs.items() if k != "labels"}
    how: dict[str, Any] = {"per_example": per_example, "count": count, "smoothing": 0.2}
    expected = suffix_loss(model(**rest).logits, inputs["labels"], **how)
    assert torch.allclose(forward_loss(model, inputs, chunk=5, **how)[0], expected, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(forward_loss(model, inputs, chunk=5, **how)[0], expected, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shape_chunk_and_smoothing_against_a_slow_reference(data: st.DataObject) -> None:
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 10_000)))
    rows, width, words = draw(st.integers(1, 12)), draw(st.integers(1, 6)), draw(st.integers(2, 9))
    smoothing, chunk = draw(st.sampled_from([0.0, 0.1, 0.7])), draw(st.integers(1, 14))
    post = draw(st.sampled_from([Post(), Post(0.3), Post(1.0, 2.0), Post(5.0, 3.0)]))
    with_bias = draw(st.booleans())
    weight = torch.randn(words, width, dtype=torch.float64)
    bias = torch.randn(words, dtype=torch.float64) if with_bias else None
    hidden = torch.randn(rows, width, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(words, (rows,))

    def ours(values: torch.Tensor) -> torch.Tensor:
        return FrozenHeadLoss.apply(values, targets, weight, bias, post, smoothing, chunk)

    chances = torch.log_softmax(post(hidden @ weight.T + (bias if bias is not None else 0)), dim=1)
    slow = torch.stack(
        [-(1 - smoothing) * chances[row, targets[row]] - smoothing * chances[row].mean() for row in range(rows)]
    )
    assert torch.allclose(ours(hidden), slow, atol=1e-10)
    assert torch.autograd.gradcheck(ours, hidden)


class Largest(TorchDispatchMode):
    """Records the most numbers that any one tensor held."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.numbers = max(self.numbers, value.untyped_storage().nbytes() // value.element_size())
        return result


@pytest.mark.parametrize("frozen", [True, False])
def test_no_tensor_holds_the_logits_of_all_labels(frozen: bool) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.lm_head = torch.nn.Embedding(50, 8), torch.nn.Linear(8, 5000, bias=False)

        def get_output_embeddings(self) -> torch.nn.Module:
            return self.lm_head

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> Any:
            return type("Output", (), {"logits": self.lm_head(self.body(input_ids))})

    model = Model()
    model.lm_head.requires_grad_(not frozen)
    ids = torch.randint(50, (4, 33))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    with Largest() as seen:
        forward_loss(model, inputs, chunk=16)[0].backward()
    assert seen.numbers == 16 * 5000
    with Largest() as seen:
        full = model(ids, inputs["attention_mask"], False).logits
        functional.cross_entropy(full[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert seen.numbers >= 4 * 32 * 5000


def decoder(family: str) -> Any:
    """A tiny decoder of a family that treats its logits in its own way."""
    import transformers as t

    sizes: dict[str, Any] = {
        "vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "pad_token_id": 0,
    }  # fmt: skip
    made: dict[str, Any] = {
        "gemma2": lambda: t.Gemma2Config(**sizes, num_key_value_heads=1, head_dim=8, final_logit_softcapping=3.0),
        "cohere": lambda: t.CohereConfig(**sizes, logit_scale=0.0625),
        "granite": lambda: t.GraniteConfig(**sizes, logits_scaling=8.0),
        "llama": lambda: t.LlamaConfig(**sizes),
        "gpt2": lambda: t.GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=64),
        "opt": lambda: t.OPTConfig(vocab_size=40, hidden_size=16, word_embed_proj_dim=8, ffn_dim=32,
                                   num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=64),
        "mpt": lambda: t.MptConfig(vocab_size=40, d_model=16, n_heads=2, n_layers=1, max_seq_len=64),
    }  # fmt: skip
    config = made[family]()
    torch.manual_seed(0)
    model = t.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    # Wide logits, so that caps and scales show.
    model.get_output_embeddings().weight.data.mul_(20.0)
    return model


@pytest.mark.parametrize("family", ["gemma2", "cohere", "granite", "llama", "gpt2", "opt", "mpt"])
@pytest.mark.parametrize("keep", [True, False])
def test_what_families_do_behind_the_output_layer_is_done(family: str, keep: bool) -> None:
    model = decoder(family)
    ids = torch.randint(1, 40, (2, 9))
    labels = ids.clone()
    labels[:, :4] = IGNORED
    mask = torch.ones_like(ids)
    plain = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    expected = gradients(model, plain)
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    if keep:
        inputs["logits_to_keep"] = labels.roll(-1, dims=1) != IGNORED
        inputs["logits_to_keep"][:, -1] = False
    ours = forward_loss(model, inputs, chunk=4)[0]
    assert losses._POSTS[model.get_output_embeddings()][1] is not None, "fell back to whole logits"
    assert torch.allclose(ours, plain, atol=1e-6)
    assert_same(gradients(model, ours), expected)


def test_what_is_not_known_behind_the_output_layer_is_left_to_the_model() -> None:
    model = decoder("llama")
    head = model.get_output_embeddings()
    inner = model.forward

    def bent(**inputs: Any) -> Any:
        outputs = inner(**inputs)
        outputs.logits = outputs.logits.sigmoid() * 5
        return outputs

    model.forward = bent
    ids = torch.randint(1, 40, (2, 9))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    expected = functional.cross_entropy(bent(input_ids=ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    for _ in range(2):
        assert torch.allclose(forward_loss(model, inputs)[0], expected, atol=1e-6)
    assert losses._POSTS[head][1] is None


def test_finding_out_draws_no_random_numbers() -> None:
    """A run that goes on from a checkpoint finds out again, and must draw as one that knows."""
    model = decoder("gpt2").train()
    ids = torch.randint(1, 40, (2, 9))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    values = []
    for _ in range(2):
        torch.manual_seed(1)
        values.append((forward_loss(model, inputs)[0].item(), torch.rand(1).item()))
    assert values[0] == values[1]


@pytest.mark.parametrize("how", ["lora", "saved"])
def test_a_wrapped_output_layer_is_applied_with_all_that_is_trained(
    how: str, paligemma: tuple[Any, PaliGemmaBackbone]
) -> None:
    import copy

    from peft import LoraConfig, get_peft_model

    chosen = r".*language_model.*q_proj" + ("|lm_head" if how == "lora" else "")
    config = LoraConfig(r=2, target_modules=chosen, modules_to_save=["lm_head"] if how == "saved" else None)
    base = copy.deepcopy(paligemma[0])
    base.config.tie_word_embeddings = False
    base.lm_head.weight = torch.nn.Parameter(base.lm_head.weight.detach().clone())
    model = get_peft_model(base, config)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    inputs = paligemma[1].collate(examples())
    plain = model(**{k: v for k, v in inputs.items() if k != "logits_to_keep"}).loss
    expected = gradients(model, plain)
    assert any("lm_head" in name for name in expected)
    ours = forward_loss(model, inputs, chunk=4)[0]
    assert torch.allclose(ours, plain, atol=1e-6)
    assert_same(gradients(model, ours), expected)


@pytest.mark.parametrize("frozen", [True, False])
def test_under_autocast_and_activation_checkpointing(frozen: bool, paligemma: tuple[Any, PaliGemmaBackbone]) -> None:
    """As the Trainer runs it: the model's forward wrapped by accelerate in bfloat16."""
    import copy

    from accelerate.utils import convert_outputs_to_fp32

    model = copy.deepcopy(paligemma[0]).train()
    model.lm_head.requires_grad_(not frozen)
    inputs = paligemma[1].collate(examples())
    rest = {k: v for k, v in inputs.items() if k != "labels"}
    model.forward = convert_outputs_to_fp32(torch.autocast("cpu", dtype=torch.bfloat16)(model.forward))
    expected = suffix_loss(model(**rest).logits, inputs["labels"])
    wanted = gradients(model, expected)
    model.activation_checkpointing_enable()
    ours = forward_loss(model, inputs, chunk=4)[0]
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(expected.item(), rel=2e-3)
    found = gradients(model, ours)
    assert found.keys() == wanted.keys()
    one, two = (torch.cat([g[n].flatten() for n in wanted]) for g in (found, wanted))
    assert float((one - two).norm() / two.norm()) < 0.03


@pytest.mark.parametrize("frozen", [True, False])
def test_through_a_data_parallel_wrapper(
    frozen: bool, paligemma: tuple[Any, PaliGemmaBackbone], fresh: Any, tmp_path: Any
) -> None:
    fresh.lm_head.weight.requires_grad_(not frozen)
    inputs = paligemma[1].collate(examples())
    plain = forward_loss(fresh, inputs, chunk=4)[0]
    expected = gradients(fresh, plain)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        fresh.zero_grad()
        # All gradients are averaged over the processes on the way back, which here is just one.
        wrapped = torch.nn.parallel.DistributedDataParallel(fresh)
        ours = forward_loss(wrapped, inputs, chunk=4)[0]
        found = {n.removeprefix("module."): g for n, g in gradients(wrapped, ours).items()}
    finally:
        torch.distributed.destroy_process_group()
    assert torch.equal(ours, plain)
    assert_same(found, expected)


@pytest.mark.gpu
def test_on_a_gpu_the_memory_is_that_of_a_chunk() -> None:
    """A real vocabulary: 8192 labels' logits would take 8.4 GB in float32, those of 256 take 0.26 GB."""
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    weight = torch.randn(257_216, 2048, device="cuda", dtype=torch.bfloat16) * 0.02
    hidden = torch.randn(8192, 2048, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    targets = torch.randint(257_216, (8192,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = FrozenHeadLoss.apply(hidden, targets, weight, None, Post(), 0.0, 256).mean()
    loss.backward()
    assert torch.cuda.max_memory_allocated() - before < 1.2e9
    few = hidden.detach()[:64].requires_grad_()
    expected = functional.cross_entropy((few @ weight.T).float(), targets[:64])
    ours = FrozenHeadLoss.apply(few, targets[:64], weight, None, Post(), 0.0, 16).mean()
    assert ours.item() == pytest.approx(expected.item(), rel=1e-4)
    (one,), (two,) = torch.autograd.grad(ours, few), torch.autograd.grad(expected, few)
    assert float((one - two).float().norm() / two.float().norm()) < 0.01


def test_the_output_layer_stands_in_its_place_again_when_the_model_fails(
    paligemma: tuple[Any, PaliGemmaBackbone],
) -> None:
    model, backbone = paligemma
    inputs = backbone.collate(examples())
    with pytest.raises(ValueError, match="do not match"):
        forward_loss(model, {**inputs, "pixel_values": inputs["pixel_values"][:1]})
    assert "forward" not in model.lm_head.__dict__


def test_examples_are_counted_packed_or_not(paligemma: tuple[Any, PaliGemmaBackbone]) -> None:
    backbone = paligemma[1]
    assert examples_in(backbone.collate(examples())) == 4
    assert examples_in(backbone.collate_packed(examples(), 400)) == 4
