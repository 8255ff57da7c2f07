"""What lies in an export of an adapter, that its card's code runs, and what is never replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from exporting import answer_of, code_of, picture, run_here
from huggingface_hub import ModelCard

from medvlm.cli import run as cli
from medvlm.report.sections import NOT_EVALUATED
from medvlm.runs import Run

Make = Callable[..., Path]


@pytest.fixture
def exported(made: Make) -> Path:
    run = made()
    assert cli(["export", str(run), "--out", "exported", "-q"]) == 0
    return Path("exported")


def test_adapter_processor_recipe_and_card(exported: Path) -> None:
    held = {path.name for path in exported.iterdir()}
    wanted = {"adapter_config.json", "adapter_model.safetensors", "processor_config.json", "tokenizer.json"}
    assert wanted | {"README.md", "NOTICE", "recipe.yaml", "export.json"} <= held
    config = json.loads((exported / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "medvlm/tiny-base"
    told = json.loads((exported / "export.json").read_text(encoding="utf-8"))
    assert set(told["files"]) == held - {"export.json"}
    assert not [path for path in Path().iterdir() if path.name.startswith(".exported")]


def test_the_front_matter_is_as_the_hub_reads_it(exported: Path) -> None:
    card = ModelCard.load(exported / "README.md")
    front = card.data.to_dict()
    assert front["license"] == "apache-2.0"
    assert (front["pipeline_tag"], front["library_name"]) == ("image-text-to-text", "peft")
    # Neither the packaged base nor a folder of data is to be found on the Hub.
    assert "base_model" not in front
    assert "datasets" not in front
    for title in ("Base", "Data", "Recipe", "Scores", "Compute", "How to load", "Intended use and limits", "Licenses"):
        assert f"\n## {title}\n" in card.content
    assert NOT_EVALUATED in card.content
    assert "## Merging" not in card.content
    assert "phantoms | 8 | CC0-1.0 (8) | ffffffffffffffff" in card.content
    assert "not a medical device" in card.content.lower()


def test_the_packaged_base_is_looked_up(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture()
    assert run_here(code_of(exported / "README.md"), capsys) == answer_of(Path("runs/adapted"), "caption en")


def test_an_adapter_on_four_bits(made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run = made({"quantization.mode": "nf4", "quantization.compute_dtype": "float32"})
    assert cli(["export", str(run), "--out", "exported", "-q"]) == 0
    picture()
    code = code_of(Path("exported/README.md"))
    assert "quantization_config=four_bits" in code
    assert run_here(code, capsys) == answer_of(run, "caption en")


def test_a_resized_model_loads_through_medvlm(made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    # The base's 112 px become 140: plain peft would load it without an error, and be wrong.
    run = made(
        {"model.image_size": 140, "data.0.tasks": ["vqa"]},
        {"model.image_size": 140, "model.resampled_position_embeddings": True},
    )
    assert cli(["export", str(run), "--out", "exported", "-q"]) == 0
    picture()
    code = code_of(Path("exported/README.md"))
    assert "load_export" in code
    assert run_here(code, capsys) == answer_of(run, "answer en is there a pleural effusion?")


def evaluated(run: Path, scores: dict[str, Any]) -> None:
    (run / "eval" / "test").mkdir(parents=True)
    (run / "eval" / "test" / "scores.json").write_text(json.dumps(scores), encoding="utf-8")


def test_scores_stand_beside_their_controls(made: Make) -> None:
    run = made()
    values = {"model": 0.5, "base": 0.1, "constant": 0.2, "blank": 0.3}
    rows = {name: {"bleu_4": value} for name, value in values.items()}
    evaluated(
        run, {"n": 7, "rows": rows, "signatures": {"bleu": "sig-of-bleu"}, "decoding": {"num_beams": 1}, "limit": None}
    )
    assert cli(["export", str(run), "--out", "exported", "-q"]) == 0
    card = Path("exported/README.md").read_text(encoding="utf-8")
    assert "| metric | this model | base model, untuned | best constant answer | this model, blank images |" in card
    assert "| BLEU-4 | 0.5000 | 0.1000 | 0.2000 | 0.3000 |" in card
    assert "### Split test" in card
    assert "Split test, n = 7; decoding num beams 1." in card
    assert "sig-of-bleu" in card
    assert "The model was not tried without its images" in card
    assert NOT_EVALUATED not in card


def test_intervals_controls_and_leakage_are_on_the_card_and_in_its_index(made: Make) -> None:
    from fabricated_run import scores_of_two

    run = made()
    evaluated(run, scores_of_two(60))
    assert cli(["export", str(run), "--out", "exported", "-q"]) == 0
    card = ModelCard.load(Path("exported/README.md"))
    for said in (
        "CIDEr 2.650 \\[2.61, 2.70\\]",
        "the CIDEr difference is +1.000",
        "| CIDEr | 2.6000 | 1.1000 | 0.8000 | +1.800 \\[+0.06, +2.10\\] | better | 50 % |",
        "answers that change, picture blank: 84 %",
        "4 of 60 test samples also lie in the training data",
        "arXiv:2603.03437",
        "| xray | 30 |",
    ):
        assert said in card.content, said
    found = {result.metric_type: result for result in card.data.eval_results}
    assert {key: found[key].metric_value for key in ("bleu_4", "cider")} == {"bleu_4": 0.58, "cider": 2.65}
    assert {result.dataset_split for result in found.values()} == {"test"}
    assert {result.dataset_name for result in found.values()} == {"phantoms"}
    assert found["cider"].metric_name == "CIDEr"


def test_a_base_and_data_on_the_hub_are_named(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from medvlm.export import card, rights

    run = Run(made({"model.id": "google/paligemma-3b-pt-448", "model.revision": "abc"}, {"model.attention": "sdpa"}))
    found = rights.of_run(run)
    told = card.Export(run, run.recipe(), found, {}, "me/chest", False, True, "", False, ["me/data"])
    front = yaml.safe_load(card.render(told).split("---\n")[1])
    assert front["license"] == "gemma"
    assert front["base_model"] == ["google/paligemma-3b-pt-448"]
    assert (front["base_model_relation"], front["datasets"]) == ("adapter", ["me/data"])
    text = card.render(told)
    assert 'attn_implementation="sdpa", revision="abc"' in text
    assert "LicenseRef-scancode-gemma-tou-2024-04-01" in text
    assert found.notices() == [
        "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
    ]


def test_nothing_is_replaced_unasked(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (exported / "mine.txt").write_text("mine")
    assert cli(["export", "runs/adapted", "--out", "exported"]) == 3
    assert "--overwrite" in capsys.readouterr().err
    assert (exported / "mine.txt").exists()
    assert cli(["export", "runs/adapted", "--out", "exported", "--overwrite", "-q"]) == 0
    assert not (exported / "mine.txt").exists()
    Path("other").mkdir()
    Path("other/thesis.tex").write_text("mine")
    assert cli(["export", "runs/adapted", "--out", "other", "--overwrite"]) == 3
    assert "is no export of medvlm" in capsys.readouterr().err
    assert [path.name for path in Path("other").iterdir()] == ["thesis.tex"]


def test_an_export_that_fails_leaves_the_old_one(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medvlm.export import card

    def full(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    monkeypatch.setattr(card, "render", full)
    assert cli(["export", "runs/adapted", "--out", "exported", "--overwrite", "-q"]) == 7
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before
    assert sorted(path.name for path in Path().iterdir()) == ["exported", "runs"]


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--into", "original"], 2, "add --merge"),
        (["--merge", "--into", "dequantized"], 2, "was not quantized"),
        (["--merge", "--into", "there"], 2, "expected original or dequantized"),
    ],
)
def test_wrong_flags(made: Make, capsys: pytest.CaptureFixture[str], flags: list[str], code: int, said: str) -> None:
    run = made()
    assert cli(["export", str(run), "--out", "exported", *flags]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not Path("exported").exists()


def test_a_base_that_changed_is_refused(made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(facts={"model.weights": {"model": "0" * 64}})
    assert cli(["export", str(run), "--out", "exported"]) == 3
    assert "other weights" in capsys.readouterr().err
