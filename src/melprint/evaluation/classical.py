"""Classical fingerprinting systems on melprint's samples, for comparison: audfprint and Chromaprint.

Axes: T samples · H hashes of audfprint · J sub-fingerprints of a query · P those of all tracks, end to end.
"""

import logging
import os
import random
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from melprint.audio.files import INT16_SCALE
from melprint.errors import MelprintError

EXTRA = "pip install 'melprint[classical]'"
FPCALC_REMEDY = "install fpcalc, e.g. apt install libchromaprint-tools"
SYSTEM_RATE_HZ = 11_025  # of both systems
# audfprint's command line has these defaults; its classes have others for the starred ones.
DENSITY = 20.0
PEAKS_PER_FRAME = 5
PAIRS_PER_PEAK = 3
SPREAD_BINS = 30.0
ENROLL_SHIFTS = 1
QUERY_SHIFTS = 4  # *
MATCH_WINDOW = 2  # *
SEARCH_DEPTH = 100
HASH_BITS = 20
BUCKET_SIZE = 100
MAX_TIME = 16_384
# Not the default, 5: counts above it are matches.  Here the best candidate is wanted, however weak.
MIN_COUNT = 0
ENTRY_BITS = 32  # of the hash table: track and time
# Chromaprint's default algorithm: frames of 4096 samples that overlap by two thirds; a sub-fingerprint sees 16 chroma
# vectors, each smoothed over 5 frames.
FRAME_SAMPLES = 4_096
STEP_SAMPLES = FRAME_SAMPLES // 3
FRAMES_PER_PRINT = 16 + 5 - 1
PERIOD_S = STEP_SAMPLES / SYSTEM_RATE_HZ
SHORTEST_S = (FRAME_SAMPLES + (FRAMES_PER_PRINT - 1) * STEP_SAMPLES) / SYSTEM_RATE_HZ  # 2.72
PRINT_BITS = 32
PADDING_S = 1.0
NO_ROOM = np.iinfo(np.uint32).max  # bit errors where a track ends before the query does


@dataclass(frozen=True)
class Answer:
    """Where a system takes a query from.

    Attributes:
        track: number in the order of enrolment, -1 for nothing.
        start_s: where the query begins within the track, NaN for nothing.
        score: the higher the surer, comparable within one system only; -inf for nothing.
    """

    track: int
    start_s: float
    score: float


NOTHING = Answer(-1, float("nan"), float("-inf"))


class ClassicalSystem(Protocol):
    """What enrols tracks and looks up queries.

    Attributes:
        name: as it stands in tables.
    """

    name: str

    def enroll(self, waves: Iterable[NDArray[np.int16]]) -> None:
        """Add mono tracks ``(T,)``, numbered on from those enrolled before."""
        ...

    def look_up(self, wave: NDArray[np.int16]) -> Answer:
        """The best place of a mono query ``(T,)``."""
        ...


