"""Start one process a device, as `accelerate launch` would, and end them as one.

accelerate's own parser reads the configuration and makes the processes' environment; the processes are watched here, so
that Ctrl-C reaches each of them once, and a failure gives the one line of the process that failed first.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import datetime
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medvlm.errors import (
    AccessError,
    InputError,
    LicenseError,
    MedvlmError,
    MissingExtraError,
    ResourceError,
    UsageError,
)
from medvlm.io import write_json, write_text
from medvlm.resources import PACKAGE
from medvlm.runs import FAILED, RUNNING, Run

SHIPPED = PACKAGE / "train" / "accelerate"
NOTES = "MEDVLM_NOTES"
"""Folder in which each process leaves the line that it failed with."""
COMMAND = "MEDVLM_COMMAND"
"""The command line as it was given, for run.json."""
LAUNCHER = "MEDVLM_LAUNCHER"
"""Process id of the one that started this process."""
GRACE = 30.0
"""Seconds that the others have to end by themselves when one process has failed."""
_SECOND_HAND = ("Connection closed by peer", "Connection reset", "gloo", "NCCL", "DistBackendError", "ProcessGroup")
_RUN = "run"
"""File among the notes that names the run."""


@dataclasses.dataclass(frozen=True, slots=True)
class Launch:
    """How to start."""

    count: int
    sharding: str
    """ddp, fsdp2 or deepspeed."""
    environment: dict[str, str]


def of_options(devices: int | None, config: str | None) -> Launch | None:
    """Return what `--devices` and `--accelerate-config` ask for; None where that is one device.

    Args:
        devices: how many; None leaves it to the configuration.
        config: a file of `accelerate config`, or the name of one shipped: ddp, fsdp2, zero2, zero3.

    Raises:
        UsageError: this machine has fewer devices, or the configuration asks for what is not done here.
        InputError: the configuration cannot be read.
        MissingExtraError: it asks for DeepSpeed, which is not installed.
    """
    if config is None:
        if devices is None or devices == 1:
            return None
        config = "ddp"
    args = _parsed(_file(config), devices)
    _check(args, config)
    import torch

    gpus = torch.cuda.device_count()
    asked = f"--devices {devices}" if devices else f"{config}: num_processes: {args.num_processes}"
    # No GPU at all: processes on the CPU, which show that all is well before a machine with GPUs is rented.
    if gpus and args.num_processes > gpus:
        raise UsageError(f"{asked}: this machine has {gpus}; expected {gpus} or fewer")
    if args.use_deepspeed and not gpus:
        raise UsageError(f"{config}: DeepSpeed needs GPUs, and this machine has none; take fsdp2, or --devices alone")
    if args.num_processes < 2:
        return None
    sharding = "fsdp2" if args.use_fsdp else "deepspeed" if args.use_deepspeed else "ddp"
    return Launch(args.num_processes, sharding, _environment(args, gpus > 0))


def _file(config: str) -> Path:
    """Return the configuration's file: a path, or the name of one that is shipped."""
    path = Path(config)
    if path.is_dir():
        raise InputError(f"{config}: is a folder; expected a file of `accelerate config`")
    if not path.is_file() and (SHIPPED / f"{config}.yaml").is_file():
        path = SHIPPED / f"{config}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(found.stem for found in SHIPPED.glob("*.yaml")))
        raise InputError(f"{config}: no such file; expected a file of `accelerate config`, or one of {names}")
    return path


