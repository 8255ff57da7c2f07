"""(i) One GPU: PaliGemma-3B and GIT-LLaMA-7B in full size at 448 px, LoRA in bfloat16 and QLoRA, against full logits.

python tests/benchmarks/gpu_paligemma448.py               # under ten minutes; writes results/gpu_paligemma448.json
python tests/benchmarks/gpu_paligemma448.py --tiny --cpu  # the same paths on tiny models, where there is no GPU

Weights are random (time and memory do not depend on them) and built on the device; pictures and tokens are random too
and lie on the device, so that loading data is not in the figures. A step is forward, backward, clipping and the
optimizer under bfloat16 autocast, as Hugging Face's Trainer runs it. Two ways:

medvlm  `medvlm.train.loss.forward_loss`: logits at labels only, in chunks
hf      (a) the model's own loss over full logits, as in Hugging Face's PaliGemma notebook

FLOPs are the useful ones of `medvlm.train.flops`: matrix products of forward and backward; what activation
checkpointing computes again is not counted. The roofline beside: the least time that the FLOPs need at the device's
peak (recomputation included), the least that the matrix products' bytes need at its memory's bandwidth, and which of
both is longer.

Every model and method has a process of its own, so that a failure ends only that one. A case that does not fit is
written down as such, and larger batches of its series are not tried.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpu_models import MODELS, build, inputs, recipe, traffic
from training_setup import forget_peak, machine, memory, table

RESULTS = Path(__file__).parent / "results" / "gpu_paligemma448.json"
METHODS = ("lora", "qlora")
SHARES = {"paligemma-3b-448": 0.3, "git-llama-7b-448": 0.2}
"""Of the time, for each of the two methods."""
BANDWIDTHS = (("H200", 4.8e12), ("H100 PCIe", 2.0e12), ("H100", 3.35e12), ("A100", 2.039e12), ("L40S", 0.864e12))
"""Bytes a second of the device's memory on NVIDIA's data sheets (A100: 80 GB)."""
WARM, TIMED = 2, 5
BEST = ("batch", "checkpointing", "liger", "compile", "share_of_peak", "tflops", "samples_per_second")
"""What is said of the fastest case."""


class Device:
    """The accelerator, or the CPU in its place: clock, memory, what it can do."""

    def __init__(self, kind: str) -> None:
        import torch

        self.kind = kind
        self.name = str(torch.cuda.get_device_name()) if kind == "cuda" else "cpu"
        self.bandwidth = next((rate for name, rate in BANDWIDTHS if name in self.name), None)

    def now(self) -> float:
        """Return the time when all that was asked for is done."""
        import torch

        if self.kind == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def empty(self) -> None:
        """Give back what is not in use, and begin the peak anew."""
        import torch

        gc.collect()
        if self.kind == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        else:
            forget_peak()

    def peak(self) -> dict[str, int]:
        """Return the most bytes in tensors and held by the allocator since `empty`; on the CPU the process's."""
        import torch

        if self.kind == "cuda":
            return {"peak_bytes": torch.cuda.max_memory_allocated(), "reserved_bytes": torch.cuda.max_memory_reserved()}
        return {"peak_bytes": memory()[1], "reserved_bytes": memory()[1]}

    def measured(self, tiny: bool) -> dict[str, float]:
        """Return what it reaches here: FLOP/s of a large bfloat16 product, bytes a second of a copy."""
        import torch

        side = 256 if tiny else 8192
        left = torch.randn(side, side, device=self.kind, dtype=torch.bfloat16)
        product = min(self._seconds(lambda: left @ left) for _ in range(5))
        block = torch.empty(side * side * 8, device=self.kind, dtype=torch.bfloat16)
        target = torch.empty_like(block)
        copy = min(self._seconds(lambda: target.copy_(block)) for _ in range(5))
        return {"product_flops": 2 * side**3 / product, "copy_bytes": 4 * block.numel() / copy}

    def _seconds(self, work: Callable[[], Any]) -> float:
        started = self.now()
        for _ in range(4):
            work()
        return (self.now() - started) / 4


