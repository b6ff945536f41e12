"""One contract for every index; comparing with every row, one by one, is the oracle."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from melprint.errors import MelprintError
from melprint.fingerprints.rows import Rows
from melprint.index.exact import ExactIndex
from melprint.index.faiss import FaissIndex
from melprint.index.lists import can_search

EXHAUSTIVE = {
    "ip": partial(ExactIndex, "ip"),
    "l2": partial(ExactIndex, "l2"),
    "flat": partial(FaissIndex, "Flat", "flat"),
    "flat-ip": partial(FaissIndex, "Flat", "flat-ip", metric="ip"),
    "ivf": partial(FaissIndex, "IVF4,Flat", "ivf", search={"nprobe": 4}),
    "ivf-ip": partial(FaissIndex, "IVF4,Flat", "ivf-ip", metric="ip", search={"nprobe": 4}),
    "hnsw": partial(FaissIndex, "HNSW16,Flat", "hnsw", construction={"efConstruction": 300}, search={"efSearch": 400}),
}
APPROXIMATE = {
    "ivfpq": partial(FaissIndex, "IVF4,PQ4x4", "ivfpq", search={"nprobe": 4}),
    "ivfpq-rr": partial(FaissIndex, "IVF4,PQ4x4+4x4", "ivfpq-rr", search={"nprobe": 4}),
}


def data(rng: np.random.Generator) -> tuple[Rows, np.ndarray]:
    """Two stores whose rows differ in length, so that inner product and distance rank differently."""
    parts = [rng.standard_normal((n, 8), dtype=np.float32) for n in (300, 212)]
    return Rows(parts), rng.standard_normal((20, 8), dtype=np.float32)


def brute_force(rows: Rows, queries: np.ndarray, metric: str, k: int) -> tuple[np.ndarray, np.ndarray]:
    vectors = np.concatenate(list(rows.blocks())).astype(np.float64)
    scores, found = [], []
    for query in queries.astype(np.float64):
        if metric == "ip":
            score = np.array([query @ vector for vector in vectors])
            order = np.argsort(-score)[:k]
        else:
            score = np.array([((query - vector) ** 2).sum() for vector in vectors])
            order = np.argsort(score)[:k]
        scores.append(score[order])
        found.append(order)
    return np.array(scores), np.array(found)


@pytest.mark.parametrize("name", EXHAUSTIVE)
@pytest.mark.parametrize("reopened", [False, True])
def test_every_exhaustive_index_agrees_with_the_oracle(
    name: str, reopened: bool, rng: np.random.Generator, tmp_path: Path
) -> None:
    rows, queries = data(rng)
    index = EXHAUSTIVE[name]()
    index.build(rows)
    if reopened:
        index.save(tmp_path / "index")
        index = EXHAUSTIVE[name]()
        index.load(tmp_path / "index", rows)
    scores, found = brute_force(rows, queries, index.metric, 5)
    hits = index.search(queries, 5)
    np.testing.assert_array_equal(hits.rows, found)
    np.testing.assert_allclose(hits.scores, scores, rtol=1e-4, atol=1e-4)
    assert index.bytes_per_vector() >= 32


@pytest.mark.parametrize("name", APPROXIMATE)
def test_compressed_indexes_are_smaller_and_mostly_right(name: str, rng: np.random.Generator) -> None:
    centres = rng.standard_normal((40, 8), dtype=np.float32) * 5
    rows = Rows([(centres[np.arange(2_000) % 40] + 0.1 * rng.standard_normal((2_000, 8))).astype(np.float32)])
    index = APPROXIMATE[name]()
    index.build(rows, train_rows=1_000)
    hits = index.search(centres, 10)
    assert np.mean(hits.rows % 40 == np.arange(40)[:, None]) > 0.9
    assert index.bytes_per_vector() < 32


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF8,SQ8", "IVF8,PQ4x6"])
def test_many_queries_find_what_each_finds_alone(factory: str, metric: str, rng: np.random.Generator) -> None:
    """Together they are compared list by list, alone by faiss's own search."""
    rows = Rows([rng.standard_normal((n, 16), dtype=np.float32) for n in (1_000, 500)])
    queries = rng.standard_normal((300, 16), dtype=np.float32)
    index = FaissIndex(factory, "index", metric, search={"nprobe": 3})
    index.build(rows)
    assert can_search(index.faiss, index.index, len(queries))
    assert not can_search(index.faiss, index.index, 1)
    together = index.search(queries, 7)
    alone = [index.search(query[None], 7) for query in queries]
    np.testing.assert_allclose(together.scores, np.concatenate([hits.scores for hits in alone]), rtol=1e-3, atol=1e-3)
    assert np.mean(together.rows == np.concatenate([hits.rows for hits in alone])) > 0.995  # ties apart


def test_fewer_rows_in_the_lists_than_neighbours(rng: np.random.Generator) -> None:
    rows = Rows([rng.standard_normal((20, 8), dtype=np.float32)])
    index = FaissIndex("IVF8,Flat", "index", search={"nprobe": 1})
    index.build(rows)
    hits = index.search(rng.standard_normal((400, 8), dtype=np.float32), 18)
    assert ((hits.rows >= -1) & (hits.rows < 20)).all()
    assert (hits.rows == -1).any()
    for found in hits.rows:
        there = found[found >= 0]
        assert len(set(there.tolist())) == len(there)
        assert (found[len(there) :] == -1).all()


