"""Two copies of the tiny base in Ray's workers answer as one process does."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from predict_rows_kit import Rows, predicted, recipe_of
from prepared import write_folder

from medvlm.data.sources.phantom.base_grammar import base_samples
from medvlm.errors import AccessError, InputError, UsageError
from medvlm.evaluate import engines
from medvlm.io import write_json
from medvlm.runs import Run, open_run

sys.path.append(str(Path(__file__).resolve().parent.parent / "train"))
from two_devices import train_on_two

ray = pytest.importorskip("ray", reason="the extra medvlm[ray] is not installed")

ONE, TWO = engines.Choice(), engines.Choice(workers=2)


@pytest.fixture
def baseline(tmp_path: Path) -> Run:
    """The folder of a published model, nothing trained."""
    folder = tmp_path / "baseline"
    folder.mkdir()
    write_json(folder / "run.json", {"status": "finished", "kind": "baseline"})
    return Run(folder)


@pytest.fixture
def no_ray_left() -> Iterator[None]:
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("no_ray_left")
def test_two_copies_answer_as_one_process(tmp_path: Path, baseline: Run) -> None:
    recipe = recipe_of()
    alone = predicted(Rows(20), engines.load(ONE, baseline, recipe), tmp_path / "one.jsonl")
    spread = predicted(Rows(20), engines.load(TWO, baseline, recipe), tmp_path / "two.jsonl")
    assert spread == alone
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def copies() -> list[psutil.Process]:
    """Return Ray's processes below this one that hold a model."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "ray::_Copy" in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("no_ray_left")
def test_a_copy_that_is_killed_is_begun_anew(tmp_path: Path, baseline: Run) -> None:
    recipe = recipe_of()
    engine = engines.load(TWO, baseline, recipe)
    killed: list[int] = []

    class Killing:
        """Kills a copy once answers come."""

        def each(self, batches: Iterator[engines.Batch]) -> Iterator[tuple[int, list[str]]]:
            for done in engines.answered(engine, batches):
                if not killed:
                    victim = copies()[0]
                    victim.kill()
                    killed.append(victim.pid)
                yield done

        def answers(self, images: list[object], prefixes: list[str]) -> list[str]:
            raise AssertionError("asked batch by batch")

    rows = predicted(Rows(20), Killing(), tmp_path / "two.jsonl")
    assert killed
    assert rows == predicted(Rows(20), engines.load(ONE, baseline, recipe), tmp_path / "one.jsonl")


@pytest.mark.slow
@pytest.mark.usefixtures("no_ray_left")
def test_an_error_in_a_copy_is_one_line_here(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    write_json(folder / "run.json", {"status": "finished"})
    with pytest.raises(InputError, match="neither adapter/ nor model/ holds weights"):
        engines.load(TWO, Run(folder), recipe_of()).answers([Rows().image(0)], ["caption en"])


def test_no_cluster(baseline: Run) -> None:
    with pytest.raises(AccessError, match=r"127\.0\.0\.1:9.*or use --workers 1"):
        engines.load(engines.Choice(ray_address="127.0.0.1:9"), baseline, recipe_of())


def test_no_workers(baseline: Run) -> None:
    with pytest.raises(UsageError, match="--workers 0: expected 1 or more"):
        engines.check(engines.Choice(workers=0), baseline, recipe_of())


@pytest.mark.slow
@pytest.mark.usefixtures("no_ray_left")
def test_two_copies_answer_as_one_for_a_model_that_two_devices_shared(tmp_path: Path) -> None:
    listed = [next(s for s in base_samples(5, i) if s.prompt == "keywords") for i in range(10)]
    data = write_folder(tmp_path / "data", {"train": listed[:8], "validation": listed[8:9], "test": listed[9:]})
    raw = {
        "name": "t",
        "model": {"id": "medvlm/tiny-base", "dtype": "float32"},
        "quantization": {"mode": "nf4", "compute_dtype": "float32", "storage": "float32"},
        "adapters": {"language_model": {"kind": "lora", "r": 4}, "projector": "full"},
        "data": [{"path": str(data)}],
        "train": {"learning_rate": 1e-3, "batch_size": 2, "max_steps": 2, "trackers": []},
        "eval": {"max_new_tokens": 6, "batch_size": 3},
    }
    train_on_two(tmp_path, {"shared": {"sharding": "fsdp2", "recipe": raw}})
    run = open_run(None, tmp_path / "shared" / "runs")
    recipe = run.recipe()
    alone = predicted(Rows(12), engines.load(ONE, run, recipe), tmp_path / "one.jsonl", recipe)
    spread = predicted(Rows(12), engines.load(TWO, run, recipe), tmp_path / "two.jsonl", recipe)
    assert spread == alone
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
