"""Keys and tallies against sets, counters and numpy."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medvlm.data.inspect.keys import Keys
from medvlm.data.inspect.tallies import MOST_VALUES, OTHERS, Answers, Table, Words, summary
from medvlm.data.splits import SPLITS

ENTRIES = st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from(SPLITS)))


@given(ENTRIES)
def test_keys_agree_with_sets(entries: list[tuple[str, str]]) -> None:
    keys = Keys()
    for text, split in entries:
        keys.add(text, split)
    texts = [text for text, _ in entries]
    of = {split: [text for text, own in entries if own == split] for split in SPLITS}
    assert keys.repeated() == sum(text in texts[:place] for place, text in enumerate(texts))
    assert len(keys) == len(texts)
    assert keys.by_split() == {split: len(set(own)) for split, own in of.items() if own}
    assert keys.entries() == {split: len(own) for split, own in of.items() if own}
    assert keys.on_several_sides() == sum(sum(text in own for own in of.values()) > 1 for text in set(texts))
    common = set(of["train"]) & set(of["test"])
    assert keys.shared("train", "test") == (len(common), sum(text in common for text in of["test"]))


@given(st.lists(st.integers(0, 60), min_size=1))
def test_quantiles_are_those_of_numpy(numbers: list[int]) -> None:
    def at(percent: int) -> int:
        return int(np.percentile(numbers, percent, method="inverted_cdf"))

    told = summary(Counter(numbers))
    assert told == {"min": min(numbers), "median": at(50), "p95": at(95), "max": max(numbers)}


def test_nothing_has_no_quantiles() -> None:
    assert summary({}) == {}


ANSWERS = st.lists(
    st.tuples(st.sampled_from(["yes", "no", "left", ""]), st.sampled_from(SPLITS), st.sampled_from("xy"))
)


@given(ANSWERS)
def test_answers_are_counted_and_named(given_answers: list[tuple[str, str, str]]) -> None:
    answers = Answers()
    for answer, split, value in given_answers:
        answers.add(answer, split, value)
    answers.name(answers.wanted(3), (answer for answer, _, _ in given_answers))
    # Counter keeps equals in the order of their coming too.
    assert answers.ranked(3) == Counter(answer for answer, _, _ in given_answers).most_common(3)
    of_train = Counter(answer for answer, split, value in given_answers if (split, value) == ("train", "x"))
    if of_train:
        assert answers.ranked(1, "train", "x") == of_train.most_common(1)
        assert answers.times("yes", "train", "x") == of_train["yes"]
        assert answers.total("train", "x") == of_train.total()


def test_words_that_train_lacks() -> None:
    words = Words()
    words.add(["a", "b", "b"], "train")
    words.add(["b", "c"], "test")
    words.add(["d"], "test")
    assert words.told() == {"train": {"words": 2, "not_in_train": 0}, "test": {"words": 3, "not_in_train": 2}}


def test_a_column_with_too_many_values_does_not_fill_the_memory() -> None:
    table = Table()
    for number in range(3 * MOST_VALUES):
        table.add(str(number), "train")
    assert len(table.rows) == MOST_VALUES + 1
    assert table.ranked()[OTHERS] == {"train": 2 * MOST_VALUES}
    assert sum(sum(found.values()) for found in table.ranked().values()) == 3 * MOST_VALUES
