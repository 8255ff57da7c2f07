"""`jsonl`: conversations written in every form come out as the turns they were made of, and what is lost is counted."""

from __future__ import annotations

import base64
import json
import pickle
import re
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts_own import LAYOUTS, pictures, png, write_table

from medvlm.data.pseudonyms import Key
from medvlm.data.sample import Reject, Sample
from medvlm.data.sources import records
from medvlm.data.sources.folder.columns import Columns
from medvlm.data.sources.jsonl import JsonlSource
from medvlm.data.sources.jsonl.formats import READERS, FormatError, detect
from medvlm.data.sources.own_fields import MISSING
from medvlm.errors import InputError

Talk = list[tuple[str, str]]


def read(source: JsonlSource) -> tuple[list[Sample], list[Reject]]:
    """Return all that a source yields, read as worker processes do."""
    units = source.units()
    source = pickle.loads(pickle.dumps(source))
    items = [item for unit in units for item in source.read(unit)]
    return [item for item in items if isinstance(item, Sample)], [item for item in items if isinstance(item, Reject)]


def one(folder: Path, *rows: Any, **options: Any) -> tuple[list[Sample], list[Reject]]:
    """Read records beside two pictures."""
    pictures(folder, 2)
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return read(JsonlSource([folder], data_license="CC0-1.0", **options))


def reasons(rejects: Sequence[Reject]) -> Counter[str]:
    return Counter(reject.reason for reject in rejects)


def url(number: int) -> str:
    return "data:image/png;base64," + base64.b64encode(png(number)).decode()


def llava(talk: Talk, number: int) -> dict[str, Any]:
    told = [{"from": role, "value": text} for turn in talk for role, text in zip(("human", "gpt"), turn, strict=True)]
    told[0]["value"] = f"<image>\n{told[0]['value']}"
    return {"id": "same", "image": f"{number:03}.png", "conversations": told}


def sharegpt(talk: Talk, number: int) -> dict[str, Any]:
    roles = ("user", "assistant")
    told = [{"role": role, "content": text} for turn in talk for role, text in zip(roles, turn, strict=True)]
    told[0]["content"] = "<image>" + told[0]["content"]
    system = {"role": "system", "content": "You are a radiologist."}
    return {"messages": [system, *told], "images": [f"{number:03}.png"]}


def openai(talk: Talk, number: int) -> dict[str, Any]:
    told: list[dict[str, Any]] = []
    for question, answer in talk:
        told.append({"role": "user", "content": [{"type": "text", "text": question}]})
        told.append({"role": "assistant", "content": answer})
    told[0]["content"].insert(0, {"type": "image_url", "image_url": {"url": url(number), "detail": "high"}})
    return {"messages": told}


def paligemma(talk: Talk, number: int) -> dict[str, Any]:
    return {"image": f"{number:03}.png", "prefix": talk[0][0], "suffix": talk[0][1]}


def m3it(talk: Talk, number: int) -> dict[str, Any]:
    picture = base64.b64encode(png(number)).decode()
    return {"instruction": talk[0][0], "inputs": "", "outputs": talk[0][1], "image_base64_str": [picture]}


WRITERS = {"llava": llava, "sharegpt": sharegpt, "openai": openai, "paligemma": paligemma, "m3it": m3it}
SINGLE = ("paligemma", "m3it")
LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")
TEXTS = st.text(LETTERS, min_size=1, max_size=30).map(str.strip).filter(
    lambda text: text and text.lower() not in MISSING and "<image>" not in text
)  # fmt: skip
TALKS = st.lists(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four")
    pictures(folder, 4)
    return folder


def written(folder: Path, rows: Sequence[Any], ending: str) -> Path:
    path = folder / f"own{ending}"
    if ending == ".json":
        path.write_text(json.dumps(list(rows)), "utf-8")
        return path
    return write_table(path, rows)


@settings(max_examples=150, deadline=None)
@given(talks=TALKS, format=st.sampled_from(list(WRITERS)), ending=st.sampled_from([".jsonl", ".json"]))
def test_conversations_come_out_as_they_were(four: Path, talks: list[Talk], format: str, ending: str) -> None:
    talks = [talk[:1] for talk in talks] if format in SINGLE else talks
    rows = [WRITERS[format](talk, number) for number, talk in enumerate(talks)]
    with tempfile.TemporaryDirectory() as folder:
        source = JsonlSource([written(Path(folder), rows, ending)], images=four, data_license="CC0-1.0")
        samples, rejects = read(source)
    assert source.look().format == format
    assert rejects == []
    assert [(s.prompt, s.target) for s in samples] == [turn for talk in talks for turn in talk]
    assert [s.image.data for s in samples] == [png(n) for n, talk in enumerate(talks) for _ in talk]
    assert len({s.id for s in samples}) == len(samples)
    assert {s.task for s in samples} == {"vqa"}


@settings(max_examples=60, deadline=None)
@given(talk=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4), format=st.sampled_from(["llava", "openai"]))
def test_with_context_a_prompt_ends_in_its_question(four: Path, talk: Talk, format: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), [WRITERS[format](talk, 0)], ".jsonl")
        samples, _ = read(JsonlSource([path], images=four, context="before"))
    for number, (sample, (question, answer)) in enumerate(zip(samples, talk, strict=True)):
        above = "".join(f"Question: {q}\nAnswer: {a}\n" for q, a in talk[:number])
        assert sample.prompt == (f"{above}Question: {question}" if number else question)
        assert sample.target == answer


