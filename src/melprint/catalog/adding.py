"""Adding recordings: read ahead, fingerprinted across the borders of files, committed as they are done.

Axes: S segments · N rows · D fingerprint size.
"""

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melprint.audio.files import find_recordings, shown
from melprint.audio.framing import segments_of
from melprint.catalog.catalog import Catalog, NewTrack
from melprint.catalog.dedup import Shared, duplicate_of
from melprint.catalog.tables import PATH, TEXT, Track
from melprint.catalog.tags import tags_of
from melprint.errors import MelprintError
from melprint.fingerprints.embedding import embed_segments
from melprint.fingerprints.extractor import decoded, sources_of
from melprint.progress import progress_bar
from melprint.recognition.search import is_silent
from melprint.spec import SegmentSpec

BATCH_SIZE = 256
COMMIT_ROWS = 16_384
COMMIT_S = 5.0
SEGMENTS_IN_PART = 1024


class Wanted(NamedTuple):
    """A file that is to be added under a key."""

    key: str
    path: Path


@dataclass
class Added:
    """What came of adding.

    Attributes:
        tracks: that were added.
        there: files whose content was there already.
        duplicates: recordings that share their audio with a track of the catalog, with that track and the ranges.
        rejected: files that cannot be read, and why.
    """

    tracks: list[Track] = field(default_factory=list)
    there: list[Path] = field(default_factory=list)
    duplicates: list[tuple[Path, Shared]] = field(default_factory=list)
    rejected: list[tuple[Path, str]] = field(default_factory=list)


def add(
    catalog: Catalog,
    paths: Sequence[Path],
    *,
    skip_duplicates: bool = False,
    said: Callable[[str], None] = lambda line: None,
) -> Added:
    """Add files, and all recordings below folders; what is there already is not read again.

    Keys are paths below the given folder.  A file that has changed since it was added takes the place of what it
    was.  Interrupted at any moment, the catalog has every recording that was committed, and the same command goes on.

    Args:
        catalog: to add to; other processes may add to it at the same time.
        paths: files and folders.
        skip_duplicates: leave out recordings whose audio the catalog has, in whatever encoding.
        said: called with a sentence for each file that is left out.

    Raises:
        MelprintError: a path is missing or holds no recordings, or the catalog cannot be written.
    """
    done = Added()
    wanted = _wanted(paths, done, said)
    pending: list[NewTrack] = []
    with progress_bar("add", len(wanted)) as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        new = _not_there(catalog, wanted, pool, done, said)
        advance(len(wanted) - len(new))
        last, num_rows = time.monotonic(), 0
        for entry, rows, duration_s in _fingerprinted(catalog, new):
            advance(1)
            if isinstance(rows, MelprintError):
                done.rejected.append((entry.wanted.path, str(rows)))
                said(f"left out: {rows}")
                continue
            track = entry.track(duration_s)
            if skip_duplicates and (shared := duplicate_of(catalog, rows, pending)) is not None:
                done.duplicates.append((entry.wanted.path, shared))
                said(f"left out: {shown(entry.wanted.path)} has the audio of {shared.key}")
                continue
            pending.append(NewTrack(track, rows, entry.replaces.id if entry.replaces else None))
            num_rows += len(rows)
            if num_rows >= COMMIT_ROWS or time.monotonic() - last > COMMIT_S:
                done.tracks += catalog.append(pending)
                pending, num_rows, last = [], 0, time.monotonic()
        done.tracks += catalog.append(pending)
    catalog.tidy()
    return done


@dataclass(frozen=True)
class _Entry:
    wanted: Wanted
    sha256: str
    replaces: Track | None  # what the same file was when it was added

    def track(self, duration_s: float) -> Track:
        tags = tags_of(self.wanted.path)
        return Track(
            key=self.replaces.key if self.replaces else self.wanted.key,
            **{name: tags.get(name, "")[:TEXT] for name in ("title", "artist", "album")},
            duration_s=duration_s,
            path=shown(self.wanted.path.resolve())[:PATH],
            sha256=self.sha256,
        )


