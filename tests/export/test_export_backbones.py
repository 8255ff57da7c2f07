"""The card's code of each backbone that is not PaliGemma or GIT-LLM asks the model as training and prediction did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exporting import code_of, picture, run_here
from PIL import Image

from medvlm.cli import run as cli
from medvlm.data.mixture import DataFolder
from medvlm.evaluate.predict import Predictor
from medvlm.export import difference
from medvlm.io import write_json
from medvlm.models import adapters, trained
from medvlm.models.backbones import BACKBONES
from medvlm.models.load import load_base
from medvlm.models.locate import locate, random_family, weights_fingerprint
from medvlm.recipe.load import check
from medvlm.recipe.resolve import write_resolved
from medvlm.runs import Run

LORA = {"language_model": {"kind": "lora", "r": 4}}
FULL = {"language_model": "frozen", "projector": "full"}
PAIRS = [("where?", "left"), ("is there a nodule?", "yes"), ("is there a pleural effusion?", "no")]
ASKED = "is there a pleural effusion?"
TEXTS = {"candidates": {"vqa": {"": ["no finding", "a pleural effusion"]}}}


def finished(backbone: str, base: str, way: dict[str, Any], data: Path | None = None, **more: Any) -> Run:
    """A run of an untrained base, what it trains moved from where it began."""
    values: dict[str, Any] = {
        "name": "tuned",
        "model": {"id": base, "backbone": backbone, "dtype": "float32", "image_size": 56},
        "adapters": way,
        "data": [{"path": str(data or "data"), "tasks": ["vqa"]}],
        "prompts": {"vqa": "{prompt}"},
        "text": {"max_prefix_tokens": 64, "max_suffix_tokens": 16},
        "eval": {"max_new_tokens": 6, "batch_size": 1},
        **more,
    }
    recipe = check(values, "test")
    loaded = load_base(recipe)
    run = Run(Path("runs/tuned"))
    run.path.mkdir(parents=True)
    fitted = loaded.backbone.fit(loaded.model, PAIRS)
    if fitted:
        run.keep_fitted(fitted)
    kind = BACKBONES.get(backbone)
    model = adapters.apply(loaded.model, recipe.adapters, kind)
    adapters.trainable_in_float32(model)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    trained.save(model, loaded.processor, run.path, base)
    write_resolved(recipe, run.path / "recipe.yaml")
    fingerprint = DataFolder.open(str(data)).fingerprint() if data else "f" * 64
    part = {"path": str(data or "data"), "fingerprint": fingerprint, "rows": 4, "licenses": {"CC0-1.0": 4}}
    facts = {"name": "tuned", "status": "finished", "recipe_hash": "h", "data": [part], "license": {}}
    write_json(
        run.path / "run.json",
        {**facts, "model": {**loaded.facts, "weights": {"model": weights_fingerprint(locate(base).path)}}},
    )
    return run


def told(run: Run) -> str:
    """What the run answers to image.png, and of a model that matches: to which of the card's texts it puts it."""
    recipe = run.recipe()
    loaded = trained.load(run, recipe)
    if loaded.backbone.output == "match":
        loaded.backbone.restore(loaded.model, TEXTS)
    return Predictor(loaded, recipe).answers([Image.open("image.png").convert("RGB")], [ASKED])[0]


