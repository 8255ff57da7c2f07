"""Intervals against drawing whole groups one by one, and against the truth they should cover."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from medvlm.errors import InputError
from medvlm.evaluate.metrics import Options, Scores, means, score
from medvlm.evaluate.statistics import Bootstrap, Interval, draws


class Mean:
    """The mean of one number a segment."""

    name = "mean"
    keys = ("mean",)

    def __init__(self, options: Options | None = None) -> None:
        self.of_sums = means


def column(values: Sequence[float]) -> np.ndarray:
    return np.stack([np.asarray(values, dtype=float), np.ones(len(values))], axis=1)


def interval(values, groups, **settings) -> Interval:
    return Bootstrap(groups, **settings).intervals(Mean(), column(values))["mean"]  # type: ignore[arg-type]


def singles(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def one_by_one(groups, resamples, seed):
    """Yield the segments of each draw."""
    names = list(dict.fromkeys(groups))
    members = [[i for i, g in enumerate(groups) if g == name] for name in names]
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        picks = generator.integers(len(names), size=len(names), dtype=np.int32)
        yield [i for pick in picks for i in members[pick]]


def test_a_mean_equals_drawing_whole_groups_one_by_one():
    values = np.random.default_rng(1).normal(size=60)
    groups = [f"g{i % 13 if i < 40 else 0}" for i in range(60)]
    found = interval(values, groups, resamples=300, seed=5)
    expected = np.quantile([values[drawn].mean() for drawn in one_by_one(groups, 300, 5)], [0.025, 0.975])
    np.testing.assert_allclose(found.as_list(), expected, atol=1e-12)
    assert found.estimate == pytest.approx(values.mean())


def small_scores(change: str = "") -> Scores:
    words = ["the", "heart", "is", "large", "no", "effusion", "seen", "lungs", "are", "clear"]
    generator = np.random.default_rng(3)
    texts = [" ".join(generator.choice(words, 7)) for _ in range(24)]
    return score(["bleu", "rouge"], [text + change for text in texts], [[text[5:] + " today"] for text in texts])


def test_corpus_bleu_is_computed_anew_for_each_draw():
    words = ["the", "heart", "is", "large", "no", "effusion", "seen", "lungs", "are", "clear"]
    generator = np.random.default_rng(3)
    predictions = [" ".join(generator.choice(words, 7)) for _ in range(24)]
    references = [[text[6:] + " today"] for text in predictions]
    groups = [f"g{i // 3}" for i in range(24)]
    found = score(["bleu"], predictions, references)
    drawn = [
        score(["bleu"], [predictions[i] for i in draw], [references[i] for i in draw]).values
        for draw in one_by_one(groups, 40, 2)
    ]
    intervals = Bootstrap(groups, 40, seed=2).intervals(found.metrics["bleu"], found.statistics["bleu"])
    for key, value in found.values.items():
        expected = np.quantile([one[key] for one in drawn], [0.025, 0.975])
        np.testing.assert_allclose(intervals[key].as_list(), expected, rtol=1e-12)
        assert intervals[key].estimate == pytest.approx(value)


def test_differences_are_paired_on_the_same_draws():
    a, b = small_scores(), small_scores(" today")
    bootstrap = Bootstrap(singles(24), 200)
    for name, metric in a.metrics.items():
        same = bootstrap.differences(metric, a.statistics[name], a.statistics[name])
        assert all(one == Interval(0.0, 0.0, 0.0) for one in same.values())
        for key, one in bootstrap.differences(metric, b.statistics[name], a.statistics[name]).items():
            assert one.estimate == pytest.approx(b.values[key] - a.values[key])
            assert one.low <= one.estimate <= one.high


def test_the_same_seed_gives_the_same_interval_in_any_block_size(monkeypatch):
    values = np.arange(21.0)
    whole = interval(values, singles(21), seed=2)
    monkeypatch.setattr("medvlm.evaluate.statistics._BLOCK", 70)
    assert interval(values, singles(21), seed=2) == whole
    monkeypatch.setattr("medvlm.evaluate.statistics._KEPT", 0)
    assert interval(values, singles(21), seed=2) == whole
    assert interval(values, singles(21), seed=3) != whole


@pytest.mark.parametrize("clusters", [7, 255, 300])
def test_each_draw_holds_as_many_clusters_as_there_are(clusters):
    counts = np.concatenate(list(draws(clusters, 50, 0)))
    assert counts.shape == (50, clusters)
    assert set(counts.sum(axis=1).tolist()) == {clusters}


def test_clusters_widen_the_interval():
    values = np.repeat(np.random.default_rng(0).normal(size=40), 10)
    clustered = interval(values, [str(i // 10) for i in range(400)])
    naive = interval(values, singles(400))
    assert clustered.high - clustered.low > 2 * (naive.high - naive.low)


def test_ninety_five_percent_intervals_cover_the_truth_about_that_often():
    generator = np.random.default_rng(4)
    groups = [str(i // 2) for i in range(100)]
    covered = 0
    for seed in range(200):
        found = interval(np.repeat(generator.normal(size=50), 2), groups, resamples=200, seed=seed)
        covered += found.low <= 0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_a_draw_without_anything_to_score_is_left_out():
    # Only one of five groups holds something: many draws hold nothing.
    statistics = np.array([[1.0, 1.0], [0, 0], [0, 0], [0, 0], [0, 0]])
    found = Bootstrap(singles(5), 100).intervals(Mean(), statistics)  # type: ignore[arg-type]
    assert found["mean"] == Interval(1.0, 1.0, 1.0)
    assert Bootstrap(singles(5), 100).intervals(Mean(), statistics * 0) == {}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Bootstrap(["a"]).differences(Mean(), column([1, 2]), column([1, 2, 3])), "2 scores with 3"),
        (lambda: interval(np.ones(2), ["a"]), "2 scores but 1 groups"),
        (lambda: interval(np.ones(0), []), "no segment"),
        (lambda: interval(np.ones(1), ["a"], confidence=95), "between 0 and 1"),
        (lambda: interval(np.ones(1), ["a"], resamples=0), "at least 1"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
