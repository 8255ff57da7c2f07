"""VQA-RAD as published, whose test images are all in train too: told, and set right by a merge."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_sets import prepared, rows_of, sample

from medvlm.data.inspect import stats
from medvlm.data.inspect.check import check
from medvlm.data.inspect.folder import open_set
from medvlm.data.merging.combine import combine
from medvlm.data.prepare import Settings, prepare
from medvlm.data.sources.vqa_rad import VqaRadSource


@pytest.mark.realdata
def test_the_official_test_set_stays_whole_and_its_images_leave_train(realdata: Path, tmp_path: Path) -> None:
    rad = tmp_path / "rad"
    prepare(VqaRadSource([realdata / "vqa_rad"]), rad, Settings("any", split="official"), workers=1)
    found = stats.gather(open_set(rad))
    assert found["splits"] == {"train": 3064, "test": 451}
    assert found["shared"]["train/test"]["images"] == found["shared"]["train/test"]["of_images"] == 203
    assert found["pictures"]["formats"] == {"JPEG": 314}
    result = check(open_set(rad), True, lambda done, total: None)
    assert result.broken == []
    assert any("203 pictures are in several" in note for note in result.notes)

    other = prepared(tmp_path / "other", [sample("mine", 1)])
    manifest = combine([rad, other], tmp_path / "out", workers=1).manifest
    test, train = rows_of(tmp_path / "out", "test"), rows_of(tmp_path / "out", "train")
    assert len(test) == 451
    assert not {row["sha256"] for row in test} & {row["sha256"] for row in train}
    held_out = {row["sha256"] for row in rows_of(rad, "test")}
    own = [row for row in rows_of(rad, "train") if row["sha256"] not in held_out]
    # Near duplicates of test images leave too.
    assert len(train) <= len(own) + 1
    assert manifest["drops"]["shared with a held-out split"] == 3064 + 1 - len(train)
    assert manifest["leakage"]["made"]["train/test"]["near_images"] == 0
