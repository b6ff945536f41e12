"""One contract for every index; comparing with every row, one by one, is the oracle."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from melprint.errors import MelprintError
from melprint.fingerprints.rows import Rows
from melprint.index.exact import ExactIndex
from melprint.index.faiss import FaissIndex

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
