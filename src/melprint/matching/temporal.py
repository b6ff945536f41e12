"""Temporal network: which stretches of a query are which stretches of one reference track.

Axes: Q query rows · R reference rows · D fingerprint size · K best columns · H nodes · N rows of a path · P phases.

Source: the temporal network of Tan et al. 2009 ("Scalable detection of partial near-duplicate videos by
visual-temporal consistency"), in the form of VCSL (He et al. 2022): the best K columns of each query row are nodes,
and heavy paths through them are ranges.  What differs: audio keeps its speed to a few per cent, so steps stay close
to the diagonal; paths are found by dynamic programming in one pass instead of one longest path of a graph after the
other; the score is a mean cosine over the rows, at most 1; and where nothing aligns, nothing is returned.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melprint.errors import MelprintError
from melprint.fingerprints.rows import Rows
from melprint.index.exact import ExactIndex
from melprint.spec import SegmentSpec

# Measured with compact on 40 recordings of video game music, excerpts of up to 30 s with noise at 10, 5 and 0 dB.
# Floors from 0.2 to 0.35 and costs from 0.1 to 0.4 find the same ranges.  Paths by chance are few rows with a high mean
# (3 or 4 rows: 0.40 in the median, up to 0.69), true ones in noise are long with a lower one (59 rows at 0 dB: 0.73 in
# the median, down to 0.48): no mean tells them apart, the weight does.  The heaviest path by chance grows by 0.55 for
# ten times as many pairs of rows; one in a hundred comparisons reaches 1.23 for 59 x 220 and 2.64 for 590 x 6600.
# On 20 other recordings, 4 of 360 comparisons with other music gave a range; excerpts of 10 s were found at their
# place in 18, 17 and 18 of 20 cases at 10, 5 and 0 dB, where a loop that comes again elsewhere counts as wrong.
FLOOR = 0.3
GAP_COST = 0.2
DRIFT_COST = 0.2
MOST_DRIFT = 1  # rows in one step; a speed that is 3 % off needs one in 33
WEIGHT_PER_DECADE = 0.6
WEIGHT_OF_ONE_PAIR = -1.0
MIN_SCORE = 0.4
BESIDE_ROWS = 2  # segments of 1 s every 0.5 s share audio with their next neighbours, and are alike for that
MOST_CELLS = 1 << 26  # 256 MB


@dataclass(frozen=True)
class RowRange:
    """A stretch of the query and the stretch of the reference that it is, in rows.

    Attributes:
        query_first: first row of the query.
        reference_rows: the reference row beside each query row from there on ``(N,)``, never falling.
        score: mean cosine of these pairs, at most 1.
        weight: by which ranges are ranked: the longer and the more alike, the heavier.
        phase: of the query that it was found in, where there are several.
    """

    query_first: int
    reference_rows: NDArray[np.int64]
    score: float
    weight: float
    phase: int = 0

    @property
    def query_last(self) -> int:
        """Last row of the query, inclusive."""
        return self.query_first + len(self.reference_rows) - 1

    @property
    def reference_first(self) -> int:
        """First row of the reference."""
        return int(self.reference_rows[0])

    @property
    def reference_last(self) -> int:
        """Last row of the reference, inclusive."""
        return int(self.reference_rows[-1])


@dataclass(frozen=True)
class Range:
    """A stretch of the query and the stretch of the reference that it is, in seconds of audio.

    Attributes:
        query_start_s: beginning of the first segment.
        query_end_s: end of the last segment.
        reference_start_s: beginning of the first segment.
        reference_end_s: end of the last segment.
        score: mean cosine of the fingerprints, at most 1.
    """

    query_start_s: float
    query_end_s: float
    reference_start_s: float
    reference_end_s: float
    score: float


def similarity(query_QD: NDArray[np.floating], reference_RD: NDArray[np.floating]) -> NDArray[np.float32]:
    """Inner products of all rows ``(Q, R)``, for pictures.

    Raises:
        MelprintError: fingerprints of different sizes; more than 2**26 cells, i.e. two recordings of over an hour.

    >>> similarity(np.eye(2), np.array([[0.6, 0.8]])).tolist()
    [[0.6000000238418579], [0.800000011920929]]
    """
    _check_sizes(query_QD, reference_RD)
    if len(query_QD) * len(reference_RD) > MOST_CELLS:
        raise MelprintError(
            f"{len(query_QD)} by {len(reference_RD)} fingerprints are too many for one picture; take a part of them"
        )
    return query_QD.astype(np.float32, copy=False) @ reference_RD.astype(np.float32, copy=False).T


def chance_weight(num_query_rows: int, num_reference_rows: int) -> float:
    """The weight that ranges of unrelated music reach in about one of a hundred comparisons of four phases.

    Measured for the pairs of rows of 2 s against 30 s up to 5 min against an hour, and carried on beyond.

    >>> round(chance_weight(100, 1_000), 3)
    2.0
    """
    return WEIGHT_OF_ONE_PAIR + WEIGHT_PER_DECADE * math.log10(max(1, num_query_rows * num_reference_rows))


class Options(NamedTuple):
    """What :func:`aligned_ranges` is asked with."""

    max_step: int
    min_segments: int
    min_weight: float


def options_for(segment: SegmentSpec, num_query_rows: int, num_reference_rows: int) -> Options:
    """The defaults, which were measured with two rows a second, for rows at another hop.

    Gains, costs and so the weights of paths rise with the rows that a second has.

    >>> options_for(SegmentSpec(), 100, 1_000)
    Options(max_step=10, min_segments=3, min_weight=2.0)
    >>> options_for(SegmentSpec(hop_s=0.25), 200, 2_000)
    Options(max_step=20, min_segments=5, min_weight=4.0)
    """
    more = SegmentSpec().hop_s / segment.hop_s
    return Options(
        max(2, round(10 * more)),
        max(2, segment.num_segments(segment.to_samples(2.0))),
        round(more * chance_weight(round(num_query_rows / more), round(num_reference_rows / more)), 6),
    )


def aligned_ranges(
    query_QD: NDArray[np.floating],
    reference_RD: NDArray[np.floating],
    *,
    top_k: int = 5,
    max_step: int = 10,
    min_segments: int = 3,
    min_score: float = MIN_SCORE,
    min_weight: float | None = None,
    max_overlap: float = 0.3,
    max_ranges: int = 10,
) -> list[RowRange]:
    """Stretches of a query that run along stretches of one reference track, heaviest first.

    Nodes are the best ``top_k`` columns of each query row whose cosine is above :data:`FLOOR`.  The weight of a path
    is the sum of its cosines less the floor, less :data:`GAP_COST` for each row between two nodes and
    :data:`DRIFT_COST` for each row that it leaves its diagonal by.  So a path begins and ends where it is worth it (a
    local alignment, Smith and Waterman 1981), and music that is interrupted for ``max_step`` rows is two ranges.

    A stretch of the query that comes several times in the reference gives several ranges, as does a stretch of the
    reference that comes several times in the query; of music that repeats itself at once (a loop), the heaviest
    that do not overlap too much.

    Time: Q·R·D for the products and Q·K²·max_step for the paths. Memory: that of the rows and of Q·K nodes.

    Args:
        query_QD: unit rows, or zeros where a segment is to match nothing.
        reference_RD: unit rows at the same hop.
        top_k: columns of each query row that are looked at; more repeats of it than that are not all found.
        max_step: steps of a path are shorter than so many rows.
        min_segments: least number of nodes of a path.
        min_score: least mean cosine along a path, rows between its nodes included.  By default 0.4, below all true
            ranges that were measured: what tells chance from music is the weight.
        min_weight: least weight of a path; by default :func:`chance_weight`, so that short ranges need a higher
            cosine than long ones, and long recordings more than short ones.
        max_overlap: of the intersection over the union of two ranges, in the plane of query and reference rows.
        max_ranges: most ranges.

    Returns:
        The ranges; an empty list where nothing aligns.

    Raises:
        MelprintError: fingerprints of different sizes; a parameter that is out of range.
    """
    _check_sizes(query_QD, reference_RD)
    for name, value, least in (("top_k", top_k, 1), ("max_step", max_step, 2), ("min_segments", min_segments, 2)):
        if value < least:
            raise MelprintError(f"{name} must be at least {least}, got {value}")
    if not len(query_QD) or not len(reference_RD):
        return []
    if min_weight is None:
        min_weight = chance_weight(len(query_QD), len(reference_RD))
    nodes = _nodes(query_QD, reference_RD, top_k)
    if not len(nodes.query):
        return []
    chains = _chains(nodes, max_step)
    found = (
        _range_of(int(end), nodes, chains, query_QD, reference_RD)
        for end in _heaviest_ends(chains, min_segments, min_weight)
    )
    accepted = (one for one in found if one.score >= min_score)
    return distinct_ranges(accepted, max_overlap=max_overlap, max_ranges=max_ranges)


def distinct_ranges(
    heaviest_first: Iterable[RowRange], *, max_overlap: float = 0.3, max_ranges: int = 10
) -> list[RowRange]:
    """The heaviest ranges that are none of the heavier ones over again.

    A range is dropped if the intersection over union with a heavier one is above ``max_overlap``, or if it runs for
    more than half of its length beside a heavier one, :data:`BESIDE_ROWS` rows off at most: a long range is
    accompanied by fragments on the next diagonals, which are too small to overlap with it much.
    """
    kept: list[RowRange] = []
    for one in heaviest_first:
        if len(kept) == max_ranges:
            break
        if all(_overlap(one, other) <= max_overlap and _beside(one, other) <= 0.5 for other in kept):
            kept.append(one)
    return kept


def in_seconds(rows: RowRange, segment: SegmentSpec, *, query_shift_s: float = 0.0, offset_rows: float = 0.0) -> Range:
    """A range in seconds; it ends where its last segment ends.

    One that would begin before the reference does begins later on both sides.

    Args:
        rows: the range.
        segment: how both sides were cut.
        query_shift_s: how much of the query was left out before its first row.
        offset_rows: by which the reference is later than ``rows`` says, a fraction of a hop: see :func:`refine`.

    >>> in_seconds(RowRange(2, np.array([10, 11, 12]), 0.75, 1.0), SegmentSpec(), offset_rows=0.5)
    Range(query_start_s=1.0, query_end_s=3.0, reference_start_s=5.25, reference_end_s=7.25, score=0.75)
    """
    hop_s = segment.hop_s
    reference_start_s = (rows.reference_first + offset_rows) * hop_s
    missing_s = max(0.0, -reference_start_s)
    return Range(
        query_start_s=rows.query_first * hop_s + query_shift_s + missing_s,
        query_end_s=rows.query_last * hop_s + query_shift_s + segment.duration_s,
        reference_start_s=reference_start_s + missing_s,
        reference_end_s=(rows.reference_last + offset_rows) * hop_s + segment.duration_s,
        score=rows.score,
    )


def refine(phases_PQD: Sequence[NDArray[np.floating]], reference_RD: NDArray[np.floating], rows: RowRange) -> float:
    """By what fraction of a hop the reference lies later than a range says; negative where it lies earlier.

    Phase p of the query leaves out p/P of a hop before its first row.  If the reference lies o hops later than a range
    of phase p says, then what is beside reference row r_i is not row i of this phase but the audio o hops before it:
    for every o that is a multiple of 1/P, a whole row of one of the phases.  Their mean cosine is computed for all o
    within one hop, and a parabola through the best and its two neighbours gives the rest.

    Args:
        phases_PQD: fingerprints of each phase, ``(Q, D)`` or a row less.
        reference_RD: fingerprints of the reference.
        rows: a range of one of the phases; where its path drifts, o is the mean along it.

    Returns:
        o, between -1 and 1 or a fraction of a step beyond; 0 where all rows are zeros.
    """
    num_phases = len(phases_PQD)
    steps = np.arange(-num_phases - 1, num_phases + 2)  # one more to either side, for the parabola
    scores = np.array([_score_at(phases_PQD, reference_RD, rows, int(step)) for step in steps])
    best = 1 + int(np.lexsort((np.abs(steps[1:-1]), -scores[1:-1]))[0])  # of equal ones, a steady tone's, the nearest
    before, at, after = (float(score) for score in scores[best - 1 : best + 2])
    curvature = before - 2 * at + after
    beyond = 0.5 * (before - after) / curvature if -np.inf < curvature < 0 else 0.0
    return (int(steps[best]) + min(0.5, max(-0.5, beyond))) / num_phases


class _Nodes(NamedTuple):
    """Pairs of rows that are alike, by query row."""

    query: NDArray[np.int64]  # (H,)
    reference: NDArray[np.int64]  # (H,)
    gain: NDArray[np.float64]  # (H,) cosine less the floor, positive


class _Chains(NamedTuple):
    """The heaviest path that ends at each node."""

    weight: NDArray[np.float64]  # (H,)
    before: NDArray[np.int64]  # (H,) the node before it, -1 at the beginning of a path
    root: NDArray[np.int64]  # (H,) the node that the path begins with
    length: NDArray[np.int64]  # (H,) nodes


def _check_sizes(query_QD: NDArray[np.floating], reference_RD: NDArray[np.floating]) -> None:
    if query_QD.ndim != 2 or reference_RD.ndim != 2 or query_QD.shape[1] != reference_RD.shape[1]:
        raise MelprintError(
            f"fingerprints of shapes {query_QD.shape} and {reference_RD.shape} cannot be compared;"
            " make both with the same network"
        )


def _nodes(query_QD: NDArray[np.floating], reference_RD: NDArray[np.floating], top_k: int) -> _Nodes:
    index = ExactIndex()  # tile by tile: the matrix of an hour against three would take half a gigabyte
    index.build(Rows([reference_RD]))
    hits = index.search(query_QD.astype(np.float32, copy=False), min(top_k, len(reference_RD)))
    query, column = np.nonzero((hits.rows >= 0) & (hits.scores > FLOOR))
    return _Nodes(query, hits.rows[query, column], hits.scores[query, column].astype(np.float64) - FLOOR)


def _chains(nodes: _Nodes, max_step: int) -> _Chains:
    count = len(nodes.query)
    weight, before = nodes.gain.copy(), np.full(count, -1)
    root, length = np.arange(count), np.ones(count, np.int64)
    rows, first = np.unique(nodes.query, return_index=True)
    oldest = first[np.searchsorted(rows, rows - max_step + 1)]
    # Each row builds on the rows before it: a loop over rows, with all nodes of the last max_step rows at once.
    for row, start, here, end in zip(rows, oldest, first, np.append(first[1:], count), strict=True):
        if start == here:
            continue
        query_step = row - nodes.query[start:here]
        reference_step = nodes.reference[here:end, None] - nodes.reference[start:here]
        drift = np.abs(reference_step - query_step)
        allowed = (reference_step > 0) & (reference_step < max_step) & (drift <= MOST_DRIFT)
        cost = GAP_COST * (np.maximum(query_step, reference_step) - 1) + DRIFT_COST * drift
        offered = np.where(allowed, weight[start:here] - cost, 0.0)
        chosen = offered.argmax(axis=1)
        best = offered[np.arange(end - here), chosen]
        joined = here + np.flatnonzero(best > 0)
        from_node = start + chosen[best > 0]
        weight[joined] += best[best > 0]
        before[joined], root[joined], length[joined] = from_node, root[from_node], length[from_node] + 1
    return _Chains(weight, before, root, length)


def _heaviest_ends(chains: _Chains, min_segments: int, min_weight: float) -> NDArray[np.int64]:
    """The node that the heaviest path from each root ends at, heaviest first: one path for each root."""
    order = np.lexsort((-np.arange(len(chains.root)), chains.weight, chains.root))
    last_of_root = np.append(np.diff(chains.root[order]) != 0, True)[: len(order)]
    ends = order[last_of_root]
    ends = ends[(chains.length[ends] >= min_segments) & (chains.weight[ends] >= min_weight)]
    return ends[np.lexsort((ends, -chains.weight[ends]))]


def _range_of(
    end: int, nodes: _Nodes, chains: _Chains, query_QD: NDArray[np.floating], reference_RD: NDArray[np.floating]
) -> RowRange:
    path = [end]
    while (node := int(chains.before[path[-1]])) >= 0:
        path.append(node)
    path_H = np.array(path[::-1])
    query_N = np.arange(nodes.query[path_H[0]], nodes.query[path_H[-1]] + 1)
    reference_N = np.rint(np.interp(query_N, nodes.query[path_H], nodes.reference[path_H])).astype(np.int64)
    score = min(1.0, _mean_cosine(query_QD[query_N], reference_RD[reference_N]))  # a mean of ones may round above 1
    return RowRange(int(query_N[0]), reference_N, score, float(chains.weight[end]))


def _mean_cosine(query_ND: NDArray[np.floating], reference_ND: NDArray[np.floating]) -> float:
    return float(np.einsum("nd,nd->n", query_ND, reference_ND, dtype=np.float64).mean())


def _overlap(one: RowRange, other: RowRange) -> float:
    """Intersection over union of the rectangles, in rows of both sides (inclusive)."""
    query = min(one.query_last, other.query_last) - max(one.query_first, other.query_first) + 1
    reference = min(one.reference_last, other.reference_last) - max(one.reference_first, other.reference_first) + 1
    shared = max(0, query) * max(0, reference)
    return shared / (_area(one) + _area(other) - shared)


def _area(one: RowRange) -> int:
    return (one.query_last - one.query_first + 1) * (one.reference_last - one.reference_first + 1)


def _beside(one: RowRange, other: RowRange) -> float:
    """Share of the rows of a range that lie next to another range."""
    first, last = max(one.query_first, other.query_first), min(one.query_last, other.query_last)
    if first > last:
        return 0.0
    its = one.reference_rows[first - one.query_first : last - one.query_first + 1]
    others = other.reference_rows[first - other.query_first : last - other.query_first + 1]
    return float((np.abs(its - others) <= BESIDE_ROWS).sum() / len(one.reference_rows))


def _score_at(
    phases_PQD: Sequence[NDArray[np.floating]], reference_RD: NDArray[np.floating], rows: RowRange, step: int
) -> float:
    """Mean cosine if the reference is ``step`` P-ths of a hop later; minus infinity where no rows are left."""
    moved, phase = divmod(rows.phase - step, len(phases_PQD))
    query_N = np.arange(rows.query_first, rows.query_last + 1) + moved
    there = (query_N >= 0) & (query_N < len(phases_PQD[phase]))
    if not there.any():
        return -np.inf
    return _mean_cosine(phases_PQD[phase][query_N[there]], reference_RD[rows.reference_rows[there]])
