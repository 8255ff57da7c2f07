"""Sharing: what is refused, what is warned of, what goes with a model, and the push itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from exporting import with_data
from fake_hub import FakeHub, Repo, serve
from huggingface_hub import constants

from medvlm.cli import run as cli
from medvlm.errors import AccessError, InputError
from medvlm.export import write
from medvlm.export.write import Settings, export
from medvlm.models.locate import weights_fingerprint

Make = Callable[..., Path]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serve() as running:
        yield running


def test_where_sharing_is_forbidden(made: Make, hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(facts={"data.0.licenses": {"CC-BY-ND-4.0": 3, "CC0-1.0": 5}})
    assert cli(["export", str(run), "--out", "exported", "--push", "me/chest"]) == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert "not pushed: sharing this model is forbidden: training data, 3 samples: CC-BY-ND-4.0" in line
    assert not Path("exported").exists()
    assert hub.asked == []
    assert cli(["export", str(run), "--out", "exported"]) == 0
    assert "warning: keep this export to yourself: " in capsys.readouterr().err
    front = yaml.safe_load(Path("exported/README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert (front["license"], front["license_name"]) == ("other", "none-private-use-only")
    assert "private" in Path("exported/LICENSE.md").read_text(encoding="utf-8")


def test_an_unknown_license_is_no_permission(made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(facts={"data.0.licenses": {}})
    assert cli(["export", str(run), "--out", "exported", "--push", "me/chest"]) == 6
    assert "not known to be allowed" in capsys.readouterr().err
    assert cli(["export", str(run), "--out", "exported", "-q"]) == 0
    front = yaml.safe_load(Path("exported/README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert (front["license"], front["license_name"]) == ("other", "unknown")


def test_names_of_authors_go_with_the_model(made: Make, data: Path) -> None:
    run = made(facts=with_data(data, "CC-BY-4.0"))
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    again = {**facts["data"][0], "tasks": ["other"]}
    (run / "run.json").write_text(json.dumps({**facts, "data": [*facts["data"], again]}), encoding="utf-8")
    assert cli(["export", str(run), "--out", "exported", "-q"]) == 0
    told = json.loads(Path("exported/export.json").read_text(encoding="utf-8"))
    assert told["weights"] == weights_fingerprint(Path("exported"))
    (copied,) = Path("exported/attribution").iterdir()
    assert copied.read_bytes() == (data / "attribution.tsv").read_bytes()
    assert "name the authors of the CC-BY-4.0 material" in Path("exported/NOTICE").read_text(encoding="utf-8")


@pytest.mark.parametrize("gone", ["file", "changed"])
def test_without_them_it_is_not_pushed(
    made: Make, data: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str], gone: str
) -> None:
    facts = with_data(data, "CC-BY-4.0")
    if gone == "file":
        (data / "attribution.tsv").unlink()
    else:
        facts["data.0.fingerprint"] = "0" * 64
    run = made(facts=facts)
    assert cli(["export", str(run), "--out", "exported", "--push", "me/chest"]) == 6
    assert "CC-BY-4.0 asks for the names of authors" in capsys.readouterr().err
    assert not Path("exported").exists()
    assert cli(["export", str(run), "--out", "exported"]) == 0
    assert "warning: CC-BY-4.0 asks for the names of authors" in capsys.readouterr().err
    assert hub.asked == []


def test_the_export_and_nothing_else_goes_up(made: Make, hub: FakeHub) -> None:
    from medvlm.runs import Run

    run, out = Run(made()), Path("exported")
    export(run, Settings(out, push="me/chest"), lambda _: None)
    (out / "secret.txt").write_text("mine")
    told = write.push(out, "me/chest", private=True, token=hub.token, endpoint=hub.endpoint)
    held = hub.repos["me/chest"]
    names = {path.name for path in out.iterdir()} - {"secret.txt"}
    assert set(held.files) - {".gitattributes"} == names
    assert all((out / name).read_bytes() == held.files[name] for name in names)
    assert held.private
    assert told.url == f"{hub.endpoint}/me/chest"
    # The card names the repository that it lies in.
    assert 'place = "me/chest"' in held.files["README.md"].decode()
    # Again, over its own upload; not over somebody else's, nor into a public one.
    write.push(out, "me/chest", private=True, token=hub.token, endpoint=hub.endpoint)
    hub.repos["me/other"] = Repo(True, {"model.safetensors": b"mine"})
    with pytest.raises(InputError, match=r"holds something else \(model\.safetensors\)"):
        write.push(out, "me/other", private=True, token=hub.token, endpoint=hub.endpoint)
    held.private = False
    with pytest.raises(InputError, match="public"):
        write.push(out, "me/chest", private=True, token=hub.token, endpoint=hub.endpoint)
    with pytest.raises(AccessError, match="hf auth login"):
        write.push(out, "me/chest", private=False, token="hf_bad", endpoint=hub.endpoint)


def test_offline_is_one_line(made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run = made()
    assert cli(["export", str(run), "--out", "exported", "--push", "me/chest", "-q"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "me/chest: the push did not get through" in line
    # What was written stays, to be pushed again.
    assert Path("exported/README.md").is_file()
