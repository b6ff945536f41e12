"""One value per query first, rates and intervals after.  Axes: I queries · B best candidates · K neighbours."""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melprint.matching.sequence import Matches
from melprint.randomness import rng_for

CONFIDENCE = 0.95
NEAR_ROWS = 1
RESAMPLES = 2_000


class Outcome(NamedTuple):
    """What became of each query at one length; arrays ``(I,)``.

    Attributes:
        exact: the best candidate begins at the true row.
        near: in the right track, at most one row off.
        song: the right track; without borders there is one track, and it says nothing.
        rank: place of the true row among the best candidates, counted from 1; 0 where it is not among them.
    """

    exact: NDArray[np.bool_]
    near: NDArray[np.bool_]
    song: NDArray[np.bool_]
    rank: NDArray[np.int64]

    def within(self, best: int) -> NDArray[np.bool_]:
        """Whether the true row is among the ``best`` first candidates."""
        return (self.rank > 0) & (self.rank <= best)


def outcome(matches: Matches, true_track: NDArray[np.int64], true_start: NDArray[np.int64]) -> Outcome:
    """Compare matches with the truth.

    >>> matches = Matches(np.array([[2, 2]]), np.array([[8, 7]]), np.array([[0.9, 0.8]], np.float32))
    >>> [field.tolist() for field in outcome(matches, np.array([2]), np.array([7]))]
    [[False], [True], [True], [2]]
    """
    in_track = matches.track == true_track[:, None]
    right = in_track & (matches.start == true_start[:, None])
    off = np.abs(matches.start[:, 0] - true_start)
    return Outcome(
        exact=right[:, 0],
        near=in_track[:, 0] & (off <= NEAR_ROWS),
        song=in_track[:, 0],
        rank=np.where(right.any(axis=1), right.argmax(axis=1) + 1, 0),
    )


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a rate (Wilson 1927).

    >>> [round(bound, 4) for bound in wilson_interval(8, 10)]
    [0.4902, 0.9433]
    >>> wilson_interval(0, 0)
    (0.0, 1.0)
    """
    if not trials:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    rate = hits / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * (rate * (1 - rate) / trials + z * z / (4 * trials * trials)) ** 0.5
    # At the ends the bounds are exactly 0 and 1; rounding would leave them a hair inside.
    return (max(0.0, centre - half) if hits else 0.0), (min(1.0, centre + half) if hits < trials else 1.0)


def cluster_interval(values: NDArray[np.floating], cluster: NDArray[np.int64], seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of a mean whose values come in clusters.

    Whole clusters are drawn with replacement (Field & Welsh 2007, "Bootstrapping clustered data"): queries of one
    song succeed and fail together, and an interval that takes them for independent is too narrow.

    Args:
        values: one a query ``(I,)``, e.g. whether it hit.
        cluster: the song of each ``(I,)``.
        seed: of the draws.

    Returns:
        The bounds; NaN with fewer than two clusters, or where all values are equal: resampling knows no doubt there.
    """
    means = resampled_means(values, cluster, seed)
    if not len(means) or np.ptp(values) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def resampled_means(values: NDArray[np.floating], cluster: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Means over clusters drawn with replacement ``(RESAMPLES,)``; empty with fewer than two clusters."""
    _, own = np.unique(cluster, return_inverse=True)
    count = np.bincount(own)
    if len(count) < 2:
        return np.zeros(0)
    total = np.bincount(own, weights=values)
    times = rng_for(seed).multinomial(len(count), np.full(len(count), 1 / len(count)), size=RESAMPLES)
    return (times @ total) / (times @ count)


def summary(result: Outcome) -> dict[str, float]:
    """Rates of one length, named as the columns of ``metrics.csv``."""
    row: dict[str, float] = {"num_queries": len(result.exact)}
    for name, hit in (("exact", result.exact), ("near", result.near), ("song", result.song)):
        row[f"top1_{name}"] = rate(hit)
        row[f"top1_{name}_low"], row[f"top1_{name}_high"] = wilson_interval(int(hit.sum()), len(hit))
    row["top3_exact"], row["top10_exact"] = rate(result.within(3)), rate(result.within(10))
    reciprocal = np.where(result.rank > 0, 1 / np.maximum(result.rank, 1), 0.0)
    row["mrr"] = float(reciprocal.mean()) if len(reciprocal) else float("nan")
    return row


def rate(hit: NDArray[np.bool_]) -> float:
    """Share of the queries that hit; NaN without queries."""
    return float(hit.mean()) if len(hit) else float("nan")


def recall_against(exact_rows: NDArray[np.int64], found_rows: NDArray[np.int64]) -> float:
    """Mean share of the exact neighbours ``(I, K)`` that an index found ``(I, K)``; -1 finds nothing.

    >>> recall_against(np.array([[1, 2], [3, 4]]), np.array([[2, 9], [-1, -1]]))
    0.25
    """
    wanted = exact_rows >= 0
    found = (exact_rows[:, :, None] == found_rows[:, None, :]).any(axis=2) & wanted
    return float(found.sum() / max(1, wanted.sum()))
