"""Time and memory, measured so that they can be compared.  Axes: I queries · J segments of a query."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melprint.evaluation.protocol import Trial
from melprint.index.base import Index
from melprint.matching.sequence import match_sequences

WARM_UP_QUERIES = 3
FEWEST_TIMED, MOST_TIMED = 20, 200
FEWEST_SLOW, SLOW = 5, 4  # where 20 queries take more than four times the budget, five must do
BATCH_QUERIES = 256
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Latency:
    """What one query of a length costs when it comes alone, and what many cost together.

    Attributes:
        num_timed: queries that were timed one by one.
        embed_s: seconds for the fingerprints of each ``(I,)``; empty without a model.
        search_s: seconds of the search of all its segments in one call ``(I,)``.
        score_s: seconds of proposing and scoring candidates ``(I,)``.
        batch_queries: how many were searched in one call after that.
        batch_search_s: seconds of that call.
        batch_score_s: seconds of scoring their candidates.
    """

    num_timed: int
    embed_s: NDArray[np.float64]
    search_s: NDArray[np.float64]
    score_s: NDArray[np.float64]
    batch_queries: int
    batch_search_s: float
    batch_score_s: float

    def percentiles_ms(self, part: str) -> dict[str, float]:
        """p50, p95 and p99 of ``embed``, ``search`` or ``score``; NaN where it was not timed."""
        times = getattr(self, f"{part}_s")
        values = np.percentile(times, [50, 95, 99]) * 1e3 if len(times) else [float("nan")] * 3
        return {f"{part}_p{p}_ms": float(value) for p, value in zip((50, 95, 99), values, strict=True)}


def latency(
    index: Index,
    trial: Trial,
    length: int,
    num_neighbours: int,
    budget_s: float,
    embed: Callable[[int], object] | None = None,
) -> Latency | None:
    """Time queries of one length, after a warm-up.

    Args:
        index: built.
        trial: where the queries come from.
        length: in segments.
        num_neighbours: of each segment.
        budget_s: no further query begins after so many seconds, once there are 20, or after four times as many, once
            there are 5; 0 times nothing.
        embed: makes the fingerprints of so many segments.
    """
    asked = np.flatnonzero(trial.num_segments >= length)[:MOST_TIMED]
    if budget_s <= 0 or not len(asked):
        return None
    first = trial.first_segment[asked]
    for query in first[-WARM_UP_QUERIES:]:
        _one(index, trial, query, length, num_neighbours, embed)
    times, began = [], time.perf_counter()
    for query in first:
        times.append(_one(index, trial, query, length, num_neighbours, embed))
        spent = time.perf_counter() - began
        if (len(times) >= FEWEST_TIMED and spent > budget_s) or (len(times) >= FEWEST_SLOW and spent > SLOW * budget_s):
            break
    embed_s, search_s, score_s = np.array(times).T
    together = first[: max(1, min(BATCH_QUERIES, int(len(first) * min(1.0, 4 * budget_s / search_s.sum()))))]
    _, batch_search_s, batch_score_s = _some(index, trial, together, length, num_neighbours, None)
    return Latency(
        len(times),
        embed_s if embed is not None else np.zeros(0),
        search_s,
        score_s,
        len(together),
        batch_search_s,
        batch_score_s,
    )


def _one(
    index: Index, trial: Trial, query: int, length: int, num_neighbours: int, embed: Callable[[int], object] | None
) -> tuple[float, float, float]:
    return _some(index, trial, np.array([query]), length, num_neighbours, embed)


def _some(
    index: Index,
    trial: Trial,
    first: NDArray[np.int64],
    length: int,
    num_neighbours: int,
    embed: Callable[[int], object] | None,
) -> tuple[float, float, float]:
    rows = first[:, None] + np.arange(length)
    segments = trial.queries.take(rows.reshape(-1))
    ticks = [time.perf_counter()]
    if embed is not None:
        embed(length)
    ticks.append(time.perf_counter())
    hits = index.search(segments, num_neighbours)
    ticks.append(time.perf_counter())
    match_sequences(
        type(trial.queries)([segments]),
        hits.rows,
        np.arange(len(first)) * length,
        np.full(len(first), length),
        [length],
        trial.references,
        trial.borders,
    )
    ticks.append(time.perf_counter())
    embed_s, search_s, score_s = np.diff(ticks).tolist()
    return embed_s, search_s, score_s


class PeakMemory:
    """The most memory that the process held resident since the last :meth:`restart`; Linux only.

    Mapped files count as far as their pages are resident.
    """

    def restart(self) -> None:
        """Forget what was held before."""
        try:
            CLEAR_REFS.write_text("5")
        except OSError:
            return

    def megabytes(self) -> float:
        """The peak, or NaN on systems that do not tell."""
        try:
            lines: Sequence[str] = STATUS.read_text().splitlines()
        except OSError:
            return float("nan")
        peak = [line for line in lines if line.startswith("VmHWM:")]
        return int(peak[0].split()[1]) / 1024 if peak else float("nan")
