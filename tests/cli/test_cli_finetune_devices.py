"""`medvlm finetune --devices` and `--accelerate-config`: what is refused, what the plan says, and one end for all."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from prepared import write_folder

from medvlm.cli import run as medvlm
from medvlm.data.sources.phantom.base_grammar import base_samples
from medvlm.errors import InputError, MedvlmError, ResourceError, UsageError
from medvlm.runs import Run, open_run
from medvlm.train import launch
from medvlm.train.deepspeed_config import check, read

WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without GPU does")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("devices")
    listed = [next(s for s in base_samples(5, i) if s.prompt == "keywords") for i in range(12)]
    data = write_folder(folder / "data", {"train": listed[:8], "validation": listed[8:10], "test": listed[10:]})
    raw = {
        "name": "t",
        "model": {"id": str(tiny_folder), "dtype": "float32"},
        "adapters": {"language_model": {"kind": "lora", "r": 4}, "projector": "full"},
        "data": [{"path": str(data)}],
        "train": {"batch_size": 2, "gradient_accumulation": 3, "epochs": 6, "trackers": []},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert medvlm(["finetune", *arguments]) == code
    got = capsys.readouterr()
    if code:
        assert got.err.count("\n") == 1, "one line"
        assert got.err.startswith("medvlm: error: ")
    return " ".join((got.err if code else got.out).split())


def config(folder: Path, **changes: Any) -> str:
    raw = yaml.safe_load((launch.SHIPPED / "fsdp2.yaml").read_text(encoding="utf-8"))
    for key, value in changes.items():
        (raw["fsdp_config"] if key.startswith("fsdp_") else raw)[key] = value
    path = folder / "accelerate.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return str(path)


@WITHOUT_GPU
def test_the_plan_counts_all_devices(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = said(capsys, str(recipe), "--dry-run", "compute.peak_tflops=1e-6")
    two = said(capsys, str(recipe), "--dry-run", "--devices", "2", "compute.peak_tflops=1e-6")
    assert "steps: 12 of 2 x 3 samples" in one
    assert "steps: 6 of 2 x 3 x 2 devices samples" in two
    assert "on 2 devices" in two


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fsdp_version": 1}, "fsdp_version: FSDP 1 is not supported; expected 2"),
        ({"num_machines": 2}, "num_machines: training runs on the devices of one machine"),
        ({"mixed_precision": "bf16"}, "mixed_precision: the recipe's model.dtype decides"),
        ({"fsdp_activation_checkpointing": True}, "train.activation_checkpointing"),
        ({"distributed_type": "MEGATRON_LM"}, "expected MULTI_GPU, FSDP or DEEPSPEED"),
    ],
)
def test_what_is_not_done_here_is_refused(
    changes: dict[str, Any], words: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in said(capsys, str(recipe), "--accelerate-config", config(tmp_path, **changes), code=2)


def test_a_file_that_is_no_configuration(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "or one of ddp, fsdp2, zero2, zero3" in said(capsys, str(recipe), "--accelerate-config", "x.yaml", code=3)
    unknown = config(tmp_path, nonsense=1)
    assert "nonsense" in said(capsys, str(recipe), "--accelerate-config", unknown, code=3)
    assert "is a folder; expected a file" in said(capsys, str(recipe), "--accelerate-config", str(tmp_path), code=3)
    listed = tmp_path / "list.yaml"
    for content, words in (("- a\n", "a list"), ("", "nothing"), ("4\n", "one value")):
        listed.write_text(content, encoding="utf-8")
        line = said(capsys, str(recipe), "--accelerate-config", str(listed), code=3)
        assert f"it holds {words}; expected keys with values, such as num_processes" in line


@WITHOUT_GPU
def test_no_more_processes_than_processors(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[int] = []
    monkeypatch.setattr(launch, "start", lambda together, *_: started.append(together.count))
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    said(capsys, str(recipe), "--devices", "6")
    for words in (("--devices", "7"), ("--accelerate-config", config(tmp_path, num_processes=7))):
        line = said(capsys, str(recipe), *words, code=2)
        assert "7 devices: this machine has no GPU and 6 processors; expected at most 6" in line
    monkeypatch.setattr("os.cpu_count", lambda: None)
    # Two show that all is well on the smallest machine too.
    said(capsys, str(recipe), "--devices", "2")
    assert started == [6, 2]
    assert "on 7 devices" in said(capsys, str(recipe), "--dry-run", "--devices", "7", "compute.peak_tflops=1e-6")


def test_four_bits_in_bytes_cannot_be_shared(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    four_bits = (str(recipe), "quantization.mode=nf4", "train.optimizer=adamw_8bit")
    line = said(capsys, *four_bits, "--accelerate-config", "fsdp2", code=3)
    assert "quantization.storage: 'uint8': bytes cannot be shared by several devices; expected bfloat16" in line
    assert "train.optimizer: 'adamw_8bit'" in line


def test_the_launcher_is_started_once(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "leave out the launcher" in said(capsys, str(recipe), "--devices", "2", code=2)


def test_accelerates_own_environment_is_what_the_processes_get() -> None:
    together = launch.of_options(3, "fsdp2")
    assert together is not None
    assert (together.count, together.sharding) == (3, "fsdp2")
    held = together.environment
    assert held["ACCELERATE_USE_FSDP"] == "true"
    assert held["FSDP_VERSION"] == "2"
    assert held["FSDP_RESHARD_AFTER_FORWARD"] == "true"
    assert held["WORLD_SIZE"] == "3"
    assert "ACCELERATE_MIXED_PRECISION" not in held
    assert launch.of_options(1, None) is None
    alone = launch.of_options(2, None)
    assert alone is not None
    assert alone.sharding == "ddp"


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_the_shipped_deepspeed_configurations_are_whole(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    outer = load_config_from_file(str(launch.SHIPPED / f"{name}.yaml"))
    inner = outer.deepspeed_config["deepspeed_config_file"]
    found = read(launch.SHIPPED / inner)
    # With DeepSpeed installed, its own schema looks at it too.
    check(found, name)
    assert found["zero_optimization"]["stage"] == int(name[-1])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"zero_optimization": {"stage": 1}}, "zero_optimization.stage: 1: expected 2 or 3"),
        ({"train_batch_size": 8}, "train_batch_size: 8: the recipe's train.batch_size decides; expected 'auto'"),
        ({"optimizer": {"type": "Adam"}}, "optimizer: the recipe decides; leave it out"),
    ],
)
def test_a_deepspeed_configuration_leaves_to_the_recipe_what_is_its(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check({"zero_optimization": {"stage": 2}, **changed}, "x.json")


def test_deepspeeds_own_schema_is_asked() -> None:
    pytest.importorskip("deepspeed", reason="the extra medvlm[deepspeed] is not installed")
    for wrong in ({"reduce_bucket_size": -1}, {"overlap_comm": "maybe"}, {"nonsense": 1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            check({"zero_optimization": {"stage": 2, **wrong}}, "x.json")


@WITHOUT_GPU
def test_deepspeed_needs_its_extra_or_a_gpu(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import importlib.util

    installed = importlib.util.find_spec("deepspeed") is not None
    line = said(capsys, str(recipe), "--accelerate-config", "zero2", code=2 if installed else 5)
    assert ("DeepSpeed needs GPUs" if installed else "pip install 'medvlm[deepspeed]'") in line


def test_the_cause_is_told_and_not_what_it_led_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(launch.NOTES, str(tmp_path))
    monkeypatch.setenv("RANK", "0")
    assert launch.leave_note("RuntimeError: [gloo/pair.cc] Connection closed by peer (a defect ...)", 1)
    monkeypatch.setenv("RANK", "1")
    assert launch.leave_note("disk full", 7)
    with pytest.raises(MedvlmError, match="disk full") as raised:
        launch._raise(tmp_path, [1, 7])
    assert raised.value.exit_code == 7
    assert launch.first_cause("Connection closed by peer") == "disk full"
    assert launch.first_cause("the loss is not a number") is None


def gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Have the first of two processes say that the other has gone; return the run that they trained."""
    (tmp_path / "runs" / "2").mkdir(parents=True)
    monkeypatch.setenv(launch.NOTES, str(tmp_path))
    monkeypatch.setenv("RANK", "0")
    run = Run(tmp_path / "runs" / "2")
    launch.tell_run(run.path)
    assert launch.leave_note("RuntimeError: [gloo/pair.cc] Connection closed by peer (a defect ...)", 1)
    return run


