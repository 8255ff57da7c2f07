"""Statistics against a slow count of the rows as pyarrow reads them."""

from __future__ import annotations

import io
import random
import shutil
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from small_sets import edit_manifest, png, prepared, rewrite, rows_of, sample, to_schema_2

from medvlm.data.inspect import stats, stats_text
from medvlm.data.inspect.folder import open_set
from medvlm.data.sample import Image, Sample
from medvlm.errors import UsageError


def mixed(count: int) -> list[Sample]:
    chance = random.Random(3)
    found = []
    for number in range(count):
        split = chance.choice(["train", "train", "validation", "test"])
        changes: dict[str, Any] = {"organ": chance.choice([None, "lung", "brain"]), "modality": chance.choice("ab")}
        if chance.random() < 0.3:
            changes |= {
                "task": "caption",
                "prompt": "",
                "target": " ".join(["word"] * chance.randint(1, 30)) + f" {number}",
            }
        else:
            changes |= {"target": chance.choice(["Yes", "yes.", "no", "the left lung"]), "answer_type": "open"}
            changes["prompt"] = f"What is {number % 3}?"
        shade = chance.randrange(20)
        size = (10 + shade % 4, 7)
        image = Image(png(shade, size), "p.png")
        more = [Image(png(900 + number), "v.png")] if number % 7 == 0 else []
        found.append(sample(f"g{number}", number, split=split, **{**changes, "image": image, "more_images": more}))
    return found


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("stats") / "mixed", mixed(120))


@pytest.fixture(scope="session")
def told(folder: Path) -> dict[str, Any]:
    return stats.gather(open_set(folder), "organ")


@pytest.mark.parametrize("column", ["task", "organ", "modality", "license", "answer_type"])
def test_counts_by_split(folder: Path, told: dict[str, Any], column: str) -> None:
    slow = Counter((row[column] or "none stated", row["in"]) for row in rows_of(folder))
    flat = {(value, split): n for value, found in told["counts"][column].items() for split, n in found.items()}
    assert flat == slow


def test_lengths_of_targets(folder: Path, told: dict[str, Any]) -> None:
    captions = sorted(len(row["target"].split()) for row in rows_of(folder) if row["task"] == "caption")
    assert told["words"]["caption"]["min"] == captions[0]
    assert told["words"]["caption"]["max"] == captions[-1]
    assert told["words"]["caption"]["median"] == statistics.median_low(captions)


def test_answers_are_compared_as_words_and_captions_are_none(folder: Path, told: dict[str, Any]) -> None:
    plain = {"Yes": "yes", "yes.": "yes", "no": "no", "the left lung": "left lung"}
    questions = [row for row in rows_of(folder) if row["task"] == "vqa"]
    slow = Counter(plain[row["target"]] for row in questions)
    answers = told["answers"]
    assert answers["questions"] == len(questions)
    assert {one["answer"]: one["count"] for one in answers["most_common"]} == slow
    assert sum(one["share"] for one in answers["most_common"]) == pytest.approx(1, abs=1e-3)
    best = Counter(plain[row["target"]] for row in questions if row["in"] == "train").most_common(1)[0][0]
    test = [plain[row["target"]] == best for row in questions if row["in"] == "test"]
    assert answers["constant"]["answer"] == best
    assert answers["constant"]["share"]["test"] == pytest.approx(sum(test) / len(test), abs=1e-4)


def test_values_of_a_column_are_told_apart(folder: Path, told: dict[str, Any]) -> None:
    assert told["by"]["column"] == "organ"
    for value, found in told["by"]["values"].items():
        rows = [row for row in rows_of(folder) if (row["organ"] or "none stated") == value]
        assert found["samples"] == Counter(row["in"] for row in rows)
        assert found["words"]["max"] == max(len(row["target"].split()) for row in rows)


def test_pictures_are_measured_once_each(folder: Path, told: dict[str, Any]) -> None:
    rows = rows_of(folder)
    different = {row["sha256"]: row["image"]["bytes"] for row in rows}
    views = [view["bytes"] for row in rows for view in row["more_images"]]
    sizes = [PIL.Image.open(io.BytesIO(content)).size for content in [*different.values(), *views]]
    pictures = told["pictures"]
    assert pictures["different"] == len(different)
    assert pictures["formats"] == {"PNG": len(sizes)}
    assert pictures["width"]["max"] == max(width for width, _ in sizes)
    assert pictures["width"]["median"] == statistics.median_low(sorted(width for width, _ in sizes))
    assert pictures["a_sample"] == Counter(str(1 + len(row["more_images"])) for row in rows)


def test_what_is_counted_here_agrees_with_what_prepare_measured(folder: Path, tmp_path: Path) -> None:
    measured = stats.gather(open_set(folder), pictures=False)["shared"]
    older = to_schema_2(Path(shutil.copytree(folder, tmp_path / "older")))
    counted = stats.gather(open_set(older), pictures=False)["shared"]
    assert any(found["images"] and found["texts"] for found in counted.values())
    for pair, found in counted.items():
        own = dict(measured[pair])
        # Further views are pictures there, and these are all different; here the first picture of a sample counts.
        assert own.pop("of_images") - found.pop("of_images") == sum(
            bool(row["more_images"]) for row in rows_of(folder, pair.split("/")[1])
        )
        del own["near_images"]
        assert found == own


def test_every_number_is_printed(told: dict[str, Any]) -> None:
    text = "\n".join(stats_text.lines(told))
    for number in (told["samples"], told["pictures"]["different"], told["answers"]["questions"]):
        assert f"{number:,}" in text
    assert "always answering" in text
    assert "none stated: question_type" in text
    assert max(map(len, text.splitlines())) <= 130


def test_a_text_cannot_steer_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b[31mred\x1b]0;title\x07"
    folder = prepared(tmp_path / "evil", [sample("a", 1, organ=evil, target=evil)])
    edit_manifest(folder, lambda manifest: manifest["card"].update(title=evil))
    assert "\x1b" not in "\n".join(stats_text.lines(stats.gather(open_set(folder), "organ")))


def test_a_picture_that_is_none_is_counted(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "bad", [sample("a", 1), sample("b", 2)])
    rewrite(folder, lambda rows: rows[0].update(image={"bytes": b"GIF89a", "path": "x"}))
    assert stats.gather(open_set(folder))["pictures"]["formats"] == {"PNG": 1, "cannot be read": 1}


@pytest.mark.parametrize("column", ["image", "targets", "prompt", ""])
def test_columns_that_cannot_be_counted_by(folder: Path, column: str) -> None:
    with pytest.raises(UsageError, match="no column to count by"):
        stats.gather(open_set(folder), column)


def test_a_data_set_of_captions_has_no_answers(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "captions", [sample("a", 1, task="caption", prompt="", target="A lung.")])
    told = stats.gather(open_set(folder))
    assert "answers" not in told
    assert told["shared"] == {}
    assert "A lung" not in "\n".join(stats_text.lines(told))
