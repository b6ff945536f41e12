"""Looking recordings up in a library.

Axes: I recordings · P phases of each · Q phases of all · R rows · K neighbours · D fingerprint size.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melprint.audio.files import INT16_SCALE, read_mono, shown, to_int16
from melprint.audio.framing import segments_of
from melprint.errors import MelprintError
from melprint.fingerprints.embedding import embed_segments
from melprint.fingerprints.rows import Rows
from melprint.index.exact import ExactIndex
from melprint.matching.sequence import Borders, Matches, match_sequences
from melprint.matching.thresholds import Thresholds
from melprint.models.fingerprinter import Fingerprinter
from melprint.progress import progress_bar
from melprint.recognition.library import Library
from melprint.spec import SegmentSpec
from melprint.weights.shipped import card_of

NUM_NEIGHBOURS = 20
PHASES = 4  # queries are fingerprinted at every quarter of a hop: docs/results.md has what that gives
BATCH_SIZE = 256
LOOKED_UP_S = 60  # of each recording: candidates are compared along all of it, and nothing more is learnt from more
RECORDINGS_AT_ONCE = 32
PHASES_FROM_S = 2.0
NEVER = 1.01  # a threshold that no cosine reaches
SILENT_RMS = 10 ** (-70 / 20)


@dataclass(frozen=True)
class Match:
    """One place of a library that a recording may come from.

    Attributes:
        query: the recording.
        track: the track of the library; ``None`` where nothing at all was found.
        start_s: where the recording begins within the track; negative where it begins before.
        score: mean cosine of the fingerprints, at most 1.
        threshold: scores from here on are accepted.
        accepted: whether the recording is said to be of this track.
    """

    query: str
    track: str | None
    start_s: float | None
    score: float | None
    threshold: float
    accepted: bool

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def identify(
    library: Library,
    recordings: Sequence[Path],
    *,
    num_best: int = 1,
    threshold: float | None = None,
    false_accept_rate: float = 0.01,
) -> list[list[Match] | MelprintError]:
    """The best matches of each recording by its first minute, best first; many are searched at once.

    Args:
        library: to look in.
        recordings: of any format and length.
        num_best: matches of each.
        threshold: of the score; by default that which was measured for the network, the length of the recording
            and the size of the library, at ``false_accept_rate``.
        false_accept_rate: share of recordings of unknown music that may be accepted: 0.01 or 0.001.

    Returns:
        For each recording its matches, or why it cannot be read.

    Raises:
        MelprintError: the network has no measured thresholds and none is given.
    """
    limits = _thresholds(library, false_accept_rate) if threshold is None else None
    found: list[list[Match] | MelprintError] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_bar("identify", len(recordings)) as advance:
        for first in range(0, len(recordings), RECORDINGS_AT_ONCE):
            group = recordings[first : first + RECORDINGS_AT_ONCE]
            found += _identify_group(library, group, pool, num_best, threshold, limits)
            advance(len(group))
    return found


def _identify_group(
    library: Library,
    recordings: Sequence[Path],
    pool: ThreadPoolExecutor,
    num_best: int,
    threshold: float | None,
    limits: Thresholds | None,
) -> list[list[Match] | MelprintError]:
    segment = library.fingerprinter.segment
    waves = list(pool.map(partial(_read, sample_rate_hz=segment.sample_rate_hz), recordings))
    readable = [(number, wave) for number, wave in enumerate(waves) if not isinstance(wave, MelprintError)]
    found: list[list[Match] | MelprintError] = [wave if isinstance(wave, MelprintError) else [] for wave in waves]
    if not readable:
        return found
    rows, borders = Rows([library.store.rows]), Borders(library.store.first_rows)
    searched = search(library.fingerprinter, rows, [wave for _, wave in readable])
    places = searched.best_places(rows, borders, num_best)
    for (number, wave), its_places in zip(readable, places, strict=True):
        limit = threshold
        if limit is None:
            assert limits is not None
            # Nothing was measured below one segment: such a recording is never accepted by itself.
            whole = len(wave) >= segment.num_samples
            limit = limits.at(segment.num_segments(len(wave)), len(rows)) if whole else NEVER
        found[number] = _matches(library, shown(recordings[number]), its_places, limit)
    return found


def _thresholds(library: Library, false_accept_rate: float) -> Thresholds:
    if library.model is None:
        raise MelprintError("thresholds are measured for the shipped networks only; give one with --threshold")
    return Thresholds.from_card(card_of(library.model)["thresholds"], false_accept_rate)


def _read(path: Path, sample_rate_hz: int) -> NDArray[np.int16] | MelprintError:
    try:
        wave = to_int16(read_mono(path, sample_rate_hz)[: LOOKED_UP_S * sample_rate_hz])
    except MelprintError as error:
        return error
    return wave if len(wave) else MelprintError(f"{path}: holds no audio")


class Place(NamedTuple):
    """A candidate: number of the track, where the recording begins in it in seconds, and its score."""

    track: int
    start_s: float
    score: float


class Searched(NamedTuple):
    """Recordings that were fingerprinted from several phases, and the neighbours of their fingerprints.

    Attributes:
        rows: fingerprints, phase after phase of each recording ``(R, D)``.
        neighbours: of each ``(R, K)``.
        owner: the recording of each phase ``(Q,)``.
        shift: samples at the beginning that each phase leaves out ``(Q,)``.
        first: row at which each phase begins ``(Q,)``.
        num_rows: of each phase ``(Q,)``.
        segment: how all was cut.
    """

    rows: NDArray[np.float32]
    neighbours: NDArray[np.int64]
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
        longest = int(count.max())
        best = match_sequences(
            Rows([self.rows]), self.neighbours, self.first[asked], count[asked], [longest], references, borders,
            num_best=num_best,
        )[longest]  # fmt: skip
        found: list[list[Place]] = [[] for _ in range(1 + int(self.owner.max()))]
        for position, phase in enumerate(asked):
            shift_s = self.shift[phase] / self.segment.sample_rate_hz
            found[self.owner[phase]] += _places(best, position, self.segment.hop_s, shift_s)
        return [_distinct(places, num_best, self.segment.hop_s / 2) for places in found]

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
        return self._replace(neighbours=np.where(np.take_along_axis(own, order, axis=1), -1, kept))


def search(
    fingerprinter: Fingerprinter,
    references: Rows,
    waves: Sequence[NDArray[np.int16]],
    phases: int = PHASES,
    num_neighbours: int = NUM_NEIGHBOURS,
) -> Searched:
    """Fingerprint each wave from its beginning and from fractions of a hop later, and search all at once.

    Silent segments find nothing and score nothing: every silence is like every other.

    Args:
        fingerprinter: that made the references.
        references: rows of the library.
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
    segments = np.concatenate(parts)
    rows = embed_segments(fingerprinter, segments, BATCH_SIZE)
    index = ExactIndex()
    index.build(references)
    neighbours = index.search(rows, num_neighbours).rows
    silent = _rms(segments) < SILENT_RMS
    rows[silent], neighbours[silent] = 0, -1
    first = np.cumsum(count) - count
    return Searched(rows, neighbours, np.array(owner), np.array(shifts), first, count, segment)


