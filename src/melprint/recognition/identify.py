"""Which track of a catalog is this recording, where do they meet, and is it in the catalog at all?"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from melprint.audio.files import INT16_SCALE, mix_down, shown, to_int16
from melprint.audio.streams import read_beginning
from melprint.catalog.catalog import Catalog
from melprint.catalog.tables import Track
from melprint.catalog.view import View
from melprint.errors import MelprintError
from melprint.matching.extent import extent
from melprint.matching.vote import majority, vote
from melprint.progress import progress_bar
from melprint.recognition.search import WINDOW_S, Place, Searched, is_silent, search

LOOKED_UP_S = 60.0  # of each recording; longer ones are for monitor
RECORDINGS_AT_ONCE = 32
FALSE_ACCEPT_RATE = 0.01
MATCHERS = ("sequence", "vote", "majority", "temporal-network")
TRACKS_OF_NETWORK = 5  # likely tracks whose ranges are looked for
NEVER = 1.01  # a threshold that no cosine reaches


@dataclass(frozen=True)
class Answer:
    """One place of a catalog that a recording may come from.

    Attributes:
        query: the recording.
        track: key of the track; ``None`` where nothing at all was found.
        title, artist, album: of the track.
        query_start_s, query_end_s: where in the recording its audio is.
        reference_start_s, reference_end_s: where in the track that is.
        score: mean cosine of the fingerprints, at most 1.
        confidence: one minus the chance that unknown music scores as high; ``None`` where nothing was measured.
        threshold: scores from here on are accepted.
        accepted: whether the recording is said to be of this track.
    """

    query: str
    track: str | None
    title: str
    artist: str
    album: str
    query_start_s: float | None
    query_end_s: float | None
    reference_start_s: float | None
    reference_end_s: float | None
    score: float | None
    confidence: float | None
    threshold: float
    accepted: bool

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Rule:
    """What is accepted.

    Attributes:
        threshold: of the score; ``None`` for what was measured.
        false_accept_rate: share of recordings of unknown music that may be accepted.
        matcher: how candidates are found and ranked, see :data:`MATCHERS`.
    """

    threshold: float | None = None
    false_accept_rate: float = FALSE_ACCEPT_RATE
    matcher: str = "sequence"

    def __post_init__(self) -> None:
        if self.matcher not in MATCHERS:
            raise MelprintError(f"matcher must be one of {', '.join(MATCHERS)}, got {self.matcher!r}")
        if not 0 < self.false_accept_rate < 1:
            raise MelprintError(f"false_accept_rate must lie between 0 and 1, got {self.false_accept_rate:g}")
        if self.threshold is not None and not -1 <= self.threshold <= 1:
            raise MelprintError(f"threshold is a cosine between -1 and 1, got {self.threshold:g}")


def identify(
    catalog: Catalog,
    recordings: Sequence[Path],
    *,
    num_best: int = 1,
    threshold: float | None = None,
    false_accept_rate: float = FALSE_ACCEPT_RATE,
    matcher: str = "sequence",
) -> Iterator[list[Answer] | MelprintError]:
    """The best matches of each recording by its first minute, best first; many are searched at once.

    Recordings of up to 12 s are compared as a whole, longer ones by windows of 10 s, of which each may have a track
    of its own.

    Args:
        catalog: to look in.
        recordings: of any format and length.
        num_best: matches of each.
        threshold: of the score; by default that which was measured for the network or the catalog.
        false_accept_rate: share of recordings of unknown music that may be accepted.
        matcher: ``sequence`` (aligned neighbours), ``vote`` (their cosines summed by track), ``majority`` (their number
            by track) or ``temporal-network`` (several ranges of each likely track).

    Yields:
        For each recording its matches, or why it cannot be read.

    Raises:
        MelprintError: no thresholds were measured and none is given.
    """
    rule = Rule(threshold, false_accept_rate, matcher)
    if threshold is None:
        _ = catalog.confidence  # refuses before any work
    rate_hz = catalog.segment.sample_rate_hz
    read = partial(_read, sample_rate_hz=rate_hz)
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_bar("identify", len(recordings)) as advance:
        for first in range(0, len(recordings), RECORDINGS_AT_ONCE):
            group = recordings[first : first + RECORDINGS_AT_ONCE]
            waves = list(pool.map(read, group))
            readable = [
                (shown(path), wave)
                for path, wave in zip(group, waves, strict=True)
                if not isinstance(wave, MelprintError)
            ]
            answers = iter(identify_waves(catalog, readable, num_best, rule))
            for wave in waves:
                yield wave if isinstance(wave, MelprintError) else next(answers)
            advance(len(group))


def identify_one(
    catalog: Catalog,
    recording: str | Path | NDArray[Any],
    sample_rate_hz: int | None = None,
    *,
    num_best: int = 1,
    threshold: float | None = None,
    false_accept_rate: float = FALSE_ACCEPT_RATE,
    matcher: str = "sequence",
) -> list[Answer]:
    """The best matches of one file, or of samples ``(T,)`` or ``(T, channels)``.

    Raises:
        MelprintError: it cannot be read, or holds no audio.
    """
    rate_hz = catalog.segment.sample_rate_hz
    if isinstance(recording, str | Path):
        name, wave = shown(Path(recording)), _read(Path(recording), rate_hz)
        if isinstance(wave, MelprintError):
            raise wave
    else:
        name, wave = "samples", _samples(recording, sample_rate_hz or rate_hz, rate_hz)
    return identify_waves(catalog, [(name, wave)], num_best, Rule(threshold, false_accept_rate, matcher))[0]


def identify_waves(
    catalog: Catalog, recordings: Sequence[tuple[str, NDArray[np.int16]]], num_best: int, rule: Rule
) -> list[list[Answer]]:
    """The best matches of each named wave, all searched at once."""
    if not recordings:
        return []
    view = catalog.view()
    waves = [wave for _, wave in recordings]
    if not len(view.first):
        return [[_nothing(name, _limit(catalog, view, rule, len(wave), 1))] for name, wave in recordings]
    searched = search(catalog.fingerprinter, partial(catalog.search, view=view), waves)
    places = _places(searched, view, num_best, rule.matcher)
    found = (
        {position for its in places for position in view.track_of_stretch[[place.track for place in its]]}
        if any(places)
        else set()
    )
    tracks = catalog.tracks(view.track_ids[position] for position in found)
    windows = searched.num_windows() if rule.matcher == "sequence" else np.ones(len(waves), int)
    answers = []
    for (name, wave), its, chances in zip(recordings, places, windows.tolist(), strict=True):
        limit = _limit(catalog, view, rule, len(wave), chances)
        found_ones = (_answer(catalog, view, searched, tracks, name, place, limit, chances) for place in its)
        answers.append([answer for answer in found_ones if answer] or [_nothing(name, limit)])
    return answers


def _places(searched: Searched, view: View, num_best: int, matcher: str) -> list[list[Place]]:
    if matcher == "sequence":
        return searched.window_places(view.rows, view.borders, num_best)
    if matcher == "temporal-network":
        return [
            sorted(its, key=lambda place: -place.score * place.num_segments)[:num_best]
            for its in searched.network_places(view.rows, view.borders, TRACKS_OF_NETWORK)
        ]
    return searched.voted_places(vote if matcher == "vote" else majority, view.rows, view.borders, num_best)


def _limit(catalog: Catalog, view: View, rule: Rule, num_samples: int, chances: int) -> float:
    if rule.threshold is not None:
        return rule.threshold
    if num_samples < catalog.segment.num_samples:
        return NEVER  # nothing was measured below one segment: such a recording is never accepted by itself
    compared = num_samples if chances == 1 else catalog.segment.to_samples(WINDOW_S)
    segments = catalog.segment.num_segments(compared)
    return catalog.confidence.threshold(rule.false_accept_rate, segments, len(view), chances)


def _answer(
    catalog: Catalog,
    view: View,
    searched: Searched,
    tracks: dict[int, Track],
    name: str,
    place: Place,
    limit: float,
    chances: int,
) -> Answer | None:
    position = int(view.track_of_stretch[place.track])
    track = tracks.get(int(view.track_ids[position]))
    if track is None:
        return None  # removed since the search began
    segment = searched.segment
    cosines = searched.cosines(place, view.rows_at(position))
    found = extent(cosines, place.score, segment)
    shift_s = float(searched.shift[place.phase]) / segment.sample_rate_hz
    # The first phase begins where the recording does; what another phase leaves out belongs to the match too.
    start_s = shift_s + found.start_s if found and found.start_s else 0.0
    end_s = shift_s + (found.end_s if found else segment.query_seconds(len(cosines)))
    try:
        confidence = round(catalog.confidence.of(place.score, place.num_segments, len(view), chances), 6)
    except MelprintError:
        confidence = None
    times = (start_s, end_s, place.start_s + start_s, place.start_s + end_s)
    query_start_s, query_end_s, reference_start_s, reference_end_s = (round(float(time_s), 3) for time_s in times)
    return Answer(
        name,
        track.key,
        track.title,
        track.artist,
        track.album,
        query_start_s,
        query_end_s,
        reference_start_s,
        reference_end_s,
        round(place.score, 4),
        confidence,
        round(limit, 4),
        place.score >= limit,
    )


def _nothing(name: str, limit: float) -> Answer:
    return Answer(name, None, "", "", "", None, None, None, None, None, None, round(limit, 4), accepted=False)


def _read(path: Path, sample_rate_hz: int) -> NDArray[np.int16] | MelprintError:
    try:
        wave = read_beginning(path, sample_rate_hz, LOOKED_UP_S)
    except MelprintError as error:
        return error
    return _fit(wave, shown(path))


def _fit(wave: NDArray[np.int16], name: str) -> NDArray[np.int16] | MelprintError:
    if not len(wave):
        return MelprintError(f"{name}: holds no audio")
    if is_silent(wave):
        return MelprintError(f"{name}: is silent, there is nothing to recognise")
    return wave


def _samples(samples: NDArray[Any], from_hz: int, to_hz: int) -> NDArray[np.int16]:
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or not samples.size:
        raise MelprintError(f"samples must have the shape (T,) or (T, channels), got {samples.shape}")
    scaled = samples / INT16_SCALE if samples.dtype == np.int16 else samples
    if not np.isfinite(scaled).all():
        raise MelprintError("samples must be finite; these hold NaN or infinite values")
    wave = mix_down(np.asarray(scaled, np.float32).reshape(len(samples), -1))
    if from_hz != to_hz:
        wave = soxr.resample(wave, from_hz, to_hz)
    return to_int16(wave[: round(LOOKED_UP_S * to_hz)])
