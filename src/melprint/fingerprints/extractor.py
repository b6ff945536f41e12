"""Filling a store from recordings: overlapped with decoding, resumable, in shards.

Axes: S segments · T samples · N rows · D fingerprint size.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from melprint.audio.files import find_recordings, is_prepared, map_pcm, read_mono, shown, to_int16
from melprint.audio.framing import segments_of
from melprint.audio.streams import pcm_blocks
from melprint.data.manifest import Track
from melprint.errors import MelprintError
from melprint.fingerprints.embedding import embed_segments
from melprint.fingerprints.store import DTYPES, is_complete, open_store
from melprint.fingerprints.writer import StoreWriter
from melprint.models.checkpoint import model_digest
from melprint.models.fingerprinter import Fingerprinter
from melprint.progress import progress_bar

READ_AHEAD = 4  # recordings that are decoded while the network works
LONG_CHANNEL_S, LONG_BYTES = 2 * 3600.0, 1 << 27  # an hour in stereo; compressed, and of what libsndfile cannot open
SEGMENTS_IN_PART = 1024  # a long recording enters the queue in parts: 16 MB of segments at a time


@dataclass(frozen=True)
class Source:
    """One recording to fingerprint."""

    track_id: str
    path: Path
    read: Callable[[], NDArray[np.int16]]

    def identity(self) -> tuple[str, int, int]:
        """What tells whether the recording is still the same; one that is gone fails when it is read."""
        try:
            status = self.path.stat()
        except OSError:
            return self.track_id, -1, -1
        return self.track_id, status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class Shard:
    """One of several equal parts of a collection, made separately and merged afterwards."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise MelprintError(f"shard must lie between 1/{self.count} and {self.count}/{self.count}, got {self}")

    @classmethod
    def parse(cls, text: str | None) -> "Shard":
        """From ``2/8``; nothing means the whole.

        >>> Shard.parse("2/8")
        Shard(number=2, count=8)
        """
        if text is None:
            return cls()
        number, slash, count = str(text).partition("/")
        if not (slash and number.isdigit() and count.isdigit()):
            raise MelprintError(f"shard is written as 2/8, got {text!r}")
        return cls(int(number), int(count))

    def of(self, sources: Sequence[Source]) -> Sequence[Source]:
        """The neighbouring sources that belong to this shard."""
        edges = np.linspace(0, len(sources), self.count + 1).round().astype(int)
        return sources[edges[self.number - 1] : edges[self.number]]

    def name(self, name: str) -> str:
        """The store's name for this shard."""
        return name if self.count == 1 else f"{name}-{self.number}of{self.count}"


def sources_of_tracks(tracks: Sequence[Track], sample_rate_hz: int) -> list[Source]:
    """Prepared tracks; each must be what its manifest says."""
    return [Source(track.track_id, track.path, partial(track.samples, sample_rate_hz)) for track in tracks]


def sources_of_folder(folder: Path, sample_rate_hz: int) -> list[Source]:
    """All recordings below a folder, in any format, as they are."""
    return sources_of([(shown(path.relative_to(folder)), path) for path in find_recordings(folder)], sample_rate_hz)


def sources_of(files: Iterable[tuple[str, Path]], sample_rate_hz: int) -> list[Source]:
    """Recordings in any format, by name and path."""
    return [Source(name, path, partial(_read_any, path, sample_rate_hz)) for name, path in files]


def _read_any(path: Path, sample_rate_hz: int) -> NDArray[np.int16]:
    try:
        prepared = is_prepared(path, sample_rate_hz)
    except UnicodeEncodeError as error:
        raise MelprintError(f"{shown(path)}: its name is not UTF-8; rename it") from error
    except Exception as error:
        raise MelprintError(f"{path}: unreadable ({(str(error) or type(error).__name__).splitlines()[0]})") from error
    if prepared:
        samples = map_pcm(path, sample_rate_hz)
    elif _is_long(path):
        # All channels of many hours would not fit into memory; mixed block by block, they take 2 bytes a sample.
        samples = np.concatenate(list(pcm_blocks(path, sample_rate_hz)))
    else:
        samples = to_int16(read_mono(path, sample_rate_hz))
    if not len(samples):
        raise MelprintError(f"{path}: holds no audio")
    return samples


def _is_long(path: Path) -> bool:
    try:
        info = soundfile.info(path)
    except soundfile.SoundFileError:
        return path.stat().st_size > LONG_BYTES
    return bool(info.duration * info.channels > LONG_CHANNEL_S)


@dataclass(frozen=True)
class Extraction:
    """What came of filling a store.

    Attributes:
        name: of the store; a shard's has its number.
        num_tracks: recordings in the store.
        num_rows: fingerprints in the store.
        num_rejected: recordings that could not be read.
        was_there: whether the store was already complete, so that nothing was done.
    """

    name: str
    num_tracks: int
    num_rows: int
    num_rejected: int = 0
    was_there: bool = False