class Audfprint:
    """Landmark pairs in a hash table, voting for offsets: Ellis 2014, in the port ``audfprint2``.

    Parameters are the defaults of its command line, except that any aligned hash makes a candidate.  The score is
    the number of aligned hashes.  The table takes 400 MiB.

    Attributes:
        name: ``audfprint``.
    """

    name = "audfprint"

    def __init__(
        self, sample_rate_hz: int = 8_000, *, system_rate_hz: int = SYSTEM_RATE_HZ, max_time: int = MAX_TIME
    ) -> None:
        """Make an empty table.

        Args:
            sample_rate_hz: of tracks and queries.
            system_rate_hz: they are resampled to this.  Where the spectrum above ``sample_rate_hz / 2`` is empty, the
                first seconds of a noisy query yield few hashes; with ``sample_rate_hz`` itself they do not.
            max_time: frames of 256 samples, a power of 2; places are told modulo this, 380 s by default.

        Raises:
            MelprintError: audfprint2 is not installed.
        """
        self.sample_rate_hz = sample_rate_hz
        self.system_rate_hz = system_rate_hz
        library = _import_audfprint()
        self._to_hashes = library.analyzer.landmarks2hashes
        self._analyzer = library.analyzer.Analyzer(density=DENSITY)
        self._analyzer.target_sr = system_rate_hz
        self._analyzer.maxpksperframe = PEAKS_PER_FRAME
        self._analyzer.maxpairsperpeak = PAIRS_PER_PEAK
        self._analyzer.f_sd = SPREAD_BINS
        self._table = library.hash_table.HashTable(hashbits=HASH_BITS, depth=BUCKET_SIZE, maxtime=max_time)
        self._matcher = library.matcher.Matcher()
        self._matcher.window = MATCH_WINDOW
        self._matcher.threshcount = MIN_COUNT
        self._matcher.search_depth = SEARCH_DEPTH

    def enroll(self, waves: Iterable[NDArray[np.int16]]) -> None:
        """Add mono tracks ``(T,)``, numbered on from those enrolled before.

        Raises:
            MelprintError: more tracks than the entries of the table can tell apart.
        """
        room = (1 << (ENTRY_BITS - self._table.maxtimebits)) - 1
        for wave in waves:
            number = len(self._table.names)
            if number >= room:
                raise MelprintError(f"audfprint tells {room} tracks apart at this max_time; enroll fewer or lower it")
            with _seeded(number):  # a full bucket forgets at random
                self._table.store(str(number), self.hashes(wave, ENROLL_SHIFTS).tolist())

    def look_up(self, wave: NDArray[np.int16]) -> Answer:
        """The best place of a mono query ``(T,)``; nothing if no hash is in the table."""
        found = self._matcher.match_hashes(self._table, self.hashes(wave, QUERY_SHIFTS))
        if not len(found):
            return NOTHING
        track, count, frames = found[0, :3].tolist()
        return Answer(track, frames * self._analyzer.n_hop / self.system_rate_hz, float(count))

    def hashes(self, wave: NDArray[np.int16], shifts: int) -> NDArray[np.int32]:
        """Frames and hashes ``(H, 2)`` of a wave ``(T,)``, as ``Analyzer.wavfile2hashes`` finds them in a file.

        Args:
            wave: at the rate of the system.
            shifts: how often it is analysed, each time a further fraction of a frame on.
        """
        resampled = wave.astype(np.float32) / INT16_SCALE
        if self.system_rate_hz != self.sample_rate_hz:
            resampled = soxr.resample(resampled, self.sample_rate_hz, self.system_rate_hz)
        if len(resampled) < self._analyzer.n_fft:
            return np.zeros((0, 2), np.int32)
        found = []
        for shift in range(shifts):
            peaks = self._analyzer.find_peaks(resampled[shift * self._analyzer.n_hop // shifts :], self.system_rate_hz)
            found.append(self._to_hashes(self._analyzer.peaks2landmarks(peaks)))
        return np.unique(np.concatenate(found), axis=0)


class Chromaprint:
    """Chroma sub-fingerprints of 32 bits by ``fpcalc``, compared exhaustively at every alignment within a track.

    The score is 1 - bit error rate, about 0.5 by chance and 1 for identical sound.  Chromaprint has no search by
    excerpt of its own (AcoustID looks up whole files); this one misses nothing that its bits can tell.

    Attributes:
        name: ``chromaprint``.
    """

    name = "chromaprint"

    def __init__(self, sample_rate_hz: int = 8_000) -> None:
        """Begin without tracks.

        Args:
            sample_rate_hz: of tracks and queries; fpcalc resamples them to 11025 Hz.

        Raises:
            MelprintError: pyacoustid, libchromaprint or fpcalc is not installed.
        """
        self.sample_rate_hz = sample_rate_hz
        _import_acoustid()
        if shutil.which(os.environ.get("FPCALC", "fpcalc")) is None:
            raise MelprintError(f"fpcalc is not on the path; {FPCALC_REMEDY}")
        self._prints: list[NDArray[np.uint32]] = []
        self._lay_out()

    def enroll(self, waves: Iterable[NDArray[np.int16]]) -> None:
        """Add mono tracks ``(T,)``, numbered on from those enrolled before.

        Raises:
            MelprintError: fpcalc fails.
        """
        self._prints.extend(map(self.sub_fingerprints, waves))
        self._lay_out()

    def look_up(self, wave: NDArray[np.int16]) -> Answer:
        """The place of least bit error rate; nothing if the query is below 2.72 s or longer than every track.

        Raises:
            MelprintError: fpcalc fails.
        """
        query = self.sub_fingerprints(wave)
        errors = bit_errors(query, self._references, self._num_left)
        if not len(errors) or errors.min() == NO_ROOM:
            return NOTHING
        place = int(errors.argmin())
        track = int(np.searchsorted(self._first, place, side="right")) - 1
        start_s = (place - int(self._first[track])) * PERIOD_S
        return Answer(track, start_s, 1.0 - int(errors[place]) / (PRINT_BITS * len(query)))

    def sub_fingerprints(self, wave: NDArray[np.int16]) -> NDArray[np.uint32]:
        """One for each 0.124 s of a wave ``(T,)``, from its beginning on; none below 2.72 s.

        Raises:
            MelprintError: fpcalc fails.
        """
        acoustid, chromaprint = _import_acoustid()
        duration_s = len(wave) / self.sample_rate_hz
        if duration_s < SHORTEST_S:
            return np.zeros(0, np.uint32)
        # fpcalc 1.5.1 with FFmpeg 5 or later exits with an error at the end of any file (chromaprint issue 122), and
        # pyacoustid drops its output: it is stopped before, at the end of the wave.
        padded = np.pad(wave, (0, round(PADDING_S * self.sample_rate_hz)))
        with tempfile.TemporaryDirectory(prefix="melprint-fpcalc-") as folder:
            path = Path(folder, "wave.wav")
            soundfile.write(path, padded, self.sample_rate_hz, subtype="PCM_16")
            try:
                _, encoded = acoustid.fingerprint_file(str(path), maxlength=duration_s, force_fpcalc=True)
            except acoustid.NoBackendError as error:
                raise MelprintError(f"fpcalc is not on the path; {FPCALC_REMEDY}") from error
            except acoustid.FingerprintGenerationError as error:
                raise MelprintError(
                    f"fpcalc failed on {duration_s:.1f} s ({error}); try it by hand on a wav"
                ) from error
        return np.array(chromaprint.decode_fingerprint(encoded)[0], np.uint32)

    def _lay_out(self) -> None:
        counts = np.array([len(prints) for prints in self._prints], np.int64)
        ends = np.cumsum(counts)
        self._first = ends - counts
        self._references = np.concatenate([np.zeros(0, np.uint32), *self._prints])
        self._num_left = np.repeat(ends, counts) - np.arange(len(self._references))


def bit_errors(
    query: NDArray[np.uint32], references: NDArray[np.uint32], num_left: NDArray[np.int64]
) -> NDArray[np.uint32]:
    """Bits in which a query differs from the references, at every place of its beginning.

    Args:
        query: sub-fingerprints ``(J,)``.
        references: those of all tracks, end to end ``(P,)``.
        num_left: how many remain in the track from each on ``(P,)``.

    Returns:
        ``(P - J + 1,)``, ``NO_ROOM`` where the query would reach into the next track; empty if there is no place.

    >>> bit_errors(np.array([1, 3], np.uint32), np.array([1, 2, 1, 3], np.uint32), np.array([2, 1, 2, 1])).tolist()
    [1, 4294967295, 0]
    """
    num_places = len(references) - len(query) + 1
    if num_places < 1 or not len(query):
        return np.zeros(0, np.uint32)
    errors = np.zeros(num_places, np.uint32)
    for offset, bits in enumerate(query):
        errors += np.bitwise_count(references[offset : offset + num_places] ^ bits)
    errors[num_left[:num_places] < len(query)] = NO_ROOM
    return errors


class _AudfprintModules(NamedTuple):
    analyzer: Any
    hash_table: Any
    matcher: Any


def _import_audfprint() -> _AudfprintModules:
    # On import, it sets the root logger up to write every INFO message; with a handler there, that does nothing.
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)
    try:
        from audfprint2.core import analyzer, hash_table, matcher
    except ImportError as error:
        raise MelprintError(f"audfprint2 is not installed ({error}); {EXTRA}") from error
    finally:
        root.removeHandler(silent)
    for logger in ("audfprint2", "audfprint"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    return _AudfprintModules(analyzer, hash_table, matcher)


def _import_acoustid() -> tuple[Any, Any]:
    try:
        import acoustid
    except ImportError as error:
        raise MelprintError(f"pyacoustid is not installed ({error}); {EXTRA}") from error
    try:
        import chromaprint
    except ImportError as error:
        raise MelprintError(f"libchromaprint is not installed ({error}); {FPCALC_REMEDY}") from error
    return acoustid, chromaprint


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed Python's global generator for a while; whoever else draws from it notices nothing."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
