"""The gallery: which predictions it shows, their images, the marks in their texts, and how large all of it gets."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import lxml.html
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fabricated_run import make_run, write_predictions
from fabricated_run import rows as captions
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image, ImageFilter

from medvlm.evaluate import cider
from medvlm.evaluate.metrics import Options, Segments, by_segment
from medvlm.report import gallery, html, markdown, marks, thumbnails
from medvlm.report.context import DataSet, Evaluation, Prediction, read
from medvlm.report.document import Case, Cases, Document, Piece, Section


def prediction(id: str, said: str, *references: str, task: str = "caption", **row: object) -> Prediction:
    return Prediction(id, said, list(references), task, "", dict(row, task=task))


def scores_by_hand(predictions: list[Prediction]) -> list[float]:
    """Return the CIDEr of each by the metric's own hooks."""
    metric = cider.Cider(Options())
    segments = Segments([row.prediction for row in predictions], [row.references for row in predictions])
    return by_segment(metric, metric.statistics(segments))["cider"].tolist()


def test_captions_are_ranked_by_the_cider_of_each(tmp_path: Path) -> None:
    predictions = read(make_run(tmp_path)).evaluations[0].predictions
    chosen = [(kind, one) for kind, one in gallery.choose(predictions) if kind != "contradiction"]
    opposite = {one.row.id for kind, one in gallery.choose(predictions) if kind == "contradiction"}
    assert [kind for kind, _ in chosen] == ["best"] * 4 + ["median"] * 4 + ["worst"] * 4
    assert len({one.row.id for _, one in chosen} | opposite) == 12 + len(opposite)
    own = dict(zip((row.id for row in predictions), scores_by_hand(predictions), strict=True))
    every = sorted((score for id, score in own.items() if id not in opposite), reverse=True)
    assert [one.score for kind, one in chosen if kind == "best"] == every[:4]
    assert sorted(one.score for kind, one in chosen if kind == "worst") == sorted(every[-4:])
    assert {one.measure for _, one in chosen} == {"CIDEr"}


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 12, 13])
def test_small_galleries_take_each_case_once(tmp_path: Path, n: int) -> None:
    predictions = read(make_run(tmp_path, n=max(n, 1))).evaluations[0].predictions[:n]
    chosen = gallery.choose(predictions)
    assert len({one.row.id for _, one in chosen}) == len(chosen) == min(n, 12)


def test_contradictions_stand_apart_and_first_those_that_score_high() -> None:
    same = [prediction(f"same{number}", "Clear lungs.", "Clear lungs.") for number in range(8)]
    denied = prediction("denied", "Small pleural effusion.", "No pleural effusion.")
    side = prediction("side", "There is a nodule in the right upper lung.", "There is a nodule in the left upper lung.")
    chosen = gallery.choose([*same, denied, side], each=2)
    first, second = (one for kind, one in chosen if kind == "contradiction")
    assert [kind for kind, _ in chosen[:2]] == ["contradiction"] * 2
    assert (first.row.id, second.row.id) == ("side", "denied")
    assert first.score > second.score
    assert len(chosen) == len({one.row.id for _, one in chosen})


def test_a_prediction_is_held_against_the_reference_that_is_nearest_to_it() -> None:
    references = ("Pleural effusion on both sides.", "No pleural effusion. The heart is normal.")
    chosen = gallery.choose([prediction("a", "No pleural effusion. Normal heart.", *references)])
    assert [kind for kind, _ in chosen] != ["contradiction"]


def test_each_task_has_its_own_cases_and_answers_are_right_or_wrong() -> None:
    rows = [prediction(f"c{number}", "Clear lungs.", f"Finding {number}.") for number in range(6)]
    rows += [prediction(f"y{number}", "yes" if number % 2 else "no", "Yes", task="vqa") for number in range(4)]
    rows += [prediction("o", "left upper lobe", "left lobe", task="vqa", answer_type="open")]
    found = [case for case in gallery.cases(Evaluation("test", {}, rows), [], each=9) if case.task == "vqa"]
    assert len(found) == 5
    told = {case.id: case.told for case in found}
    assert told["y1"] == "right"
    assert told["y0"] == "wrong"
    # Two of three words are the reference's two: precision 2/3, recall 1.
    assert told["o"] == "wrong, token F1 0.800"


def test_an_answer_on_the_other_side_contradicts() -> None:
    rows = [
        prediction("other", "The RIGHT side", "the left side", task="vqa"),
        prediction("same", "on the left", "left", task="vqa"),
        prediction("both", "left and right", "left", task="vqa"),
    ]
    found = gallery.cases(Evaluation("test", {}, rows), [])
    (case,) = [case for case in found if case.kind == "contradiction"]
    assert (case.id, case.flips) == ("other", ["answer: left and right are exchanged"])
    assert [piece.text for piece in case.prediction_marks if piece.mark == "opposite"] == ["RIGHT"]
    assert [piece.text for piece in case.reference_marks[0] if piece.mark == "opposite"] == ["left"]


