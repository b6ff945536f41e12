"""Following hours of audio, or a stream, in constant memory: which track was played when.

Axes: S segments · W windows · D fingerprint size.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melprint.audio.streams import RawPcm, pcm_blocks
from melprint.catalog.catalog import Catalog
from melprint.catalog.view import View
from melprint.data.manifest import replacing
from melprint.errors import MelprintError
from melprint.fingerprints.rows import Rows
from melprint.matching.extent import extent
from melprint.matching.sequence import match_sequences
from melprint.recognition.cues import Candidate, Cue, CueTracker, CueWriter, Window
from melprint.recognition.recent import Recent

BLOCK_S = 30.0  # of a file
LIVE_BLOCK_S = 5.0  # of a stream, where lines are to come soon
KEPT_S = 120.0  # of fingerprints, to find where a track really begins and ends
STATE_SUFFIX = ".state"


@dataclass(frozen=True)
class Options:
    """How a stream is followed.

    Attributes:
        window_s: audio that is compared at once.
        step_s: between two windows.
        bridge_s: gaps up to this are bridged.
        min_windows: windows that must agree.
        num_neighbours: of each segment.
        false_accept_rate: of a single window of unknown music.
        min_gap_s: shorter stretches of nothing known are not listed.
    """

    window_s: float = 5.0
    step_s: float = 1.0
    bridge_s: float = 5.0
    min_windows: int = 2
    num_neighbours: int = 10
    false_accept_rate: float = 0.001
    min_gap_s: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.false_accept_rate < 1:
            raise MelprintError(f"false_accept_rate must lie between 0 and 1, got {self.false_accept_rate:g}")
        if self.bridge_s < 0:
            raise MelprintError(f"bridge_s must not be negative, got {self.bridge_s:g}")


@dataclass(frozen=True)
class Played:
    """A line of the cue list.

    Attributes:
        start_s, end_s: in the stream.
        key: of the track; empty where nothing known was played.
        title, artist: of the track.
        track_start_s: where in the track it begins.
        confidence: one minus the chance that unknown music looks like it.
        score: mean cosine.
    """

    start_s: float
    end_s: float
    key: str = ""
    title: str = ""
    artist: str = ""
    track_start_s: float | None = None
    confidence: float | None = None
    score: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class Follower:
    """Takes audio as it comes, and gives what was played once it is over.

    Args:
        catalog: to look in; changes of it are seen with the next block.
        options: how.
        start_s: time of the first sample.
    """

    def __init__(self, catalog: Catalog, options: Options | None = None, start_s: float = 0.0) -> None:
        self.catalog, self.options = catalog, options or Options()
        self.segment = catalog.segment
        self.origin_s = start_s
        self.recent = Recent(catalog, self.options.num_neighbours)
        self.next_window = 0  # its first segment
        self.tracker = CueTracker(bridge_s=self.options.bridge_s, min_windows=self.options.min_windows)

    @property
    def now_s(self) -> float:
        """How far the windows have come."""
        return self.origin_s + self.next_window * self.segment.hop_s

    def feed(self, pcm_T: NDArray[np.int16]) -> list[Cue]:
        """Take the next samples; returns tracks that are over."""
        self.recent.feed(pcm_T, round(KEPT_S / self.segment.hop_s))
        view = self.recent.view()
        return [self._refined(cue, view) for cue in self._windows(view)]

    def finish(self) -> list[Cue]:
        """What is still being played when the stream ends."""
        view = self.recent.view()
        return [self._refined(cue, view) for cue in self.tracker.finish()]

    def _windows(self, view: View) -> list[Cue]:
        size = self.segment.num_segments(self.segment.to_samples(self.options.window_s))
        step = round(self.options.step_s / self.segment.hop_s)
        first = np.arange(self.next_window, self.recent.count - size + 1, step)
        if not len(first):
            return []
        self.next_window = int(first[-1]) + step
        recent = self.recent
        matches = match_sequences(
            Rows([recent.rows]), recent.neighbours, first - recent.oldest, np.full(len(first), size), [size], view.rows,
            view.borders, num_best=3,
        )[size]  # fmt: skip
        limit = self.catalog.confidence.threshold(self.options.false_accept_rate, size, len(view))
        accepted = (matches.track >= 0) & (matches.score >= limit)
        cues: list[Cue] = []
        for number, row in enumerate(first.tolist()):
            start_s = self.origin_s + row * self.segment.hop_s
            candidates = [
                Candidate(
                    int(view.track_ids[view.track_of_stretch[matches.track[number, rank]]]),
                    float(matches.start[number, rank]) * self.segment.hop_s,
                    float(matches.score[number, rank]),
                    self.catalog.confidence.of(float(matches.score[number, rank]), size, len(view)),
                )
                for rank in np.flatnonzero(accepted[number])
            ]
            cues += self.tracker.push(Window(start_s, start_s + self.segment.query_seconds(size), candidates))
        return cues

    def _refined(self, cue: Cue, view: View) -> Cue:
        """Beginning and end to the segment, along the alignment, as far as the fingerprints are still there."""
        position = view.position_of(cue.track)
        if position < 0:
            return cue  # removed meanwhile
        track = view.rows_at(position)
        hop_s, recent = self.segment.hop_s, self.recent
        offset = round((cue.track_start_s - cue.start_s + self.origin_s) / hop_s)  # row of the track less segment
        around = round((self.options.window_s + self.options.bridge_s) / hop_s)
        low = max(recent.oldest, round((cue.start_s - self.origin_s) / hop_s) - around)
        high = min(recent.count, round((cue.end_s - self.origin_s) / hop_s) + around)
        index = np.arange(low, high)
        inside = (index + offset >= 0) & (index + offset < len(track))
        if not inside.any():
            return cue
        cosines = np.zeros(len(index), np.float32)
        mine = recent.rows[index[inside] - recent.oldest]
        cosines[inside] = np.einsum("nd,nd->n", mine, track[index[inside] + offset])
        found = extent(cosines, cue.score, self.segment)
        if found is None:
            return cue
        start_s, end_s = (self.origin_s + low * hop_s + time_s for time_s in (found.start_s, found.end_s))
        # What windows agree on is not taken back: of a long track the beginning is not kept, and music that runs a bit
        # too fast leaves the alignment of its beginning.
        if start_s > cue.start_s + self.options.window_s:
            start_s = cue.start_s
        if end_s < cue.end_s - self.options.window_s:
            end_s = cue.end_s
        track_start_s = max(0.0, offset * hop_s + start_s - self.origin_s)
        return Cue(start_s, end_s, cue.track, track_start_s, cue.score, cue.confidence)


def monitor(
    catalog: Catalog,
    source: Path | str,
    *,
    out: Path | None = None,
    resume: bool = False,
    options: Options | None = None,
    raw: RawPcm | None = None,
) -> Iterator[Played]:
    """What was played in a recording, on standard input (``-``) or in a stream, line by line as it is over.

    Args:
        catalog: to look in.
        source: what :func:`melprint.audio.streams.pcm_blocks` takes.
        out: a cue list that is written as it goes: ``.csv``, ``.jsonl`` or ``.cue``.
        resume: go on where ``out`` ends.
        options: how.
        raw: of PCM on standard input.

    Raises:
        MelprintError: the source cannot be read (to its end: what was found before is kept), or nothing to resume.
    """
    options = options or Options()
    _ = catalog.confidence  # refuses before any work
    start_s, listed_s, position = _begun(out, source, resume=resume)
    follower = Follower(catalog, options, start_s)
    block_s = BLOCK_S if isinstance(source, Path) else LIVE_BLOCK_S
    blocks = pcm_blocks(source, catalog.segment.sample_rate_hz, block_s=block_s, start_s=start_s, raw=raw)
    listing = _Listing(catalog, options, listed_s)
    heard_s, broken = start_s, None
    head = list(islice(blocks, 1))  # a source that cannot be read leaves an earlier list as it is
    writer = CueWriter(out, position=position, source=str(source)) if out is not None else None
    try:
        try:
            for block in chain(head, blocks):
                heard_s += len(block) / catalog.segment.sample_rate_hz
                cues = follower.feed(block)
                yield from _write(writer, listing.take(cues, follower.tracker.open_since(), follower.now_s))
                if writer is not None and out is not None:
                    opened_s = follower.tracker.open_since()
                    again_s = max(0.0, (follower.now_s if opened_s is None else opened_s) - options.window_s)
                    _keep_state(out, source, again_s, listing.listed_s, writer.position())
        except MelprintError as error:
            broken = error  # what was being played until then is written first
        yield from _write(writer, listing.take(follower.finish(), None, heard_s))
        yield from _write(writer, listing.rest(heard_s))
    finally:
        if writer is not None:
            writer.close()
    if broken is not None:
        raise broken  # the state stays: once the source is mended, the list can be gone on with
    if out is not None:
        _state_of(out).unlink(missing_ok=True)


class _Listing:
    """Cues in the order of time, with the gaps between them."""

    def __init__(self, catalog: Catalog, options: Options, listed_s: float) -> None:
        self.catalog, self.options, self.listed_s = catalog, options, listed_s
        self.waiting: list[Cue] = []

    def take(self, cues: list[Cue], open_since_s: float | None, now_s: float) -> list[Played]:
        """Lines for cues that nothing earlier can come before any more."""
        self.waiting = sorted([*self.waiting, *cues], key=lambda cue: cue.start_s)
        ready: list[Cue] = []
        limit_s = now_s if open_since_s is None else open_since_s
        while self.waiting and self.waiting[0].start_s <= limit_s:
            ready.append(self.waiting.pop(0))
        # After an interruption the last stretch is heard again; what stands in the list already is left out.
        ready = [cue for cue in ready if cue.end_s > self.listed_s + self.segment_s]
        return self._lines(ready)

    @property
    def segment_s(self) -> float:
        """Of the network."""
        return self.catalog.segment.duration_s

    def rest(self, end_s: float) -> list[Played]:
        """Everything that is left, and the gap to the end."""
        ready, self.waiting = self.waiting, []
        lines = self._lines(ready)
        if end_s - self.listed_s >= self.options.min_gap_s:
            lines.append(Played(round(self.listed_s, 2), round(end_s, 2)))
        return lines

    def _lines(self, cues: list[Cue]) -> list[Played]:
        tracks = self.catalog.tracks({cue.track for cue in cues}) if cues else {}
        lines = []
        for cue in cues:
            if cue.start_s - self.listed_s >= self.options.min_gap_s:
                lines.append(Played(round(self.listed_s, 2), round(cue.start_s, 2)))
            track = tracks.get(cue.track)
            if track is None:
                continue  # removed while it was being played
            lines.append(
                Played(
                    round(cue.start_s, 2),
                    round(cue.end_s, 2),
                    track.key,
                    track.title,
                    track.artist,
                    round(cue.track_start_s, 2),
                    round(cue.confidence, 6),
                    round(cue.score, 4),
                )
            )
            self.listed_s = max(self.listed_s, cue.end_s)
        return lines


def _write(writer: CueWriter | None, played: list[Played]) -> Iterator[Played]:
    for line in played:
        if writer is not None:
            writer.write(line.as_json())
        yield line


def _state_of(out: Path) -> Path:
    return out.with_name(out.name + STATE_SUFFIX)


def _keep_state(out: Path, source: Path | str, again_s: float, listed_s: float, position: int) -> None:
    with replacing(_state_of(out)) as file:
        json.dump({"source": str(source), "again_s": again_s, "listed_s": listed_s, "position": position}, file)


def _begun(out: Path | None, source: Path | str, *, resume: bool) -> tuple[float, float, int | None]:
    """Where to go on hearing, up to where the list is complete, and how many of its bytes that is."""
    if out is None:
        if resume:
            raise MelprintError("--resume needs the --out of the interrupted run")
        return 0.0, 0.0, None
    if not resume:
        if _state_of(out).exists():
            raise MelprintError(
                f"{out} is the list of an interrupted run; go on with --resume, or delete {_state_of(out)} to begin"
                " anew"
            )
        return 0.0, 0.0, None
    if str(source) == "-":
        raise MelprintError("standard input cannot be heard again; choose another --out")
    try:
        state = json.loads(_state_of(out).read_text(encoding="utf-8"))
        known, again_s, listed_s, position = (state[key] for key in ("source", "again_s", "listed_s", "position"))
    except (OSError, ValueError, KeyError) as error:
        raise MelprintError(f"{out} was not interrupted, or has not begun; start without --resume") from error
    if known != str(source):
        raise MelprintError(f"{out} is the cue list of {known}, not of {source}; choose another --out")
    return again_s, listed_s, position