@pytest.mark.parametrize("known", [{"status": "running"}, {"status": "failed", "error": "gloo: Connection reset"}])
def test_a_killed_process_is_the_cause_and_the_run_has_failed(
    known: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = gone(tmp_path, monkeypatch)
    run.record({"name": "t", **known})
    with pytest.raises(ResourceError, match="of device 1 was killed without a word") as raised:
        launch._raise(tmp_path, [1, -signal.SIGKILL])
    launch._mark_failed(tmp_path, str(raised.value))
    assert run.facts()["name"] == "t"
    assert (run.facts()["status"], run.facts()["error"]) == ("failed", str(raised.value))


def test_a_run_that_knows_why_it_ended_is_left_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = gone(tmp_path, monkeypatch)
    for known in ({"status": "finished"}, {"status": "failed", "error": "disk full"}):
        run.record(known)
        launch._mark_failed(tmp_path, "killed")
        assert run.facts() == known
    (tmp_path / "1.err").write_text("Fatal Python error: Segmentation fault", encoding="utf-8")
    with pytest.raises(MedvlmError, match=r"device 1 ended with code -11: .*Segmentation"):
        launch._raise(tmp_path, [1, -signal.SIGSEGV])


def test_a_process_ends_with_the_one_that_started_it() -> None:
    code = (
        "import ctypes, sys; from medvlm.train.launch import begin_together; begin_together(); "
        "number = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(number)); print(number.value); "
        "assert 'torch' not in sys.modules"
    )

    def begun(launcher: int) -> subprocess.CompletedProcess[str]:
        held = {**os.environ, launch.LAUNCHER: str(launcher)}
        return subprocess.run([sys.executable, "-c", code], env=held, capture_output=True, text=True, check=False)

    # PR_GET_PDEATHSIG, prctl(2)
    assert (begun(os.getpid()).stdout, begun(os.getpid()).returncode) == (f"{int(signal.SIGTERM)}\n", 0)
    assert begun(os.getppid()).returncode == -signal.SIGTERM


def test_no_port_is_chosen_that_another_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    held, place = launch._meeting()
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    # The first process would otherwise open the port, which is taken.
    stores = [next(torch.distributed.rendezvous(f"env://?rank={rank}&world_size=2"))[0] for rank in (0, 1)]
    stores[0].set("word", "said")
    assert stores[1].get("word") == b"said"
    assert held.port == int(place["MASTER_PORT"])


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"LOCAL_WORLD_SIZE": "2"}, "num_machines: training runs on the devices of one machine; expected 1"),
        ({"ACCELERATE_USE_FSDP": "true"}, "fsdp_version: FSDP 1 is not supported; expected 2"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "mixed_precision: the recipe's model.dtype decides"),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "dynamo_backend: set train.compile"),
    ],
)
def test_processes_that_another_launcher_started_are_held_to_the_same(held: dict[str, str], words: str) -> None:
    launch.check_environment({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "ACCELERATE_DYNAMO_BACKEND": "NO"})
    launch.check_environment({"WORLD_SIZE": "4", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"})
    with pytest.raises(UsageError, match=words):
        launch.check_environment({"WORLD_SIZE": "4", **held})


def test_deepspeeds_file_of_another_launcher_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    path = tmp_path / "zero.json"
    path.write_text('{"zero_optimization": {"stage": 1}}', encoding="utf-8")
    held = {"WORLD_SIZE": "2", "ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(path)}
    with pytest.raises(UsageError, match=r"zero\.json: zero_optimization\.stage: 1: expected 2 or 3"):
        launch.check_environment(held)


def test_what_asks_for_too_many_devices_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    file = config(tmp_path, num_processes=3)
    with pytest.raises(UsageError, match=r"^--devices 2: this machine has 1; expected 1 or fewer"):
        launch.of_options(2, file)
    with pytest.raises(UsageError, match=r"accelerate\.yaml: num_processes: 3: this machine has 1;"):
        launch.of_options(None, file)


def wait_for(path: Path, pattern: str, limit: float = 120) -> None:
    until = time.monotonic() + limit
    while not list(path.glob(pattern)):
        assert time.monotonic() < until, "it never came to its first step"
        time.sleep(0.2)


@pytest.mark.slow
@WITHOUT_GPU
def test_ctrl_c_once_ends_all_with_one_checkpoint_and_resume_goes_on(recipe: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "medvlm", "finetune", str(recipe), "train.max_steps=2000", "--devices", "2"]
    started = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_for(tmp_path, "runs/2*/metrics.jsonl")
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=120)
    assert started.returncode == 130
    assert out == ""
    assert [line for line in err.splitlines() if not line.startswith("finetune t:")] == [
        "stopping after this step, with a checkpoint; once more to stop at once",
        "medvlm: error: interrupted; what is done is kept; --resume goes on from it",
    ]
    run = Run(next((tmp_path / "runs").glob("2*")))
    assert run.facts()["status"] == "interrupted"
    last = json.loads((run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])["step"]
    assert (run.checkpoints / f"checkpoint-{last}" / "whole.json").is_file()


@pytest.mark.slow
@WITHOUT_GPU
def test_what_any_process_says_at_its_end_is_said_once(recipe: Path, tmp_path: Path) -> None:
    words = ["finetune", str(recipe), "train.learning_rate=1e30", "train.max_steps=5", "--accelerate-config", "fsdp2"]
    ended = subprocess.run(
        [sys.executable, "-m", "medvlm", *words], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert ended.returncode == 3
    assert ended.stderr.count("\n") == 1
    assert "is not a number; lower train.learning_rate" in ended.stderr
    run = Run(next((tmp_path / "runs").glob("2*")))
    assert run.facts()["status"] == "failed"
    assert "is not a number" in run.facts()["error"]
    with pytest.raises(InputError, match="this run failed"):
        open_run(run.path)


def processes_of(parent: int, count: int) -> list[int]:
    """Return the children of a process when there are so many."""
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    until = time.monotonic() + 120
    while len(found := [int(word) for word in listed.read_text(encoding="utf-8").split()]) < count:
        assert time.monotonic() < until, "its processes never started"
        time.sleep(0.02)
    return found


def ended(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return not stat.exists() or stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"


@pytest.mark.slow
@WITHOUT_GPU
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_the_system_kills(rank: int, recipe: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "medvlm", "finetune", str(recipe), "train.max_steps=2000", "--devices", "2", "-q"]
    started = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_for(tmp_path, "runs/2*/metrics.jsonl")
    # In the order in which they were started.
    os.kill(processes_of(started.pid, 2)[rank], signal.SIGKILL)
    _, err = started.communicate(timeout=120)
    assert started.returncode == 7
    assert err.count("\n") == 1
    assert f"the process of device {rank} was killed without a word" in err
    facts = Run(next((tmp_path / "runs").glob("2*"))).facts()
    assert facts["status"] == "failed"
    assert f"the process of device {rank} was killed" in facts["error"]


@pytest.mark.slow
@WITHOUT_GPU
@pytest.mark.parametrize("late", [False, True], ids=["at-the-start", "while-training"])
def test_nothing_trains_on_when_the_one_that_started_all_is_killed(late: bool, recipe: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "medvlm", "finetune", str(recipe), "train.max_steps=2000", "--devices", "2", "-q"]
    started = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    if late:
        wait_for(tmp_path, "runs/2*/metrics.jsonl")
    processes = processes_of(started.pid, 2)
    started.kill()
    started.wait()
    until = time.monotonic() + 60
    try:
        while not all(ended(process) for process in processes):
            assert time.monotonic() < until, "they train for nobody"
            time.sleep(0.1)
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
