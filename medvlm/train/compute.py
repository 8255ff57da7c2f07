"""What a run cost: time, samples, tokens, operations, share of the device's peak, memory, energy, money.

Each session of a run (the first, and each that resumes it) keeps its own figures in the run's folder and renews them
as it goes, so that what a killed session took is counted too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from medvlm.io import write_json
from medvlm.recipe.models import Recipe
from medvlm.train import energy
from medvlm.train.devices import here

SESSIONS = "compute_sessions.json"
RENEWED_EVERY = 15.0
"""Seconds between writings of a session's figures."""
FLOP_RULES = "1"
"""Version of the rules in `medvlm.train.flops`, so that figures of one rule are compared."""


@dataclasses.dataclass(slots=True)
class Session:
    """What one process spent on the run."""

    device: str
    devices: int = 1
    seconds: float = 0.0
    aside_seconds: float = 0.0
    samples: int = 0
    tokens: int = 0
    flops: int = 0
    peak_memory_bytes: int = 0
    joules: float | None = None
    energy_source: str | None = None
    energy_covers: str | None = None
    energy_unknown: str | None = None
    co2_kg: float | None = None


class Meter:
    """Counts while training runs, and sums up a run, all its devices together, for compute.json.

    Each process counts; the first one writes, and reads the energy of all devices of the machine.

    Use: `meter = Meter(recipe, run.path); meter.start(samples, tokens, flops)`; after each update `meter.step(...)`;
    around evaluations and checkpoints `with meter.aside():`; `meter.stop()`; `meter.facts(steps)`.

    Args:
        recipe: price, peak, kind of energy counter.
        folder: the run's folder; earlier sessions are read from it.

    Raises:
        MissingExtraError: codecarbon is asked for and not installed.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.path = recipe, folder / SESSIONS
        self.samples = self.tokens = self.flops = 0
        """What the run's steps amount to; steps that a resumed session made again count once."""
        self.here = here()
        self.session = Session(device_name(), self.here.count)
        self.earlier = _read(self.path)
        self.counter = energy.counter(recipe.compute) if self.here.first else energy.Unknown("another process counts")
        self._began = self._written = time.perf_counter()
        self._running = False

    def start(self, samples: int = 0, tokens: int = 0, flops: int = 0) -> None:
        """Start the clock.

        Args:
            samples, tokens, flops: what had been reached at the step that a resumed run goes on from.
        """
        self.samples, self.tokens, self.flops = samples, tokens, flops
        self._began = self._written = time.perf_counter()
        self._running = True
        self.counter.start()
        self._write()

    def step(self, samples: int, tokens: int, flops: int) -> None:
        """Add an update on all devices: its samples, tokens (image tokens included) and useful operations."""
        self.samples += samples
        self.tokens += tokens
        self.flops += flops
        self.session.samples += samples
        self.session.tokens += tokens
        self.session.flops += flops
        if time.perf_counter() - self._written > RENEWED_EVERY:
            self._write()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Count what happens inside as time of the run, but not as time of training; then write the session."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.session.aside_seconds += time.perf_counter() - started
        if self._running:
            self._write()

    def stop(self) -> None:
        """Stop the clock and write the session; a second call does nothing."""
        if self._running:
            self._running = False
            self.counter.stop()
            self._write()

    def facts(self, steps: int) -> dict[str, Any]:
        """Return what compute.json holds after `steps` steps, all sessions together.

        Rates are those of what was really computed, so steps made twice count twice in them. What is not known is
        None, with the reason beside it. With several devices all processes must call it.
        """
        if self._running:
            self._refresh()
        self.session.peak_memory_bytes = self.here.most(self.session.peak_memory_bytes)
        sessions = [*self.earlier, self.session]
        seconds = sum(s.seconds for s in sessions)
        training = max(1e-9, seconds - sum(s.aside_seconds for s in sessions))
        done = {key: sum(getattr(s, key) for s in sessions) for key in ("samples", "tokens", "flops")}
        rate = done["flops"] / training
        # Of one device, so that it compares with the peak.
        each = done["flops"] / max(1e-9, sum((s.seconds - s.aside_seconds) * s.devices for s in sessions))
        peak, source = peak_tflops(self.recipe, self.session.device)
        return {
            "device": self.session.device,
            "devices": self.session.devices,
            "device_hours": round(sum(s.seconds * s.devices for s in sessions) / 3600, 6),
            "seconds": round(seconds, 3),
            "hours": round(seconds / 3600, 6),
            "training_seconds": round(training, 3),
            "sessions": len(sessions),
            "samples": self.samples,
            "tokens": self.tokens,
            "flops": self.flops,
            "repeated_samples": max(0, done["samples"] - self.samples),
            "samples_per_second": round(done["samples"] / training, 3),
            "tokens_per_second": round(done["tokens"] / training, 1),
            "flops_per_second": round(rate),
            "peak_tflops": peak,
            "peak_source": source,
            "share_of_peak": round(each / (peak * 1e12), 4) if peak else None,
            "peak_memory_bytes": max(s.peak_memory_bytes for s in sessions),
            "steps": steps,
            "energy": _energy(sessions),
            "money": money(self.recipe, seconds / 3600),
            "counters": {"flops": f"medvlm.train.flops, rules {FLOP_RULES}", "energy": self.session.energy_source},
        }

    def _refresh(self) -> None:
        now, measured = self.session, self.counter.read()
        now.seconds = time.perf_counter() - self._began
        now.peak_memory_bytes = peak_memory()
        now.joules, now.co2_kg = measured.joules, measured.co2_kg
        now.energy_source, now.energy_covers, now.energy_unknown = measured.source, measured.covers, measured.unknown

    def _write(self) -> None:
        self._refresh()
        self._written = time.perf_counter()
        if not self.here.first:
            return
        write_json(self.path, [dataclasses.asdict(session) for session in [*self.earlier, self.session]])


