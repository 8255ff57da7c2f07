"""Splits by a hash of the group: stable, in about the asked shares, whole clusters."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.data.splits import SPLITS, Clusters, fraction, parse_ratios, split_of
from medvlm.errors import UsageError


@given(st.text(max_size=30), st.integers(0, 10**9))
def test_fraction_is_the_documented_hash(group: str, seed: int) -> None:
    digest = hashlib.sha256(f"{seed}:{group}".encode("utf-8", "surrogatepass")).digest()
    assert fraction(group, seed) == int.from_bytes(digest[:8], "big") / 2**64
    assert 0 <= fraction(group, seed) <= 1


@given(st.lists(st.integers(0, 20), min_size=3, max_size=3).filter(any), st.text(max_size=12), st.integers(0, 99))
def test_a_share_of_zero_gets_nothing(parts: list[int], group: str, seed: int) -> None:
    ratios = parse_ratios("/".join(map(str, parts)))
    assert sum(ratios) == pytest.approx(1)
    chosen = split_of(group, seed, ratios)
    assert parts[SPLITS.index(chosen)] > 0


@given(st.integers(0, 10**6))
def test_shares_are_about_right(seed: int) -> None:
    names = [split_of(f"PMC{number}", seed) for number in range(2000)]
    # Six standard deviations of a binomial share: a failure is no accident.
    for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        assert names.count(split) / 2000 == pytest.approx(share, abs=6 * (share * (1 - share) / 2000) ** 0.5)


@pytest.mark.parametrize("text", ["", "1", "1,2", "a,b,c", "0,0,0", "-1,1,1", "nan,1,1", "inf,1,1", "1,1,1,1"])
def test_malformed_ratios(text: str) -> None:
    with pytest.raises(UsageError, match="split-ratio"):
        parse_ratios(text)


def test_ratio_forms() -> None:
    assert parse_ratios("8/1/1") == parse_ratios("80:10:10") == pytest.approx((0.8, 0.1, 0.1))


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=30))
def test_clusters_are_connected_components(pairs: list[tuple[int, int]]) -> None:
    clusters = Clusters(13)
    for one, other in pairs[::2]:
        clusters.join(one, other)
    clusters.join_all(*np.array(pairs[1::2], np.int64).reshape(-1, 2).T)
    # The slow way: spread the smallest name until nothing changes.
    label = list(range(13))
    changed = True
    while changed:
        changed = False
        for one, other in pairs:
            low = min(label[one], label[other])
            changed = changed or label[one] != low or label[other] != low
            label[one] = label[other] = low
    assert [clusters.root(number) for number in range(13)] == label == clusters.roots().tolist()
