import csv
from pathlib import Path

import numpy as np
import pytest

from melprint.data.manifest import write_rows
from melprint.data.queries import COLUMNS as QUERY_COLUMNS
from melprint.errors import MelprintError
from melprint.evaluation.evaluate import METRIC_COLUMNS, digest_of, evaluate
from melprint.evaluation.metrics import outcome, summary, wilson_interval
from melprint.evaluation.protocol import make_trial
from melprint.evaluation.report import write_report
from melprint.evaluation.stores import TestStores
from melprint.fingerprints.writer import StoreWriter
from melprint.index.exact import ExactIndex
from melprint.index.faiss import FaissIndex
from melprint.matching.sequence import Matches
from melprint.spec import SegmentSpec

SEGMENT = SegmentSpec()
DIM = 16


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def write_store(folder: Path, name: str, tracks: dict[str, np.ndarray]) -> None:
    with StoreWriter(folder, name, DIM, "float32", name) as writer:
        for track_id, rows in tracks.items():
            writer.expect(track_id, f"{track_id}.wav", len(rows), (len(rows) + 1) / 2)
            writer.put(rows)
        writer.finish(SEGMENT, "model")


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Distractors, three tracks, and noisy queries that match them row by row."""
    walk = {f"t{n}": unit(rng.standard_normal((30, DIM))) for n in range(3)}
    write_store(tmp_path, "dummy_db", {f"d{n}": unit(rng.standard_normal((40, DIM))) for n in range(5)})
    write_store(tmp_path, "db", walk)
    write_store(tmp_path, "query", {n: unit(r + 0.25 * rng.standard_normal(r.shape)) for n, r in walk.items()})
    return tmp_path


def trial_of(folder: Path, mode: str, longest: int = 9, test_ids: object = None):
    stores = TestStores.open(folder, None, mode)
    return make_trial(mode, stores.query, stores.db, stores.dummy, longest, test_ids, 0)


def test_hits_by_hand() -> None:
    matches = Matches(
        np.array([[1, 1, 0], [1, 2, 1], [-1, -1, -1]]),
        np.array([[5, 4, 5], [6, 5, 5], [0, 0, 0]]),
        np.zeros((3, 3), np.float32),
    )
    result = outcome(matches, np.array([1, 1, 0]), np.array([5, 5, 0]))
    assert result.exact.tolist() == [True, False, False]
    assert result.near.tolist() == [True, True, False]
    assert result.song.tolist() == [True, True, False]
    assert result.rank.tolist() == [1, 3, 0]
    rates = summary(result)
    assert rates["top1_exact"] == pytest.approx(1 / 3)
    assert rates["top3_exact"] == pytest.approx(2 / 3)
    assert rates["mrr"] == pytest.approx((1 + 1 / 3) / 3)


def test_the_interval_solves_its_equation() -> None:
    """Wilson's bounds are the rates p at which the observed rate lies 1.96 standard errors away."""
    for hits, trials in ((3, 10), (480, 500), (1, 2)):
        for bound in wilson_interval(hits, trials):
            error = (bound * (1 - bound) / trials) ** 0.5
            assert abs(hits / trials - bound) == pytest.approx(1.959964 * error, rel=1e-5)
    low, high = wilson_interval(500, 500)
    assert (low, high) == (pytest.approx(0.9924, abs=1e-4), 1.0)


