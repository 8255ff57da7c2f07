"""Uploads to a Hub on this machine: what goes up and what never does, and every refusal in one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub, Repo, serve
from fake_source import FakeSource, sample
from huggingface_hub import constants

from medvlm.data.cards import finish
from medvlm.data.prepare import Settings, prepare
from medvlm.data.push import check_licenses, push
from medvlm.errors import AccessError, InputError, LicenseError, UsageError


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    # The tests run with the Hub switched off; this one is on this machine.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serve() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished data set with a log and stores beside it."""
    out = tmp_path / "set"
    finish(out, prepare(FakeSource(6), out, Settings(license="any"), workers=1).manifest)
    for name in ("log.jsonl", ".work/ab/chunk.arrow", ".objects/PMC1/a.jpg", "data/notes.txt", "secret.txt"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    return out


def upload(folder: Path, hub: FakeHub, repo: str = "me/set", **changes: Any) -> Any:
    return push(folder, repo, **{"private": True, "token": hub.token, "endpoint": hub.endpoint, **changes})


def test_the_data_set_and_nothing_else_goes_up(hub: FakeHub, folder: Path) -> None:
    told = upload(folder, hub)
    held = hub.repos["me/set"].files
    shards = {f"data/{path.name}" for path in (folder / "data").glob("*.parquet")}
    plain = {"README.md", "manifest.json", "rejects.jsonl", "contact_sheet.png", "croissant.json"}
    assert shards | plain <= set(held) - {".gitattributes"}
    assert set(held) - shards - plain <= {".gitattributes", "articles.jsonl", "attribution.tsv"}
    assert all((folder / name).read_bytes() == data for name, data in held.items() if name != ".gitattributes")
    assert told.url == f"{hub.endpoint}/datasets/me/set"
    assert str(told) == f"{told.url} ({len(held) - 1} files, {told.bytes / 1e6:,.1f} MB)"
    assert told.bytes == sum(len(data) for data in held.values())


def test_private_or_public_as_asked(hub: FakeHub, folder: Path) -> None:
    upload(folder, hub, "me/one", private=True)
    upload(folder, hub, "me/two", private=False)
    assert {name: repo.private for name, repo in hub.repos.items()} == {"me/one": True, "me/two": False}


def test_again_replaces_shards_of_an_earlier_push(hub: FakeHub, folder: Path) -> None:
    upload(folder, hub)
    held = hub.repos["me/set"].files
    held["data/train-00007-of-00009.parquet"] = held["notes.md"] = b"old"
    upload(folder, hub)
    assert "data/train-00007-of-00009.parquet" not in held
    assert held["notes.md"] == b"old"


def test_a_repository_that_holds_something_else_is_left_alone(hub: FakeHub, folder: Path) -> None:
    hub.repos["me/set"] = Repo(True, {".gitattributes": b"", "README.md": b"mine", "data/a.parquet": b"mine"})
    with pytest.raises(InputError, match=r"me/set: this repository holds something else \(data/a\.parquet\)"):
        upload(folder, hub)
    assert hub.repos["me/set"].files["data/a.parquet"] == b"mine"
    assert not hub.repos["me/set"].commits


def test_a_public_repository_is_not_taken_for_a_private_one(hub: FakeHub, folder: Path) -> None:
    hub.repos["me/set"] = Repo(private=False)
    with pytest.raises(InputError, match="public"):
        upload(folder, hub)
    assert not hub.repos["me/set"].commits


def test_wrong_token_failing_hub_and_no_hub(hub: FakeHub, folder: Path) -> None:
    with pytest.raises(AccessError, match=r"me/set: the Hub refuses the push \(status 401: .*hf auth login"):
        upload(folder, hub, token="hf_bad")
    hub.fail_with = 400
    with pytest.raises(AccessError, match=r"status 400: no luck") as caught:
        upload(folder, hub)
    assert "\n" not in str(caught.value)
    with pytest.raises(AccessError, match="did not get through"):
        upload(folder, hub, endpoint="http://127.0.0.1:9")


def test_switched_off(hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AccessError, match="offline mode is enabled"):
        upload(folder, hub)
    assert hub.asked == []


def test_no_name_of_a_repository(hub: FakeHub, folder: Path) -> None:
    with pytest.raises(UsageError, match="no name of a repository"):
        upload(folder, hub, "a/b/c")


def test_only_whole_data_sets(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished data set"):
        upload(tmp_path / "nothing", hub)
    shard = next((folder / "data").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match="another size"):
        upload(folder, hub)
    assert hub.asked == []


def test_licenses_that_forbid_are_refused_before_the_hub_is_asked(hub: FakeHub, tmp_path: Path) -> None:
    unit = [sample("g", 0, 0, license="LicenseRef-all-rights-reserved"), sample("g", 1, 1, license=None)]
    prepare(FakeSource(3, special={0: unit}), tmp_path / "set", Settings(license="any"), workers=1)
    with pytest.raises(LicenseError, match=r"LicenseRef-all-rights-reserved \(1\), none stated \(1\)") as caught:
        upload(tmp_path / "set", hub)
    assert caught.value.exit_code == 6
    assert hub.asked == []


@pytest.mark.parametrize(
    ("license", "settings", "allowed"),
    [
        ("CC-BY-4.0", {"max_side": 512, "panels": "split"}, True),
        ("CC-BY-NC-SA-4.0", {"max_side": 512}, True),
        ("CC-BY-NC-ND-4.0", {"panels": "keep"}, True),
        ("CC-BY-NC-ND-4.0", {"max_side": 512}, False),
        ("CC-BY-ND-4.0", {"panels": "split"}, False),
        ("CC-BY-ND-4.0", {"task": "vqa"}, False),
        ("CC-BY-4.0", {"task": "vqa"}, True),
        ("CC-BY-ND-4.0", {"task": "caption"}, True),
        ("LicenseRef-PMC-TDM", {}, False),
        ("none stated", {}, False),
    ],
)
def test_what_may_be_pushed(license: str, settings: dict[str, Any], allowed: bool) -> None:
    manifest = {"settings": settings, "licenses": {"CC0-1.0": 5, license: 2}}
    if allowed:
        check_licenses(manifest)
        return
    with pytest.raises(LicenseError, match=r"\(2\)") as caught:
        check_licenses(manifest)
    assert ("no-derivatives" in str(caught.value)) is bool(settings)


def test_third_parties_are_asked_for(hub: FakeHub, tmp_path: Path) -> None:
    own = sample("a", 0, 0, third_party=True, license_scope="figure")
    borrowed = [
        sample("b", n, 1 + n, third_party=True, license_scope=scope) for n, scope in enumerate(("article", None))
    ]
    prepare(FakeSource(3, special={0: [own]}), tmp_path / "own", Settings("any"), workers=1)
    upload(tmp_path / "own", hub, "me/own")
    prepare(FakeSource(3, special={0: [own], 1: borrowed}), tmp_path / "set", Settings("any"), workers=1)
    with pytest.raises(LicenseError, match=r"2 samples .* third party.* b/fig[01]/.*--push-third-party"):
        upload(tmp_path / "set", hub)
    assert "me/set" not in hub.repos
    upload(tmp_path / "set", hub, third_party=True)
    assert "me/set" in hub.repos