def extract(
    fingerprinter: Fingerprinter,
    sources: Sequence[Source],
    folder: Path,
    name: str,
    *,
    dtype: str = "float32",
    batch_size: int = 256,
    shard: Shard | None = None,
    skip_unreadable: bool = False,
) -> Extraction:
    """Write the store NAME of ``sources``; goes on where an earlier run with the same settings stopped.

    Batches are filled across the borders of recordings.  Memory holds a few batches and the recordings
    that are being decoded, and nothing that grows with the collection but the table of tracks.  Until the
    last step all is in the hidden folder ``.NAME.partial``; the store appears when it is complete.

    Args:
        fingerprinter: in evaluation mode.
        sources: in the order that the rows are to have.
        folder: of the store.
        name: NAME.
        dtype: float32 or float16.
        batch_size: segments that the network sees at once.
        shard: which part of the sources; the store is then called ``NAME-2of8``.
        skip_unreadable: leave out recordings that cannot be read and list them in ``NAME_rejected.csv``,
            instead of stopping at the first.

    Raises:
        MelprintError: a recording cannot be read, none is there, or the store cannot be written.
    """
    if dtype not in DTYPES:
        raise MelprintError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if batch_size < 1:
        raise MelprintError(f"batch_size must be positive, got {batch_size}")
    shard = shard or Shard()
    mine = shard.of(sources)
    if len(sources) < shard.count:
        raise MelprintError(f"{shard.count} shards are more than the {len(sources)} recordings of {name}; take fewer")
    name = shard.name(name)
    model = model_digest(fingerprinter)
    identities = [source.identity() for source in sources]
    collection = hashlib.sha256(json.dumps([model, dtype, batch_size, identities]).encode()).hexdigest()
    made_from = shard.name(collection)
    if is_complete(folder, name) and (meta := open_store(folder, name).meta) and meta.made_from == made_from:
        return Extraction(name, len(open_store(folder, name).tracks), meta.rows, was_there=True)
    try:
        with (
            StoreWriter(folder, name, fingerprinter.dim, dtype, made_from) as writer,
            progress_bar(f"fingerprint {name}", len(mine)) as advance,
        ):
            advance(writer.num_done)
            _fill(writer, mine[writer.num_done :], fingerprinter, batch_size, skip_unreadable, advance)
            store = writer.finish(fingerprinter.segment, model)
    except OSError as error:
        raise MelprintError(
            f"the store {folder / name} cannot be written ({error.strerror or error});"
            " make room and run the same command again, it goes on where it stopped"
        ) from error
    return Extraction(name, len(store.tracks), len(store.rows), len(writer.rejected))


def _fill(
    writer: StoreWriter,
    sources: Sequence[Source],
    fingerprinter: Fingerprinter,
    batch_size: int,
    skip_unreadable: bool,
    advance: Callable[[int], None],
) -> None:
    waiting: list[NDArray[np.int16]] = []

    def embed(num_rows: int) -> None:
        segments = np.concatenate(waiting)
        waiting[:] = [segments[num_rows:]]
        writer.put(embed_segments(fingerprinter, segments[:num_rows], batch_size))

    for source, samples in decoded(sources):
        if isinstance(samples, MelprintError):
            if not skip_unreadable:
                raise samples
            writer.reject(shown(source.path), str(samples))
        else:
            segments = segments_of(samples, fingerprinter.segment)
            duration_s = len(samples) / fingerprinter.segment.sample_rate_hz
            writer.expect(source.track_id, str(source.path), len(segments), duration_s)
            for start in range(0, len(segments), SEGMENTS_IN_PART):
                waiting.append(segments[start : start + SEGMENTS_IN_PART])
                ready = sum(map(len, waiting)) // batch_size * batch_size
                if ready:
                    embed(ready)
        advance(1)
    if waiting:
        embed(sum(map(len, waiting)))


def decoded(sources: Sequence[Source]) -> Iterator[tuple[Source, NDArray[np.int16] | MelprintError]]:
    """The samples of each source, or why there are none, while the next ones are being decoded."""
    waiting: list[tuple[Source, Future[NDArray[np.int16]]]] = []
    todo = iter(sources)
    with ThreadPoolExecutor(min(READ_AHEAD, os.cpu_count() or 1)) as pool:
        try:
            while True:
                waiting.extend((source, pool.submit(source.read)) for source in islice(todo, READ_AHEAD - len(waiting)))
                if not waiting:
                    return
                source, future = waiting.pop(0)
                try:
                    yield source, future.result()
                except MelprintError as error:
                    yield source, error
        finally:
            pool.shutdown(cancel_futures=True)
