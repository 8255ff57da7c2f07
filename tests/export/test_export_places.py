"""No path of the machine that an export was made on goes with it; what is local is known by name and fingerprint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from exporting import answer_of, code_of, picture, run_here, with_data

from medvlm.cli import run as cli
from medvlm.export.places import Hider, is_copy, last
from medvlm.models.locate import weights_fingerprint
from medvlm.resources import PACKAGE

Make = Callable[..., Path]


@pytest.mark.parametrize("flags", [[], ["--merge"]], ids=["adapter", "merged"])
def test_no_file_holds_a_path(made: Make, data: Path, tmp_path: Path, flags: list[str]) -> None:
    base = tmp_path / "models" / "my-base"
    shutil.copytree(PACKAGE / "models" / "tiny_base", base)
    weights = weights_fingerprint(base)
    place = {"model.parts": {"model": str(base)}, "model.weights": {"model": weights}, "model.id": str(base)}
    run = made({"model.id": str(base), "data.0.path": str(data)}, {**with_data(data, "CC-BY-NC-4.0"), **place})
    assert cli(["export", str(run), "--out", "exported", "-q", *flags]) == 0
    for path in Path("exported").rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            assert str(tmp_path) not in path.read_text(encoding="utf-8"), path
    recipe = yaml.safe_load(Path("exported/recipe.yaml").read_text(encoding="utf-8"))
    assert (recipe["model"]["id"], recipe["data"][0]["path"]) == ("my-base", "phantoms")
    card = Path("exported/README.md").read_text(encoding="utf-8")
    assert f"my-base (a local copy; fingerprint of its weights `{str(weights)[:16]}`)" in card
    assert "base model my-base: not in the license registry" in Path("exported/LICENSE.md").read_text(encoding="utf-8")
    assert "my-base" in Path("exported/NOTICE").read_text(encoding="utf-8")
    if not flags:
        config = json.loads(Path("exported/adapter_config.json").read_text(encoding="utf-8"))
        assert config["base_model_name_or_path"] == "my-base"


def test_the_reader_names_the_copy(made: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tmp_path / "models" / "my-base"
    shutil.copytree(PACKAGE / "models" / "tiny_base", base)
    run = made({"model.id": str(base), "model.image_size": 140}, {"model.resampled_position_embeddings": True})
    assert cli(["export", str(run), "--out", "exported", "-q"]) == 0
    picture()
    code = code_of(Path("exported/README.md"))
    assert 'bases = {"model": "my-base"}  # your local copies of them' in code
    assert run_here(code.replace('"my-base"', repr(str(base))), capsys) == answer_of(run, "caption en")


def test_what_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert not is_copy("google/paligemma-3b-pt-448")
    assert not is_copy("medvlm/tiny-base")
    assert all(map(is_copy, ("/a/b", "./a/b", "~/a", "a", "a/b/c.gguf", "owner/name")))
    assert [last(path) for path in ("/a/b/", "a/b.gguf", "./a/../c")] == ["b", "b.gguf", "c"]


def test_paths_in_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hide = Hider({"/a/b": "b", "/a/b/c": "c", "data/x": "x", "y": "y"})
    said = f"/a/b/c and /a/b, not /a/bc or /z/a/b; data/x: {tmp_path}/data/x and {tmp_path}/y"
    assert hide.text(said) == "c and b, not /a/bc or /z/a/b; x: x and y"
    assert hide.json({"k": ["/a/b", 1, None]}) == {"k": ["b", 1, None]}
