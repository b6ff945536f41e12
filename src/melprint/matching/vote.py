"""Voting: tracks ranked by the neighbours of all segments of a query, whatever the order of these.

Axes: I queries · J segments of a query · K neighbours · H hits · P places · T tracks · R rows · B best tracks.

It needs the neighbours alone, no fingerprints, and finds music whose order was changed.  It knows no alignment: a
track that is hit anywhere by everything is as good as one that runs along the query, and sequence search is better
wherever the order was kept.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melprint.errors import MelprintError
from melprint.matching.sequence import QUERIES_AT_ONCE, Borders, Matches


def vote(
    hit_rows: NDArray[np.int64],
    hit_scores: NDArray[np.floating],
    first_segment: NDArray[np.int64],
    num_segments: NDArray[np.int64],
    borders: Borders,
    *,
    num_best: int = 10,
) -> Matches:
    """Rank tracks by the sum of the inner products of all hits in them.

    Source: Towhee, audio fingerprint tutorial I ("vote"), which however keeps only the best track of each second
    before it adds; here every hit counts.

    The score is the sum divided by the segments of the query, so that queries of different length can be looked at
    side by side.  It is no cosine: it grows with K and with repeats inside the track, up to K, and unknown music
    reaches any value that known music has, given another K or library.  No threshold on it means anything.

    Equal scores are ranked by track, lowest first.

    Args:
        hit_rows: neighbours of each query segment ``(R, K)``, -1 for none.
        hit_scores: their inner products ``(R, K)``, of either sign.
        first_segment: the row of ``hit_rows`` at which each query begins ``(I,)``.
        num_segments: how many rows from there on belong to it ``(I,)``.
        borders: of the reference tracks.
        num_best: B.

    Returns:
        The best tracks of each query.  ``start`` is the most frequent among the starts that a track's hits propose
        (of equally frequent ones that with the higher sum), for information: it did not take part in the ranking.

    Raises:
        MelprintError: arrays of shapes that do not belong together.
    """
    return _in_blocks("sum", hit_rows, hit_scores, first_segment, num_segments, borders, num_best)


def majority(
    hit_rows: NDArray[np.int64],
    hit_scores: NDArray[np.floating],
    first_segment: NDArray[np.int64],
    num_segments: NDArray[np.int64],
    borders: Borders,
    *,
    num_best: int = 10,
) -> Matches:
    """Rank tracks by the number of hits in them, equal numbers by the sum of their inner products.

    Source: the majority vote of deep-audio-fingerprinting (Nikou et al.), whose score is a mean of 1/product and
    hence falls as tracks become more alike; here it is the number of hits divided by the segments of the query,
    between 0 and K.  As with :func:`vote`, no threshold on it means anything.

    Arguments, result and errors are those of :func:`vote`.
    """
    return _in_blocks("count", hit_rows, hit_scores, first_segment, num_segments, borders, num_best)


class _Places(NamedTuple):
    """Distinct (query, track, start), or distinct (query, track), in rising order."""

    query: NDArray[np.int64]  # (P,)
    track: NDArray[np.int64]  # (P,)
    start: NDArray[np.int64]  # (P,) row in the space of all references
    hits: NDArray[np.int64]  # (P,)
    total: NDArray[np.float64]  # (P,) sum of the hits' inner products


def _in_blocks(
    ranked_by: Literal["sum", "count"],
    hit_rows: NDArray[np.int64],
    hit_scores: NDArray[np.floating],
    first_segment: NDArray[np.int64],
    num_segments: NDArray[np.int64],
    borders: Borders,
    num_best: int,
) -> Matches:
    if hit_rows.shape != hit_scores.shape:
        raise MelprintError(f"hits of shape {hit_rows.shape} have scores of shape {hit_scores.shape}; give one a hit")
    if len(num_segments) and int((first_segment + num_segments).max()) > len(hit_rows):
        raise MelprintError(
            f"queries end at row {int((first_segment + num_segments).max())}, hits of {len(hit_rows)} rows are there;"
            " search all rows of the queries first"
        )
    parts = []
    for begin in range(0, max(1, len(first_segment)), QUERIES_AT_ONCE):  # bounds memory for many long queries
        some = slice(begin, begin + QUERIES_AT_ONCE)
        places = _places(hit_rows, hit_scores, first_segment[some], num_segments[some], borders)
        parts.append(_ranked(ranked_by, _tracks(places), num_segments[some], borders, num_best))
    return Matches(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _places(
    hit_rows: NDArray[np.int64],
    hit_scores: NDArray[np.floating],
    first_segment: NDArray[np.int64],
    num_segments: NDArray[np.int64],
    borders: Borders,
) -> _Places:
    """Count the hits by the start that they propose: a neighbour r of segment j says that it is at r - j."""
    owner = np.repeat(np.arange(len(num_segments)), num_segments)
    segment = np.arange(len(owner)) - np.repeat(np.cumsum(num_segments) - num_segments, num_segments)
    asked = first_segment[owner] + segment
    place, neighbour = np.nonzero(hit_rows[asked] >= 0)
    row = hit_rows[asked[place], neighbour]
    query, track, start = owner[place], borders.track_of(row), row - segment[place]
    order = np.lexsort((start, track, query))
    query, track, start = query[order], track[order], start[order]
    group, first = _runs(query, track, start)
    return _Places(
        query[first],
        track[first],
        start[first],
        np.bincount(group, minlength=len(first)),
        _sums(group, hit_scores[asked[place], neighbour][order], len(first)),
    )


def _tracks(places: _Places) -> _Places:
    """Add the places of each track up; the start that is kept is the most frequent one."""
    order = np.lexsort((places.start, -places.total, -places.hits, places.track, places.query))
    query, track = places.query[order], places.track[order]
    group, first = _runs(query, track)
    return _Places(
        query[first],
        track[first],
        places.start[order][first],
        _sums(group, places.hits[order], len(first)).astype(np.int64),
        _sums(group, places.total[order], len(first)),
    )


def _sums(group: NDArray[np.int64], values: NDArray, num_groups: int) -> NDArray[np.float64]:
    """Sum of the values of each group."""
    return np.bincount(group, values.astype(np.float64), minlength=num_groups).astype(np.float64, copy=False)


def _runs(*keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For sorted keys: the number of the run that each element belongs to, and where each run begins."""
    new = np.ones(len(keys[0]), bool)
    new[1:] = np.any([np.diff(key) != 0 for key in keys], axis=0)
    return np.cumsum(new) - 1, np.flatnonzero(new)


def _ranked(
    ranked_by: Literal["sum", "count"],
    tracks: _Places,
    num_segments: NDArray[np.int64],
    borders: Borders,
    num_best: int,
) -> Matches:
    main = tracks.total if ranked_by == "sum" else tracks.hits
    order = np.lexsort((tracks.track, -tracks.total, -main, tracks.query))
    query = tracks.query[order]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    kept = rank < num_best
    chosen, place = order[kept], (query[kept], rank[kept])
    shape = (len(num_segments), num_best)
    best = Matches(np.full(shape, -1, np.int64), np.zeros(shape, np.int64), np.full(shape, -np.inf, np.float32))
    best.track[place] = tracks.track[chosen]
    best.start[place] = tracks.start[chosen] - borders.first[tracks.track[chosen]]
    best.score[place] = main[chosen] / num_segments[tracks.query[chosen]]
    return best