@pytest.mark.parametrize("flags", [[], ["--merge"]], ids=["adapter", "merged"])
@pytest.mark.parametrize(
    ("backbone", "base", "way"),
    [
        ("git", "medvlm/tiny-random", LORA),
        ("blip2", "medvlm/tiny-random", LORA),
        pytest.param("blip2", "medvlm/tiny-random-instructblip", LORA, marks=pytest.mark.slow),
        ("generic", "medvlm/tiny-random-smolvlm", LORA),
        pytest.param("generic", "medvlm/tiny-random-llava", LORA, marks=pytest.mark.slow),
        pytest.param("generic", "medvlm/tiny-random-idefics", LORA, marks=pytest.mark.slow),
        ("flamingo", "medvlm/tiny-random", FULL),
        ("vilt", "medvlm/tiny-random", LORA | {"head": "full"}),
        ("contrastive", "medvlm/tiny-random-clip", {"vision_tower": {"kind": "lora", "r": 4}}),
    ],
)
def test_the_code_of_the_card_answers_as_the_run_does(
    backbone: str,
    base: str,
    way: dict[str, Any],
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run = finished(backbone, base, way)
    picture()
    assert cli(["export", str(run.path), "--out", "exported", "-q", *flags]) == 0, capsys.readouterr().err
    answer = told(run)
    assert answer
    assert run_here(code_of(Path("exported/README.md")), capsys) == answer


@pytest.mark.parametrize(
    ("backbone", "base", "flags"),
    [
        ("generic", "medvlm/tiny-random-smolvlm", []),
        ("git", "medvlm/tiny-random", []),
        pytest.param("git", "medvlm/tiny-random", ["--merge"], marks=pytest.mark.slow),
    ],
)
def test_the_code_of_the_card_of_a_four_bit_run_answers_as_it_does(
    backbone: str,
    base: str,
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    for part in BACKBONES.get(backbone).tiny(56, random_family(base)):
        part.save_pretrained("base")
    run = finished(backbone, "./base", LORA, quantization={"mode": "nf4", "compute_dtype": "float32"})
    picture()
    assert cli(["export", str(run.path), "--out", "exported", "-q", *flags]) == 0, capsys.readouterr().err
    answer = told(run)
    assert answer
    # Nothing of the base is asked for where the whole model lies in the export.
    if flags:
        shutil.rmtree("base")
    assert run_here(code_of(Path("exported/README.md")), capsys) == answer


def views(first: int, count: int) -> list[Any]:
    """Studies of two pictures each."""
    import io

    from small_sets import sample

    from medvlm.data.sample import Image as Stored

    def stored(seed: int) -> Stored:
        buffer = io.BytesIO()
        shades = np.random.default_rng(seed).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(shades).save(buffer, "PNG")
        return Stored(buffer.getvalue(), f"{seed}.png")

    return [
        sample(
            f"p{number}",
            number,
            image=stored(2 * number),
            more_images=[stored(2 * number + 1)],
            prompt="where?",
            target="right" if number % 2 else "left",
        )
        for number in range(first, first + count)
    ]


@pytest.mark.parametrize(
    ("backbone", "base", "way", "prompts"),
    [
        ("generic", "medvlm/tiny-random-smolvlm", LORA, {"shots": 1, "max_images": 2}),
        pytest.param("flamingo", "medvlm/tiny-random", FULL, {"shots": 1, "max_images": 2}, marks=pytest.mark.slow),
        ("vilt", "medvlm/tiny-random", LORA | {"head": "full"}, {}),
    ],
)
def test_merging_is_measured_on_rows_as_they_were_evaluated(
    backbone: str,
    base: str,
    way: dict[str, Any],
    prompts: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from prepared import write_folder

    monkeypatch.chdir(tmp_path)
    data = write_folder(tmp_path / "views", {"train": views(0, 4), "test": views(4, 3)})
    run = finished(backbone, base, way, data, prompts={"vqa": "{prompt}", **prompts})
    assert cli(["eval", str(run.path), "--controls", "none", "-q"]) == 0, capsys.readouterr().err
    rows = (run.evaluation("test") / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(row)["prediction"] for row in rows]
    seen: list[difference.Told] = []
    tell = difference.tell
    monkeypatch.setattr(difference, "tell", lambda *given: seen.append(tell(*given)) or seen[-1])
    assert cli(["export", str(run.path), "--merge", "--out", "exported", "-q"]) == 0, capsys.readouterr().err
    # What is measured beside the merged model is what evaluation asked, and so what it wrote.
    assert [told.answers for told in seen] == [answers, answers]
    facts = json.loads(Path("exported/export.json").read_text(encoding="utf-8"))["difference"]
    assert facts["largest_logit"] < 1e-3