def optimizer_of(model: Any, method: str, device: Device) -> Any:
    """Return AdamW over what is trained: fused, or for QLoRA the paged one of 8 bits; plain on the CPU.

    Its learning rate is 0, so that every case begins with the same weights.
    """
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if device.kind == "cpu":
        return torch.optim.AdamW(trained, lr=0.0)
    if method == "qlora":
        from bitsandbytes.optim import PagedAdamW8bit

        return PagedAdamW8bit(trained, lr=0.0)
    return torch.optim.AdamW(trained, lr=0.0, fused=True)


def one_step(model: Any, made: dict[str, Any], way: str, optimizer: Any, device: Device) -> float:
    """Make one update and return its loss."""
    import torch

    from medvlm.train.loss import forward_loss

    with torch.autocast(device.kind, torch.bfloat16):
        if way == "medvlm":
            loss = forward_loss(model, made)[0]
        else:
            loss = model(**{k: v for k, v in made.items() if k != "logits_to_keep"}, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def measure(model: Any, case: dict[str, Any], kind: Any, device: Device, seed: int) -> dict[str, Any]:
    """Return the case's figures, or its error."""
    import torch

    from medvlm.train.compute import peak_tflops
    from medvlm.train.flops import FlopModel

    device.empty()
    asked = recipe(case["model"], case["method"], checkpointing=case["checkpointing"])
    flops = FlopModel(model, asked, kind)
    try:
        made = inputs(model, kind, case["batch"], device.kind, seed)
        optimizer = optimizer_of(model, case["method"], device)
        losses = [one_step(model, made, case["way"], optimizer, device) for _ in range(WARM)]
        times = []
        for _ in range(TIMED):
            started = device.now()
            one_step(model, made, case["way"], optimizer, device)
            times.append(device.now() - started)
    except torch.OutOfMemoryError:
        model.zero_grad(set_to_none=True)
        return {**case, "error": "out of memory"}
    except Exception as error:  # One case that cannot run must not end the others.
        model.zero_grad(set_to_none=True)
        return {**case, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    seconds = statistics.median(times)
    lengths, labels = made["attention_mask"].sum(dim=1).tolist(), int((made["labels"] != -100).sum())
    work = flops.training(lengths, labels, case["batch"])
    moved = traffic(model, kind, flops, made, case["checkpointing"])
    peak = peak_tflops(asked, device.name)[0]
    return {
        **case,
        "first_loss": losses[0],
        "seconds": seconds,
        "n": TIMED,
        "spread": (max(times) - min(times)) / seconds,
        "samples_per_second": case["batch"] / seconds,
        "tflops": work.useful / seconds / 1e12,
        "share_of_peak": work.useful / seconds / 1e12 / peak if peak else None,
        **device.peak(),
        **roofline(work.useful, work.recomputed, moved, peak, device.bandwidth),
    }


def roofline(useful: int, recomputed: int, moved: int, peak: float | None, bandwidth: float | None) -> dict[str, Any]:
    """Return the least times by arithmetic and by memory, and which limits."""
    found: dict[str, Any] = {"useful_flops": useful, "recomputed_flops": recomputed, "least_bytes": moved}
    found["flops_per_byte"] = (useful + recomputed) / moved
    if peak and bandwidth:
        arithmetic, memory_time = (useful + recomputed) / (peak * 1e12), moved / bandwidth
        found |= {"least_seconds_arithmetic": arithmetic, "least_seconds_memory": memory_time}
        found["limited_by"] = "arithmetic" if arithmetic >= memory_time else "memory"
    return found


def prepared(model: Any, case: dict[str, Any], kind: Any, device: Device) -> None:
    """Switch the model to what the case asks for; liger and compile stay on once they are."""
    from medvlm.models import load

    base = model.get_base_model()
    if case["checkpointing"]:
        base.activation_checkpointing_enable({"use_reentrant": False})
    else:
        base.activation_checkpointing_disable()
    on = getattr(base, "sped_up", frozenset())
    new = frozenset(what for what in ("liger", "compile") if case[what]) - on
    base.sped_up = on | new
    if device.kind == "cuda" and new:
        load.speed_up(model, recipe(case["model"], case["method"], liger="liger" in new, compiled="compile" in new))
    elif "compile" in new:
        # The CPU's own compiler would take longer than all else.
        for layer in load.decoder_layers(base, kind):
            layer.compile(backend="eager")


def series(name: str, method: str, batches: list[int], device: Device) -> Iterator[list[dict[str, Any]]]:
    """Yield series of cases, the most wanted first; the batch grows within one."""
    plain = {"model": name, "method": method, "way": "medvlm", "checkpointing": False, "liger": False, "compile": False}
    yield [{**plain, "batch": batch} for batch in batches]
    yield [{**plain, "batch": batch, "checkpointing": True} for batch in batches]
    yield [{**plain, "batch": batch, "way": "hf"} for batch in batches]
    # What cannot be taken back comes last.
    on_gpu = device.kind == "cuda"
    if on_gpu:
        yield [{**plain, "batch": batch, "liger": True} for batch in batches if batch in (1, 8, 16)]
    if method == "lora":
        # One batch, since every other one is compiled anew; not 4-bit layers, which it cannot see into.
        yield [{**plain, "batch": 16 if 16 in batches else batches[-1], "liger": on_gpu, "compile": True}]


def work(options: argparse.Namespace) -> None:
    """Run all cases of one model and method, a JSON line each."""
    device = Device("cpu" if options.cpu else "cuda")
    began = time.perf_counter()
    batches = [int(text) for text in options.batches.split(",")]
    model, _, kind = build(options.model, options.method, device.kind, options.tiny, options.seed)
    device.empty()
    print(json.dumps({"weights_bytes": device.peak()["peak_bytes"], "built": time.perf_counter() - began}), flush=True)
    for cases in series(options.model, options.method, batches, device):
        for case in cases:
            if time.perf_counter() - began > options.seconds:
                print(json.dumps({**case, "error": "not run: the time was up"}), flush=True)
                continue
            try:
                prepared(model, case, kind, device)
            except Exception as error:  # liger-kernel may be missing or not know the model.
                print(json.dumps({**case, "error": f"{type(error).__name__}: {error}"[:300]}), flush=True)
                break
            found = measure(model, case, kind, device, options.seed)
            print(json.dumps(found), flush=True)
            if "error" in found:
                break


def lines_of(model: str, method: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run one model and method in its process and return its lines, those before a crash too."""
    seconds = options.seconds * SHARES[model]
    command = [sys.executable, __file__, "--model", model, "--method", method, "--seconds", str(seconds)]
    command += ["--batches", options.batches, "--seed", str(options.seed)]
    command += ["--cpu"] * options.cpu + ["--tiny"] * options.tiny
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    quiet["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **quiet}
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds * 1.2 + 60)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            err += "\nstopped: it took too long"
    found = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    if process.returncode:
        last = err.strip().splitlines()[-1] if err.strip() else f"exit {process.returncode}"
        print(f"{model}, {method}: ended early: {last}", file=sys.stderr)
        found.append({"model": model, "method": method, "error": f"ended early: {last[:300]}"})
    return found


def goals(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the goals are about: the best share of peak by LoRA and by QLoRA, the memory of QLoRA at batch 1."""
    done = [case for case in cases if case.get("way") == "medvlm" and "seconds" in case]
    ours = [case for case in done if case["model"] == "paligemma-3b-448"]
    found: dict[str, Any] = {}
    for method in METHODS:
        rates = [case for case in ours if case["method"] == method]
        if rates:
            best = max(rates, key=lambda case: case["tflops"])
            found[f"best_{method}"] = {
                key: best[key]
                for key in (
                    "batch",
                    "checkpointing",
                    "liger",
                    "compile",
                    "share_of_peak",
                    "tflops",
                    "samples_per_second",
                )
            }
    if len(found) == 2:
        found["qlora_over_lora"] = found["best_qlora"]["tflops"] / found["best_lora"]["tflops"]
    least = [case["peak_bytes"] for case in ours if case["method"] == "qlora" and case["batch"] == 1]
    if least:
        found["qlora_batch_1_peak_bytes"] = min(least)
    wanted = {"share_of_peak": 0.45, "qlora_over_lora": 0.85, "qlora_batch_1_peak_bytes": 8_000_000_000}
    return {"wanted": wanted, "found": found, "against_hf": against_hf(cases)}


def against_hf(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return how many times medvlm's time and peak memory the plain loss takes, where both ran the same batch."""
    plain = {}
    for case in cases:
        if "seconds" in case and not (case["checkpointing"] or case["liger"] or case["compile"]):
            plain[case["model"], case["method"], case["batch"], case["way"]] = case
    found = []
    for (model, method, batch, way), other in plain.items():
        ours = plain.get((model, method, batch, "medvlm"))
        if way == "hf" and ours:
            times = {f"times_the_{key}": other[key] / ours[key] for key in ("seconds", "peak_bytes")}
            loss = abs(other["first_loss"] - ours["first_loss"])
            found.append({"model": model, "method": method, "batch": batch, **times, "loss_difference": loss})
    return found


def show(cases: list[dict[str, Any]]) -> None:
    """Print every case, with the roofline's arithmetic."""
    heads = (
        "model", "method", "way", "batch", "with", "samples/s", "TFLOP/s", "of peak", "peak memory", "FLOP a byte",
        "least ms (arithmetic, memory)", "ms",
    )  # fmt: skip
    rows = []
    for case in cases:
        if "batch" not in case:
            continue
        extras = "+".join(key for key in ("checkpointing", "liger", "compile") if case[key]) or "-"
        head = [case["model"], case["method"], case["way"], case["batch"], extras]
        if "error" in case:
            rows.append([*head, case["error"], *[""] * 6])
            continue
        share = f"{case['share_of_peak']:.1%}" if case["share_of_peak"] else "unknown"
        least = [case.get(f"least_seconds_{what}") for what in ("arithmetic", "memory")]
        bound = f"{least[0] * 1e3:.1f}, {least[1] * 1e3:.1f}: {case['limited_by']}" if least[0] else "unknown"
        rates = [f"{case['samples_per_second']:.2f}", f"{case['tflops']:.2f}", share]
        rates.append(f"{case['peak_bytes'] / 1e9:.2f} GB")
        rows.append([*head, *rates, f"{case['flops_per_byte']:.0f}", bound, f"{case['seconds'] * 1e3:.1f}"])
    print(table(heads, rows))


def main() -> None:
    """Run every model and method, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny models of the same classes")
    parser.add_argument("--cpu", action="store_true", help="on the CPU; only with --tiny")
    parser.add_argument("--batches", default="1,2,4,8,16,32")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--seconds", type=float, default=420.0, help="for all cases together, building apart")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where the results go; without it, results/ if there is a GPU")
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.model:
        work(options)
        return
    if options.cpu and not options.tiny:
        parser.error("--cpu: the full-size models are for a GPU; add --tiny")
    device = Device("cpu" if options.cpu else "cuda")
    facts = {"device": device.name, "machine": machine(), "seed": options.seed, "tiny": options.tiny}
    facts |= {"n": TIMED, "warm": WARM, "measured": device.measured(options.tiny), "bandwidth": device.bandwidth}
    names = options.models.split(",")
    cases = [line for name in names for method in METHODS for line in lines_of(name, method, options)]
    show(cases)
    result = {**facts, "goals": goals(cases), "cases": cases}
    print(json.dumps(result["goals"], indent=1))
    out = options.out or (None if options.cpu else RESULTS)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
