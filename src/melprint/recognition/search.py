"""Fingerprinting recordings and finding their places among references.

Axes: I recordings · P phases of each · Q phases of all · R rows · K neighbours · D fingerprint size.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melprint.audio.files import INT16_SCALE
from melprint.audio.framing import segments_of
from melprint.fingerprints.embedding import embed_segments
from melprint.fingerprints.rows import Rows
from melprint.index.base import Hits
from melprint.index.exact import ExactIndex
from melprint.matching.sequence import Borders, Matches, match_sequences
from melprint.matching.temporal import aligned_ranges, options_for
from melprint.matching.vote import vote
from melprint.models.fingerprinter import Fingerprinter
from melprint.spec import SegmentSpec

NUM_NEIGHBOURS = 20
VOTING_NEIGHBOURS = 4  # as deep-audio-fingerprinting: more are hits by chance, which votes cannot tell apart
PHASES = 4  # queries are fingerprinted at every quarter of a hop: docs/results.md has what that gives
BATCH_SIZE = 256
PHASES_FROM_S = 2.0
SILENT_RMS = 10 ** (-70 / 20)
WHOLE_S = 12.0  # longer recordings are looked up by windows, for they may hold several tracks, or part of one
WINDOW_S, WINDOW_STEP_S = 10.0, 5.0

Find = Callable[[NDArray[np.float32], int], Hits]


class Place(NamedTuple):
    """A candidate.

    Attributes:
        track: number of the stretch of references, as its borders count them.
        start_s: where the recording begins in it; negative where it begins before.
        score: mean cosine of the segments that were compared.
        phase: of the recording that fits best, as :class:`Searched` counts them.
        first: segment of this phase at which the comparison begins.
        num_segments: that were compared.
    """

    track: int
    start_s: float
    score: float
    phase: int = 0
    first: int = 0
    num_segments: int = 1


class Searched(NamedTuple):
    """Recordings that were fingerprinted from several phases, and the neighbours of their fingerprints.

    Attributes:
        rows: fingerprints, phase after phase of each recording ``(R, D)``.
        neighbours: of each ``(R, K)``.
        similarities: their cosines ``(R, K)``.
        owner: the recording of each phase ``(Q,)``.
        shift: samples at the beginning that each phase leaves out ``(Q,)``.
        first: row at which each phase begins ``(Q,)``.
        num_rows: of each phase ``(Q,)``.
        segment: how all was cut.
    """

    rows: NDArray[np.float32]
    neighbours: NDArray[np.int64]
    similarities: NDArray[np.float32]
    owner: NDArray[np.int64]
    shift: NDArray[np.int64]
    first: NDArray[np.int64]
    num_rows: NDArray[np.int64]
    segment: SegmentSpec

    def best_places(
        self, references: Rows, borders: Borders, num_best: int, num_samples: int | None = None
    ) -> list[list[Place]]:
        """The best places of each recording, best first, of which no two are closer than half a hop.

        The phase that fits best decides: that finds more than one phase alone, and places to a fraction of the hop.

        Args:
            references: rows of the library.
            borders: of its tracks.
            num_best: places of each.
            num_samples: only so much of the recordings, from their beginning.
        """
        count = self.num_rows
        if num_samples is not None:
            fitting = 1 + (num_samples - self.shift - self.segment.num_samples) // self.segment.hop_samples
            if num_samples < PHASES_FROM_S * self.segment.sample_rate_hz:
                fitting = np.where(self.shift == 0, np.maximum(fitting, 1), 0)
            count = np.minimum(count, fitting)
        asked = np.flatnonzero(count > 0)
        return self._places(references, borders, num_best, asked, np.zeros_like(asked), count[asked])

    def window_places(self, references: Rows, borders: Borders, num_best: int) -> list[list[Place]]:
        """As :meth:`best_places`, but recordings of more than :data:`WHOLE_S` are compared window by window.

        The best window of an alignment stands for it.
        """
        windows, rows = self._windows(), _rows_in(WINDOW_S, self.segment)
        phase = np.repeat(np.arange(len(windows)), windows)
        number = np.arange(len(phase)) - np.repeat(np.cumsum(windows) - windows, windows)
        # The last window ends with the recording.
        latest = np.maximum(self.num_rows[phase] - rows, 0)
        first = np.where(windows[phase] > 1, np.minimum(number * round(WINDOW_STEP_S / self.segment.hop_s), latest), 0)
        count = np.where(windows[phase] > 1, rows, self.num_rows[phase])
        return self._places(references, borders, num_best, phase, first, count)

    def num_windows(self) -> NDArray[np.int64]:
        """How many stretches of each recording :meth:`window_places` compares."""
        most = np.zeros(1 + int(self.owner.max()), np.int64)
        np.maximum.at(most, self.owner, self._windows())
        return most

    def _windows(self) -> NDArray[np.int64]:
        """Windows of each phase ``(Q,)``."""
        beyond = self.num_rows - _rows_in(WINDOW_S, self.segment)
        several = self.num_rows > _rows_in(WHOLE_S, self.segment)
        return np.where(several, 1 - (-beyond // round(WINDOW_STEP_S / self.segment.hop_s)), 1)

    def _places(
        self,
        references: Rows,
        borders: Borders,
        num_best: int,
        phase: NDArray[np.int64],
        first: NDArray[np.int64],
        count: NDArray[np.int64],
    ) -> list[list[Place]]:
        longest = int(count.max())
        best = match_sequences(
            Rows([self.rows]), self.neighbours, self.first[phase] + first, count, [longest], references, borders,
            num_best=num_best,
        )[longest]  # fmt: skip
        found: list[list[Place]] = [[] for _ in range(1 + int(self.owner.max()))]
        for position, (its_phase, its_first, its_count) in enumerate(zip(phase, first, count, strict=True)):
            offset_s = its_first * self.segment.hop_s + self.shift[its_phase] / self.segment.sample_rate_hz
            found[self.owner[its_phase]] += [
                Place(
                    int(track),
                    float(start) * self.segment.hop_s - offset_s,
                    float(score),
                    int(its_phase),
                    int(its_first),
                    int(its_count),
                )
                for track, start, score in _of_query(best, position)
            ]
        return [_distinct(places, num_best, self.segment.hop_s / 2) for places in found]

    def network_places(self, references: Rows, borders: Borders, num_tracks: int) -> list[list[Place]]:
        """Aligned ranges of each recording in the tracks that most of its neighbours lie in (temporal network).

        Args:
            references: rows of the library.
            borders: of its tracks.
            num_tracks: that are looked at.
        """
        first_phase = np.flatnonzero(self.shift == 0)
        first, count = self.first[first_phase], self.num_rows[first_phase]
        likely = vote(self.neighbours, self.similarities, first, count, borders, num_best=num_tracks)
        found: list[list[Place]] = []
        for position, phase in enumerate(first_phase.tolist()):
            rows, its = self.rows[first[position] :][: count[position]], []
            for track, _, _ in _of_query(likely, position):
                reference = references.take(np.arange(borders.first[track], borders.first[track + 1]))
                its += [
                    Place(
                        track,
                        (match.reference_first - match.query_first) * self.segment.hop_s,
                        match.score,
                        phase,
                        match.query_first,
                        len(match.reference_rows),
                    )
                    for match in aligned_ranges(
                        rows, reference, **options_for(self.segment, len(rows), len(reference))._asdict()
                    )
                ]
            found.append(its)
        return found

    def cosines(self, place: Place, track_rows_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosines ``(J,)`` of all segments of a place's phase along its alignment; 0 outside the track."""
        first, count = self.first[place.phase], self.num_rows[place.phase]
        shift_s = self.shift[place.phase] / self.segment.sample_rate_hz
        index = round((place.start_s + shift_s) / self.segment.hop_s) + np.arange(count)
        inside = (index >= 0) & (index < len(track_rows_ND))
        cosines = np.zeros(count, np.float32)
        mine = self.rows[first : first + count][inside]
        cosines[inside] = np.einsum("jd,jd->j", mine, track_rows_ND[index[inside]])
        return cosines

    def without(self, tracks: NDArray[np.int64], borders: Borders, num_neighbours: int = NUM_NEIGHBOURS) -> "Searched":
        """The same as if the track of each recording were not in the library; it should have been searched with more K.

        Args:
            tracks: number of the track of each recording, -1 for none.
            borders: of the library's tracks.
            num_neighbours: K that is kept.
        """
        owner = np.repeat(self.owner, self.num_rows)
        own = borders.track_of(self.neighbours) == tracks[owner][:, None]
        order = np.argsort(own, axis=1, kind="stable")[:, :num_neighbours]
        kept = np.take_along_axis(self.neighbours, order, axis=1)
        return self._replace(
            neighbours=np.where(np.take_along_axis(own, order, axis=1), -1, kept),
            similarities=np.take_along_axis(self.similarities, order, axis=1),
        )

    def voted_places(
        self, matcher: Callable[..., Matches], references: Rows, borders: Borders, num_best: int
    ) -> list[list[Place]]:
        """The tracks that most neighbours of each recording's first phase lie in, at the place that most agree on.

        Args:
            matcher: :func:`melprint.matching.vote.vote` or ``majority``.
            references: rows of the library.
            borders: of its tracks.
            num_best: tracks of each.

        Returns:
            Places in the order of the votes; their scores are mean cosines along the recording, as elsewhere.
        """
        first_phase = np.flatnonzero(self.shift == 0)
        first, count = self.first[first_phase], self.num_rows[first_phase]
        neighbours, similarities = (part[:, :VOTING_NEIGHBOURS] for part in (self.neighbours, self.similarities))
        best = matcher(neighbours, similarities, first, count, borders, num_best=num_best)
        found: list[list[Place]] = []
        for position, phase in enumerate(first_phase.tolist()):
            its = []
            for track, start, _ in _of_query(best, position):
                place = Place(track, start * self.segment.hop_s, 0.0, phase, 0, int(count[position]))
                low, high = borders.first[track], borders.first[track + 1]
                cosines = self.cosines(place, references.take(np.arange(low, high)))
                its.append(place._replace(score=float(cosines.mean())))
            found.append(its)
        return found


