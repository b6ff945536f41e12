import csv
import json
from pathlib import Path

import numpy as np
import pytest

from melprint.data.manifest import write_rows
from melprint.data.queries import COLUMNS as QUERY_COLUMNS
from melprint.errors import MelprintError
from melprint.evaluation.evaluate import Options, evaluate
from melprint.evaluation.metrics import cluster_interval, outcome, summary, wilson_interval
from melprint.evaluation.report import write_report
from melprint.evaluation.stores import TestStores
from melprint.evaluation.tables import METRIC_COLUMNS, Result
from melprint.index.base import Index
from melprint.index.exact import ExactIndex
from melprint.index.faiss import FaissIndex
from melprint.matching.sequence import Matches
from tests.evaluation.conftest import SEGMENT, trial_of, write_store


def run(folder: Path, mode: str, indexes: list[Index], lengths: list[int], digest: str = "digest", **options) -> Result:
    trial = trial_of(folder, mode, max(9, *lengths))
    chosen = Options(lengths, **{"timing_s": 0.01, **options})
    return evaluate(trial, indexes, SEGMENT, chosen, folder.parent / "cache", digest)


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


def test_the_song_interval_covers_the_rate_where_wilson_does_not(rng: np.random.Generator) -> None:
    """Songs are easy or hard as wholes: of many repetitions, 95 % should cover the true rate of 0.5."""
    covered = {"songs": 0, "wilson": 0}
    song = np.repeat(np.arange(60), 8)
    for seed in range(120):
        hit = (rng.random(len(song)) < np.where(rng.random(60) < 0.5, 0.95, 0.05)[song]).astype(float)
        for name, (low, high) in (
            ("songs", cluster_interval(hit, song, seed)),
            ("wilson", wilson_interval(int(hit.sum()), len(hit))),
        ):
            covered[name] += low <= 0.5 <= high
    assert 107 <= covered["songs"] <= 120
    assert covered["wilson"] < 80
    assert np.isnan(cluster_interval(np.ones(3), np.zeros(3, np.int64))).all()


@pytest.mark.parametrize("mode", ["strict", "compat"])
def test_every_index_at_every_length(folder: Path, mode: str) -> None:
    indexes = [ExactIndex("l2"), FaissIndex("IVF8,Flat", "ivf", search={"nprobe": 8})]
    result = run(folder, mode, indexes, [1, 3, 9])
    page = write_report(result, folder / "out", {"run": "name", "mode": mode}).read_text()
    assert json.loads((folder / "out" / "evaluation.json").read_text())["mode"] == mode
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
    assert page.count("<tr>") > 8
    assert page.count("data:image/png;base64,iVBOR") == (2 if mode == "strict" else 1)
    assert all(5 <= row["num_timed"] <= 200 for row in result.costs)
    assert all(row["peak_memory_mb"] > 10 for row in result.costs)


def test_an_index_that_cannot_be_built_is_refused_before_any_work(folder: Path) -> None:
    indexes = [FaissIndex("HNSW8,Flat", "hnsw"), FaissIndex("IVF400,Flat", "ivf")]
    with pytest.raises(MelprintError, match="needs at least 400 distractor rows to train on, there are 200"):
        run(folder, "strict", indexes, [1])
    assert not (folder.parent / "cache").exists()