def _read(path: Path) -> list[Session]:
    if not path.is_file():
        return []
    return [Session(**session) for session in json.loads(path.read_text(encoding="utf-8"))]


def _energy(sessions: list[Session]) -> dict[str, Any]:
    """Return the energy of all sessions, or why it is unknown."""
    unknown = [s.energy_unknown or "not measured" for s in sessions if s.joules is None]
    joules = None if unknown else sum(s.joules or 0.0 for s in sessions)
    carbon = None if any(s.co2_kg is None for s in sessions) else sum(s.co2_kg or 0.0 for s in sessions)
    return {
        "joules": None if joules is None else round(joules, 1),
        "kwh": None if joules is None else round(joules / 3.6e6, 6),
        "co2_kg": carbon,
        "source": sessions[-1].energy_source,
        "covers": sessions[-1].energy_covers,
        "unknown": unknown[-1] if unknown else None,
    }


def money(recipe: Recipe, hours: float) -> dict[str, Any] | None:
    """Return the price of so many hours, or None where the recipe names no price."""
    price = recipe.compute.price_per_hour
    if price is None:
        return None
    return {"amount": round(hours * price, 4), "currency": recipe.compute.currency, "price_per_hour": price}


_NVIDIA = "NVIDIA's published rate, dense bfloat16/float16 with float32 accumulation"
PEAKS: tuple[tuple[str, float], ...] = (
    # A longer name stands before one that it begins with.
    ("B200", 2250.0),
    ("H200 NVL", 835.5),
    ("H200", 989.5),
    ("H100 NVL", 835.5),
    ("H100 PCIe", 756.0),
    ("H100", 989.5),
    ("A100", 312.0),
    ("L40S", 362.05),
    ("L40", 181.05),
    ("L4", 121.0),
    ("A40", 149.7),
    ("A10", 125.0),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
    ("RTX A6000", 154.8),
)
"""Device name -> TFLOP/s without sparsity.

Half of what data sheets give with sparsity (B200, H200, H100, L4), else the dense figure of the data sheet (A100, A40,
A10, L40, L40S) or of the architecture's white paper (Ada: RTX 4090; GA102: RTX 3090, RTX A6000).
"""


def peak_tflops(recipe: Recipe, device: str) -> tuple[float | None, str | None]:
    """Return the device's dense rate in the run's dtype in TFLOP/s and where it is from; (None, None) if unknown."""
    if recipe.compute.peak_tflops is not None:
        return recipe.compute.peak_tflops, "compute.peak_tflops"
    words = f" {device.replace('-', ' ')} "
    # A laptop's chip, a cut one or a slice of one shares the name, not the rate.
    if recipe.model.dtype != "float32" and not any(f" {other} " in words for other in ("Laptop", "D", "MIG", "Max")):
        for name, rate in PEAKS:
            if f" {name} " in words:
                return rate, _NVIDIA
    return None, None


def device_name() -> str:
    """Return the device in words."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"cpu ({torch.get_num_threads()} threads)"


def peak_memory() -> int:
    """Return the most memory used so far, in bytes: the GPU's where there is one, else the process's."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
