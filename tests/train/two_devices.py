"""Trainings by two processes that share every update, over gloo on the CPU; run as a program by `train_on_two`.

Each process runs all trainings it is given, one after the other, in folders of their own: one start pays for all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def train_on_two(folder: Path, trainings: Mapping[str, Mapping[str, Any]], limit: float = 300.0) -> None:
    """Train each of `trainings` in `folder/<name>` with two processes.

    Args:
        folder: to work in.
        trainings: name -> sharding (ddp or fsdp2), recipe (as of a file), resume, stop (a step to stop after), before
            (module:function of this folder, called first).
        limit: seconds; past them, the processes hang, and the test fails.
    """
    (folder / "trainings.json").write_text(json.dumps(trainings), encoding="utf-8")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    started = []
    for rank in range(2):
        own = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        with open(folder / f"{rank}.log", "wb") as log:
            words = [sys.executable, __file__, str(folder / "trainings.json")]
            started.append(subprocess.Popen(words, env=own, stdout=log, stderr=log))
    try:
        codes = [process.wait(limit) for process in started]
    finally:
        for process in started:
            process.kill()
    logs = "\n".join((folder / f"{rank}.log").read_text(encoding="utf-8")[-3000:] for rank in range(2))
    assert codes == [0, 0], logs


def _train(name: str, training: Mapping[str, Any], folder: Path) -> None:
    from medvlm.cli.common import progress
    from medvlm.recipe import load_members
    from medvlm.train import callbacks, devices
    from medvlm.train.group import train_members

    devices._here = dataclasses.replace(devices.begin(), sharding=training["sharding"])
    own = folder / name
    if devices.here().first:
        own.mkdir(exist_ok=True)
        (own / "recipe.yaml").write_text(json.dumps(training["recipe"]), encoding="utf-8")
    devices.here().wait()
    os.chdir(own)
    if "before" in training:
        module, function = training["before"].split(":")
        getattr(__import__(module), function)()
    members = load_members("recipe.yaml", [])
    asked = callbacks.Interrupt.on_step_end

    def stop(self: Any, args: Any, state: Any, control: Any, **more: Any) -> Any:
        # Of one process alone: the other has to hear of it.
        self.asked = self.asked or (devices.here().rank == 1 and state.global_step == training.get("stop"))
        return asked(self, args, state, control, **more)

    callbacks.Interrupt.on_step_end = stop
    try:
        with progress("", quiet=True) as bar:
            resume = bool(training.get("resume"))
            list(train_members(members, members.names, "test", lambda _: contextlib.nullcontext(bar), resume=resume))
    except KeyboardInterrupt:
        if training.get("stop") is None:
            raise
    finally:
        callbacks.Interrupt.on_step_end = asked
    devices.here().wait()


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parent))
    listed = Path(sys.argv[1])
    for name, training in json.loads(listed.read_text(encoding="utf-8")).items():
        _train(name, training, listed.parent)
    from medvlm.train import devices

    devices.end()
