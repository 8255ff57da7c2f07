"""The metric `vqa` against published examples, slow formulations of the same numbers, and real answer files."""

import json
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.errors import InputError
from medvlm.evaluate.metrics import Options, Segments, score
from medvlm.evaluate.vqa import Vqa, kind_of, pick, said, without_labels, words

CHOICES = ["CT", "MRI", "left lung", "A nodule"]


def scored(prediction, references, **row):
    references = [references] if isinstance(references, str) else references
    return score(["vqa"], [prediction], [references], [row]).values


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The heart.", "heart"),
        ("T2-weighted MRI", "t2 weighted mri "),
        ("Two", "2"),
        ("4.0", "4"),
        ("2.50", "2.5"),
        (".5 cm", "0.5cm"),
        ("1½", "1 1/2"),
        ("10⁵", "10^5"),
        ("T₂", "T2"),
        ("C3₂", "C32"),
        ("5 cm²", "5 cm2"),
        ("约5.50", "约 5.5"),
        ("1,000 mm", "1000mm"),
        ("don't", "dont"),
        ("patient’s skin", "patient's skin"),
        ("ＣＴ", "CT"),
        ("None", "0"),
        ("Skull \tcartilage", "skull, cartilage"),
        ("A", "a"),
    ],
)
def test_answers_that_say_the_same(one, other):
    assert words(one) == words(other) != []
    assert scored(one, other, answer_type="open") == {
        "accuracy": 1,
        "open_accuracy": 1,
        "open_f1": 1,
        "open_recall": 1,
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *[
            ("< 5 mm", "> 5 mm"),
            ("-5", "5"),
            ("3.5", "35"),
            ("T1", "T2"),
            ("tumor", "tumour"),
            ("", "heart"),
            ("A", "B"),
        ],
        *[(".5 cm", "5 cm"), ("10⁵", "105"), ("1½", "11/2"), ("10⁻³", "10³"), ("100", "1")],
    ],
)
def test_answers_that_differ(one, other):
    assert words(one) != words(other)
    assert scored(one, other, answer_type="open")["open_accuracy"] == 0


def test_chinese_answers_count_by_characters():
    assert words("左肺, CT") == ["左", "肺", "ct"]
    assert scored("右肺", "左肺", answer_type="open")["open_f1"] == 0.5
    assert scored("不是", "不是", answer_type="closed")["closed_accuracy"] == 1
    assert scored("是的", "不是", answer_type="closed")["closed_accuracy"] == 0


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("Yes, there is a nodule", "yes"),
        ("No evidence of pneumothorax.", "no"),
        ("There is no nodule", "no"),
        ("The answer is: **Yes**", "yes"),
        ("Yes, but no effusion", "yes"),
        ("no-one", "no"),
        ("True", "yes"),
        (" false ", "no"),
        ("yes and no", None),
        ("yes/no", None),
        ("Yes. No.", None),
        ("No, yes", None),
        ("The heart is normal", None),
        ("Nothing", None),
        ("I don't know", None),
        ("Not enlarged", None),
        ("not yes", None),
        ("I cannot say yes", None),
        ("It isn’t yes, it is no", "no"),
        ("I am not sure, but yes", "yes"),
        ("There is no doubt", None),
        ("No doubt, yes", "yes"),
        ("I have no idea", None),
        ("No doubtful lesion", "no"),
        *[
            (text, "no")
            for text in (
                "I can't find one so no",
                "There isn't a fracture and no effusion",
                "The patient doesn't have it -- no",
                "It is not present (no)",
                "I am unable to see it so no",
                "Not seen - no",
            )
        ],
        ("Not sure - yes", "yes"),
        *[(text, None) for text in ("This is not a yes", "I cannot say yes or no", "neither yes nor no")],
        ("eyes", None),
        ("", None),
    ],
)
def test_what_a_closed_answer_says(text, truth):
    assert said(text) == truth
    for reference in ("Yes", "no "):
        right = truth == reference.strip().lower()
        assert scored(text, reference, answer_type="closed")["closed_accuracy"] == right