def _parsed(path: Path, devices: int | None) -> Any:
    """Return accelerate's arguments as the file and `--devices` set them."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    _check_mapping(path)
    words = ["--config_file", str(path), *(["--num_processes", str(devices)] if devices else []), "-m", "medvlm"]
    try:
        args, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    except Exception as error:
        raise InputError(f"{path}: not a configuration of accelerate ({' '.join(str(error).split())})") from error
    kind = str(getattr(defaults.distributed_type, "value", defaults.distributed_type))
    if kind not in ("MULTI_GPU", "MULTI_CPU", "FSDP", "DEEPSPEED", "NO"):
        raise UsageError(f"{path}: distributed_type {kind}: expected MULTI_GPU, FSDP or DEEPSPEED")
    if args.deepspeed_config_file is not None:
        # Beside the file that names it, as well as where the command runs.
        found = Path(args.deepspeed_config_file)
        args.deepspeed_config_file = str(found if found.is_file() else path.parent / found)
    return args


def _check_mapping(path: Path) -> None:
    """Raise for what YAML, and so JSON, reads as no mapping; what it cannot read is refused by accelerate itself."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return
    if not isinstance(found, dict):
        kind = {list: "a list", type(None): "nothing"}.get(type(found), "one value")
        expected = "keys with values, such as num_processes: 2, as `accelerate config` writes them"
        raise InputError(f"{path}: not a configuration of accelerate: it holds {kind}; expected {expected}")


def _check(args: Any, config: str) -> None:
    """Raise for what accelerate knows and this package does not.

    Raises:
        UsageError: says what to set.
        MissingExtraError: DeepSpeed is not installed.
    """
    problems = []
    if int(args.num_machines or 1) > 1:
        problems.append("num_machines: training runs on the devices of one machine; expected 1")
    if args.use_fsdp and int(args.fsdp_version) != 2:
        problems.append("fsdp_version: FSDP 1 is not supported; expected 2")
    if args.use_fsdp and str(args.fsdp_activation_checkpointing).lower() == "true":
        problems.append("fsdp_activation_checkpointing: the recipe has train.activation_checkpointing; expected false")
    if str(args.dynamo_backend).lower() != "no":
        problems.append("dynamo_backend: set train.compile in the recipe; expected no")
    if str(args.mixed_precision).lower() != "no":
        problems.append("mixed_precision: the recipe's model.dtype decides; expected no")
    if problems:
        raise UsageError(f"{config}: {'; '.join(problems)}")
    if args.use_deepspeed:
        if importlib.util.find_spec("deepspeed") is None:
            raise MissingExtraError(f"DeepSpeed, by {config},", "deepspeed")
        from medvlm.train.deepspeed_config import check_file

        check_file(args)


def check_processors(launch: Launch) -> None:
    """Raise where so many processes on the CPU would only exhaust the machine; a plan may count more devices.

    Raises:
        UsageError: this machine has no GPU, and fewer processors.
    """
    most = max(2, os.cpu_count() or 1)
    if "ACCELERATE_USE_CPU" in launch.environment and launch.count > most:
        raise UsageError(
            f"{launch.count} devices: this machine has no GPU and {os.cpu_count() or 1} processors; expected at most "
            f"{most} (--dry-run plans for more)"
        )


