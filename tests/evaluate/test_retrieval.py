"""Recall and ranks against lists written out, random orders counted one by one, and an example by hand."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvlm.evaluate import compare, retrieval
from medvlm.evaluate.metrics import Options, Segments
from medvlm.evaluate.retrieval import AT, Found, Pool, Retrieval
from medvlm.evaluate.score_table import Settings, table
from medvlm.evaluate.statistics import Bootstrap


def slow(cosines: list[float], right: set[int]) -> tuple[float, list[float]]:
    """Mean rank and hits of the best right candidate over every order that the cosines allow."""
    orders = [
        order
        for order in itertools.permutations(range(len(cosines)))
        if all(cosines[a] >= cosines[b] for a, b in itertools.pairwise(order))
    ]
    ranks = [1 + min(order.index(one) for one in right) for order in orders]
    return sum(ranks) / len(ranks), [sum(rank <= at for rank in ranks) / len(ranks) for at in AT]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_ties_count_as_all_orders_do(data: Any) -> None:
    size = data.draw(st.integers(1, 7))
    cosines = data.draw(st.lists(st.sampled_from([-0.5, 0.0, 0.25, 0.5]), min_size=size, max_size=size))
    right = data.draw(st.sets(st.integers(0, size - 1), min_size=1))
    mask = np.array([[place in right for place in range(size)]])
    found = retrieval.found(np.array([cosines]), mask)
    rank, hits = slow(cosines, right)
    assert found.ranks[0] == pytest.approx(rank)
    assert found.hits[0].tolist() == pytest.approx(hits)
    # A model for which all are alike.
    assert found.chance[0].tolist() == pytest.approx(slow([0.0] * size, right)[1])


def test_by_hand() -> None:
    # Two pictures and three texts; the first text stands below both pictures, the second and third below one each.
    cosines = np.array([[0.9, 0.8, 0.1], [0.2, 0.7, 0.7]])
    right = np.array([[True, False, False], [False, False, True]])
    found = retrieval.found(cosines, right)
    # The first picture finds its text at once; the second's comes first or second, each half of the time.
    assert found.ranks.tolist() == [1.0, 1.5]
    assert found.hits.tolist() == [[1, 1, 1], [0.5, 1, 1]]
    assert found.chance[:, 0].tolist() == pytest.approx([1 / 3, 1 / 3])


def test_what_differs_by_rounding_is_a_tie() -> None:
    cosines = np.array([[0.5, 0.5 + 1e-8, 0.5 - 1e-8, 0.4]])
    right = np.array([[False, False, True, False]])
    assert retrieval.found(cosines, right).ranks.tolist() == [2.0]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12),
    st.integers(0, 1000),
)
def test_rows_share_what_they_have_in_common(rows: list[tuple[int, int]], seed: int) -> None:
    texts, pictures = ([list(dict.fromkeys(one)).index(value) for value in one] for one in zip(*rows, strict=True))
    rng = np.random.default_rng(seed)
    text_embeddings = rng.standard_normal((max(texts) + 1, 4))
    picture_embeddings = rng.standard_normal((max(pictures) + 1, 4))
    pool = Pool(np.array(texts), np.array(pictures), text_embeddings, picture_embeddings)
    found = pool.found()
    for at, (text, picture) in enumerate(zip(texts, pictures, strict=True)):
        own = {t for t, p in zip(texts, pictures, strict=True) if p == picture}
        order = sorted(
            range(len(text_embeddings)), key=lambda t: -float(picture_embeddings[picture] @ text_embeddings[t])
        )
        assert found["i2t"].ranks[at] == 1 + min(order.index(t) for t in own)
        below = {p for t, p in zip(texts, pictures, strict=True) if t == text}
        order = sorted(
            range(len(picture_embeddings)), key=lambda p: -float(picture_embeddings[p] @ text_embeddings[text])
        )
        assert found["t2i"].ranks[at] == 1 + min(order.index(p) for p in below)


def test_many_queries_are_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    texts, pictures = rng.integers(0, 20, 60), rng.integers(0, 30, 60)
    pool = Pool(texts, pictures, rng.standard_normal((20, 5)), rng.standard_normal((30, 5)))
    whole = pool.found()
    monkeypatch.setattr(retrieval, "_BLOCK", 70)
    for direction, one in pool.found().items():
        for name in ("ranks", "hits", "chance"):
            assert np.array_equal(getattr(one, name), getattr(whole[direction], name))


def test_a_model_that_tells_nothing_apart_scores_at_chance() -> None:
    right = np.random.default_rng(1).random((9, 40)) < 0.2
    right[:, 0] = True
    found = retrieval.found(np.zeros((9, 40)), right)
    assert np.allclose(found.hits, found.chance)
    counts = right.sum(axis=1)
    assert found.ranks.tolist() == pytest.approx([41 / (r + 1) for r in counts])
    rows = [{"i2t": {"rank": 1.0, "hits": [1, 1, 1], "chance": chance.tolist(), "of": 40}} for chance in found.chance]
    for row, rank, hits in zip(rows, found.ranks, found.hits, strict=True):
        told = retrieval.at_chance(row)["i2t"]
        assert told["rank"] == pytest.approx(rank)
        assert told["hits"] == pytest.approx(hits.tolist())


def of(found: dict[str, Found], at: int, sizes: dict[str, int]) -> dict[str, Any]:
    return {
        name: {
            "rank": float(one.ranks[at]),
            "hits": one.hits[at].tolist(),
            "chance": one.chance[at].tolist(),
            "of": sizes[name],
        }
        for name, one in found.items()
    }


def rows_of(seed: int, n: int = 30, noise: float = 0.5) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    texts = rng.standard_normal((n, 8))
    pool = Pool(np.arange(n), np.arange(n), texts, texts + noise * rng.standard_normal((n, 8)))
    found = pool.found()
    told = {
        "prediction": "a nodule", "references": ["a nodule"], "task": "caption", "prompt": None, "finding": None,
    }  # fmt: skip
    return [
        {**told, "id": str(at), "group": str(at // 3), "retrieval": of(found, at, {"i2t": n, "t2i": n})}
        for at in range(n)
    ]


def test_the_metric_is_the_mean_of_the_rows() -> None:
    rows = rows_of(0)
    metric = Retrieval(Options())
    statistics = metric.statistics(Segments(["a"] * 30, [["a"]] * 30, [*rows[:-1], {"id": "29"}]))
    values = metric.of_sums(statistics.sum(axis=0, keepdims=True))[0]
    expected = [row["retrieval"]["i2t"]["hits"] + row["retrieval"]["t2i"]["hits"] for row in rows[:-1]]
    assert values.tolist() == pytest.approx(np.mean(expected, axis=0).tolist())
    assert np.isnan(metric.of_sums(np.zeros((1, 7)))).all()


def test_the_median_rank_is_drawn_with_whole_groups() -> None:
    ranks = np.array([row["retrieval"]["i2t"]["rank"] for row in rows_of(2, noise=2.0)])
    groups = [str(at // 3) for at in range(30)]
    bootstrap = Bootstrap(groups, 200, 5)
    found = retrieval.median_rank(ranks, bootstrap)
    drawn = []
    for counts in np.concatenate(list(bootstrap.blocks())):
        repeated = sorted(
            rank for rank, cluster in zip(ranks, bootstrap.cluster, strict=True) for _ in range(counts[cluster])
        )
        drawn.append(repeated[(len(repeated) - 1) // 2])
    assert (found.low, found.high) == tuple(np.quantile(drawn, [0.025, 0.975]))
    assert found.estimate == sorted(ranks)[14]


def test_the_table_says_recalls_chance_and_candidates() -> None:
    rows = rows_of(3)
    constant = [{**row, "retrieval": retrieval.at_chance(row["retrieval"])} for row in rows]
    scores = table({"model": rows, "constant": constant}, Settings(bootstrap=100, metrics=["bleu"]))
    told = scores["retrieval"]
    assert scores["rows"]["constant"]["i2t_r5"] == pytest.approx(5 / 30)
    assert told["chance"]["i2t_r5"] == pytest.approx(5 / 30)
    assert told["n"] == 30
    assert told["candidates"] == {"caption": {"texts": 30, "pictures": 30}}
    assert told["median_rank"]["constant"]["i2t"] == [15.5, 15.5, 15.5]
    assert told["signature"].startswith("retrieval|texts:caption=30|pictures:caption=30|distinct:text,file|right:any|")
    low, high = scores["intervals"]["model"]["t2i_r1"]
    assert low <= scores["rows"]["model"]["t2i_r1"] <= high
    assert scores["comparisons"]["constant"]["i2t_r1"]["p"] < 0.05
    # What generates knows nothing of it.
    plain = [{key: value for key, value in row.items() if key != "retrieval"} for row in rows]
    assert table({"model": plain}, Settings(bootstrap=0, metrics=["bleu"]))["retrieval"] is None


def test_a_model_that_generates_is_compared_by_texts_alone() -> None:
    rows = rows_of(4)
    plain = [{key: value for key, value in row.items() if key != "retrieval"} for row in rows]
    for systems in ({"a": rows, "b": plain}, {"b": plain, "a": rows}):
        found = compare.compare(systems, ["bleu"], resamples=20, trials=20)
        assert "i2t_r1" in found["rows"]["a"]
        assert "i2t_r1" not in found["rows"]["b"]
        assert all(not key.startswith("i2t") for pair in found["pairs"] for key in pair["keys"])


def test_what_was_measured_is_kept_for_the_same_model_and_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixture: Any = SimpleNamespace(text=lambda place: {"id": f"r{place}"})
    calls: list[list[int]] = []

    def measure(predictor: Any, mixture: Any, places: list[int], show: Any) -> list[dict[str, Any]]:
        calls.append(places)
        return [{"i2t": {"rank": place}} for place in places]

    monkeypatch.setattr(retrieval, "measure", measure)
    path = tmp_path / "retrieval.json"

    def ask(places: list[int], fingerprint: str) -> Any:
        return retrieval.of_run(lambda: None, mixture, places, path, fingerprint, None)  # type: ignore[arg-type, return-value]

    assert ask([1, 2], "f") == ask([1, 2], "f") == [{"i2t": {"rank": 1}}, {"i2t": {"rank": 2}}]
    assert len(calls) == 1
    # Other candidates, or another model, make other ranks.
    ask([1, 2, 3], "f")
    ask([1, 2, 3], "g")
    path.write_text('{"finger', encoding="utf-8")
    ask([1, 2, 3], "g")
    assert len(calls) == 4
