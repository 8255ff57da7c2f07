"""A run in which every text that comes from outside is hostile: markup, control signs, turned and endless words."""

from __future__ import annotations

import json
from pathlib import Path

from fabricated_run import HOSTILE as MARKUP
from fabricated_run import facts, make_run, rows, scores, write_predictions

TURNED = "\u202egnp.exe\u202c \u2066x\u2069 \u200b\u200d\ufeff"
HOSTILE = (
    f"{MARKUP} </script></style></textarea></title>--><base href=//x><b onclick='a'> javascript:alert(3) {TURNED} "
    f'\x1b[31mred data:text/html,<svg/onload=alert(4)> http://x.test/?a="><i> {"w" * 400} \udfff \x85'
)


def hostile_run(root: Path) -> Path:
    """Return a run in which every text that comes from outside is hostile."""
    path = make_run(root, n=9)
    told = facts(HOSTILE, Path(HOSTILE))
    told |= {
        "command": HOSTILE,
        "status": HOSTILE,
        "versions": {HOSTILE: HOSTILE},
        "model": {"id": HOSTILE, HOSTILE: HOSTILE},
    }
    told["data"][0] |= {"title": HOSTILE, "licenses": {HOSTILE: 3}, "fingerprint": HOSTILE}
    told["census"] = {HOSTILE: {"total": 1}}
    told["license"] = {
        "commercial_use": HOSTILE,
        "may_share": HOSTILE,
        "license": HOSTILE,
        "reasons": [HOSTILE],
        "obligations": [HOSTILE],
    }
    (path / "run.json").write_text(json.dumps(told))
    (path / "recipe.yaml").write_text(HOSTILE.encode("utf-8", "replace").decode())
    spent = json.loads((path / "compute.json").read_text())
    (path / "compute.json").write_text(json.dumps(spent | {"device": HOSTILE}))
    table = scores(9)
    table |= {"signatures": {HOSTILE: HOSTILE}, "constant": {HOSTILE: HOSTILE}, "decoding": {HOSTILE: HOSTILE}}
    table["rows"][HOSTILE] = {HOSTILE: 1.0}
    table["comparisons"][HOSTILE] = {HOSTILE: {"difference": 1, "low": 0, "high": 2}}
    (path / "eval" / "test" / "scores.json").write_text(json.dumps(table))
    changes = {"id": HOSTILE, "prediction": HOSTILE, "references": [HOSTILE], "task": HOSTILE, "prompt": HOSTILE}
    changes |= {"language": HOSTILE, "modality": HOSTILE, "source": HOSTILE, "group": HOSTILE}
    write_predictions(path, [row | changes for row in rows(9, 0)])
    return path
