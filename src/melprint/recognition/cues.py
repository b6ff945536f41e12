"""From decisions on single windows to a list of what was played when; nothing here knows audio or catalogs."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from melprint.errors import MelprintError

TOLERANCE_S = 0.75  # places are known to half a hop on either side, and tempo changes within a window
DRIFT = 0.05  # music may be played this much faster or slower
SAME_SHARE = 0.5  # of an alignment that lies within a better one of the same track: it is an echo of that
COLUMNS = ("start_s", "end_s", "key", "title", "artist", "track_start_s", "confidence", "score")
FRAMES_PER_S = 75  # of an audio CD, in which cue sheets count


class Candidate(NamedTuple):
    """A track that was accepted in one window.

    Attributes:
        track: its number.
        track_start_s: where in the track the window begins; negative where the window begins before the track.
        score: of the match, higher is better.
        confidence: that it is no chance.
    """

    track: int
    track_start_s: float
    score: float
    confidence: float


class Window(NamedTuple):
    """A stretch of the stream and what was accepted in it.

    Attributes:
        start_s, end_s: in the stream.
        candidates: in any order.
    """

    start_s: float
    end_s: float
    candidates: Sequence[Candidate] = ()


class Cue(NamedTuple):
    """A track was played.

    Attributes:
        start_s, end_s: in the stream: of the windows that agree, less what they hold before the track's beginning.
        track: its number.
        track_start_s: where in the track it begins, at least 0.
        score: mean over the windows.
        confidence: of the surest window.
    """

    start_s: float
    end_s: float
    track: int
    track_start_s: float
    score: float
    confidence: float


@dataclass
class _Alignment:
    """Windows of one track whose places follow each other as their times do."""

    track: int
    start_s: float
    track_start_s: float
    last_start_s: float = 0.0
    last_track_start_s: float = 0.0
    end_s: float = 0.0
    scores: float = 0.0
    num_windows: int = 0
    confidence: float = 0.0

    def error_s(self, window: Window, candidate: Candidate) -> float:
        """How far the candidate is from where this alignment goes on.

        Measured from the last window and not from the first: the drift of a few windows is small, so that a jump by a
        beat is noticed after an hour as well.
        """
        return abs(candidate.track_start_s - self.last_track_start_s - (window.start_s - self.last_start_s))

    def allowed_s(self, window: Window, tolerance_s: float) -> float:
        return tolerance_s + DRIFT * (window.start_s - self.last_start_s)

    def add(self, window: Window, candidate: Candidate) -> None:
        self.last_start_s, self.last_track_start_s = window.start_s, candidate.track_start_s
        self.end_s = max(self.end_s, window.end_s)
        self.scores += candidate.score
        self.num_windows += 1
        self.confidence = max(self.confidence, candidate.confidence)

    def is_echo_of(self, other: "_Alignment") -> bool:
        """Whether the music repeats itself here: another alignment explains most of this stretch, and explains more."""
        if other is self or other.track != self.track:
            return False
        if (other.num_windows, other.scores, -other.start_s) <= (self.num_windows, self.scores, -self.start_s):
            return False
        common_s = min(self.end_s, other.end_s) - max(self.start_s, other.start_s)
        return common_s > SAME_SHARE * (self.end_s - self.start_s)

    def as_cue(self) -> Cue:
        lead_s = max(0.0, -self.track_start_s)
        return Cue(
            min(self.start_s + lead_s, self.end_s), self.end_s, self.track, self.track_start_s + lead_s,
            self.scores / self.num_windows, self.confidence,
        )  # fmt: skip


@dataclass
class CueTracker:
    """Joins windows to cues while they come in.

    Windows of a track belong together where their places in the track follow each other as their times do.  Gaps in
    this are bridged; other tracks may sound meanwhile, so that a crossfade gives two cues that overlap.  A second
    alignment of the same track is a cue of its own (the track was started again), unless most of it lies within a
    stretch that a better supported one explains: then the music repeats itself.

    Attributes:
        bridge_s: between the end of the last window and the start of the next one of a cue, at most.
        min_windows: that a cue needs.
        tolerance_s: by which two following windows may disagree on the place.

    >>> tracker = CueTracker()
    >>> [tracker.push(Window(t, t + 5.0, [Candidate(7, 30.0 + t, 0.9, 0.99)])) for t in (0.0, 1.0, 2.0)]
    [[], [], []]
    >>> tracker.finish()
    [Cue(start_s=0.0, end_s=7.0, track=7, track_start_s=30.0, score=0.9, confidence=0.99)]
    """

    bridge_s: float = 5.0
    min_windows: int = 2
    tolerance_s: float = TOLERANCE_S
    _open: list[_Alignment] = field(default_factory=list, repr=False)
    _closed: list[_Alignment] = field(default_factory=list, repr=False)  # given out, but may still have echoes
    _now_s: float = field(default=float("-inf"), repr=False)

    def __post_init__(self) -> None:
        if self.bridge_s < 0 or self.tolerance_s <= 0 or self.min_windows < 1:
            raise MelprintError(
                "cues need bridge_s of at least 0, tolerance_s above 0 and min_windows of at least 1, got"
                f" {self.bridge_s:g}, {self.tolerance_s:g} and {self.min_windows}"
            )

    def push(self, window: Window) -> list[Cue]:
        """Take the next window; returns the cues that it shows to be over, by their start.

        Raises:
            ValueError: it begins before the last one.
        """
        if window.start_s < self._now_s:
            raise ValueError(f"windows must come in the order of time, got {window.start_s} s after {self._now_s} s")
        self._now_s = window.start_s
        over = [alignment for alignment in self._open if window.start_s > alignment.end_s + self.bridge_s]
        cues = self._close(over)
        taken: set[int] = set()  # each alignment is continued once, by the best of the candidates that fit
        for candidate in sorted(window.candidates, key=lambda candidate: -candidate.score):
            fitting = [
                alignment
                for alignment in self._open
                if alignment.track == candidate.track
                and alignment.error_s(window, candidate) <= alignment.allowed_s(window, self.tolerance_s)
            ]
            if not fitting:
                self._open.append(_Alignment(candidate.track, window.start_s, candidate.track_start_s))
                fitting = [self._open[-1]]
            elif taken.intersection(map(id, fitting)):
                continue  # the same place, half a hop away
            # Of two alignments that fit, the longer one goes on.
            nearest = max(fitting, key=lambda alignment: (alignment.num_windows, -alignment.start_s))
            nearest.add(window, candidate)
            taken.add(id(nearest))
        return cues

    def finish(self) -> list[Cue]:
        """The stream is over: all that is still open."""
        cues = self._close(list(self._open))
        self._closed.clear()
        return cues

    def open_since(self) -> float | None:
        """Where the earliest cue begins that may still be given; ``None`` where nothing is open."""
        return min((alignment.start_s for alignment in self._open), default=None)

    def _close(self, over: list[_Alignment]) -> list[Cue]:
        everything = [*self._open, *self._closed]
        kept = [
            alignment
            for alignment in over
            if alignment.num_windows >= self.min_windows
            and not any(alignment.is_echo_of(other) for other in everything)
        ]
        closed = set(map(id, over))
        self._open = [alignment for alignment in self._open if id(alignment) not in closed]
        since_s = self.open_since()
        self._closed = [
            alignment for alignment in [*self._closed, *kept] if since_s is not None and alignment.end_s > since_s
        ]
        return sorted(alignment.as_cue() for alignment in kept)


def gaps(cues: Iterable[Cue], end_s: float, min_gap_s: float, *, start_s: float = 0.0) -> Iterator[tuple[float, float]]:
    """Stretches ``(start_s, end_s)`` of at least ``min_gap_s`` in which nothing known was played.

    >>> list(gaps([Cue(10.0, 20.0, 1, 0.0, 0.9, 0.99), Cue(15.0, 40.0, 2, 0.0, 0.9, 0.99)], 60.0, 5.0))
    [(0.0, 10.0), (40.0, 60.0)]
    """
    known_until_s = start_s
    for cue in sorted(cues):
        low_s, high_s = known_until_s, min(cue.start_s, end_s)
        if high_s > low_s and high_s - low_s >= min_gap_s:
            yield low_s, high_s
        known_until_s = max(known_until_s, cue.end_s)
    if end_s > known_until_s and end_s - known_until_s >= min_gap_s:
        yield known_until_s, end_s


class CueWriter:
    """A cue list that is on disk as far as it was written: ``.csv``, ``.jsonl`` or ``.cue`` by its name.

    Rows have the keys of :data:`COLUMNS`; an empty ``key`` marks a stretch of nothing known.  Cue sheets know only
    where a track begins, so that such a stretch is a track called ``unknown`` there; players may stop at 99 tracks.

    Args:
        path: to write; what is there is replaced.
        position: go on after this many bytes of what is there, as :meth:`position` told.
        source: name of the recording, for a cue sheet; by default that of ``path``.

    Raises:
        MelprintError: another suffix, a folder that is missing, or less in the file than ``position``.
    """

    def __init__(self, path: Path, *, position: int | None = None, source: str | None = None) -> None:
        self._kind = path.suffix.lower()
        if self._kind not in (".csv", ".jsonl", ".cue"):
            raise MelprintError(f"{path}: a cue list is written as .csv, .jsonl or .cue")
        self._num_tracks, self._last_frame = 0, 0
        try:
            self._file = path.open("wb" if position is None else "r+b")
            if position is not None:
                self._continue(path, position)
        except OSError as error:
            raise MelprintError(f"{path}: cannot be written ({error.strerror})") from error
        if not self.position():
            if self._kind == ".csv":
                self._put(",".join(COLUMNS))
            elif self._kind == ".cue":
                self._put(f'FILE "{_quotable(path.stem if source is None else source)}" WAVE')

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row, and hand it to the system."""
        values = {column: row.get(column) for column in COLUMNS}
        values["key"] = values["key"] or ""
        if self._kind == ".jsonl":
            self._put(json.dumps(values, ensure_ascii=False))
        elif self._kind == ".csv":
            line = io.StringIO()
            # Its own line ending, so that a title with any kind of new line is quoted.
            csv.DictWriter(line, COLUMNS, lineterminator="\r\n").writerow(values)
            self._put(line.getvalue().removesuffix("\r\n"))
        else:
            self._put(self._cue_track(values))

    def position(self) -> int:
        """How many bytes are written, all of them flushed."""
        return self._file.tell()

    def close(self) -> None:
        """No more rows."""
        self._file.close()

    def __enter__(self) -> "CueWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, text: str) -> None:
        # Titles come from tags, which may hold bytes of any encoding.
        self._file.write(f"{text}\n".encode("utf-8", "replace"))
        self._file.flush()

    def _continue(self, path: Path, position: int) -> None:
        there = self._file.read()
        if len(there) < position:
            self._file.close()
            raise MelprintError(f"{path}: holds {len(there)} bytes, not the {position} that were written; start anew")
        self._file.truncate(position)
        self._file.seek(position)
        for line in there[:position].decode().splitlines() if self._kind == ".cue" else []:
            if line.startswith("  TRACK "):
                self._num_tracks += 1
            elif line.startswith("    INDEX 01 "):
                minutes, seconds, frames = map(int, line.split()[-1].split(":"))
                self._last_frame = (60 * minutes + seconds) * FRAMES_PER_S + frames

    def _cue_track(self, row: Mapping[str, Any]) -> str:
        self._num_tracks += 1
        # Never before the track above, which players refuse.
        frame = self._last_frame = max(self._last_frame, round(float(row["start_s"]) * FRAMES_PER_S))
        title = (row["title"] or row["key"]) if row["key"] else "unknown"
        lines = [f"  TRACK {self._num_tracks:02d} AUDIO", f'    TITLE "{_quotable(title)}"']
        if row["artist"]:
            lines.append(f'    PERFORMER "{_quotable(row["artist"])}"')
        second, frame_of_second = divmod(frame, FRAMES_PER_S)
        lines.append(f"    INDEX 01 {second // 60:02d}:{second % 60:02d}:{frame_of_second:02d}")
        return "\n".join(lines)


def _quotable(text: str) -> str:
    """As a quoted word of a cue sheet, which has no way to write a quotation mark or a new line."""
    return " ".join(str(text).replace('"', "'").split())
