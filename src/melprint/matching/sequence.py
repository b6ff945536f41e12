"""Sequence search: offset-compensated candidates, scored by the mean inner product along the query.

Axes: I queries · J segments of a query · K neighbours · C candidates · D fingerprint size · B best candidates.
Source: Chang et al. 2021, section 3.3 and ``eval/eval_faiss.py`` of neural-audio-fp.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melprint.fingerprints.rows import Rows

ROWS_AT_ONCE = 19 << 13  # along all candidates: about 80 MB of gathered rows of 128 elements
QUERIES_AT_ONCE = 256


@dataclass(frozen=True)
class Borders:
    """Which rows belong to which track.

    Attributes:
        first: first row of each track, and the number of rows at the end ``(tracks + 1,)``.
    """

    first: NDArray[np.int64]

    def track_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The track of each row.

        >>> Borders(np.array([0, 5, 9])).track_of(np.array([4, 5])).tolist()
        [0, 1]
        """
        return np.searchsorted(self.first, rows, side="right") - 1


class Matches(NamedTuple):
    """The best candidates of each query at one length, best first.

    Attributes:
        track: int64 ``(I, B)``, -1 where there is no candidate. Without borders every row is in track 0.
        start: int64 ``(I, B)``, the row at which the query begins, counted from the track's first row; it is
            negative for a query that begins before its track.
        score: float32 ``(I, B)``, minus infinity where there is no candidate.
    """

    track: NDArray[np.int64]
    start: NDArray[np.int64]
    score: NDArray[np.float32]

    def of(self, queries: NDArray[np.int64]) -> "Matches":
        """The matches of some queries."""
        return Matches(self.track[queries], self.start[queries], self.score[queries])


def match_sequences(
    queries: Rows,
    hit_rows: NDArray[np.int64],
    first_segment: NDArray[np.int64],
    num_segments: NDArray[np.int64],
    lengths: Sequence[int],
    references: Rows,
    borders: Borders | None,
    *,
    num_best: int = 10,
) -> dict[int, Matches]:
    """Match each query at every length, all from one search of its segments.

    A neighbour r of segment j proposes that the query begins at r - j.  Each distinct proposal of the
    first L segments is scored by the mean over these segments of the inner product with the reference
    row that it puts beside them.  The products of the longest length are computed once; the shorter
    ones are their prefixes.

    With borders, a proposal belongs to the track of its neighbour and rows outside this track count 0:
    a candidate never crosses a border, and one that runs over the end is neither inflated nor dropped.
    Without borders (the published protocol), rows are one flat space, proposals before its beginning
    are dropped, and a candidate that runs over its end is averaged over the rows that are there.

    Equal scores are ranked by row, lowest first.

    Args:
        queries: rows of all query segments.
        hit_rows: ``(len(queries), K)`` neighbours of each, -1 for none.
        first_segment: the row in ``queries`` at which each query begins ``(I,)``.
        num_segments: how many rows from there on belong to it ``(I,)``; a query that is shorter than L is
            matched with what it has.
        lengths: L, in segments.
        references: the rows that were searched.
        borders: of the reference tracks, or ``None``.
        num_best: B.

    Returns:
        The best candidates for each length.
    """
    longest = max(lengths)
    parts: dict[int, list[Matches]] = {length: [] for length in lengths}
    for start in range(0, max(1, len(first_segment)), QUERIES_AT_ONCE):
        some = slice(start, start + QUERIES_AT_ONCE)
        asked = _asked(first_segment[some], num_segments[some], longest)
        candidates = _candidates(hit_rows, asked, borders)
        products, there = _products(candidates, queries, asked, references, borders)
        for length in lengths:
            parts[length].append(_best(candidates, products, there, length, asked, borders, num_best))
    return {
        length: Matches(
            np.concatenate([part.track for part in matches]),
            np.concatenate([part.start for part in matches]),
            np.concatenate([part.score for part in matches]),
        )
        for length, matches in parts.items()
    }


class _Asked(NamedTuple):
    rows: NDArray[np.int64]  # (I, J) query rows; repeats the last one where the query is over
    there: NDArray[np.bool_]  # (I, J)