def _wanted(paths: Sequence[Path], done: Added, said: Callable[[str], None]) -> list[Wanted]:
    def reject(error: MelprintError) -> None:
        done.rejected.append((Path(str(error).rpartition(":")[0]), str(error)))
        said(f"left out: {error}")

    found: dict[Path, Wanted] = {}
    for path in paths:
        try:
            if path.is_dir():
                for file in find_recordings(path, reject):
                    found.setdefault(file.resolve(), Wanted(shown(file.relative_to(path)), file))
            elif path.exists():
                found.setdefault(path.resolve(), Wanted(shown(Path(path.name)), path))
            else:
                raise MelprintError(f"there is no {shown(path)}; give files or folders")
        except MelprintError as error:
            if len(paths) == 1:
                raise
            done.rejected.append((path, str(error)))
            said(f"left out: {error}")
    return list(found.values())


def _not_there(
    catalog: Catalog, wanted: Sequence[Wanted], pool: ThreadPoolExecutor, done: Added, said: Callable[[str], None]
) -> list[_Entry]:
    """Files whose content the catalog does not have, each once."""
    digests = list(pool.map(_digest, [entry.path for entry in wanted]))
    there = catalog.tables.with_values("sha256", [digest for digest in digests if isinstance(digest, str)])
    places = {entry.path: shown(entry.path.resolve())[:PATH] for entry in wanted}
    by_path = catalog.tables.with_values("path", list(places.values()))
    changed = {
        entry.path: by_path[places[entry.path]]
        for entry, digest in zip(wanted, digests, strict=True)
        if isinstance(digest, str) and places[entry.path] in by_path and by_path[places[entry.path]].sha256 != digest
    }
    # What such a file was goes; a copy of it elsewhere comes in.
    going = {older.sha256 for older in changed.values()}
    new: dict[str, _Entry] = {}
    for entry, digest in zip(wanted, digests, strict=True):
        if isinstance(digest, MelprintError):
            done.rejected.append((entry.path, str(digest)))
            said(f"left out: {digest}")
        elif (digest in there and digest not in going) or digest in new:
            done.there.append(entry.path)
        else:
            older = changed.get(entry.path)
            new[digest] = _Entry(entry, digest, older)
    return list(new.values())


def _unfit(samples: NDArray[np.int16], entry: _Entry, segment: SegmentSpec) -> MelprintError | None:
    """Why no fingerprint can be taken of a recording."""
    name = shown(entry.wanted.path)
    if len(samples) < segment.num_samples:
        duration_s = len(samples) / segment.sample_rate_hz
        return MelprintError(f"{name}: lasts {duration_s:.2f} s, a fingerprint needs {segment.duration_s:g} s")
    if is_silent(samples):
        return MelprintError(f"{name}: is silent, there is nothing to recognise")
    return None


def _digest(path: Path) -> str | MelprintError:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return MelprintError(f"{shown(path)}: cannot be read ({error.strerror or error})")


def _fingerprinted(
    catalog: Catalog, entries: Sequence[_Entry]
) -> Iterator[tuple[_Entry, NDArray[np.float32] | MelprintError, float]]:
    """All fingerprints ``(N, D)`` of each file and its seconds, or why there are none."""
    model, segment = catalog.fingerprinter, catalog.segment
    waiting: list[NDArray[np.int16]] = []
    expected: deque[tuple[_Entry, int, float]] = deque()
    rows = np.empty((0, model.dim), np.float32)

    def embed(number: int) -> Iterator[tuple[_Entry, NDArray[np.float32], float]]:
        nonlocal rows
        segments = np.concatenate(waiting)
        waiting[:] = [segments[number:]]
        rows = np.concatenate([rows, embed_segments(model, segments[:number], BATCH_SIZE)])
        while expected and expected[0][1] <= len(rows):
            entry, count, duration_s = expected.popleft()
            yield entry, rows[:count].copy(), duration_s
            rows = rows[count:]

    sources = sources_of([(entry.wanted.key, entry.wanted.path) for entry in entries], segment.sample_rate_hz)
    for entry, (_, samples) in zip(entries, decoded(sources), strict=True):
        if isinstance(samples, MelprintError):
            yield entry, samples, 0.0
            continue
        if (unfit := _unfit(samples, entry, segment)) is not None:
            yield entry, unfit, 0.0
            continue
        segments = segments_of(samples, segment)
        expected.append((entry, len(segments), len(samples) / segment.sample_rate_hz))
        for start in range(0, len(segments), SEGMENTS_IN_PART):
            waiting.append(segments[start : start + SEGMENTS_IN_PART])
            if ready := sum(map(len, waiting)) // BATCH_SIZE * BATCH_SIZE:
                yield from embed(ready)
    if waiting and (left := sum(map(len, waiting))):
        yield from embed(left)