def check_environment(held: Mapping[str, str]) -> None:
    """Raise for what `accelerate launch` or torchrun, called by hand, asks for and is not done here.

    Args:
        held: the environment of one of the processes.

    Raises:
        UsageError: says what to set.
        InputError: DeepSpeed's file cannot be read.
        MissingExtraError: DeepSpeed is not installed.
    """
    count = int(held["WORLD_SIZE"])
    args = argparse.Namespace(
        num_machines=-(-count // int(held.get("LOCAL_WORLD_SIZE", count))),
        use_fsdp=held.get("ACCELERATE_USE_FSDP", "false").lower() == "true",
        fsdp_version=held.get("FSDP_VERSION", "1"),
        fsdp_activation_checkpointing=held.get("FSDP_ACTIVATION_CHECKPOINTING", "false"),
        dynamo_backend=held.get("ACCELERATE_DYNAMO_BACKEND", "no"),
        mixed_precision=held.get("ACCELERATE_MIXED_PRECISION", "no"),
        use_deepspeed=held.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true",
        deepspeed_config_file=held.get("ACCELERATE_DEEPSPEED_CONFIG_FILE"),
        zero_stage=held.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"),
    )
    _check(args, "the launcher's configuration")


def _environment(args: Any, gpu: bool) -> dict[str, str]:
    """Return the processes' common environment: accelerate's own for this configuration."""
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    # Any that is free: `start` has the processes meet at its own.
    args.main_process_port = 0
    made = prepare_deepspeed_cmd_env(args)[1] if args.use_deepspeed else prepare_multi_gpu_env(args)
    # What the recipe decides.
    for name in [name for name in made if name.startswith(("ACCELERATE_DYNAMO", "ACCELERATE_MIXED_PRECISION"))]:
        del made[name]
    made["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(_threads(args.num_processes))
    made |= {"WORLD_SIZE": str(args.num_processes), "LOCAL_WORLD_SIZE": str(args.num_processes)}
    return made if gpu else {**made, "ACCELERATE_USE_CPU": "true"}


def _threads(processes: int) -> int:
    return max(1, (os.cpu_count() or 1) // processes)


def _meeting() -> tuple[Any, dict[str, str]]:
    """Return the store that the processes meet at, which lasts while it is held, and the environment that leads to it.

    As torchrun does it: nobody can take the port between its choice and the first process's start.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    return store, {**where, "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}


def start(launch: Launch, argv: Sequence[str], command: str) -> None:
    """Run `medvlm` with these arguments, one process a device, to the end.

    Args:
        launch: how many, and their environment.
        argv: of each process.
        command: to record as the one that was given.

    Raises:
        MedvlmError: what the process that failed first said, with its exit code.
        KeyboardInterrupt: all have stopped after Ctrl-C.
    """
    _store, place = _meeting()
    with tempfile.TemporaryDirectory(prefix="medvlm-") as folder:
        notes = Path(folder)
        environment = {**launch.environment, **place, NOTES: folder, COMMAND: command, LAUNCHER: str(os.getpid())}
        children: list[subprocess.Popen[bytes]] = []
        try:
            with _passed_on(children):
                for rank in range(launch.count):
                    children.append(_child(rank, argv, environment, notes))
                _watch(children)
            # Before those that hang are ended, which is no cause of anything.
            codes = [child.poll() or 0 for child in children]
        finally:
            _end(children)
        if any(codes):
            try:
                _raise(notes, codes)
            except MedvlmError as error:
                _mark_failed(notes, str(error))
                raise


def begin_together() -> None:
    """Have this process, one of several, end with the one that started it; call it before anything heavy is imported.

    Linux tells it of that one's death as Ctrl-C would; elsewhere only a death before this call is noticed.
    """
    with contextlib.suppress(OSError, AttributeError):
        # PR_SET_PDEATHSIG, prctl(2)
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.environ.get(LAUNCHER, str(os.getppid())) != str(os.getppid()):
        os.kill(os.getpid(), signal.SIGTERM)
    # DDP remarks in C++ on parameters that every batch so far has used; torch reads this when it is imported.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _child(rank: int, argv: Sequence[str], environment: dict[str, str], notes: Path) -> subprocess.Popen[bytes]:
    own = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    words = [sys.executable, "-m", "medvlm", *argv]
    with open(notes / f"{rank}.err", "wb") as errors:
        # In a session of its own, Ctrl-C in the terminal reaches it from here only, once.
        return subprocess.Popen(
            words,
            env=own,
            stdin=subprocess.DEVNULL,
            stdout=None if rank == 0 else subprocess.DEVNULL,
            stderr=None if rank == 0 else errors,
            start_new_session=True,
        )


@contextlib.contextmanager
def _passed_on(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Pass each Ctrl-C, and SIGTERM from a scheduler, on to every process."""

    def pass_on(number: int, frame: Any) -> None:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)

    old = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError):
            # Only the main thread may do this.
            old[number] = signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _watch(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until all have ended; when one has failed, only a while for the others, who may wait for it."""
    failed: float | None = None
    while any(child.poll() is None for child in children):
        if failed is None and any(child.returncode for child in children):
            failed = time.monotonic()
        if failed is not None and time.monotonic() - failed > GRACE:
            return
        time.sleep(0.05)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what still runs, with the workers that it started."""
    for child in children:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _raise(notes: Path, codes: Sequence[int]) -> None:
    """Raise what the processes ended with: the cause, not what it led to in the others."""
    found = _notes(notes)
    if any(code < 0 for code in codes):
        # One that a signal ended leaves no note; the others say that it has gone.
        found = [note for note in found if not _led_to(note)]
    if found:
        note = found[0]
        if note["code"] == 130:
            raise KeyboardInterrupt
        raise _error(note["message"], note["code"])
    failed = [(rank, code) for rank, code in enumerate(codes) if code]
    rank, code = min(failed, key=lambda one: (one[1] != -signal.SIGKILL, one[1] > 0))
    if code == -signal.SIGKILL:
        raise ResourceError(
            f"the process of device {rank} was killed without a word, as when a system runs out of memory; set a "
            "smaller train.batch_size, or take fewer devices; --resume goes on from the last checkpoint"
        )
    if code in (130, -signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt
    lines = (notes / f"{rank}.err").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise MedvlmError(f"the process of device {rank} ended with code {code}{': ' + lines[-1] if lines else ''}")


def tell_run(run: Path) -> None:
    """Tell the one that started this process which run it trains now."""
    folder = os.environ.get(NOTES)
    if folder is not None and Path(folder).is_dir():
        write_text(Path(folder) / _RUN, str(run.absolute()))


def _mark_failed(notes: Path, message: str) -> None:
    """Write into run.json that the run failed, and why, where its own process could not, or knew a consequence only."""
    with contextlib.suppress(OSError, MedvlmError):
        run = Run(Path((notes / _RUN).read_text(encoding="utf-8")))
        with run.owned():
            facts = run.facts()
            status, error = facts.get("status"), str(facts.get("error"))
            if status == RUNNING or (status == FAILED and _second_hand(error)):
                now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                run.record({**facts, "status": FAILED, "finished": now, "error": message})


def _error(message: str, code: int) -> MedvlmError:
    kinds = {kind.exit_code: kind for kind in (UsageError, InputError, AccessError, LicenseError, ResourceError)}
    error = kinds.get(code, MedvlmError)(message)
    error.exit_code = code
    return error


def _notes(folder: Path) -> list[dict[str, Any]]:
    """Return what processes failed with: causes before consequences, then the earlier first."""
    found = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            found.append(json.loads(path.read_text(encoding="utf-8")))
    return sorted(found, key=lambda note: (_led_to(note), note["at"]))


def _led_to(note: Mapping[str, Any]) -> bool:
    """Return True for the note of a process that failed because another had gone."""
    return note["code"] == 1 and _second_hand(note["message"])


def _second_hand(message: str) -> bool:
    """Return True for what is said when another process has gone."""
    return any(words in message for words in _SECOND_HAND)


def leave_note(message: str, code: int) -> bool:
    """Leave the line that this process fails with for the one that started it; False where none did."""
    folder = os.environ.get(NOTES)
    if folder is None or not Path(folder).is_dir():
        return False
    write_json(
        Path(folder) / f"{os.environ.get('RANK', '0')}.json", {"message": message, "code": code, "at": time.time()}
    )
    return True


def first_cause(message: str, wait: float = 3.0) -> str | None:
    """Return what another process failed with, where this one's error only says that it has gone; for run.json."""
    folder = os.environ.get(NOTES) if _second_hand(message) else None
    until = time.monotonic() + wait
    while folder is not None:
        found = _notes(Path(folder))
        if found:
            return str(found[0]["message"])
        if time.monotonic() > until:
            return None
        time.sleep(0.05)
    return None
