"""Is it in the collection at all?  Axes: U unknown queries · K known queries.

Some of the test tracks are not enrolled.  Queries of theirs have no right answer; a threshold on the score of the
best candidate is to refuse them.  It is set on one half of the tracks and judged on the other: degraded queries
of tracks that are not enrolled, and clean excerpts of them, apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melprint.errors import MelprintError
from melprint.evaluation.metrics import cluster_interval, rate, wilson_interval
from melprint.evaluation.protocol import Trial
from melprint.fingerprints.rows import Rows
from melprint.index.base import Index
from melprint.matching.calibration import threshold_at
from melprint.matching.sequence import Borders, match_sequences
from melprint.randomness import rng_for

COLUMNS = (
    *("index", "matcher", "num_segments", "seconds", "target", "threshold"),
    *("num_calibration", "num_known", "accepted_correct", "accepted_correct_low", "accepted_correct_high"),
    *("accepted_wrong", "refused", "top1_song"),
    *(
        f"{part}_{kind}"
        for kind in ("degraded", "clean")
        for part in ("num_unknown", "false_accepts", "far", "far_low", "far_high", "far_song_low", "far_song_high")
    ),
)
CURVE_COLUMNS = (
    *("index", "matcher", "unknown", "num_segments", "seconds"),
    *("threshold", "false_accept_rate", "false_reject_rate"),
)
FEWEST_TRACKS = 8
CURVE_POINTS = 200


@dataclass(frozen=True)
class OpenSetSpec:
    """How tracks are divided.

    Attributes:
        unknown_share: of the tracks that queries belong to; these are not enrolled.
        targets: false-accept rates that thresholds are set for.
        clean_queries: excerpts of tracks that are not enrolled, as they are.
        seed: of the division.
    """

    unknown_share: float = 0.5
    targets: Sequence[float] = (0.01, 0.001)
    clean_queries: int = 2_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.unknown_share < 1:
            raise MelprintError(f"open_set.unknown_share must lie between 0 and 1, got {self.unknown_share}")
        if not all(0 < target < 1 for target in self.targets):
            raise MelprintError(f"open_set.targets must lie between 0 and 1, got {list(self.targets)}")


@dataclass(frozen=True)
class OpenSet:
    """A trial whose references lack some tracks, with queries of all.

    Attributes:
        trial: known queries, then unknown degraded ones, then unknown clean ones.
        known: which queries have an answer ``(I,)``.
        clean: which are clean excerpts ``(I,)``.
        calibration: which belong to the half that thresholds are set on ``(I,)``.
        song: of each query ``(I,)``.
    """

    trial: Trial
    known: NDArray[np.bool_]
    clean: NDArray[np.bool_]
    calibration: NDArray[np.bool_]
    song: NDArray[np.int64]


def open_set_of(trial: Trial, spec: OpenSetSpec, longest: int) -> OpenSet | None:
    """Take tracks out of the references; ``None`` where there are too few to divide.

    Clean excerpts are rows of the removed tracks themselves, spread evenly.
    """
    tracks = np.unique(trial.song_of)
    if trial.borders is None or len(tracks) < FEWEST_TRACKS:
        return None
    shuffled = rng_for(spec.seed).permutation(tracks)
    num_unknown = min(max(2, round(spec.unknown_share * len(tracks))), len(tracks) - 2)
    unknown, known = shuffled[:num_unknown], shuffled[num_unknown:]
    calibrating = np.concatenate([unknown[::2], known[::2]])

    borders = trial.borders.first
    offset = len(borders) - 1 - _num_enrolled(trial)
    enrolled = np.ones(len(borders) - 1, bool)
    enrolled[unknown + offset] = False
    old = trial.references
    references = Rows([part for part in _kept(old, borders, enrolled) if len(part)])
    new_number = np.cumsum(enrolled) - 1
    sizes = np.diff(borders)[enrolled]

    clean_first, clean_track = _clean_excerpts(borders, unknown + offset, spec.clean_queries, longest)
    is_unknown = np.isin(trial.song_of, unknown)
    order = np.argsort(is_unknown, kind="stable")
    num_clean = len(clean_first)
    num_queries = len(trial.queries)
    clean_rows = old.take((clean_first[:, None] + np.arange(longest)).reshape(-1))
    whole = replace(
        trial,
        references=references,
        num_distractors=trial.num_distractors,
        borders=Borders(np.concatenate([[0], np.cumsum(sizes)])),
        queries=Rows([*trial.queries.parts, clean_rows]) if num_clean else trial.queries,
        first_segment=np.concatenate([trial.first_segment[order], num_queries + longest * np.arange(num_clean)]),
        num_segments=np.concatenate([trial.num_segments[order], np.full(num_clean, longest)]),
        true_track=np.concatenate(
            [np.where(is_unknown, -2, new_number[trial.true_track])[order], np.full(num_clean, -2)]
        ),
        true_start=np.concatenate([trial.true_start[order], np.zeros(num_clean, np.int64)]),
        track_ids=[name for name, kept in zip(trial.track_ids, enrolled, strict=True) if kept],
        query_ids=[*(trial.query_ids[i] for i in order), *(f"clean-{n}" for n in range(num_clean))],
        details=(),
        true_start_s=np.concatenate([trial.true_start_s[order], np.zeros(num_clean)]),
        song_of=np.concatenate([trial.song_of[order], clean_track - offset]),
    )
    return OpenSet(
        trial=whole,
        known=np.concatenate([~is_unknown[order], np.zeros(num_clean, bool)]),
        clean=np.arange(len(order) + num_clean) >= len(order),
        calibration=np.isin(whole.song_of, calibrating),
        song=whole.song_of,
    )


def _num_enrolled(trial: Trial) -> int:
    """Tracks that are asked for stand at the end."""
    assert trial.borders is not None
    return int(len(trial.borders.first) - 1 - np.searchsorted(trial.borders.first, trial.num_distractors))


def _kept(rows: Rows, borders: NDArray[np.int64], enrolled: NDArray[np.bool_]) -> list[NDArray[np.floating]]:
    """Slices of the stores, without the rows of tracks that are not enrolled; nothing is copied."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], enrolled, [False]]).astype(int)))
    slices = []
    for start, end in zip(borders[edges[::2]], borders[edges[1::2]], strict=True):
        for part, first in zip(rows.parts, rows.first, strict=False):
            low, high = max(start - first, 0), min(end - first, len(part))
            if low < high:
                slices.append(part[low:high])
    return slices