def _rows_in(duration_s: float, segment: SegmentSpec) -> int:
    return segment.num_segments(segment.to_samples(duration_s))


def exactly(references: Rows) -> Find:
    """Search that compares with every row."""
    index = ExactIndex()
    index.build(references)
    return index.search


def search(
    fingerprinter: Fingerprinter,
    find: Find,
    waves: Sequence[NDArray[np.int16]],
    phases: int = PHASES,
    num_neighbours: int = NUM_NEIGHBOURS,
) -> Searched:
    """Fingerprint each wave from its beginning and from fractions of a hop later, and search all at once.

    Silent segments find nothing and score nothing: every silence is like every other.

    Args:
        fingerprinter: that made the references.
        find: the neighbours of rows, as an index gives them.
        waves: 16-bit samples at the network's rate, of any length but 0.
        phases: P.
        num_neighbours: K.
    """
    segment = fingerprinter.segment
    parts, shifts, owner = [], [], []
    for number, wave in enumerate(waves):
        for shift in (phase * segment.hop_samples // phases for phase in range(phases)):
            if shift and len(wave) < PHASES_FROM_S * segment.sample_rate_hz:
                continue  # one segment in one phase against one in another: four chances to be wrong
            parts.append(segments_of(wave[shift:], segment))
            shifts.append(shift)
            owner.append(number)
    count = np.array([len(part) for part in parts])
    rows, silent = embed_audible(fingerprinter, np.concatenate(parts))
    hits = find(rows, num_neighbours)
    hits.rows[silent] = -1
    first = np.cumsum(count) - count
    return Searched(rows, hits.rows, hits.scores, np.array(owner), np.array(shifts), first, count, segment)


def embed_audible(
    fingerprinter: Fingerprinter, segments_RT: NDArray[np.int16]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Fingerprints ``(R, D)``, zeros where a segment is silent, and which ones are ``(R,)``."""
    rows = embed_segments(fingerprinter, segments_RT, min(BATCH_SIZE, _power_of_two(len(segments_RT))))
    silent = _rms(segments_RT) < SILENT_RMS
    rows[silent] = 0
    return rows, silent


def _power_of_two(count: int) -> int:
    """A batch no larger than it needs to be: half of a batch of 256 is wasted on a query of ten seconds.

    >>> _power_of_two(76), _power_of_two(1)
    (128, 1)
    """
    return 1 << max(0, count - 1).bit_length()


def is_silent(wave_T: NDArray[np.int16]) -> bool:
    """Whether no second of a recording is loud enough to be recognised."""
    second = 8_000
    padded = np.pad(wave_T, (0, -len(wave_T) % second))
    return bool(len(wave_T) == 0 or (_rms(padded.reshape(-1, second)) < SILENT_RMS).all())


def _rms(segments_RT: NDArray[np.int16]) -> NDArray[np.float64]:
    blocks = (segments_RT[start : start + BATCH_SIZE] for start in range(0, len(segments_RT), BATCH_SIZE))
    square = [np.square(block, dtype=np.float32).mean(axis=1) for block in blocks]
    return np.sqrt(np.concatenate(square)) / INT16_SCALE


def _of_query(matches: Matches, query: int) -> list[tuple[int, int, float]]:
    kept = matches.track[query] >= 0
    columns = (matches.track[query][kept], matches.start[query][kept], matches.score[query][kept])
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _distinct(places: list[Place], count: int, tolerance_s: float) -> list[Place]:
    """The best places, of which no two are the same place found in two phases."""
    kept: list[Place] = []
    for place in sorted(places, key=lambda place: -place.score):
        if all(place.track != other.track or abs(place.start_s - other.start_s) > tolerance_s for other in kept):
            kept.append(place)
        if len(kept) == count:
            break
    return kept