KEYS = st.sampled_from(["from", "value", "role", "content", "type", "text", "image", "image_url", "url"])
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["<image>", "user"])


@given(
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
        max_leaves=12,
    )
)
def test_no_record_breaks_a_reader(value: Any) -> None:
    keys = ("conversations", "messages", "image", "images", "prefix", "suffix", "outputs", "image_base64_str")
    for record in (dict.fromkeys(keys, value), {"messages": [value]}, {"conversations": [value, value]}):
        detect(record)
        for reader in READERS.values():
            try:
                talk = reader(record)
            except FormatError:
                continue
            assert all(turn.pictures <= len(talk.pictures) for turn in talk.turns)


def test_pictures_come_with_the_turns_that_show_them(tmp_path: Path) -> None:
    told = [
        {"role": "user", "content": [{"type": "image", "image": "000.png"}, {"type": "text", "text": "First?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "One."}]},
        {"role": "user", "content": [{"type": "text", "text": "And this?"}, {"type": "image", "path": "001.png"}]},
        {"role": "assistant", "content": "Two."},
    ]
    samples, rejects = one(tmp_path, {"messages": told})
    assert rejects == []
    assert [[s.image.data, *(m.data for m in s.more_images)] for s in samples] == [[png(0)], [png(0), png(1)]]
    marks = [
        {"from": "human", "value": "<image>\nFirst?"}, {"from": "gpt", "value": "One."},
        {"from": "human", "value": "And <image> this?"}, {"from": "gpt", "value": "Two."},
    ]  # fmt: skip
    samples, rejects = one(tmp_path, {"image": ["000.png", "001.png"], "conversations": marks})
    assert [(s.prompt, 1 + len(s.more_images)) for s in samples] == [("First?", 1), ("And this?", 2)]
    template = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "First?"}]},
                {"role": "assistant", "content": "One."}]  # fmt: skip
    samples, rejects = one(tmp_path, {"images": ["001.png"], "messages": template})
    assert [(s.prompt, s.image.data) for s in samples] == [("First?", png(1))]


@pytest.mark.parametrize(
    ("prefix", "prompt", "task", "language"),
    [
        ("caption en", "", "caption", "en"),
        ("cap de\n", "", "caption", "de"),
        ("answer en What organ is it?", "What organ is it?", "vqa", "en"),
        ("<image>answer en What?", "What?", "vqa", "en"),
        ("answer my question", "answer my question", "vqa", None),
        ("describe it", "describe it", "vqa", None),
        ("answer this: where?", "answer this: where?", "vqa", None),
        ("caption en detail", "caption en detail", "vqa", None),
        ("Where is the nodule?", "Where is the nodule?", "vqa", None),
        ("", "", "caption", None),
    ],
)
def test_prefixes_of_paligemma(tmp_path: Path, prefix: str, prompt: str, task: str, language: str | None) -> None:
    (sample,), rejects = one(tmp_path, {"image": "000.png", "prefix": prefix, "suffix": "Lung."})
    assert (sample.prompt, sample.task, sample.target, rejects) == (prompt, task, "Lung.", [])
    assert sample.language == language


def test_a_picture_alone_asks_for_its_caption(tmp_path: Path) -> None:
    record = llava([("", "A chest.")], 0)
    (sample,), _ = one(tmp_path, record)
    assert (sample.task, sample.prompt, sample.target) == ("caption", "", "A chest.")
    (sample,), _ = one(tmp_path, llava([("Describe it.", "A chest.")], 0), task="report")
    assert (sample.task, sample.prompt, sample.target) == ("report", "", "A chest.")


