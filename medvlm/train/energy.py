"""The energy that a run took, from a counter that measures it; where there is none, why not. It is never guessed."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import torch

from medvlm.errors import MissingExtraError
from medvlm.recipe.models import ComputePart
from medvlm.train.devices import here


@dataclasses.dataclass(frozen=True, slots=True)
class Energy:
    """What a counter says of the time between start and now."""

    joules: float | None
    source: str | None
    """Which counter, with its version."""
    covers: str | None
    """What it measures, and what it does not."""
    unknown: str | None = None
    """Why `joules` is None."""
    co2_kg: float | None = None


class Counter(Protocol):
    """Something that measures energy."""

    def start(self) -> None:
        """Begin."""
        ...

    def read(self) -> Energy:
        """Return the energy since `start`."""
        ...

    def stop(self) -> None:
        """End; `read` still answers."""
        ...


def counter(part: ComputePart) -> Counter:
    """Return the counter that the recipe asks for.

    Raises:
        MissingExtraError: codecarbon is asked for and not installed.
    """
    if part.energy == "codecarbon":
        return CodeCarbon(part.country)
    if part.energy == "off":
        return Unknown("compute.energy is off")
    if not torch.cuda.is_available():
        return Unknown("no GPU with an energy counter; compute.energy=codecarbon estimates it")
    try:
        return Nvml()
    except Exception as error:
        return Unknown(f"NVML has no energy counter for this GPU ({' '.join(str(error).split())})")


class Unknown:
    """No counter, and why."""

    def __init__(self, why: str) -> None:
        self.why = why

    def start(self) -> None:
        """Do nothing."""

    def read(self) -> Energy:
        """Return the reason."""
        return Energy(None, None, None, self.why)

    def stop(self) -> None:
        """Do nothing."""


class Nvml:
    """The total energy counters of the GPUs in use, in millijoules since the driver was loaded (Volta and later).

    Raises:
        ImportError: nvidia-ml-py is not installed.
        pynvml.NVMLError: the driver has no such counter here.
    """

    def __init__(self) -> None:
        self.nvml: Any = importlib.import_module("pynvml")
        self.nvml.nvmlInit()
        # Several processes take the first GPUs in sight, one each.
        count = here().count
        used = range(count) if count > 1 else [torch.cuda.current_device()]
        self.handles = [self._handle(number) for number in used]
        self.driver = self.nvml.nvmlSystemGetDriverVersion()
        self.began = self._count()

    def _handle(self, number: int) -> Any:
        # By UUID: CUDA_VISIBLE_DEVICES renumbers torch's devices, not NVML's.
        identity = str(torch.cuda.get_device_properties(number).uuid)
        return self.nvml.nvmlDeviceGetHandleByUUID(identity if "-" in identity[:4] else f"GPU-{identity}")

    def _count(self) -> int:
        return sum(int(self.nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in self.handles)

    def start(self) -> None:
        """Begin."""
        self.began = self._count()

    def read(self) -> Energy:
        """Return the energy of the whole GPUs since `start`."""
        which = "the whole GPU" if len(self.handles) == 1 else f"{len(self.handles)} whole GPUs"
        covers = f"{which}, whoever uses it; not processor, memory or cooling"
        return Energy((self._count() - self.began) / 1000, f"NVML, driver {self.driver}", covers)

    def stop(self) -> None:
        """Do nothing: the counter runs by itself."""


class CodeCarbon:
    """codecarbon's offline tracker: measured where the machine lets it, modeled elsewhere; no network, no files.

    Args:
        country: ISO 3166 code, for the carbon intensity.

    Raises:
        MissingExtraError: the package is not installed.
    """

    def __init__(self, country: str) -> None:
        try:
            codecarbon: Any = importlib.import_module("codecarbon")
        except ImportError as error:
            raise MissingExtraError("compute.energy: codecarbon", "carbon") from error
        # Before the tracker sets its own level, it has already spoken.
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        self.country = country
        self.tracker: Any = codecarbon.OfflineEmissionsTracker(
            country_iso_code=country,
            project_name="medvlm",
            output_methods=[],
            log_level="critical",
            allow_multiple_runs=True,
        )
        self.ended = False

    def start(self) -> None:
        """Begin."""
        self.tracker.start()

    def read(self) -> Energy:
        """Return the energy of the machine since `start`."""
        if not self.ended:
            self.tracker.flush()
        data = self.tracker.final_emissions_data if self.ended else self.tracker._prepare_emissions_data()
        if not data.energy_consumed:
            return Energy(None, None, None, "the run was too short for codecarbon to measure it")
        covers = f"processor, memory and GPU of the machine, partly modeled; carbon intensity of {self.country}"
        return Energy(data.energy_consumed * 3.6e6, f"codecarbon {_version()}", covers, co2_kg=data.emissions)

    def stop(self) -> None:
        """End the tracker's thread."""
        self.tracker.stop()
        self.ended = True


def _version() -> str:
    with contextlib.suppress(PackageNotFoundError):
        return version("codecarbon")
    return "of unknown version"
