"""Paired approximate randomization against all swaps, against chance, and Holm's correction against its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.errors import InputError
from medvlm.evaluate.metrics import score
from medvlm.evaluate.statistics import holm, randomization

WORDS = ["the", "heart", "is", "large", "no", "effusion", "seen", "lungs", "are", "clear", "today"]


def system(seed: int, n: int, right: float) -> tuple[list[str], list[list[str]]]:
    """Texts that share about `right` of their words with the references, which are the same for every seed."""
    truth, chance = np.random.default_rng(0), np.random.default_rng(seed)
    predictions, references = [], []
    for _ in range(n):
        words = list(truth.choice(WORDS, 8))
        references.append([" ".join(words)])
        predictions.append(" ".join(w if chance.random() < right else str(chance.choice(WORDS)) for w in words))
    return predictions, references


def test_p_is_that_of_all_swaps_of_whole_groups():
    groups = ["a", "b", "b", "c", "d", "d", "e", "f", "g", "h"]
    names = list(dict.fromkeys(groups))
    a, references = system(1, 10, 0.9)
    b, _ = system(2, 10, 0.5)
    one, other = score(["bleu"], a, references), score(["bleu"], b, references)
    beyond = dict.fromkeys(one.values, 0)
    for coins in itertools.product([False, True], repeat=len(names)):
        swap = [coins[names.index(group)] for group in groups]
        left = [y if s else x for x, y, s in zip(a, b, swap, strict=True)]
        right = [x if s else y for x, y, s in zip(a, b, swap, strict=True)]
        first, second = score(["bleu"], left, references).values, score(["bleu"], right, references).values
        for key in beyond:
            seen = abs(one.values[key] - other.values[key])
            beyond[key] += abs(first[key] - second[key]) >= seen - 1e-12
    found = randomization(
        one.metrics["bleu"], one.statistics["bleu"], other.statistics["bleu"], groups, trials=20_000, seed=1
    )
    for key, count in beyond.items():
        assert found[key] == pytest.approx(count / 2 ** len(names), abs=0.012)


def test_p_is_never_zero_and_equal_systems_do_not_differ():
    a, references = system(1, 40, 0.95)
    b, _ = system(2, 40, 0.1)
    one, other = score(["cider"], a, references), score(["cider"], b, references)
    groups = [str(i) for i in range(40)]
    statistics = one.statistics["cider"]
    assert randomization(one.metrics["cider"], statistics, other.statistics["cider"], groups, 99)["cider"] == 0.01
    assert randomization(one.metrics["cider"], statistics, statistics, groups, 99)["cider"] == 1.0


def test_p_is_uniform_where_nothing_differs():
    below = 0
    groups = [str(i) for i in range(30)]
    for seed in range(200):
        a, references = system(2 * seed + 10, 30, 0.5)
        b, _ = system(2 * seed + 11, 30, 0.5)
        one, other = score(["rouge"], a, references), score(["rouge"], b, references)
        p = randomization(one.metrics["rouge"], one.statistics["rouge"], other.statistics["rouge"], groups, 199, seed)
        below += p["rouge_l"] <= 0.1
    assert 0.04 <= below / 200 <= 0.17


def test_the_same_coins_in_any_block_size(monkeypatch):
    a, references = system(1, 37, 0.6)
    b, _ = system(2, 37, 0.5)
    one, other = score(["bleu"], a, references), score(["bleu"], b, references)
    arguments = (one.metrics["bleu"], one.statistics["bleu"], other.statistics["bleu"], [str(i) for i in range(37)])
    whole = randomization(*arguments, 500)
    monkeypatch.setattr("medvlm.evaluate.statistics._BLOCK", 111)
    assert randomization(*arguments, 500) == whole
    assert randomization(*arguments, 500, seed=1) != whole


@given(st.lists(st.floats(0.0001, 1), max_size=8))
def test_holm_is_the_step_down_rule(p):
    found = holm(p)
    for mine, corrected in zip(p, found, strict=True):
        # The largest of what every p at most as large asks for at its own step.
        steps = [min(1.0, (len(p) - sum(x < other for x in p)) * other) for other in p if other <= mine]
        assert corrected == pytest.approx(max(steps))


def test_holm_of_a_published_example():
    # Holm 1979's rule on p = .01, .04, .03, .005: 4 x .005, 3 x .01, 2 x .03, and .06 kept for .04.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_swap_that_leaves_nothing_to_score_counts_against_the_difference():
    """Where the systems' answers are to different kinds of questions, most swaps leave one with none of a kind."""

    class Share:
        name, keys = "share", ("share",)

        def of_sums(self, sums):
            with np.errstate(invalid="ignore"):
                return (sums[:, :1] / sums[:, 1:]).astype(float)

    # [right, scored]: of the first system only group "a" is scored, of the other only group "b".
    a, b = np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [0.0, 1.0]])
    # Of the four swaps two leave a side without a question, the others the difference of 1 that was seen.
    assert randomization(Share(), a, b, ["a", "b"], 400)["share"] == 1.0


def test_wrong_input():
    a, references = system(1, 3, 0.6)
    one = score(["bleu"], a, references)
    metric, statistics = one.metrics["bleu"], one.statistics["bleu"]
    with pytest.raises(InputError, match="3 scores with 2"):
        randomization(metric, statistics, statistics[:2], ["a", "b", "c"])
    with pytest.raises(InputError, match="3 scores but 1 groups"):
        randomization(metric, statistics, statistics, ["a"])
    with pytest.raises(InputError, match="at least 1"):
        randomization(metric, statistics, statistics, ["a", "b", "c"], trials=0)