def test_images_are_those_of_the_ids(tmp_path: Path) -> None:
    run = read(make_run(tmp_path))
    folder = run.data[0].folder
    assert folder is not None
    wanted = {f"PMC{number:05d}/fig1/-/caption/0" for number in (0, 17, 59)}
    found = dict(gallery.find_rows([folder], "test", wanted))
    assert {name: row["image"]["path"] for name, row in found.items()} == {
        name: f"{int(name[3:8])}.png" for name in wanted
    }


def test_a_broken_image_leaves_the_case(tmp_path: Path) -> None:
    assert thumbnails.Thumbnails(1)(b"\x89PNG no picture") is None
    shard = next((make_run(tmp_path).parents[1] / "data").rglob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:100])
    assert dict(gallery.find_rows([shard.parents[1]], "test", {"PMC00000/fig1/-/caption/0"})) == {}


def test_an_empty_prediction_many_references_and_one_huge_word() -> None:
    rows = [
        prediction("empty", "", "Clear lungs."),
        prediction("many", "one", *(f"{number} lungs" for number in range(9)), "one"),
        prediction("huge", "a" * 20_000, "Clear lungs."),
    ]
    found = {case.id: case for case in gallery.cases(Evaluation("test", {}, rows), [])}
    assert found["many"].references[0] == "one"
    assert (len(found["many"].references), found["many"].more_references) == (5, 5)
    shown = "".join(piece.text for piece in found["huge"].prediction_marks)
    assert shown.startswith("aaa")
    assert shown.endswith("… (16,000 more characters)")
    document = Document("t", [], [], [Section("Cases", [Cases(list(found.values()))])])
    assert "(empty)" in html.render(document)
    assert "prediction: (empty)" in markdown.render(document)


def words(pieces: list[Piece], mark: str) -> list[str]:
    return [piece.text for piece in pieces if piece.mark == mark]


def test_marks_by_hand() -> None:
    left, right = marks.compare("No effusion. The heart is big, and round.", "no effusion; The heart is very big.")
    assert words(left, "missing") == ["and round"]
    assert words(right, "extra") == ["very"]
    left, right = marks.compare("左肺有结节", "右肺没有结节")
    assert (words(left, "missing"), words(right, "extra")) == (["左"], ["右", "没"])
    left, right = marks.compare("No effusion.", "Effusion.", [((3, 11), (0, 8))])
    assert (words(left, "opposite"), words(right, "opposite")) == (["effusion"], ["Effusion"])
    assert words(left, "missing") == ["No"]


TEXTS = st.lists(
    st.sampled_from(["no", "Effusion", "heart", ",", "- ", "\n", "左", "é", "*", "~~a", "<b>", "_x_"]), max_size=12
).map(" ".join)


@given(TEXTS, TEXTS)
def test_marks_lose_nothing_and_leave_the_same_words_in_both(reference: str, said: str) -> None:
    left, right = marks.compare(reference, said)
    assert "".join(piece.text for piece in left) == reference
    assert "".join(piece.text for piece in right) == said

    def kept(pieces: list[Piece]) -> list[str]:
        return re.findall(r"\w+", " ".join(words(pieces, "")).casefold())

    assert kept(left) == kept(right)
    assert all(re.search(r"\w", text) for text in words(left, "missing") + words(right, "extra"))


def test_two_very_long_texts_are_compared_at_once() -> None:
    left, right = marks.compare("a b " * 20_000 + "only", "b a " * 20_000 + "other")
    assert words(left, "missing") == ["only"]
    assert words(right, "extra") == ["other"]


def test_marks_are_said_and_not_only_colored() -> None:
    case = Case(
        "contradiction", 0.5, "a", "caption", "", ["No effusion here"], "Effusion",
        reference_marks=[[Piece("No effusion", "opposite"), Piece(" here", "missing")]],
        prediction_marks=[Piece("Effusion", "opposite"), Piece(" too", "extra")],
        flips=["effusion: one says that it is there, the other that it is not"],
    )  # fmt: skip
    document = Document("t", [], [], [Section("Cases", [Cases([case])])])
    page, text = html.render(document), markdown.render(document)
    for tag, label in (("del", "missing"), ("ins", "extra"), ("mark", "contradiction")):
        assert f'<{tag}><span class="heard">[{label}: </span>' in page
    assert "***No effusion*** ~~here~~" in text
    assert "***Effusion*** **too**" in text
    assert "contradiction: effusion: one says" in text


@given(TEXTS, TEXTS, st.integers(0, 9), st.integers(1, 9))
def test_markdown_shows_the_marks_to_any_reader(reference: str, said: str, start: int, size: int) -> None:
    parser = MarkdownIt("commonmark").enable("strikethrough")
    span = (start, min(start + size, len(reference)))
    left, right = marks.compare(reference, said, [(span, (0, 0))] if span[0] < span[1] else [])
    for text, pieces in ((reference, left), (said, right)):
        tree = lxml.html.fragment_fromstring(parser.renderInline(markdown.marked(pieces)), create_parent="div")
        assert tree.text_content() == " ".join(text.split())
        for tag, mark in (("s", "missing"), ("strong", "extra")):
            found = [" ".join(one.text_content().split()) for one in tree.xpath(f"//{tag}[not(ancestor-or-self::em)]")]
            wanted = [" ".join(piece.split()) for piece in words(pieces, mark)]
            if not words(pieces, "opposite"):
                assert found == wanted


