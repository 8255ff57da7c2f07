"""The wording: texts say what the picture shows, the base's wording is another, and knows every word."""

from __future__ import annotations

import collections
import random
import re

from medvlm.data.sources.phantom import base_grammar, grammar
from medvlm.data.sources.phantom.spec import Spec, all_specs, random_spec
from medvlm.evaluate.findings import expected_findings, named_findings

SEEDS = range(20)


def test_texts_assert_exactly_the_known_finding() -> None:
    for spec in all_specs():
        for text in grammar.descriptions(spec):
            assert named_findings(text) == expected_findings(spec.finding), text


def test_texts_name_side_size_and_zone_and_never_a_wrong_size_or_zone() -> None:
    for spec in all_specs():
        words = set(re.findall(r"\w+", grammar.caption(spec, random.Random(1)).lower()))
        for value in (spec.side, spec.size, spec.zone):
            assert value is None or value in words
        wrong = {"small", "large", "upper", "lower", "anterior", "posterior"} - {spec.size, spec.zone}
        assert not words & wrong


def test_every_caption_says_it_is_synthetic() -> None:
    for spec in all_specs():
        assert grammar.caption(spec, random.Random(0)).startswith("Synthetic ")


def test_reports_have_two_sections_in_order() -> None:
    for spec in all_specs():
        text = grammar.report(spec, random.Random(0))
        assert re.fullmatch(r"Findings: [^:]+ Impression: [^:]+\.", text)


def test_wording_varies_where_there_is_a_finding() -> None:
    for spec in all_specs():
        assert len({grammar.caption(spec, random.Random(seed)) for seed in SEEDS}) >= 8


def test_presence_questions_are_balanced_and_answered_truly() -> None:
    rng, answers = random.Random(0), collections.Counter[str]()
    for _ in range(4000):
        spec = random_spec(rng)
        question = grammar.presence_question(spec, rng)
        assert (spec.finding in question.prompt) == (question.answer == "yes")
        answers[question.answer] += 1
    assert 0.47 < answers["yes"] / 4000 < 0.53


def test_further_questions_are_answered_from_their_choices() -> None:
    kinds = set()
    for spec in all_specs():
        for seed in SEEDS:
            question = grammar.further_question(spec, random.Random(seed))
            kinds.add((question.question_type, question.answer_type))
            assert question.choices is None or question.answer in question.choices
            if question.question_type == "side":
                assert question.answer == spec.side
            if question.question_type == "modality":
                assert question.answer == grammar.MODALITY_NAMES[spec.modality]
    assert kinds == {("side", "choice"), ("modality", "choice"), ("abnormality", "choice"), ("abnormality", "open")}


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]+", text))


def test_the_base_copies_every_word_of_the_sample() -> None:
    sample = {word for spec in all_specs() for text in grammar.all_texts(spec) for word in words_of(text)}
    copied = set()
    # Copying is rare: so many exercises hold some hundreds of it.
    for index in range(6000):
        for exercise in base_grammar.exercises(Spec("ct", "none"), None, random.Random(index)):
            if exercise.prompt.startswith("repeat"):
                assert exercise.prompt == f"repeat {exercise.target}"
                copied |= words_of(exercise.target)
    assert sample <= copied
    assert len(sample) <= 250


def test_a_caption_or_report_fits_one_picture_only() -> None:
    texts = [text for spec in all_specs() for text in grammar.descriptions(spec)]
    # A report of a chest without findings does not say how it was imaged.
    shared = [text for text, count in collections.Counter(texts).items() if count > 1]
    assert all(re.match(r"Findings: (Both lungs|The lungs)", text) for text in shared)


def test_all_texts_misses_no_wording() -> None:
    for spec in all_specs():
        known = set(grammar.all_texts(spec))
        rng = random.Random(9)
        seen = {text for _ in range(60) for text in (grammar.caption(spec, rng), grammar.report(spec, rng))}
        assert seen <= known


def test_no_target_of_the_base_is_a_text_of_the_sample() -> None:
    captions = {text for spec in all_specs() for text in grammar.all_texts(spec) if " " in text and "?" not in text}
    together = "\n".join(captions)
    for index in range(60):
        for sample in base_grammar.base_samples(0, index):
            assert sample.target not in captions
            # Four words in a row are what BLEU-4 and CIDEr reward: the base has no such run, save by copying words.
            if not sample.prompt.startswith("repeat"):
                words = sample.target.split()
                runs = {" ".join(words[start : start + 4]) for start in range(len(words) - 3)}
                assert not any(run in together for run in runs)


def test_base_samples_are_sound_and_repeat_to_the_byte() -> None:
    first, again = (list(base_grammar.base_samples(5, 17)) for _ in range(2))
    assert first == again
    assert len({sample.id for sample in first}) == len(first) == 5
    assert {sample.license for sample in first} == {"CC0-1.0"}
    assert {sample.source for sample in first} == {"phantom-base"}
    assert all(sample.prompt and sample.target for sample in first)
    other = list(base_grammar.base_samples(6, 17))
    assert other[0].sha256 != first[0].sha256


def test_locations_are_y_before_x_in_1024_bins() -> None:
    assert base_grammar.locate((0.0, 0.25, 0.5, 1.0)) == "<loc0256><loc0000><loc1023><loc0512>"


def test_tokenizer_corpus_holds_all_words_and_no_location_tokens() -> None:
    corpus = list(base_grammar.vocabulary_corpus(pictures=30))
    assert corpus == list(base_grammar.vocabulary_corpus(pictures=30))
    assert set(base_grammar.vocabulary()) <= {word for text in corpus for word in words_of(text)}
    assert not any("<loc" in text for text in corpus)