class _Candidates(NamedTuple):
    query: NDArray[np.int64]  # (C,) number of the query within the block
    track: NDArray[np.int64]  # (C,)
    start: NDArray[np.int64]  # (C,) row in the space of all references, may lie outside the track
    first_proposed: NDArray[np.int64]  # (C,) the earliest segment that proposes it


def _asked(first_segment: NDArray[np.int64], num_segments: NDArray[np.int64], longest: int) -> _Asked:
    segment = np.arange(longest)
    there = segment < num_segments[:, None]
    return _Asked(first_segment[:, None] + np.minimum(segment, num_segments[:, None] - 1), there)


def _candidates(hit_rows: NDArray[np.int64], asked: _Asked, borders: Borders | None) -> _Candidates:
    rows_IJK = hit_rows[asked.rows]
    query, segment, neighbour = np.nonzero((rows_IJK >= 0) & asked.there[:, :, None])
    row = rows_IJK[query, segment, neighbour]
    track = borders.track_of(row) if borders is not None else np.zeros_like(row)
    start = row - segment
    if borders is None:
        kept = start >= 0
        query, segment, track, start = query[kept], segment[kept], track[kept], start[kept]
    # A start before its track's first row may equal one in the track before: hence the track as a key.
    order = np.lexsort((segment, start, track, query))
    query, segment, track, start = query[order], segment[order], track[order], start[order]
    new = np.ones(len(query), bool)
    new[1:] = (np.diff(query) != 0) | (np.diff(track) != 0) | (np.diff(start) != 0)
    return _Candidates(query[new], track[new], start[new], segment[new])


def _products(
    candidates: _Candidates, queries: Rows, asked: _Asked, references: Rows, borders: Borders | None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Inner products ``(C, J)`` along each candidate, 0 where a row is missing, and where there are both."""
    rows_CJ = candidates.start[:, None] + np.arange(asked.rows.shape[1])
    low = borders.first[candidates.track] if borders is not None else np.zeros(len(rows_CJ), np.int64)
    high = borders.first[candidates.track + 1] if borders is not None else np.full(len(rows_CJ), len(references))
    there = (rows_CJ >= low[:, None]) & (rows_CJ < high[:, None]) & asked.there[candidates.query]
    products = np.zeros(rows_CJ.shape, np.float32)
    query_IJD = queries.take(asked.rows)
    at_once = max(1, ROWS_AT_ONCE // rows_CJ.shape[1])
    for start in range(0, len(rows_CJ), at_once):
        block = slice(start, start + at_once)
        vectors_CJD = references.take(np.where(there[block], rows_CJ[block], low[block, None]))
        np.einsum("cjd,cjd->cj", vectors_CJD, query_IJD[candidates.query[block]], out=products[block])
    products[~there] = 0
    return products, there


def _best(
    candidates: _Candidates,
    products: NDArray[np.float32],
    there: NDArray[np.bool_],
    length: int,
    asked: _Asked,
    borders: Borders | None,
    num_best: int,
) -> Matches:
    num_queries = len(asked.rows)
    proposed = np.flatnonzero(candidates.first_proposed < length)
    if borders is not None:
        averaged_over = asked.there[candidates.query[proposed], :length].sum(axis=1)
    else:
        averaged_over = there[proposed, :length].sum(axis=1)
    score = products[proposed, :length].sum(axis=1) / averaged_over
    query, track, start = (field[proposed] for field in (candidates.query, candidates.track, candidates.start))
    order = np.lexsort((start, -score, query))
    query = query[order]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    kept = rank < num_best
    place = (query[kept], rank[kept])
    chosen = order[kept]
    best = Matches(
        np.full((num_queries, num_best), -1, np.int64),
        np.zeros((num_queries, num_best), np.int64),
        np.full((num_queries, num_best), -np.inf, np.float32),
    )
    best.track[place] = track[chosen]
    best.start[place] = start[chosen] - (borders.first[track[chosen]] if borders is not None else 0)
    best.score[place] = score[chosen]
    return best
