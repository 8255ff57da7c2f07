import numpy as np
import pytest

from medvlm.errors import InputError
from medvlm.evaluate.statistics import bootstrap_mean, draws, paired_bootstrap


def slow_interval(values, groups, resamples, seed):
    """Draw whole groups one by one."""
    names = list(dict.fromkeys(groups))
    members = [[v for v, g in zip(values, groups, strict=True) if g == name] for name in names]
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        drawn = [v for index in generator.integers(len(names), size=len(names)) for v in members[index]]
        means.append(np.mean(drawn))
    return np.quantile(means, [0.025, 0.975])


def test_equals_drawing_whole_groups_one_by_one():
    values = np.random.default_rng(1).normal(size=60)
    groups = [f"g{i % 13 if i < 40 else 0}" for i in range(60)]
    found = bootstrap_mean(values, groups, resamples=300, seed=5)
    np.testing.assert_allclose([found.low, found.high], slow_interval(values, groups, 300, 5), atol=1e-12)
    assert found.estimate == pytest.approx(values.mean())


def test_the_same_seed_gives_the_same_interval_in_any_block_size(monkeypatch):
    values, groups = np.arange(20.0), [str(i) for i in range(20)]
    whole = bootstrap_mean(values, groups, seed=2)
    monkeypatch.setattr("medvlm.evaluate.statistics._BLOCK", 50)
    assert bootstrap_mean(values, groups, seed=2) == whole
    assert bootstrap_mean(values, groups, seed=3) != whole


def test_each_draw_holds_as_many_clusters_as_there_are():
    counts = np.concatenate(list(draws(7, 100, 0)))
    assert counts.shape == (100, 7)
    assert set(counts.sum(axis=1)) == {7.0}


def test_a_constant_gain_is_certain_and_noise_is_not():
    noise = np.random.default_rng(0).normal(size=200)
    groups = [str(i) for i in range(200)]
    gain = paired_bootstrap(noise + 0.5, noise, groups)
    assert (gain.low, gain.difference, gain.high) == pytest.approx((0.5, 0.5, 0.5))
    nothing = paired_bootstrap(noise, np.zeros(200), groups)
    assert nothing.low < 0 < nothing.high


def test_clusters_widen_the_interval():
    values = np.repeat(np.random.default_rng(0).normal(size=40), 10)
    clustered = bootstrap_mean(values, [str(i // 10) for i in range(400)])
    naive = bootstrap_mean(values, [str(i) for i in range(400)])
    assert clustered.high - clustered.low > 2 * (naive.high - naive.low)


def test_ninety_five_percent_intervals_cover_the_truth_about_that_often():
    generator = np.random.default_rng(4)
    groups = [str(i // 2) for i in range(100)]
    covered = 0
    for seed in range(200):
        found = bootstrap_mean(np.repeat(generator.normal(size=50), 2), groups, resamples=200, seed=seed)
        covered += found.low <= 0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_bootstrap(np.ones(2), np.ones(3), ["a", "b"]), "2 scores with 3"),
        (lambda: bootstrap_mean(np.ones(2), ["a"]), "2 scores but 1 groups"),
        (lambda: bootstrap_mean(np.ones(0), []), "no score"),
        (lambda: bootstrap_mean(np.ones(1), ["a"], confidence=95), "between 0 and 1"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