@given(st.text(st.sampled_from("yesno nrmal.,"), max_size=30))
def test_yes_and_no_are_never_found_inside_words(text):
    found = set(text.translate(str.maketrans(".,", "  ")).split())
    if said(text) is not None:
        assert said(text) in found
    if found & {"yes", "no"} == {"no"}:
        assert said(text) == "no"
    if not found & {"yes", "no"}:
        assert said(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "yes" + " " * 50_000 + "x",
        "no " * 20_000 + "yes",
        "(" * 50_000 + "B",
        "A" + "-" * 50_000,
        "A, " * 20_000,
        "mri a-" * 9_000,
        "A" + "\n" * 50_000 + "x",
        "B. " + "x. " * 20_000,
        "B. " + "not ct, " * 10_000,
        "no, not " * 10_000 + "mri",
    ],
)
def test_long_answers_take_no_long_time(text):
    start = time.process_time()
    said(text), pick(text, CHOICES), words(text)
    assert time.process_time() - start < 5


def test_closed_answers_other_than_yes_and_no():
    assert scored("Left", "left ", answer_type="CLOSED ")["closed_accuracy"] == 1
    assert scored("yes", "left", answer_type="closed")["closed_accuracy"] == 0


def test_kinds_of_questions():
    assert kind_of(["yes"], {}) == kind_of(["No."], {"answer_type": None}) == "closed"
    assert kind_of(["yes", "left"], {}) == "open"
    assert kind_of(["yes"], {"answer_type": "OPEN"}) == "open"
    assert kind_of(["yes"], {"choices": ["yes", "no"]}) == "choice"


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        *[(text, 1) for text in ("B", "b.", "(B)", "[B]", "(B) MRI", "B MRI", "mri", "Answer: B", "Option B")],
        ("The correct answer is (C).", 2),
        ("B. The MRI image", 1),
        ("A", 0),
        ("A nodule", 3),
        ("D) a nodule", 3),
        ("A nodule here", 3),
        *[
            (text, 1)
            for text in ("B is correct", "Option B is correct.", "Ans: B", "Ｂ", "B：MRI", "答案：B", "答案是B")
        ],
        *[(text, 1) for text in ("**Answer:** B", "**B. MRI**", "B\n\nThe T2 signal is high.", "Answer:\nB")],
        *[(text, 1) for text in ("It is the MRI.", "B - MRI", "B because it is an MRI", "MRI, not contrast-enhanced")],
        *[
            (text, None)
            for text in ("B: CT", "B or C", "B, C", "A and B", "E", "", "left lung or MRI", "no nodule here")
        ],
    ],
)
def test_the_choice_an_answer_names(answer, place):
    assert pick(answer, CHOICES) == place
    assert scored(answer, "MRI", choices=CHOICES) == {"accuracy": place == 1, "choice_accuracy": place == 1}
    assert scored(answer, "B", choices=CHOICES)["choice_accuracy"] == (place == 1)


@pytest.mark.parametrize(
    "answer",
    [
        *(
            "E. CT",
            "E: MRI",
            "ſ. CT",
            "A: no",
            "A\nMRI",
            "A. It is not a CT",
            "A. CT or MRI",
            "A: CT. B: MRI",
            "(B) not MRI",
        ),
        *("CT was not used", "CT? No.", "This couldn't be a CT", "Something other than CT", "Anything but CT"),
        *("CT has been ruled out", "CT is unlikely", "Unable to determine if this is a CT", "It hasn’t been a CT"),
        *("A, B, C", "A. B. C. D.", "A) CT, B) MRI, C) left lung", "A: CT\nB: MRI", "A; B; C", "A.B.C", "A)B)C)"),
        *("A. not CT but MRI", "A: wrong", "A, wrong", "A is wrong", "A. is not correct", "A. MRI because", "a, b, c"),
        *(
            "A, b",
            "(A) (B)",
            "A (not B)",
            "The answer is not A",
            "CT and MRI",
            "It is not CT",
            "CT is wrong",
            "B CT",
            "A. MRI",
        ),
    ],
)
def test_answers_that_list_choices_or_deny_one_are_never_right(answer):
    assert pick(answer, CHOICES) is None
    for reference in CHOICES:
        assert scored(answer, reference, choices=CHOICES)["choice_accuracy"] == 0


