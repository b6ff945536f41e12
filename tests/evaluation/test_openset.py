"""Planted scores, thresholds by hand, and an evaluation whose unknown queries have no answer."""

from pathlib import Path

import numpy as np
import pytest

from melprint.errors import MelprintError
from melprint.evaluation.evaluate import Options, evaluate
from melprint.evaluation.openset import OpenSetSpec, error_curve, open_set_of
from melprint.evaluation.protocol import make_trial
from melprint.evaluation.report import write_report
from melprint.evaluation.stores import TestStores
from melprint.index.exact import ExactIndex
from melprint.matching.calibration import threshold_at
from tests.evaluation.conftest import DIM, SEGMENT, unit, write_store


@pytest.fixture
def many_songs(tmp_path: Path, rng: np.random.Generator) -> Path:
    songs = {f"t{n}": unit(rng.standard_normal((30, DIM))) for n in range(20)}
    write_store(tmp_path, "dummy_db", {f"d{n}": unit(rng.standard_normal((40, DIM))) for n in range(5)})
    write_store(tmp_path, "db", songs)
    write_store(tmp_path, "query", {n: unit(r + 0.05 * rng.standard_normal(r.shape)) for n, r in songs.items()})
    return tmp_path


def trial_of(folder: Path):
    return make_trial("strict", TestStores.open(folder, None, "strict"), 9)


def test_tracks_that_are_not_enrolled_are_nowhere_among_the_references(many_songs: Path) -> None:
    trial = trial_of(many_songs)
    sets = open_set_of(trial, OpenSetSpec(unknown_share=0.4), 9)
    assert sets is not None
    unknown = np.unique(sets.song[~sets.known])
    assert len(unknown) == 8
    assert len(sets.trial.references) == len(trial.references) - 8 * 30
    assert len(sets.trial.track_ids) == 25 - 8
    kept = sets.trial.references.take(np.arange(len(sets.trial.references)))
    for song in range(20):
        rows = trial.references.take(trial.borders.first[5 + song] + np.arange(30))
        there = (kept[:, None] == rows[None, :1]).all(axis=2).any()
        assert there == (song not in unknown)
    for query in np.flatnonzero(sets.known)[::37]:  # the renumbered truth is the same rows
        first = sets.trial.borders.first[sets.trial.true_track[query]] + sets.trial.true_start[query]
        segment = sets.trial.queries.take(sets.trial.first_segment[query : query + 1])
        assert float((sets.trial.references.take(first[None]) * segment).sum()) > 0.9
    assert not set(np.unique(sets.song[sets.calibration])) & set(np.unique(sets.song[~sets.calibration]))
    clean = sets.trial.first_segment[sets.clean]
    assert len(np.unique(clean)) == len(clean) == 8 * 3  # 30 rows hold three excerpts of nine that share none
    references = trial.references.take(np.arange(len(trial.references)))
    assert (references == sets.trial.queries.take(clean[:1])[0]).all(axis=1).sum() == 1


def test_known_queries_are_accepted_and_unknown_ones_refused(many_songs: Path) -> None:
    trial = trial_of(many_songs)
    options = Options([1, 9], timing_s=0, open_set=OpenSetSpec(targets=(0.05,)))
    result = evaluate(trial, [ExactIndex()], SEGMENT, options, many_songs / "kept", "digest")
    rows = {row["num_segments"]: row for row in result.open_set}
    assert rows[9]["accepted_correct"] > 0.97
    assert rows[9]["far_degraded"] < 0.2
    assert rows[9]["far_low_clean"] <= rows[9]["far_clean"] <= rows[9]["far_high_clean"]
    for row in rows.values():
        total = row["accepted_correct"] + row["accepted_wrong"] + row["refused"]
        assert total == pytest.approx(1.0)
    assert {point["num_segments"] for point in result.open_set_curve} == {1, 9}


def test_a_length_that_no_unknown_query_has_is_left_out(tmp_path: Path, rng: np.random.Generator) -> None:
    songs = {f"t{n}": unit(rng.standard_normal((30 if n == 8 else 6, DIM))) for n in range(9)}
    for name in ("db", "query"):
        write_store(tmp_path, name, songs)
    options = Options([1, 9], timing_s=0, open_set=OpenSetSpec(seed=1))
    result = evaluate(trial_of(tmp_path), [ExactIndex()], SEGMENT, options, tmp_path / "kept", "digest")
    assert {row["num_segments"] for row in result.open_set} == {1}
    assert {row["num_segments"] for row in result.metrics} == {1, 9}
    write_report(result, tmp_path / "out", {"run": "name", "mode": "strict"})


def test_too_few_tracks_are_said_and_not_divided(many_songs: Path, folder: Path, capsys) -> None:
    options = Options([1], timing_s=0, open_set=OpenSetSpec())
    result = evaluate(trial_of(folder), [ExactIndex()], SEGMENT, options, many_songs / "kept", "digest")
    assert not result.open_set
    assert "too few tracks" in capsys.readouterr().err
    for wrong in ({"unknown_share": 1.0}, {"targets": (0.0,)}):
        with pytest.raises(MelprintError, match="between 0 and 1"):
            OpenSetSpec(**wrong)


def test_a_threshold_lets_no_more_through_than_its_target(rng: np.random.Generator) -> None:
    scores = rng.standard_normal(1_000)
    for target in (0.5, 0.01, 0.001, 0.0001):
        accepted = (scores >= threshold_at(scores, target)).sum()
        assert accepted == int(target * 1_000)
    assert threshold_at(np.array([-np.inf, -np.inf]), 0.1) == -1.0
    with pytest.raises(MelprintError, match="there are none"):
        threshold_at(np.zeros(0), 0.1)


def test_the_curve_falls_and_rises(rng: np.random.Generator) -> None:
    known, unknown = rng.normal(2, 1, 3_000), rng.normal(0, 1, 3_000)
    points = error_curve(known, np.ones(3_000, bool), unknown)
    false, missed = (np.array([p[kind] for p in points]) for kind in ("false_accept_rate", "false_reject_rate"))
    assert (np.diff(false) <= 0).all()
    assert (np.diff(missed) >= 0).all()
    at = np.abs(false - 0.1).argmin()  # N(0,1) exceeds 1.28 in 10 %; N(2,1) lies below it in 23.6 %
    assert missed[at] == pytest.approx(0.236, abs=0.03)