def _rms(segments_RT: NDArray[np.int16]) -> NDArray[np.float64]:
    blocks = (segments_RT[start : start + BATCH_SIZE] for start in range(0, len(segments_RT), BATCH_SIZE))
    square = [np.square(block, dtype=np.float32).mean(axis=1) for block in blocks]
    return np.sqrt(np.concatenate(square)) / INT16_SCALE


def _places(matches: Matches, query: int, hop_s: float, shift_s: float) -> list[Place]:
    return [
        Place(int(track), float(start) * hop_s - shift_s, float(score))
        for track, start, score in zip(matches.track[query], matches.start[query], matches.score[query], strict=True)
        if track >= 0
    ]


def _distinct(places: list[Place], count: int, tolerance_s: float) -> list[Place]:
    """The best places, of which no two are the same place found in two phases."""
    kept: list[Place] = []
    for place in sorted(places, key=lambda place: -place.score):
        if all(place.track != other.track or abs(place.start_s - other.start_s) > tolerance_s for other in kept):
            kept.append(place)
        if len(kept) == count:
            break
    return kept


def _matches(library: Library, query: str, places: list[Place], limit: float) -> list[Match]:
    if not places:
        return [Match(query, None, None, None, round(limit, 4), accepted=False)]
    tracks = library.store.tracks
    return [
        Match(query, tracks[track].track_id, round(start_s, 3), round(score, 4), round(limit, 4), score >= limit)
        for track, start_s, score in places
    ]