@given(st.sets(st.sampled_from("ABCD"), min_size=2), st.sampled_from([", ", ". ", ") ", ": ", "\n", " or ", ".", "; "]))
def test_several_letters_are_no_pick_in_any_form(letters, between):
    texts = dict(zip("ABCD", CHOICES, strict=True))
    assert pick(between.join(sorted(letters)), CHOICES) is None
    assert pick(between.join(f"{letter}: {texts[letter]}" for letter in sorted(letters)), CHOICES) is None


FINDINGS = ["Pneumonia", "Pleural effusion", "Normal", "None of the above"]


@pytest.mark.parametrize(
    ("answer", "choices", "place"),
    [
        ("B. Pleural effusion. There is no pneumonia.", FINDINGS, 1),
        ("B: Pleural effusion (not pneumonia)", FINDINGS, 1),
        ("B. Pleural effusion\nPneumonia would look different.", FINDINGS, 1),
        ("**B**\n\nThe heart is normal.", FINDINGS, 1),
        ("B. Fluid is seen (no pneumonia). The heart is normal.", FINDINGS, 1),
        ("B, since it is not pneumonia", FINDINGS, 1),
        ("B. Fluid as in pneumonia", FINDINGS, None),
        ("C. Normal, no pneumonia", FINDINGS, 2),
        ("Normal, no fracture", FINDINGS, 2),
        ("Normal without a fracture", FINDINGS, 2),
        ("D. None of the above (no pneumonia)", FINDINGS, 3),
        ("(B) MRI - since CT would show bone", CHOICES, 1),
        ("B. CT would show bone as bright.", CHOICES, 1),
        ("The correct answer is B. A is wrong because bone is dark.", CHOICES, 1),
        ("B is correct. CT shows bone.", CHOICES, 1),
        ("D. A nodule. A, B and C are incorrect.", CHOICES, 3),
        ("C. 3 lesions, 2 in the left lobe", ["1", "2", "3"], 2),
        ("A. E. coli. B. subtilis is longer", ["E. coli", "B. subtilis"], None),
        ("A. E. coli. There is no candida.", ["E. coli", "candida", "c", "d", "e"], 0),
    ],
)
def test_an_explanation_after_the_letter_takes_nothing_back(answer, choices, place):
    assert pick(answer, choices) == place


def test_a_longer_choice_is_not_the_shorter_one_in_it():
    choices = ["lung", "left lung", "hepatitis B", "vitamin D"]
    assert [pick(text, choices) for text in ("in the left lung", "the lung", "B. left lung.", "C. hepatitis B.")] == [
        *(1, 0, 1, 2),
    ]
    assert pick("It is hepatitis B.", choices) == 2
    assert pick("D: left lung", choices) is None


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        *[("Yes, there is", 0), ("Yes, but no effusion", 0), ("There is no nodule", 1), ("B. No", 1), ("B", 1)],
        *[("not yes", None), ("There is no doubt", None), ("yes and no", None), ("A. No", None), ("maybe", None)],
    ],
)
def test_yes_and_no_as_choices_are_said_as_in_closed_questions(answer, place):
    assert pick(answer, ["Yes", "No"]) == place


def test_choices_that_are_one_text_are_refused():
    with pytest.raises(InputError, match="give a list of texts"):
        scored("CT", "A", choices="CT|MRI")


def test_choices_may_be_an_array():
    assert scored("B", "MRI", choices=np.array(["CT", "MRI"])) == {"accuracy": 1, "choice_accuracy": 1}


def test_the_task_may_be_written_in_capitals():
    assert scored("no", "no", task=" VQA ") == {"accuracy": 1, "closed_accuracy": 1}


def test_choices_with_their_letters_and_choices_twice():
    labeled = ["A: CT", "B: MRI"]
    assert without_labels(labeled) == ["CT", "MRI"]
    assert [pick(text, labeled) for text in ("MRI", "B", "B: MRI", "CT")] == [1, 1, 1, 0]
    assert without_labels(["A: CT", "MRI"]) == ["A: CT", "MRI"]
    assert pick("CT", ["CT", "CT"]) is None


@given(st.lists(st.text(st.characters(categories=["L", "N", "Zs"]), min_size=2), min_size=2, max_size=5))
def test_the_letter_names_its_choice_whatever_the_texts(choices):
    texts = {choice.strip().casefold() for choice in choices}
    for place, letter in enumerate("ABCDE"[: len(choices)]):
        if letter.lower() not in texts and all(words(choice) != [letter.lower()] for choice in choices):
            assert pick(f"({letter})", choices) == place


