"""Voting against loops that say the same, and cases worked out by hand."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from melprint.errors import MelprintError
from melprint.matching import sequence
from melprint.matching.sequence import Borders
from melprint.matching.vote import majority, vote

BORDERS = Borders(np.array([0, 4, 10, 30]))


def looped(
    rows: np.ndarray, scores: np.ndarray, first: int, count: int, borders: np.ndarray, by_count: bool
) -> list[tuple[int, float, int]]:
    """(track, score, start) of one query, best first."""
    sums: dict[int, float] = defaultdict(float)
    hits: Counter[int] = Counter()
    starts: dict[int, Counter[int]] = defaultdict(Counter)
    start_sums: dict[tuple[int, int], float] = defaultdict(float)
    for segment in range(count):
        for row, score in zip(rows[first + segment], scores[first + segment], strict=True):
            if row < 0:
                continue
            track = max(t for t in range(len(borders) - 1) if borders[t] <= row)
            start = int(row - borders[track]) - segment
            sums[track] += float(score)
            hits[track] += 1
            starts[track][start] += 1
            start_sums[track, start] += float(score)
    ranked = sorted(sums, key=lambda track: (-hits[track] if by_count else 0, -sums[track], track))
    return [
        (
            track,
            (hits[track] if by_count else sums[track]) / count,
            min(starts[track], key=lambda start: (-starts[track][start], -start_sums[track, start], start)),
        )
        for track in ranked
    ]


def test_by_hand() -> None:
    """Track 1 has the larger sum, track 2 more hits, and its hits agree on row 3 of it."""
    rows = np.array([[5, 13, 27], [13 + 1, -1, 8], [15, 29, -1]])
    scores = np.array([[0.9, 0.2, 0.1], [0.2, 0.0, 0.9], [0.2, -0.1, 0.0]])
    asked = (rows, scores, np.array([0]), np.array([3]), BORDERS)
    by_sum, by_count = vote(*asked, num_best=3), majority(*asked, num_best=3)
    assert by_sum.track.tolist() == [[1, 2, -1]]
    np.testing.assert_allclose(by_sum.score, [[0.6, 0.2, -np.inf]], rtol=1e-6)
    assert by_count.track.tolist() == [[2, 1, -1]]
    np.testing.assert_allclose(by_count.score, [[5 / 3, 2 / 3, -np.inf]], rtol=1e-6)
    assert by_count.start[0, 0] == 3


@pytest.mark.parametrize("num_best", [1, 2, 5])
@pytest.mark.parametrize("by_count", [False, True])
def test_it_says_what_loops_say(
    rng: np.random.Generator, num_best: int, by_count: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melprint.matching.vote.QUERIES_AT_ONCE", 3)
    assert sequence.QUERIES_AT_ONCE > 3
    rows = rng.integers(-1, 30, (40, 6))
    scores = rng.uniform(-1, 1, rows.shape).astype(np.float32)
    first, count = np.array([0, 3, 3, 20, 39, 10, 5]), np.array([5, 1, 9, 19, 1, 0, 2])
    found = (majority if by_count else vote)(rows, scores, first, count, BORDERS, num_best=num_best)
    for query in range(len(first)):
        want = looped(rows, scores, first[query], count[query], BORDERS.first, by_count)[:num_best]
        there = found.track[query] >= 0
        assert there.sum() == len(want)
        assert found.track[query][there].tolist() == [track for track, _, _ in want]
        assert found.start[query][there].tolist() == [start for _, _, start in want]
        np.testing.assert_allclose(found.score[query][there], [score for _, score, _ in want], rtol=1e-5)
        assert np.isneginf(found.score[query][~there]).all()


def test_an_even_count_is_decided_by_the_sum_and_an_even_sum_by_the_lower_track() -> None:
    rows = np.array([[12, 5, 1]])
    one = (np.array([0]), np.array([1]), BORDERS)
    assert majority(rows, np.array([[0.5, 0.6, 0.5]]), *one).track[0, :3].tolist() == [1, 0, 2]


def test_a_longer_query_has_no_larger_score() -> None:
    rows, scores = np.full((20, 1), 5), np.full((20, 1), 0.7)
    for matcher, score in ((vote, 0.7), (majority, 1.0)):
        found = matcher(rows, scores, np.array([0, 0]), np.array([1, 20]), BORDERS, num_best=1)
        np.testing.assert_allclose(found.score, [[score], [score]], rtol=1e-6)


def test_nothing_found_is_no_track_and_no_queries_are_no_matches() -> None:
    rows, scores = np.full((3, 4), -1), np.zeros((3, 4))
    found = vote(rows, scores, np.array([0]), np.array([3]), BORDERS)
    assert (found.track == -1).all()
    assert np.isneginf(found.score).all()
    none = np.zeros(0, np.int64)
    assert vote(rows, scores, none, none, BORDERS).track.shape == (0, 10)


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    rows = np.zeros((3, 4), np.int64)
    with pytest.raises(MelprintError, match=r"\(3, 4\).*\(3, 2\)"):
        vote(rows, np.zeros((3, 2)), np.array([0]), np.array([3]), BORDERS)
    with pytest.raises(MelprintError, match="end at row 4, hits of 3"):
        majority(rows, np.zeros((3, 4)), np.array([1]), np.array([3]), BORDERS)