def test_nothing_that_is_read_is_changed(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for mode in ("strict", "compat"):
        run(folder, mode, [ExactIndex(), FaissIndex("HNSW8,Flat", "hnsw")], [1, 3])
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_an_index_is_kept_until_its_store_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    original = FaissIndex.build
    monkeypatch.setattr(FaissIndex, "build", lambda self, *args: built.append(self.name) or original(self, *args))
    for digest in ("a", "a", "b"):
        run(folder, "strict", [FaissIndex("IVF8,Flat", "ivf", search={"nprobe": 8})], [1], digest)
    assert built == ["ivf", "ivf"]


def test_kept_neighbours_are_not_trusted_blindly(folder: Path) -> None:
    first = run(folder, "strict", [ExactIndex()], [1])
    (kept,) = (folder.parent / "cache").glob("neighbours-*.npz")
    assert run(folder, "strict", [ExactIndex()], [1]).metrics[0]["top1_exact"] == first.metrics[0]["top1_exact"]
    with np.load(kept) as content:
        rows, sha = content["rows"], content["sha256"]
    for broken in (b"", b"garbage", kept.read_bytes()[:-40]):
        kept.write_bytes(broken)
        with pytest.raises(MelprintError, match=r"damaged|does not hold"):
            run(folder, "strict", [ExactIndex()], [1])
    for wrong in (rows * 0, rows + 10_000, rows[:3], rows.astype(float)):
        np.savez(kept, rows=wrong, sha256=sha)
        with pytest.raises(MelprintError, match="does not hold the neighbours"):
            run(folder, "strict", [ExactIndex()], [1])


def test_queries_that_the_end_cuts_short_are_asked_as_published(folder: Path) -> None:
    np.save(folder.parent / "ids.npy", np.array([85, 89]))
    trial = trial_of(folder, "compat", test_ids=str(folder.parent / "ids.npy"))
    result = evaluate(trial, [ExactIndex()], SEGMENT, Options([1, 9], timing_s=0.01), folder.parent / "cache", "digest")
    assert [row["num_queries"] for row in result.metrics] == [2, 2]
    rows = np.concatenate([trial.references.take(np.arange(290))])
    for hit in result.hits[2:]:
        segments = trial.queries.take(np.arange(int(hit["query_id"]), 90))
        means = [np.mean(np.diag(segments @ rows[start : start + 9].T)) for start in range(290)]
        assert hit["exact"] == (np.argmax(means) == 200 + int(hit["query_id"]))
    assert [row["num_segments"] for row in result.costs] == [1]  # no query is whole at nine


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
    assert trial.true_start_s.tolist() == [1.4, 2.6]
    result = run(folder, "strict", [ExactIndex()], [9])
    assert result.metrics[0]["top1_exact"] == 1.0
    assert [row["true_start_s"] for row in result.hits] == [1.4, 2.6]
    assert result.localisation[0]["median_error_s"] == pytest.approx((0.1 - 0.1) / 2)
    assert result.localisation[0]["median_absolute_error_s"] == pytest.approx(0.1)


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
    np.save(folder / "mask.npy", np.ones(90, bool))
    np.save(folder / "half.npy", np.array([1.5, 2.0]))
    (folder / "empty.npy").touch()
    for ids, message in (
        (str(folder / "ids.npy"), "go from 0 to 89"),
        ("none", "all, a number or a .npy file"),
        (0, "cannot be chosen among 81"),
        (str(folder / "mask.npy"), "holds bool, and ids are whole numbers"),
        (str(folder / "half.npy"), "holds float64, and ids are whole numbers"),
        (str(folder / "empty.npy"), "all, a number or a .npy file"),
        (82, "cannot be chosen among 81"),
    ):
        with pytest.raises(MelprintError, match=message):
            trial_of(folder, "compat", test_ids=ids)


def test_what_does_not_fit_is_refused(folder: Path) -> None:
    with pytest.raises(MelprintError, match="no query has 31 segments"):
        run(folder, "strict", [ExactIndex()], [1, 31])
    with pytest.raises(MelprintError, match="num_neighbours=291 must lie between 1 and the 290 rows"):
        run(folder, "strict", [ExactIndex()], [1], num_neighbours=291)
    with pytest.raises(MelprintError, match="gpu needs a cuda device"):
        run(folder, "strict", [ExactIndex(name="gpu", required_device="cuda")], [1])
    with pytest.raises(MelprintError, match="there is no folder"):
        TestStores.open(folder / "nothing", None, "strict")
    with pytest.raises(MelprintError, match="mode must be"):
        trial_of(folder, "lenient")