def test_tiles_and_late_rows_change_nothing(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best rows come last and in sizes that no tile divides."""
    monkeypatch.setattr("melprint.index.exact.TILE", {"cpu": 70 * 50})
    vectors = rng.standard_normal((1_003, 8), dtype=np.float32)
    vectors *= np.linspace(0.01, 3, len(vectors), dtype=np.float32)[:, None]
    rows, queries = Rows([vectors[:77], vectors[77:]]), rng.standard_normal((50, 8), dtype=np.float32)
    for metric in ("ip", "l2"):
        index = ExactIndex(metric)
        index.build(rows)
        scores, found = brute_force(rows, queries, metric, 9)
        hits = index.search(queries, 9)
        assert np.mean(hits.rows == found) > 0.99  # but for ties within float32
        np.testing.assert_allclose(hits.scores, scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_of_equally_near_rows_the_lowest_are_found(metric: str, rng: np.random.Generator) -> None:
    """Whole numbers make equal products equal to the last bit, whatever the shape of a tile; faiss is the twin."""
    distinct = rng.integers(-3, 4, (60, 8)).astype(np.float32)
    vectors = distinct[rng.integers(60, size=5_000)]
    rows, queries = Rows([vectors[:1_234], vectors[1_234:]]), rng.integers(-3, 4, (90, 8)).astype(np.float32)
    index, twin = ExactIndex(metric), FaissIndex("Flat", "flat", metric)
    for each in (index, twin):
        each.build(rows)
    together = index.search(queries, 20).rows
    products = queries @ vectors.T - (np.square(vectors).sum(axis=1) / 2 if metric == "l2" else 0)
    np.testing.assert_array_equal(together, np.argsort(-products, axis=1, kind="stable")[:, :20])
    alone = np.concatenate([index.search(query[None], 20).rows for query in queries])
    np.testing.assert_array_equal(together, alone)
    one_by_one = np.concatenate([twin.search(query[None], 20).rows for query in queries])
    np.testing.assert_array_equal(np.sort(one_by_one, axis=1), np.sort(together, axis=1))


def test_half_precision_rounds_and_little_else(rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((500, 32), dtype=np.float32)
    rows = Rows([vectors / np.linalg.norm(vectors, axis=1, keepdims=True)])
    index = ExactIndex("ip", dtype="float16", resident=True)
    index.build(rows)
    hits = index.search(rows.take(np.arange(100)), 3)
    assert hits.rows[:, 0].tolist() == list(range(100))
    np.testing.assert_allclose(hits.scores[:, 0], 1, atol=2e-3)
    assert index.bytes_per_vector() == 64


def test_refinement_has_the_bits_that_are_named(rng: np.random.Generator, tmp_path: Path) -> None:
    """faiss's own factory string, of eight bits, is the twin."""
    rows = Rows([rng.standard_normal((3_000, 16), dtype=np.float32)])
    bits = {}
    for factory in ("IVF4,PQ4x4+4x4", "IVF4,PQ4+4"):
        index = FaissIndex(factory, "index", search={"nprobe": 4})
        index.build(rows)
        index.save(tmp_path / "index")
        index.load(tmp_path / "index", rows)
        assert index.search(rows.take(np.arange(5)), 3).rows[:, 0].tolist() == list(range(5))
        refine = index.index.refine_pq
        bits[factory] = (refine.M, refine.nbits)
    assert bits == {"IVF4,PQ4x4+4x4": (4, 4), "IVF4,PQ4+4": (4, 8)}


@pytest.mark.parametrize("name", ["ip", "flat"])
def test_more_neighbours_than_rows_are_marked_as_nothing_found(name: str, rng: np.random.Generator) -> None:
    rows = Rows([rng.standard_normal((3, 8), dtype=np.float32)])
    index = EXHAUSTIVE[name]()
    index.build(rows)
    hits = index.search(rng.standard_normal((2, 8), dtype=np.float32), 5)
    assert (hits.rows[:, 3:] == -1).all()
    assert sorted(hits.rows[0, :3].tolist()) == [0, 1, 2]


def test_what_cannot_be_built_is_explained(rng: np.random.Generator, tmp_path: Path) -> None:
    rows, queries = data(rng)
    with pytest.raises(MelprintError, match="cannot build odd"):
        FaissIndex("IVFodd", "odd").build(rows)
    with pytest.raises(MelprintError, match="needs at least 600 rows to train on, there are 512"):
        FaissIndex("IVF600,Flat", "large").build(rows)
    with pytest.raises(MelprintError, match="no such search parameter"):
        FaissIndex("Flat", "flat", search={"nprobe": 3}).build(rows)
    with pytest.raises(MelprintError, match="is empty"):
        FaissIndex("Flat", "flat").search(queries, 1)
    with pytest.raises(MelprintError, match="metric"):
        ExactIndex("cosine")
    index = FaissIndex("Flat", "flat")
    index.build(rows)
    index.save(tmp_path / "index")
    with pytest.raises(MelprintError, match="512 rows, the store 300"):
        index.load(tmp_path / "index", Rows(rows.parts[:1]))
