"""What a run cost: sums over sessions, rates by a clock of the test, and nothing invented."""

from __future__ import annotations

import builtins
import importlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from medvlm.errors import MissingExtraError
from medvlm.recipe.load import check
from medvlm.recipe.models import Recipe
from medvlm.train import compute, energy
from medvlm.train.compute import Meter, peak_tflops


def recipe_of(dtype: str = "bfloat16", **part: Any) -> Recipe:
    raw = {"name": "t", "model": {"id": "medvlm/tiny-base", "dtype": dtype}, "data": [{"path": "d"}], "compute": part}
    return check(raw, "t")


class Clock:
    """Time that goes on only when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(compute.time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_rates_share_of_peak_and_money(tmp_path: Path, clock: Clock) -> None:
    meter = Meter(recipe_of(peak_tflops=2, price_per_hour=3.6, currency="EUR", energy="off"), tmp_path)
    meter.start()
    for _ in range(4):
        clock.now += 5.0
        meter.step(2, 100, 10**12)
    with meter.aside():
        clock.now += 80.0
    meter.stop()
    facts = meter.facts(4)
    assert (facts["seconds"], facts["training_seconds"], facts["steps"]) == (100.0, 20.0, 4)
    assert (facts["samples"], facts["tokens"], facts["flops"]) == (8, 400, 4 * 10**12)
    assert (facts["samples_per_second"], facts["tokens_per_second"]) == (0.4, 20.0)
    assert facts["share_of_peak"] == 0.1
    assert facts["hours"] == pytest.approx(100 / 3600, abs=1e-6)
    assert facts["money"] == {"amount": 0.1, "currency": "EUR", "price_per_hour": 3.6}


def test_what_is_not_known_is_none_with_the_reason(tmp_path: Path) -> None:
    meter = Meter(recipe_of("float32", energy="off"), tmp_path)
    meter.start()
    meter.step(1, 10, 10)
    meter.stop()
    facts = meter.facts(1)
    assert facts["money"] is None
    assert facts["peak_tflops"] is None
    assert facts["share_of_peak"] is None
    assert facts["energy"]["joules"] is None
    assert facts["energy"]["unknown"] == "compute.energy is off"


def test_a_killed_session_and_the_one_that_resumes_it_add_up(tmp_path: Path, clock: Clock) -> None:
    recipe = recipe_of(price_per_hour=3600, energy="off")
    killed = Meter(recipe, tmp_path)
    killed.start()
    for _ in range(3):
        clock.now += 20.0
        killed.step(2, 10, 100)
    # No stop: the process is gone. The last checkpoint was after the second step.
    resumed = Meter(recipe, tmp_path)
    resumed.start(samples=4, tokens=20, flops=200)
    clock.now += 20.0
    resumed.step(2, 10, 100)
    clock.now += 20.0
    resumed.step(2, 10, 100)
    resumed.stop()
    resumed.stop()
    facts = resumed.facts(4)
    assert (facts["samples"], facts["tokens"], facts["flops"]) == (8, 40, 400)
    assert (facts["seconds"], facts["sessions"], facts["repeated_samples"]) == (100.0, 2, 2)
    assert facts["samples_per_second"] == 0.1
    assert facts["money"]["amount"] == 100.0
    assert len(json.loads((tmp_path / compute.SESSIONS).read_text(encoding="utf-8"))) == 2


def test_a_session_killed_within_seconds_is_counted(tmp_path: Path, clock: Clock) -> None:
    recipe = recipe_of(energy="off")
    at_once = Meter(recipe, tmp_path)
    at_once.start()
    after_a_checkpoint = Meter(recipe, tmp_path)
    after_a_checkpoint.start()
    clock.now += 2.0
    after_a_checkpoint.step(2, 10, 100)
    with after_a_checkpoint.aside():
        clock.now += 1.0
    clock.now += 3.0
    last = Meter(recipe, tmp_path)
    last.start(samples=2, tokens=10, flops=100)
    clock.now += 4.0
    last.step(2, 10, 100)
    last.stop()
    facts = last.facts(2)
    assert (facts["sessions"], facts["seconds"], facts["training_seconds"]) == (3, 7.0, 6.0)
    assert (facts["samples"], facts["repeated_samples"]) == (4, 0)


class Counts:
    """A counter that has measured 50 J each time it is asked."""

    def start(self) -> None:
        return

    def read(self) -> energy.Energy:
        return energy.Energy(50.0, "test", "nothing else")

    def stop(self) -> None:
        return


def test_energy_of_sessions_adds_up_and_one_unknown_makes_all_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "counter", lambda part: Counts())
    for session in (1, 2):
        meter = Meter(recipe_of(), tmp_path)
        meter.start()
        meter.stop()
        assert meter.facts(1)["energy"]["joules"] == 50.0 * session
    assert meter.facts(1)["energy"]["kwh"] == pytest.approx(100 / 3.6e6, abs=1e-6)
    monkeypatch.setattr(energy, "counter", lambda part: energy.Unknown("off"))
    meter = Meter(recipe_of(), tmp_path)
    meter.start()
    meter.stop()
    assert meter.facts(1)["energy"]["joules"] is None


@pytest.mark.parametrize(
    ("device", "dtype", "peak"),
    [
        ("NVIDIA H200", "bfloat16", 989.5),
        ("NVIDIA H100 80GB HBM3", "float16", 989.5),
        ("NVIDIA H100 PCIe", "bfloat16", 756.0),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312.0),
        ("NVIDIA A10", "bfloat16", 125.0),
        ("NVIDIA L40S", "bfloat16", 362.05),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bfloat16", None),
        ("NVIDIA GeForce RTX 4090 D", "bfloat16", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bfloat16", None),
        ("NVIDIA H200", "float32", None),
        ("cpu (2 threads)", "bfloat16", None),
    ],
)
def test_peaks_of_known_devices_and_no_guess_for_others(device: str, dtype: str, peak: float | None) -> None:
    assert peak_tflops(recipe_of(dtype), device)[0] == peak
    assert peak_tflops(recipe_of(dtype, peak_tflops=7), device) == (7.0, "compute.peak_tflops")


def test_codecarbon_measures_without_files_or_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("codecarbon")
    monkeypatch.chdir(tmp_path)
    meter = Meter(recipe_of(energy="codecarbon", country="SWE"), tmp_path)
    meter.start()
    # It measures no more than once a second.
    time.sleep(1.5)
    meter.stop()
    found = meter.facts(1)["energy"]
    assert found["joules"] > 0
    assert found["co2_kg"] > 0
    assert found["source"].startswith("codecarbon ")
    assert [path.name for path in tmp_path.iterdir()] == [compute.SESSIONS]
    assert capfd.readouterr() == ("", "")


def test_a_missing_codecarbon_is_one_line_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def missing(name: str, *rest: Any) -> Any:
        if name == "codecarbon":
            raise builtins.ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(energy.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'medvlm\[carbon\]'"):
        Meter(recipe_of(energy="codecarbon"), tmp_path)


@pytest.mark.gpu
def test_the_counter_of_the_gpu_rises_with_work(tmp_path: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    meter = Meter(recipe_of(), tmp_path)
    meter.start()
    square = torch.randn(4096, 4096, device="cuda")
    for _ in range(200):
        square = torch.nn.functional.normalize(square @ square)
    torch.cuda.synchronize()
    meter.stop()
    assert meter.facts(1)["energy"]["joules"] > 1
