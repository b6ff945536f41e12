"""The bulk matcher against two slow twins, written as loops over queries and candidates."""

import numpy as np
import pytest

from melprint.fingerprints.rows import Rows
from melprint.matching.sequence import Borders, match_sequences

K = 6


def published(query: np.ndarray, hits: np.ndarray, references: np.ndarray, length: int) -> list[tuple[int, float]]:
    """Steps 6 of the published protocol: flat rows, candidates from 0 on, mean of the diagonal that there is."""
    query, hits = query[:length], hits[:length]
    candidates = {int(hit) - segment for segment, row in enumerate(hits) for hit in row if hit >= 0}
    scored = []
    for start in sorted(c for c in candidates if c >= 0):
        window = references[start : start + length]
        diagonal = np.diag(query @ window.T)
        scored.append((start, float(np.mean(diagonal))))
    return sorted(scored, key=lambda pair: -pair[1])


def strict(
    query: np.ndarray, hits: np.ndarray, references: np.ndarray, first: list[int], length: int
) -> list[tuple[int, int, float]]:
    """Candidates belong to the track of their neighbour; rows outside it count nothing."""
    scored = {}
    for segment in range(length):
        for hit in hits[segment]:
            if hit < 0:
                continue
            track = max(t for t in range(len(first) - 1) if first[t] <= hit)
            start = int(hit) - segment
            total = sum(
                float(query[j] @ references[start + j])
                for j in range(length)
                if first[track] <= start + j < first[track + 1]
            )
            scored[track, start - first[track]] = total / length
    return sorted(((t, s, score) for (t, s), score in scored.items()), key=lambda entry: -entry[2])


def case(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """Scores of both signs, neighbours at both ends of tracks, and some that were not found."""
    references = rng.standard_normal((60, 8)).astype(np.float32)
    queries = rng.standard_normal((40, 8)).astype(np.float32)
    hits = np.argsort(-(queries @ references.T), axis=1)[:, :K]
    hits[rng.random(hits.shape) < 0.2] = -1
    hits[::7, 0], hits[3::7, 1] = 0, 59
    return references, queries, hits, [0, 13, 14, 40, 60]


@pytest.mark.parametrize("length", [1, 3, 5, 9])
def test_without_borders_it_is_the_published_search(rng: np.random.Generator, length: int) -> None:
    references, queries, hits, _ = case(rng)
    first = np.arange(0, 31)
    parts = Rows([references[:25], references[25:]])
    matches = match_sequences(Rows([queries]), hits, first, np.full(31, 9), [1, 3, 5, 9], parts, None)[length]
    for query in first:
        want = published(queries[query:], hits[query:], references, length)[:10]
        got = matches.start[query][matches.track[query] >= 0]
        assert got.tolist() == [start for start, _ in want]
        np.testing.assert_allclose(matches.score[query, : len(want)], [score for _, score in want], rtol=1e-4)


@pytest.mark.parametrize("length", [1, 3, 5, 9])
def test_with_borders_candidates_stay_in_their_track(rng: np.random.Generator, length: int) -> None:
    references, queries, hits, borders = case(rng)
    first = np.array([0, 7, 8, 20, 31])
    matches = match_sequences(
        Rows([queries]), hits, first, np.full(5, 9), [1, 3, 5, 9], Rows([references]), Borders(np.array(borders))
    )[length]
    for row, query in enumerate(first):
        want = strict(queries[query:], hits[query:], references, borders, length)[:10]
        got = list(zip(matches.track[row], matches.start[row], strict=True))
        assert got[: len(want)] == [(track, start) for track, start, _ in want]
        np.testing.assert_allclose(matches.score[row, : len(want)], [score for *_, score in want], rtol=1e-4)


def test_a_query_that_the_store_cuts_short_is_matched_with_what_it_has(rng: np.random.Generator) -> None:
    references, queries, hits, _ = case(rng)
    matches = match_sequences(
        Rows([queries]), hits, np.array([36]), np.array([4]), [9], Rows([references]), None, num_best=3
    )[9]
    want = published(queries[36:], hits[36:], references, 9)[:3]
    assert matches.start[0].tolist() == [start for start, _ in want]
    np.testing.assert_allclose(matches.score[0], [score for _, score in want], rtol=1e-4)


def test_a_tail_is_neither_inflated_nor_dropped() -> None:
    """The last two rows of a track answer to two of four segments: half the score, and still a candidate."""
    references = np.eye(6, dtype=np.float32)
    queries = np.eye(6, dtype=np.float32)[[1, 2, 5, 5]]
    hits = np.array([[1], [2], [-1], [-1]])
    matches = match_sequences(
        Rows([queries]), hits, np.array([0]), np.array([4]), [4], Rows([references]), Borders(np.array([0, 3, 6]))
    )[4]
    assert (matches.track[0, 0], matches.start[0, 0], matches.score[0, 0]) == (0, 1, 0.5)


def test_nothing_found_is_no_candidate_and_never_row_0() -> None:
    rows = Rows([np.eye(3, dtype=np.float32)])
    matches = match_sequences(rows, np.full((3, K), -1), np.array([0]), np.array([3]), [1, 3], rows, None)
    for length in (1, 3):
        assert (matches[length].track == -1).all()
        assert np.isneginf(matches[length].score).all()


def test_ties_go_to_the_lower_row_which_is_a_distractor() -> None:
    references = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
    matches = match_sequences(
        Rows([references[2:]]), np.array([[2, 0]]), np.array([0]), np.array([1]), [1], Rows([references]), None
    )[1]
    assert matches.start[0, :2].tolist() == [0, 2]