def test_patients_ids_splits_and_licenses(tmp_path: Path) -> None:
    more = {"patient_id": "P7", "split": "val", "license": "CC BY-NC 4.0", "modality": "CT"}
    (sample,), _ = one(tmp_path, {**llava([("Q?", "A.")], 0), **more})
    assert (sample.group, sample.official_split, sample.modality) == ("P7", "validation", "ct")
    assert (sample.license, sample.license_scope, sample.commercial_use) == ("CC-BY-NC-4.0", "figure", "no")
    assert sample.id == "P7/same/0/vqa/0"
    key = Key.load(tmp_path / "secret" / "key", tmp_path / "out")
    (sample,), _ = one(tmp_path, {**llava([("Q?", "A.")], 0), **more}, key=key)
    assert sample.group == key.pseudonym("patient", "P7")
    # Whole words: a stand-in of hexadecimal digits holds "000" now and then.
    assert not {"P7", "same", "000"} & set(re.split("[^0-9A-Za-z]", f"{sample.id} {sample.file_name}"))
    (sample,), _ = one(tmp_path, {**llava([("Q?", "A.")], 0), **more}, columns=Columns(group="none"))
    assert sample.group == "000"


def test_a_key_called_none_is_read_for_nothing(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    write_table(tmp_path / "a.jsonl", [{**llava([("Q?", "A.")], 0), "None": "CC0-1.0"}])
    (sample,), _ = read(JsonlSource([tmp_path], data_license="CC-BY-NC-4.0"))
    assert (sample.license, sample.group, sample.organ) == ("CC-BY-NC-4.0", "000", None)


def test_what_is_damaged_is_counted(tmp_path: Path) -> None:
    good = llava([("Q?", "A.")], 0)
    asked, answered = good["conversations"]
    rows: dict[str, Any] = {
        "no image file": {**good, "image": "gone.png"},
        "unsafe image name": {**good, "image": "../../etc/passwd"},
        "record without image": {"conversations": [{"from": "human", "value": "Q?"}, answered]},
        "image is an address, no file": {**good, "image": "https://example.org/a.png"},
        "image cannot be read": {**good, "image": "data:image/png;base64,####"},
        "image name is no text": {**good, "image": [7]},
        "question without an answer": {**good, "conversations": [asked, answered, {"from": "human", "value": "And?"}]},
        "answer without a question": {**good, "conversations": [answered, asked, answered]},
        "malformed conversation": {**good, "conversations": [asked, {"from": "tool", "value": "x"}]},
        "conversation without turns": {**good, "conversations": []},
        "record of another format": {"image": "000.png", "prefix": "Q?", "suffix": "A."},
    }
    more = [{**good, "image": "000.png", "conversations": [{**asked, "value": "<image><image> Q?"}, answered]}, good]
    samples, rejects = one(tmp_path, *rows.values(), *more, format="llava")
    assert reasons(rejects) == Counter([*rows, "malformed conversation"])
    assert [(s.prompt, s.target) for s in samples] == [("Q?", "A.")] * 3
    places = {place for place, _ in records.read((str(tmp_path / "chats.jsonl"), "jsonl", "0", str(1 << 30)))}
    assert {int(reject.where.split()[-1]) for reject in rejects} <= places


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", "", "can be read"),
        ("a.jsonl", '{"foo": 1}\n', "cannot tell the format by the keys of its records (foo); say which: --format"),
        ("a.json", '{"foo": 1}', "not a list"),
        ("a.json", "[" * 100_000, "not valid JSON"),
        ("a.csv", "a,b\n", "holds no .jsonl or .json file"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        JsonlSource([tmp_path]).look()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_layout_for_others(tmp_path: Path) -> None:
    samples, rejects = read(JsonlSource([LAYOUTS["jsonl"](tmp_path, 5)], data_license="CC0-1.0"))
    assert (len(samples), rejects) == (10, [])
    assert len({sample.group for sample in samples}) == 5


def test_keys_that_turn_up_late_are_taken_up(tmp_path: Path) -> None:
    """Licenses first of all: records after those that the guess looks at may be under another one."""
    late = {**llava([("Q?", "A.")], 1), "license": "CC BY-NC 4.0", "subject": 7, "organ": "Lung", "question_type": "Q"}
    samples, _ = one(tmp_path, *[llava([("Q?", "A.")], 0)] * 60, late)
    assert [(s.license, s.group, s.organ, s.question_type) for s in samples[-2:]] == [
        ("CC0-1.0", "000", None, None),
        ("CC-BY-NC-4.0", "7", "lung", "Q"),
    ]


def test_a_second_file_that_alone_tells_patients(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    write_table(tmp_path / "a.jsonl", [llava([("Q?", "A.")], 0)])
    write_table(tmp_path / "b.jsonl", [{**llava([("Q?", "A.")], 1), "patient_id": 1.0}])
    with pytest.raises(InputError, match=r'a\.jsonl: no column "patient_id"'):
        JsonlSource([tmp_path]).look()
    samples, _ = read(JsonlSource([tmp_path], columns=Columns(group="patient_id")))
    assert [sample.group for sample in samples] == ["000", "1"]


def test_an_empty_file_beside_lacks_no_patients(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    write_table(tmp_path / "a.jsonl", [{**llava([("Q?", "A.")], 0), "patient_id": 1}])
    (tmp_path / "b.jsonl").write_text("")
    samples, rejects = read(JsonlSource([tmp_path], data_license="CC0-1.0"))
    assert ([sample.group for sample in samples], rejects) == (["1"], [])


def test_a_patient_that_is_no_text_is_counted_once(tmp_path: Path) -> None:
    talk = [("Q?", "A."), ("R?", "B.")]
    samples, rejects = one(tmp_path, {**llava(talk, 0), "patient_id": ["P1"]}, {**llava(talk, 1), "patient_id": "P1"})
    assert [sample.group for sample in samples] == ["P1", "P1"]
    assert [(reject.reason, reject.detail) for reject in rejects] == [("patient cannot be read", "patient_id: list")]


def test_links_out_of_the_input_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path / "own", 1)
    secret = write_table(tmp_path / "secret.jsonl", [llava([("Q?", "A.")], 0)])
    (tmp_path / "own/chats.jsonl").symlink_to(secret)
    with pytest.raises(InputError, match="a link out of"):
        JsonlSource([tmp_path / "own"]).look()


def test_two_files_that_begin_with_one_picture(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    for name in "ab":
        write_table(tmp_path / f"{name}.jsonl", [llava([("Q?", f"A {name}.")], 0)])
    samples, _ = read(JsonlSource([tmp_path]))
    assert len({sample.id for sample in samples}) == 2


def test_a_turn_before_the_marks_sees_all_pictures_where_marks_lack(tmp_path: Path) -> None:
    """Two pictures and one mark: nobody knows when the other is shown, so every turn has both."""
    talk = [{"from": "human", "value": "First?"}, {"from": "gpt", "value": "One."},
            {"from": "human", "value": "<image>Second?"}, {"from": "gpt", "value": "Two."}]  # fmt: skip
    samples, rejects = one(tmp_path, {"image": ["000.png", "001.png"], "conversations": talk})
    assert rejects == []
    assert [1 + len(sample.more_images) for sample in samples] == [2, 2]
    shown = [{"type": "image", "image": "000.png"}, {"type": "text", "text": "What is <image>?"}]
    more = [{"type": "image", "image": "001.png"}, {"type": "text", "text": "And this?"}]
    answers = [{"role": "assistant", "content": text} for text in ("One.", "Two.")]
    asked = [{"role": "user", "content": content} for content in (shown, more)]
    # A mark among pictures that stand in the messages marks nothing.
    samples, rejects = one(tmp_path, {"messages": [asked[0], answers[0], asked[1], answers[1]]})
    assert ([1 + len(sample.more_images) for sample in samples], rejects) == ([1, 2], [])


def test_too_many_pictures_and_what_says_that_there_is_none(tmp_path: Path) -> None:
    many = {**llava([("Q?", "A.")], 0), "image": ["000.png"] * 70}
    rows = [many, llava([("Q?", "N/A")], 0), llava([("Q?", "None")], 0), llava([("", "None")], 0)]
    samples, rejects = one(tmp_path, *rows)
    assert [sample.target for sample in samples] == ["None"]
    assert reasons(rejects) == {"too many images in a record": 1, "text says that there is none": 2}


@given(st.lists(st.sampled_from(["<image>", " ", "\t", "\n", "a", "b c"]), max_size=20).map("".join))
def test_marks_are_taken_out_as_the_expression_says(text: str) -> None:
    record = {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "A."}], "image": "a.png"}
    try:
        question = READERS["llava"](record).turns[0].question
    except FormatError:
        assert text.count("<image>") > 1
        return
    # Which is the reference, as it takes too long for many blanks.
    assert question == re.sub(r"[ \t]*<image>[ \t]*\n?", " ", text.strip()).strip()
    prefix = READERS["paligemma"]({"prefix": text, "suffix": "A.", "image": "a.png"}).turns[0].question
    assert prefix == re.sub(r"\s*<image>\s*", " ", text.strip()).strip()


@pytest.mark.parametrize("blank", [" ", "\n"])
def test_many_blanks_take_no_time(blank: str) -> None:
    text = "<image>a" + blank * 200_000 + "b"
    start = time.process_time()
    READERS["llava"]({"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "A."}]})
    READERS["paligemma"]({"prefix": text, "suffix": "A."})
    assert time.process_time() - start < 1