@pytest.mark.parametrize("mode", ["strict", "compat"])
def test_every_index_at_every_length(folder: Path, mode: str) -> None:
    trial = trial_of(folder, mode)
    indexes = [ExactIndex("l2"), FaissIndex("IVF8,Flat", "ivf", search={"nprobe": 8})]
    result = evaluate(trial, indexes, [1, 3, 9], SEGMENT, folder / "cache", "digest")
    result.write(folder / "out")
    with (folder / "out" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == METRIC_COLUMNS
    assert [(row["index"], row["num_segments"]) for row in rows] == [(i, n) for i in ("l2", "ivf") for n in "139"]
    count = {"strict": {"1": "90", "3": "84", "9": "66"}, "compat": dict.fromkeys("139", "81")}[mode]
    for row in rows:
        assert row["num_queries"] == count[row["num_segments"]]
        assert float(row["top1_exact_low"]) <= float(row["top1_exact"]) <= float(row["top1_exact_high"])
        assert float(row["recall_at_20"]) == pytest.approx(1.0)
        assert float(row["ann_loss"]) == 0.0
        assert row["num_vectors"] == "290"
    assert float(rows[2]["top1_exact"]) == 1.0
    page = write_report(result.metrics, folder / "out", "title", {"model": "x"}).read_text()
    assert page.count("<tr>") > 8
    assert "data:image/png;base64" in page


def test_an_index_that_cannot_be_built_is_left_out_with_a_word(folder: Path, capsys: pytest.CaptureFixture) -> None:
    indexes = [FaissIndex("IVF400,Flat", "ivf"), FaissIndex("HNSW8,Flat", "hnsw")]
    result = evaluate(trial_of(folder, "strict"), indexes, [1], SEGMENT, folder / "cache", "digest")
    assert [row["index"] for row in result.metrics] == ["ip", "hnsw"]
    assert "left out: faiss cannot build ivf" in " ".join(capsys.readouterr().err.split())


def test_nothing_that_is_read_is_changed(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for mode in ("strict", "compat"):
        evaluate(trial_of(folder, mode), [ExactIndex()], [1, 3], SEGMENT, folder.parent / "cache", "digest")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_an_index_is_kept_until_its_store_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    original = FaissIndex.build
    monkeypatch.setattr(FaissIndex, "build", lambda self, *args: built.append(self.name) or original(self, *args))
    for digest in ("a", "a", "b"):
        index = FaissIndex("IVF8,Flat", "ivf", search={"nprobe": 8})
        evaluate(trial_of(folder, "strict"), [index], [1], SEGMENT, folder / "cache", digest)
    assert built == ["ivf", "ivf"]
    assert digest_of(["a", "b"]) != digest_of(["b", "a"])


def test_recorded_places_are_the_truth(folder: Path, rng: np.random.Generator) -> None:
    """Clips that begin anywhere: only their table says where they come from."""
    stores = TestStores.open(folder, None, "strict")
    rows = np.array(stores.query.rows)
    write_store(folder, "query", {"query-0": rows[33:42], "query-1": rows[5:14]})
    table = [["query-0", "t1", 1.4, 5.0, 3.0, "", "n"], ["query-1", "t0", 2.6, 5.0, 3.0, "", "n"]]
    write_rows(folder / "query_queries.csv", QUERY_COLUMNS, table)
    trial = trial_of(folder, "strict")
    assert trial.first_segment.tolist() == [0, 9]
    assert trial.true_track.tolist() == [6, 5]
    assert trial.true_start.tolist() == [3, 5]
    result = evaluate(trial, [ExactIndex()], [9], SEGMENT, folder / "cache", "digest")
    assert result.metrics[0]["top1_exact"] == 1.0
    assert [row[6] for row in result.hits] == [1.4, 2.6]


def test_stores_without_a_table_of_tracks(folder: Path) -> None:
    for path in [*folder.glob("*_meta.json"), *folder.glob("*_tracks.csv")]:
        path.unlink()
    assert len(trial_of(folder, "compat").first_segment) == 81
    with pytest.raises(MelprintError, match="was not finished"):
        trial_of(folder, "strict")


def test_ids_are_all_or_a_seeded_number_or_a_file(folder: Path) -> None:
    some = trial_of(folder, "compat", test_ids=10).first_segment
    np.testing.assert_array_equal(some, trial_of(folder, "compat", test_ids=10).first_segment)
    assert len(set(some.tolist())) == 10
    np.save(folder / "ids.npy", np.array([4, 88]))
    trial = trial_of(folder, "compat", test_ids=str(folder / "ids.npy"))
    assert trial.first_segment.tolist() == [4, 88]
    assert trial.num_segments.tolist() == [9, 2]  # the published script takes what is left of the query
    np.save(folder / "ids.npy", np.array([90]))
    for ids, message in (
        (str(folder / "ids.npy"), "go from 0 to 89"),
        ("none", "all, a number or a .npy file"),
        (0, "cannot be chosen among 81"),
        (82, "cannot be chosen among 81"),
    ):
        with pytest.raises(MelprintError, match=message):
            trial_of(folder, "compat", test_ids=ids)


def test_what_does_not_fit_is_refused(folder: Path) -> None:
    with pytest.raises(MelprintError, match="no query has 31 segments"):
        evaluate(trial_of(folder, "strict", 31), [ExactIndex()], [1, 31], SEGMENT, folder / "cache", "digest")
    with pytest.raises(MelprintError, match="there is no folder"):
        TestStores.open(folder / "nothing", None, "strict")
    with pytest.raises(MelprintError, match="mode must be"):
        trial_of(folder, "lenient")
