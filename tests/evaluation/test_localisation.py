from pathlib import Path

import numpy as np
import pytest

from melprint.data.manifest import write_rows
from melprint.data.queries import COLUMNS as QUERY_COLUMNS
from melprint.errors import MelprintError
from melprint.evaluation.evaluate import Options, evaluate
from melprint.evaluation.localisation import Located, Phases, error_row, located_outcome
from melprint.evaluation.protocol import make_trial
from melprint.evaluation.stores import TestStores
from melprint.fingerprints.store import open_store
from melprint.fingerprints.writer import StoreWriter
from melprint.index.exact import ExactIndex
from melprint.spec import SegmentSpec
from tests.evaluation.conftest import DIM, SEGMENT, unit, write_store


def test_errors_by_hand() -> None:
    located = Located(np.array([1, 1, 2, 1]), np.array([5.0, 5.5, 5.0, 4.3]), np.ones(4, np.float32))
    row = error_row(located, np.array([1, 1, 1, 1]), np.array([5.1, 5.1, 5.0, 5.1]))
    assert row["num_in_right_track"] == 3
    assert row["median_error_s"] == pytest.approx(-0.1)
    assert row["median_absolute_error_s"] == pytest.approx(0.4)
    assert [row[f"within_{t}s"] for t in ("0.05", "0.1", "0.25", "0.5", "1")] == [0, 0.25, 0.25, 0.5, 0.75]
    hits = located_outcome(located, np.array([1, 1, 1, 1]), np.array([5.1, 5.1, 5.0, 5.1]), 0.5)
    assert hits.exact.tolist() == [True, False, False, False]
    assert hits.near.tolist() == [True, True, False, False]
    assert hits.song.tolist() == [True, True, False, True]


@pytest.fixture
def smooth(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Fingerprints that turn steadily with time, so that a shift of an eighth of a second can be told."""
    count, songs = 4, 10
    axes = rng.standard_normal((songs, 2, DIM, 6))

    def at(song: int, time_s: np.ndarray) -> np.ndarray:
        angle = time_s[:, None] * np.array([0.7, 1.1, 1.7, 2.3, 2.9, 3.7])
        return unit(np.cos(angle) @ axes[song, 0].T + np.sin(angle) @ axes[song, 1].T)

    write_store(tmp_path, "db", {f"t{n}": at(n, 0.5 * np.arange(60)) for n in range(songs)})
    starts = {n: float(rng.uniform(2, 18)) for n in range(songs)}
    write_store(tmp_path, "query", {f"q{n}": at(n, starts[n] + 0.5 * np.arange(9)) for n in range(songs)})
    table = [[f"q{n}", f"t{n}", starts[n], 5.0, 9.0, "", ""] for n in range(songs)]
    write_rows(tmp_path / "query_queries.csv", QUERY_COLUMNS, table)
    with StoreWriter(tmp_path, "query_x4", DIM, "float32", "fine") as writer:
        for n in range(songs):
            rows = at(n, starts[n] + 0.5 / count * np.arange(8 * count + 1))
            writer.expect(f"q{n}", "", len(rows), 5.0)
            writer.put(rows)
        writer.finish(SegmentSpec(hop_s=0.125), "fine model")
    return tmp_path


def test_phases_place_queries_below_the_hop(smooth: Path) -> None:
    trial = make_trial("strict", TestStores.open(smooth, None, "strict"), 9)
    phases = Phases.of(trial, open_store(smooth, "query_x4"), SEGMENT, 9)
    options = Options([1, 5, 9], timing_s=0)
    result = evaluate(trial, [ExactIndex()], SEGMENT, options, smooth / "kept", "digest", phases)
    worst = {
        (row["matcher"], row["num_segments"]): row["p95_absolute_error_s"]
        for row in result.localisation
        if row["num_in_right_track"] == 10
    }
    for length in (5, 9):
        assert worst["sequence", length] > 0.15
        assert worst["sequence-x4", length] <= 0.125 / 2 + 1e-6
    # One segment leaves no room to shift it: nothing is heard that a one-second query does not hold.
    assert worst["sequence-x4", 1] == worst["sequence", 1]
    refined = [row for row in result.metrics if row["matcher"] == "sequence-x4"]
    assert all(np.isnan(row["top10_exact"]) and row["top1_exact"] == 1 for row in refined)


def test_a_store_that_is_not_finer_is_refused(smooth: Path) -> None:
    trial = make_trial("strict", TestStores.open(smooth, None, "strict"), 9)
    with pytest.raises(MelprintError, match="not a fraction of the hop"):
        Phases.of(trial, open_store(smooth, "query"), SEGMENT, 9)