def test_open_answers_against_a_slow_formulation():
    prediction, reference = "right upper upper lobe of the lung", "the right lung, lower lobe, right side"
    ours = Counter(["right", "upper", "upper", "lobe", "of", "lung"])
    theirs = ["right", "lung", "lower", "lobe", "right", "side"]
    shared = sum(min(ours[word], theirs.count(word)) for word in ours)
    precision, recall = shared / 6, shared / 6
    found = scored(prediction, reference, answer_type="open")
    assert found["open_f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert found["open_recall"] == pytest.approx(sum(word in ours for word in theirs) / 6)
    assert found["open_accuracy"] == 0


def llava_med_recall(prediction, reference):
    """Return tp / (tp + fn) as LLaVA-Med's program counts: tp by the prediction's words, fn by the reference's."""
    ours, theirs = Counter(prediction), Counter(reference)
    hits = sum(ours[word] for word in ours if word in theirs)
    missed = sum(theirs[word] for word in theirs if word not in ours)
    return hits / (hits + missed)


@given(*[st.lists(st.sampled_from("pqrstu"), min_size=1, unique=True)] * 2)
def test_recall_is_that_of_llava_med_where_no_word_repeats(prediction, reference):
    found = scored(" ".join(prediction), " ".join(reference), answer_type="open")
    assert found["open_recall"] == pytest.approx(llava_med_recall(prediction, reference))


def test_repeating_a_word_does_not_raise_recall():
    assert llava_med_recall(["right"] * 9, ["right", "lung"]) == 0.9
    assert scored("right " * 9, "right lung", answer_type="open")["open_recall"] == 0.5


def test_the_best_of_several_references():
    found = scored("right lung", ["left lung", "lung on the right", "heart"], answer_type="open")
    assert found["open_recall"] == pytest.approx(2 / 3)
    assert found["open_f1"] == pytest.approx(2 * 2 / (2 + 3))
    assert scored("b", ["A", "B"], choices=CHOICES)["choice_accuracy"] == 1


def test_only_questions_count_and_absent_kinds_are_left_out():
    rows = [{"task": "caption"}, {"task": "vqa"}, {"task": "report"}]
    found = score(["vqa"], ["x", "no", "x"], [["x"], ["no"], ["x"]], rows)
    assert found.values == {"accuracy": 1, "closed_accuracy": 1}
    assert score(["vqa"], ["x"], [["x"]], [{"task": "caption"}]).values == {}
    assert score(["vqa"], ["x", "no"], [["y"], ["no"]]).values["accuracy"] == 0.5


def test_of_sums_of_all_kinds_and_the_signature():
    rows = [{"answer_type": "closed"}, {"answer_type": "closed"}, {"answer_type": "open"}, {"choices": CHOICES}]
    metric = Vqa(Options())
    segments = Segments(["yes", "no", "lung", "B"], [["yes"], ["yes"], ["lung"], ["C"]], rows)
    statistics = metric.statistics(segments)
    values = metric.of_sums(statistics.sum(axis=0, keepdims=True))[0]
    assert values.tolist() == [0.5, 0.5, 1, 1, 1, 0]
    assert metric.signature(segments).startswith("vqa|norm:")
    assert "refs:1,best" in metric.signature(segments)


@pytest.mark.realdata
def test_every_real_answer_is_right_against_itself(realdata):
    answers, rows = [], []
    for path in [*(realdata / "vqa_rad").glob("*.json"), *(realdata / "slake").glob("*.json")]:
        for row in json.loads(path.read_text(encoding="utf-8")):
            answers.append(str(row["answer"]))
            rows.append({"task": "vqa", "answer_type": row["answer_type"]})
    assert len(answers) == 3064 + 451 + 9835 + 2099 + 2094
    found = score(["vqa"], answers, [[answer.strip()] for answer in answers], rows)
    assert found.values == dict.fromkeys(("accuracy", "closed_accuracy", "open_accuracy", "open_f1", "open_recall"), 1)
    assert (found.statistics["vqa"][:, [0, 2]].sum(axis=1) == 1).all()
