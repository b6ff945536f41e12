"""How far the found beginning of a query is from the true one, and a refinement below one hop.

Axes: I queries · P phases · J segments of a query.

A query begins anywhere, references are fingerprinted once a hop: the best row is up to half a hop off, and its
segments overlap the query's by as little as three quarters.  Fingerprinting the query again, shifted by fractions
of a hop, tells which shift fits best (pfann's ``frame_shift_mul`` does the same).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melprint.errors import MelprintError
from melprint.evaluation.metrics import Outcome, wilson_interval
from melprint.evaluation.protocol import Trial
from melprint.fingerprints.rows import Rows
from melprint.fingerprints.store import Store
from melprint.matching.sequence import Matches, match_sequences
from melprint.spec import SegmentSpec

TOLERANCES_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
COLUMNS = (
    *("index", "matcher", "num_segments", "seconds", "num_queries", "num_in_right_track"),
    *("median_error_s", "median_absolute_error_s", "p95_absolute_error_s", "relative_embedding", "relative_search"),
    *(f"within_{tolerance:g}s{bound}" for tolerance in TOLERANCES_S for bound in ("", "_low", "_high")),
)
ROUNDING_S = 1e-6


class Located(NamedTuple):
    """Where queries were found.

    Attributes:
        track: ``(I,)``, -1 for nothing.
        start_s: within the track ``(I,)``.
        score: ``(I,)``.
    """

    track: NDArray[np.int64]
    start_s: NDArray[np.float64]
    score: NDArray[np.float32]

    @classmethod
    def first_of(cls, matches: Matches, hop_s: float, shift_s: float = 0.0) -> "Located":
        """The best match of each query, for queries that were cut ``-shift_s`` after they begin."""
        start_s = matches.start[:, 0].astype(np.float64) * hop_s + shift_s
        return cls(matches.track[:, 0], start_s, matches.score[:, 0])

    def better_of(self, other: "Located") -> "Located":
        """Of two places of each query the one with the higher score."""
        better = self.score > other.score
        return Located(
            np.where(better, self.track, other.track),
            np.where(better, self.start_s, other.start_s),
            np.where(better, self.score, other.score),
        )

    def of(self, queries: NDArray[np.int64]) -> "Located":
        """The places of some queries."""
        return Located(self.track[queries], self.start_s[queries], self.score[queries])


def error_row(located: Located, true_track: NDArray[np.int64], true_start_s: NDArray[np.float64]) -> dict[str, Any]:
    """Signed and absolute errors of the queries that were found in their track, and hit rates of all by tolerance."""
    right = located.track == true_track
    error = (located.start_s - true_start_s)[right]
    absolute = np.abs(error)
    row: dict[str, Any] = {
        "num_queries": len(right),
        "num_in_right_track": int(right.sum()),
        "median_error_s": float(np.median(error)) if len(error) else float("nan"),
        "median_absolute_error_s": float(np.median(absolute)) if len(error) else float("nan"),
        "p95_absolute_error_s": float(np.percentile(absolute, 95)) if len(error) else float("nan"),
    }
    for tolerance in TOLERANCES_S:
        hits = int((absolute <= tolerance + ROUNDING_S).sum())
        row[f"within_{tolerance:g}s"] = hits / max(1, len(right))
        row[f"within_{tolerance:g}s_low"], row[f"within_{tolerance:g}s_high"] = wilson_interval(hits, len(right))
    return row


@dataclass(frozen=True)
class Phases:
    """Queries that were fingerprinted at a fraction of the hop.

    Attributes:
        queries: rows at the fine hop.
        first_row: of each query of the trial ``(I,)``.
        num_rows: of each ``(I,)``.
        count: P, fine hops in a hop.
        hop_s: of the references.
    """

    queries: Rows
    first_row: NDArray[np.int64]
    num_rows: NDArray[np.int64]
    count: int
    hop_s: float

    @property
    def name(self) -> str:
        """As the matcher stands in tables."""
        return f"sequence-x{self.count}"

    @classmethod
    def of(cls, trial: Trial, fine: Store, segment: SegmentSpec, longest: int) -> "Phases":
        """Match the rows of a finely cut query store with the queries of a trial.

        Raises:
            MelprintError: the store lacks queries or its hop does not divide that of the references.
        """
        where = fine.folder / fine.name
        fine_hop_s = fine.meta.segment.hop_s if fine.meta is not None else 0.0
        count = round(segment.hop_s / fine_hop_s) if fine_hop_s else 0
        if count < 2 or abs(count * fine_hop_s - segment.hop_s) > ROUNDING_S:
            raise MelprintError(f"the hop {fine_hop_s} s of {where} is not a fraction of the hop {segment.hop_s} s")
        by_id = {track.track_id: track for track in fine.tracks}
        try:
            tracks = [by_id[query_id] for query_id in trial.query_ids]
        except KeyError as error:
            raise MelprintError(f"{where} has no query {error}; generate it from the same queries") from error
        span = longest * count  # rows of the longest query at every phase
        return cls(
            Rows([fine.rows]),
            np.array([track.first_row for track in tracks]),
            np.minimum([track.num_rows for track in tracks], span),
            count,
            segment.hop_s,
        )

    def rows_of(self, phase: int, longest: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Fine rows ``(I, J)`` of the queries cut from one phase on, and how many of them there are ``(I,)``."""
        offset = phase + self.count * np.arange(longest)
        there = np.maximum(1, -(-(self.num_rows - phase) // self.count)).clip(max=longest)
        return self.first_row[:, None] + np.minimum(offset, (self.num_rows - 1)[:, None]), there

    def used_rows(self, lengths: Sequence[int]) -> NDArray[np.int64]:
        """Every fine row that some query needs at some phase, once."""
        longest, used = max(lengths), []
        for phase in range(self.count):
            segments = longest - (phase > 0)
            rows, there = self.rows_of(phase, max(1, segments))
            used.append(rows[np.arange(rows.shape[1]) < np.minimum(there, segments)[:, None]])
        return np.unique(np.concatenate(used))

    def locate(self, trial: Trial, hit_rows: NDArray[np.int64], lengths: Sequence[int]) -> dict[int, Located]:
        """The best place of each query over all phases.

        Args:
            trial: what is asked.
            hit_rows: neighbours of every fine row.
            lengths: in segments.
        """
        longest = max(lengths)
        best: dict[int, Located] = {}
        for phase in range(self.count):
            # A query of L segments is no longer than that: shifted by part of a hop, one segment less fits into it.
            fitting = {length: length - (phase > 0) for length in lengths if length > (phase > 0)}
            if not fitting:
                continue
            rows, there = self.rows_of(phase, longest)
            flat = rows.reshape(-1)
            matches = match_sequences(
                Rows([self.queries.take(flat)]),
                hit_rows[flat],
                np.arange(len(rows)) * longest,
                there,
                sorted(set(fitting.values())),
                trial.references,
                trial.borders,
                num_best=1,
            )
            for length, segments in fitting.items():
                here = Located.first_of(matches[segments], self.hop_s, -phase * self.hop_s / self.count)
                best[length] = here.better_of(best[length]) if length in best else here
        return best


def located_outcome(
    located: Located, true_track: NDArray[np.int64], true_start_s: NDArray[np.float64], hop_s: float
) -> Outcome:
    """Hits of places that are not rows: exact within half a hop, near within one and a half, as of rows one off.

    The rank is that of the first place only.
    """
    right = located.track == true_track
    error = np.abs(located.start_s - true_start_s)
    exact = right & (error <= hop_s / 2 + ROUNDING_S)
    return Outcome(exact, right & (error <= 1.5 * hop_s + ROUNDING_S), right, exact.astype(np.int64))