def _clean_excerpts(
    borders: NDArray[np.int64], tracks: NDArray[np.int64], wanted: int, longest: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First rows of excerpts that lie within the tracks, and their tracks."""
    # Excerpts that share rows would be one trial counted several times.
    room = (borders[tracks + 1] - borders[tracks]) // longest
    ends = np.cumsum(room)
    if not ends[-1]:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    places = np.unique(np.linspace(0, ends[-1] - 1, min(wanted, int(ends[-1]))).astype(np.int64))
    number = np.searchsorted(ends, places, side="right")
    within = places - (ends[number] - room[number])
    return borders[tracks[number]] + within * longest, tracks[number]


def open_set_rows(
    sets: OpenSet, index: Index, lengths: Sequence[int], num_neighbours: int, targets: Sequence[float]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Figures at each target and length, and points of the curve of errors.

    Args:
        sets: built from the trial; ``index`` holds its references.
        index: to be searched.
        lengths: in segments.
        num_neighbours: of each segment.
        targets: false-accept rates.
    """
    trial = sets.trial
    used = trial.used_rows()
    hit_rows = np.full((len(trial.queries), num_neighbours), -1, np.int64)
    hit_rows[used] = index.search(trial.queries.take(used), num_neighbours).rows
    matches = match_sequences(
        trial.queries,
        hit_rows,
        trial.first_segment,
        trial.num_segments,
        lengths,
        trial.references,
        trial.borders,
        num_best=1,
    )
    rows, curve = [], []
    for length in lengths:
        asked = trial.num_segments >= length
        if not (asked & sets.calibration & ~sets.known).any():
            continue  # no unknown query is as long: no threshold can be set
        track, score = matches[length].track[:, 0], matches[length].score[:, 0]
        right = track == trial.true_track
        for target in targets:
            figures = _at_target(sets, asked, right, score, target)
            rows.append({"num_segments": length, "target": target, **figures})
        judged = asked & ~sets.calibration
        known = judged & sets.known
        for kind, unknown in (("degraded", judged & ~sets.known & ~sets.clean), ("clean", judged & sets.clean)):
            points = error_curve(score[known], right[known], score[unknown]) if unknown.any() else []
            curve += [{"num_segments": length, "unknown": kind, **point} for point in points]
    return rows, curve


def _at_target(
    sets: OpenSet, asked: NDArray[np.bool_], right: NDArray[np.bool_], score: NDArray[np.float32], target: float
) -> Mapping[str, Any]:
    calibrating = asked & sets.calibration & ~sets.known
    kinds = [kind for kind in (calibrating & ~sets.clean, calibrating & sets.clean) if kind.any()]
    threshold = max(threshold_at(score[kind], target) for kind in kinds)  # neither kind may hide behind the other
    accepted = score >= threshold
    judged = asked & ~sets.calibration
    known = judged & sets.known
    good = (accepted & right)[known]
    figures: dict[str, Any] = {
        "threshold": threshold,
        "num_calibration": int(calibrating.sum()),
        "num_known": int(known.sum()),
        "accepted_correct": rate(good),
        "accepted_wrong": rate((accepted & ~right)[known]),
        "refused": rate(~accepted[known]),
        "top1_song": rate(right[known]),
    }
    figures["accepted_correct_low"], figures["accepted_correct_high"] = wilson_interval(int(good.sum()), len(good))
    for kind, of_kind in (("degraded", ~sets.clean), ("clean", sets.clean)):
        unknown = judged & ~sets.known & of_kind
        false = accepted[unknown]
        low, high = wilson_interval(int(false.sum()), len(false))
        song_low, song_high = cluster_interval(false.astype(float), sets.song[unknown])
        figures |= {
            f"num_unknown_{kind}": len(false),
            f"false_accepts_{kind}": int(false.sum()),
            f"far_{kind}": rate(false),
            f"far_low_{kind}": low,
            f"far_high_{kind}": high,
            f"far_song_low_{kind}": song_low,
            f"far_song_high_{kind}": song_high,
        }
    return figures


def error_curve(
    known_score: NDArray[np.float32], known_right: NDArray[np.bool_], unknown_score: NDArray[np.float32]
) -> list[dict[str, float]]:
    """False accepts of unknown queries against known ones that are refused or answered wrongly.

    >>> points = error_curve(np.array([0.9, 0.4]), np.array([True, False]), np.array([0.5, 0.1]))
    >>> [(p["threshold"], p["false_accept_rate"], p["false_reject_rate"]) for p in points]
    [(0.1, 1.0, 0.5), (0.4, 0.5, 0.5), (0.5, 0.5, 0.5), (0.9, 0.0, 0.5)]
    """
    everything = np.concatenate([known_score, unknown_score])
    thresholds = np.unique(everything[np.isfinite(everything)])
    if len(thresholds) > CURVE_POINTS:  # dense where false accepts are rare, which is where thresholds lie
        levels = np.concatenate(
            [np.linspace(0, 0.9, CURVE_POINTS // 2), 1 - np.geomspace(0.1, 1e-4, CURVE_POINTS // 2)]
        )
        thresholds = np.unique(np.quantile(unknown_score[np.isfinite(unknown_score)], levels))
    accepted = np.sort(np.where(known_right, known_score, -np.inf))
    unknown = np.sort(unknown_score)
    missed = np.searchsorted(accepted, thresholds, side="left") / max(1, len(accepted))
    false = 1 - np.searchsorted(unknown, thresholds, side="left") / max(1, len(unknown))
    return [
        {"threshold": float(t), "false_accept_rate": float(f), "false_reject_rate": float(m)}
        for t, f, m in zip(thresholds, false, missed, strict=True)
    ]
