"""Synthetic distractors beside tracks of the same kind that the model has not seen."""

from pathlib import Path

import numpy as np
import pytest

from melprint.errors import MelprintError
from melprint.evaluation.distractors import DistractorModel, realism, synthetic_store
from melprint.evaluation.stores import TestStores
from melprint.fingerprints.store import open_store
from tests.evaluation.conftest import DIM, unit, write_store


def music(rng: np.random.Generator, num_rows: int) -> np.ndarray:
    """A walk that stays near one of a few places and returns to it."""
    places = np.random.default_rng(1).standard_normal((12, DIM))
    step = 0.5 * rng.standard_normal((num_rows, DIM))
    for row in range(1, num_rows):
        step[row] += 0.8 * step[row - 1]
    return unit(places[rng.integers(12)] + 0.6 * step)


@pytest.fixture
def stores(tmp_path: Path, rng: np.random.Generator) -> Path:
    write_store(tmp_path, "dummy_db", {f"d{n}": music(rng, 60) for n in range(80)})
    songs = {f"t{n}": music(rng, 40) for n in range(12)}
    write_store(tmp_path, "db", songs)
    write_store(tmp_path, "query", {n: unit(r + 0.1 * rng.standard_normal(r.shape))[:19] for n, r in songs.items()})
    return tmp_path


def test_drawn_tracks_are_unit_rows_that_resemble_their_neighbours(stores: Path) -> None:
    real = open_store(stores, "dummy_db")
    model = DistractorModel.fit(real)
    tracks = model.tracks(range(40), 0)
    rows = np.concatenate(tracks)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)

    def adjacent(parts: list[np.ndarray]) -> float:
        return float(np.mean([(part[1:] * part[:-1]).sum(axis=1).mean() for part in parts]))

    originals = [np.array(real.rows[t.first_row : t.first_row + t.num_rows]) for t in real.tracks]
    assert adjacent(tracks) == pytest.approx(adjacent(originals), abs=0.12)
    apart = [rows[np.random.default_rng(0).permutation(len(rows))]]
    assert adjacent(apart) < adjacent(tracks) - 0.2
    np.testing.assert_allclose(model.tracks(range(7, 9), 0)[1], model.tracks(range(8, 30), 0)[0], atol=1e-6)


def test_rivals_are_about_as_strong_as_real_ones(stores: Path) -> None:
    found = realism(open_store(stores, "dummy_db"), open_store(stores, "query"), [1, 9])
    assert found.real.shape == found.synthetic.shape == (2, 12)
    np.testing.assert_allclose(np.median(found.real, axis=1), np.median(found.synthetic, axis=1), atol=0.1)
    assert all(0 <= value <= 1 for value in found.divergence())


def test_stores_grow_by_appending_and_are_labelled(stores: Path) -> None:
    real = open_store(stores, "dummy_db")
    small = synthetic_store(real, stores / "made", 500)
    kept = np.array(small.rows[:500])
    assert small.rows.dtype == np.float16
    assert all(track.track_id.startswith("synthetic/") for track in small.tracks)
    large = synthetic_store(real, stores / "made", 30_000)
    assert len(large.rows) >= 30_000
    np.testing.assert_array_equal(large.rows[:500], kept)
    written = (stores / "made" / "synthetic_db.mm").stat().st_mtime_ns
    synthetic_store(real, stores / "made", 20_000)
    assert (stores / "made" / "synthetic_db.mm").stat().st_mtime_ns == written


def test_any_number_of_distractors(stores: Path) -> None:
    opened = TestStores.open(stores, None, "strict")
    for wanted, names in ((0, ["db"]), (100, ["dummy_db", "db"]), (6_000, ["dummy_db", "synthetic_db", "db"])):
        some = opened.with_distractors(wanted, stores / "made")
        assert [store.name for store in some.searched()] == names
        assert sum(len(store.rows) for store in some.distractors) == wanted
        assert sum(track.num_rows for store in some.distractors for track in store.tracks) == wanted
    with pytest.raises(MelprintError, match="from 0 on, got -1"):
        opened.with_distractors(-1, stores / "made")
    few = TestStores(opened.query, opened.db, (open_store(stores, "dummy_db").head(100),))
    with pytest.raises(MelprintError, match="2000 rows in tracks are needed"):
        few.with_distractors(200, stores / "made2")