def radiograph(seed: int) -> bytes:
    """Return a picture with the size, the contrast and the grain of a radiograph, as JPEG."""
    chance = np.random.default_rng(seed)
    height, width = 600 + 10 * (seed % 7), 640
    shape = np.asarray(Image.radial_gradient("L").resize((width, height)), float)
    grain = chance.normal(0, 14, shape.shape) + 40 * np.sin(np.arange(width) / 9)[None, :]
    picture = Image.fromarray(np.clip(0.7 * shape + grain, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=92)
    return out.getvalue()


@pytest.mark.parametrize("format", ["WEBP", "JPEG"])
@pytest.mark.parametrize("count", [1, 100, 1000, 10_000])
def test_thumbnails_keep_to_their_budget_whatever_the_picture(count: int, format: str) -> None:
    noise = Image.effect_noise((640, 480), 200)
    out = io.BytesIO()
    noise.save(out, "PNG")
    make = thumbnails.Thumbnails(count)
    make.format = format
    for data in (out.getvalue(), radiograph(0)):
        found = make(data)
        assert found is not None
        uri, size = found
        encoded = base64.b64decode(uri.partition(",")[2])
        assert len(encoded) <= make.limit
        assert len(encoded) * count <= thumbnails.BUDGET
        assert Image.open(io.BytesIO(encoded)).size == size
    if count == 1:
        assert max(size) == 512


def test_a_thousand_images_stay_below_20_megabytes_and_bounded_memory(tmp_path: Path) -> None:
    n = 1000
    pictures = [radiograph(seed) for seed in range(20)]
    folder = tmp_path / "data"
    (folder / "data").mkdir(parents=True)
    rows = captions(n, 0)
    for row in rows:
        row["prediction"] = f"{row['prediction']} " + "The lungs are clear and the heart is of normal size. " * 6
    table = pa.table(
        {"id": [row["id"] for row in rows], "image": [{"bytes": pictures[number % 20]} for number in range(n)]}
    )
    pq.write_table(table, folder / "data" / "test-00000-of-00001.parquet", row_group_size=100)
    stored = sum(len(pictures[number % 20]) for number in range(n))
    del table
    predictions = [Prediction(r["id"], r["prediction"], r["references"], "caption", "", r) for r in rows]
    before = psutil.Process().memory_info().rss
    found = gallery.cases(Evaluation("test", {}, predictions), [DataSet(str(folder), {}, folder, {})], each=250)
    assert len(found) >= 750
    found = (found * 2)[:n]
    page = html.render(Document("t", [], [], [Section("Cases", [Cases(found)])]))
    grown = psutil.Process().memory_info().rss - before
    assert page.count("<img src=") == n
    assert len(page.encode()) < 20_000_000
    assert grown < 3 * len(page) + stored / 2, "the pictures are not held as they are stored"
    assert page.count('loading="lazy"') == n


def test_real_answers_have_their_images(realdata: Path, tmp_path: Path) -> None:
    file = realdata / "vqa_rad" / "testset.json"
    if not file.is_file():
        pytest.skip("no vqa_rad/testset.json")
    asked = [
        row for row in json.loads(file.read_text())[:100] if (realdata / "vqa_rad/images" / row["image_name"]).is_file()
    ]
    folder = tmp_path / "data"
    (folder / "data").mkdir(parents=True)
    images = [{"bytes": (realdata / "vqa_rad/images" / row["image_name"]).read_bytes()} for row in asked]
    ids = [str(number) for number in range(len(asked))]
    pq.write_table(pa.table({"id": ids, "image": images}), folder / "data" / "test-0.parquet")
    rows = [
        prediction(id, "no", str(row["answer"]), task="vqa", answer_type=row["answer_type"])
        for id, row in zip(ids, asked, strict=True)
    ]
    found = gallery.cases(Evaluation("test", {}, rows), [DataSet("", {}, folder, {})])
    assert found
    assert all(case.image for case in found)


def test_the_gallery_of_a_run_with_contradictions(tmp_path: Path) -> None:
    run = make_run(tmp_path, n=9)
    changed = captions(9, 0)
    changed[2] |= {"prediction": "No pneumothorax.", "references": ["Large pneumothorax."], "language": "en"}
    write_predictions(run, changed)
    context = read(run)
    (case,) = [one for one in gallery.cases(context.evaluations[0], context.data) if one.kind == "contradiction"]
    assert case.id == changed[2]["id"]
    assert case.image is not None
    assert case.size is not None
    assert case.credit == "CC-BY-4.0, https://creativecommons.org/licenses/by/4.0/, phantom"
