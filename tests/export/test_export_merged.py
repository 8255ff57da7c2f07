"""Merged exports: plain transformers loads them, and the card states what merging changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exporting import answer_of, code_of, picture, run_code, with_data
from PIL import Image

from medvlm.cli import run as cli
from medvlm.data.mixture import DataFolder
from medvlm.resources import PACKAGE

Make = Callable[..., Path]


def evaluated(run: Path, data: Path) -> Path:
    """Write predictions of the test split, as `medvlm eval` does, as far as they are read."""
    from medvlm.data.mixture import Mixture
    from medvlm.recipe.models import DataPart

    names = [text["id"] for text in Mixture([DataPart(path=str(data))], "test", 0).texts()]
    (run / "eval" / "test").mkdir(parents=True)
    lines = "".join(json.dumps({"id": name, "prediction": "", "references": [""]}) + "\n" for name in names)
    (run / "eval" / "test" / "predictions.jsonl").write_text(lines, encoding="utf-8")
    return run


def told(folder: str = "exported") -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((Path(folder) / "export.json").read_text(encoding="utf-8"))
    return facts


def test_both_forms_load_without_medvlm_and_answer_as_the_run_does(
    made: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    # The packaged base under a path, so that the code has nothing to look up.
    base = str(PACKAGE / "models" / "tiny_base")
    run = made({"model.id": base})
    assert cli(["export", str(run), "--out", "adapter", "-q"]) == 0
    assert cli(["export", str(run), "--merge", "--out", "exported", "-q"]) == 0
    assert "what merging changed was not measured (not evaluated)" in capsys.readouterr().err
    picture()
    card = Path("exported/README.md").read_text(encoding="utf-8")
    assert "library_name: transformers" in card
    assert "## Merging\n\nNot measured: not evaluated." in card
    codes = [code_of(Path(name) / "README.md") for name in ("adapter", "exported")]
    assert 'base = "tiny_base"  # your local copy of it\n' in codes[0]
    assert "medvlm" not in "".join(codes)
    assert ["peft" in code for code in codes] == [True, False]
    # In one process, which is what takes time.
    assert (
        run_code("\n".join(codes).replace('"tiny_base"', repr(base))).splitlines() == [answer_of(run, "caption en")] * 2
    )


def test_the_difference_is_measured(made: Make, data: Path) -> None:
    run = evaluated(made({"data.0.path": str(data)}, with_data(data, "CC0-1.0")), data)
    assert cli(["export", str(run), "--merge", "--out", "exported", "-q"]) == 0
    found = told()["difference"]
    assert (found["rows"], found["split"], found["same_answers"]) == (4, "test", 4)
    assert found["largest_logit"] == pytest.approx(largest_by_hand(run, data), rel=0.05, abs=2e-6)
    assert found["largest_logit"] < 1e-3
    card = Path("exported/README.md").read_text(encoding="utf-8")
    assert f"largest difference of a logit {found['largest_logit']:.3g}, same greedy answer in 4 of 4 (100%)" in card


def largest_by_hand(run: Path, data: Path) -> float:
    """The same with transformers and peft alone: each row alone, through the processor's own batch."""
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from medvlm.data.mixture import Mixture
    from medvlm.recipe.models import DataPart

    base = AutoModelForImageTextToText.from_pretrained(PACKAGE / "models" / "tiny_base", dtype=torch.float32)
    tuned = PeftModel.from_pretrained(base, run / "adapter").eval()
    merged = AutoModelForImageTextToText.from_pretrained("exported", dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained("exported", backend="pil")
    rows = Mixture([DataPart(path=str(data))], "test", 0)
    largest = 0.0
    for place, text in enumerate(rows.texts()):
        image: Image.Image = rows.image(place)
        ids = processor.tokenizer("<image>" * 64 + "<bos>caption en\n", add_special_tokens=False)["input_ids"]
        start = len(ids)
        ids += processor.tokenizer(text["target"], add_special_tokens=False)["input_ids"] + [1]
        inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        inputs["token_type_ids"] = torch.tensor([[0] * start + [1] * (len(ids) - start)])
        inputs["pixel_values"] = processor.image_processor(image, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            difference = tuned(**inputs).logits[0, start - 1 : -1] - merged(**inputs).logits[0, start - 1 : -1]
        largest = max(largest, float(difference.abs().max()))
    return largest


@pytest.mark.parametrize("into", ["original", None])
def test_after_four_bit_training(made: Make, data: Path, into: str | None) -> None:
    recipe = {"data.0.path": str(data), "quantization.mode": "nf4", "quantization.compute_dtype": "float32"}
    run = evaluated(made(recipe, with_data(data, "CC0-1.0")), data)
    flags = ["--into", into] if into else []
    assert cli(["export", str(run), "--merge", "--out", "exported", "-q", *flags]) == 0
    found = told()
    assert found["merged_into"] == (into or "dequantized")
    # The dequantized base is what was trained on; the original one is off by what four bits lose.
    exact = found["difference"]["largest_logit"] < 1e-3
    assert exact is (found["merged_into"] == "dequantized")
    card = Path("exported/README.md").read_text(encoding="utf-8")
    assert re.search(rf"merged into the {found['merged_into']} base", card)


def test_data_that_changed_is_not_measured_on(made: Make, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = with_data(data, "CC0-1.0") | {"data.0.fingerprint": DataFolder.open(str(data)).fingerprint()[::-1]}
    run = evaluated(made({"data.0.path": str(data)}, facts), data)
    assert cli(["export", str(run), "--merge", "--out", "exported", "-q"]) == 0
    assert "has changed since" in capsys.readouterr().err
    assert "has changed since" in told()["difference"]
