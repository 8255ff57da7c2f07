"""What a folder that medvlm exported may be used for goes on with it, as long as its weights are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medvlm.licenses import exported, policy, registry
from medvlm.models.locate import weights_fingerprint


def export(folder: Path, **verdict: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"weights")
    told = {
        "weights": weights_fingerprint(folder),
        "license": {"commercial_use": "yes", "may_share": "yes", "license": "Apache-2.0", "reasons": [], **verdict},
        "data": [{"licenses": {"CC-BY-4.0": 3, "CC0-1.0": 1}}],
    }
    (folder / "export.json").write_text(json.dumps(told), encoding="utf-8")
    return folder


def test_what_was_recorded_holds(tmp_path: Path) -> None:
    name = str(export(tmp_path / "tower"))
    found = policy.verdict_of_parts({name: registry.of_model(name)}, {"CC0-1.0": 5})
    assert (found.commercial_use, found.may_share) == ("yes", "yes")
    # Whom the first data's license wants named is to be named further on.
    assert any("CC-BY-4.0" in line for line in found.obligations)


@pytest.mark.parametrize(("use", "share"), [("no", "yes"), ("conditional", "conditional"), ("unknown", "unknown")])
def test_nothing_becomes_more_permissive(tmp_path: Path, use: str, share: str) -> None:
    name = str(export(tmp_path / "tower", commercial_use=use, may_share=share, license="none yet: unknown"))
    found = policy.verdict_of_parts({name: registry.of_model(name)}, {"CC0-1.0": 5})
    order = ["no", "unknown", "conditional", "yes"]
    assert order.index(found.commercial_use) <= order.index(use)
    assert order.index(found.may_share) <= order.index(share)


def test_other_weights_are_unknown(tmp_path: Path) -> None:
    folder = export(tmp_path / "tower")
    assert registry.of_model(str(folder)) is not None
    (folder / "model.safetensors").write_bytes(b"others")
    assert registry.of_model(str(folder)) is None
    (folder / "export.json").write_text('{"weights"', encoding="utf-8")
    assert registry.of_model(str(folder)) is None


def test_weights_that_differ_in_the_middle_alone_are_others(tmp_path: Path) -> None:
    folder = export(tmp_path / "tower")
    weights = bytearray(3 << 20)
    (folder / "model.safetensors").write_bytes(weights)
    told = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    told |= {"weights": weights_fingerprint(folder), "sha256": exported.digests(folder)}
    (folder / "export.json").write_text(json.dumps(told), encoding="utf-8")
    assert registry.of_model(str(folder)) is not None
    weights[len(weights) // 2] = 1
    (folder / "model.safetensors").write_bytes(weights)
    assert weights_fingerprint(folder) == told["weights"]
    assert registry.of_model(str(folder)) is None
