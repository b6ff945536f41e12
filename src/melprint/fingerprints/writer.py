"""A store in the making.  Axes: N rows · D fingerprint size."""

import csv
import json
import os
import shutil
import subprocess
from collections import deque
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melprint.data.manifest import write_rows
from melprint.errors import MelprintError
from melprint.fingerprints.store import Store, StoredTrack, StoreMeta, file_digest, install, open_store
from melprint.spec import SegmentSpec
from melprint.version import __version__


@dataclass(frozen=True)
class Rejected:
    """A recording that the store leaves out."""

    path: str
    reason: str


class StoreWriter:
    """Appends rows to ``.NAME.partial`` and notes each recording when all its rows are on disk.

    Opening it again with the same ``made_from`` finds what is done; other settings begin anew.
    """

    def __init__(self, folder: Path, name: str, dim: int, dtype: str, made_from: str) -> None:
        self.folder, self.name, self.dim, self.dtype, self.made_from = folder, name, dim, np.dtype(dtype), made_from
        self.partial = folder / f".{name}.partial"
        self.tracks: list[StoredTrack] = []
        self.rejected: list[Rejected] = []
        self._expected: deque[StoredTrack | Rejected] = deque()
        self._rows_expected = 0

    @property
    def num_done(self) -> int:
        """Recordings that need not be read again."""
        return len(self.tracks) + len(self.rejected)

    def __enter__(self) -> "StoreWriter":
        stamp, rows, journal = (self.partial / name for name in ("made_from", "rows", "journal.jsonl"))
        if stamp.exists() and stamp.read_text() == self.made_from:
            self._recall(journal)
        self._rows_written = self._rows_expected = sum(track.num_rows for track in self.tracks)
        size = self._rows_written * self.dim * self.dtype.itemsize
        if not self.num_done or not rows.exists() or rows.stat().st_size < size:
            self.tracks, self.rejected, self._rows_written, self._rows_expected, size = [], [], 0, 0, 0
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.mkdir(parents=True)
            stamp.write_text(self.made_from)
        self._rows, self._journal = rows.open("ab"), journal.open("a", encoding="utf-8")
        os.truncate(rows, size)
        return self

    def __exit__(self, *_: object) -> None:
        # A full disk fails here once more; what could not be written is not in the journal either.
        for file in (self._rows, self._journal):
            try:
                file.close()
            except OSError:
                continue

    def expect(self, track_id: str, path: str, num_rows: int, duration_s: float) -> None:
        """Announce a recording whose rows come after those that were announced before."""
        self._expected.append(StoredTrack(track_id, path, self._rows_expected, num_rows, duration_s))
        self._rows_expected += num_rows

    def reject(self, path: str, reason: str) -> None:
        """Leave a recording out."""
        self._expected.append(Rejected(path, reason))

    def put(self, rows_ND: NDArray[np.float32]) -> None:
        """Append the next rows."""
        self._rows.write(rows_ND.astype(self.dtype, copy=False).tobytes())
        self._rows.flush()
        self._rows_written += len(rows_ND)
        while self._expected:
            entry = self._expected[0]
            if isinstance(entry, StoredTrack) and entry.first_row + entry.num_rows > self._rows_written:
                break
            self._note(self._expected.popleft())

    def finish(self, segment: SegmentSpec, model: str) -> Store:
        """Put the store in its place.

        Raises:
            MelprintError: there is no row.
        """
        self.put(np.empty((0, self.dim), np.float32))  # recordings that were rejected after the last row
        if not self.tracks:
            shutil.rmtree(self.partial)
            raise MelprintError(f"none of {len(self.rejected)} recordings can be read; {self.rejected[0].reason}")
        rows = self.partial / "rows"
        meta = StoreMeta(
            segment=segment,
            model=model,
            dtype=self.dtype.name,
            rows=self._rows_written,
            dim=self.dim,
            digest=file_digest(rows),
            made_from=self.made_from,
            version=__version__,
            commit=source_commit(),
        )
        install(self.folder, self.name, rows, self.tracks, meta)
        table = self.folder / f"{self.name}_rejected.csv"
        table.unlink(missing_ok=True)
        if self.rejected:
            write_rows(table, ["path", "reason"], [(entry.path, entry.reason) for entry in self.rejected])
        shutil.rmtree(self.partial)
        return open_store(self.folder, self.name)

    def _recall(self, journal: Path) -> None:
        good = 0
        for line in journal.read_bytes().splitlines(keepends=True) if journal.exists() else ():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                break  # cut short by the interruption
            self._remember(Rejected(**entry) if "reason" in entry else StoredTrack(**entry))
            good += len(line)
        if journal.exists():
            os.truncate(journal, good)

    def _note(self, entry: StoredTrack | Rejected) -> None:
        self._journal.write(json.dumps(asdict(entry)) + "\n")
        self._journal.flush()
        self._remember(entry)

    def _remember(self, entry: StoredTrack | Rejected) -> None:
        if isinstance(entry, Rejected):
            self.rejected.append(entry)
        else:
            self.tracks.append(entry)


def merge_shards(folder: Path, name: str, count: int) -> Store:
    """Join ``NAME-1ofN`` … ``NAME-NofN`` to the store that one run would have written, and remove them.

    Raises:
        MelprintError: a shard is missing, or they were not made alike.
    """
    shards = [open_store(folder, f"{name}-{number}of{count}") for number in range(1, count + 1)]
    metas = [shard.meta for shard in shards if shard.meta is not None]
    collections = {meta.made_from.removesuffix(f"-{number}of{count}") for number, meta in enumerate(metas, 1)}
    if len(collections) != 1:
        raise MelprintError(
            f"the shards of {folder / name} were made of different recordings or models; generate them again"
        )
    partial = folder / f".{name}.merging"
    tracks: list[StoredTrack] = []
    try:
        with partial.open("wb") as out:
            for shard in shards:
                first = tracks[-1].first_row + tracks[-1].num_rows if tracks else 0
                tracks += [replace(track, first_row=first + track.first_row) for track in shard.tracks]
                with (folder / f"{shard.name}.mm").open("rb") as rows:
                    shutil.copyfileobj(rows, out, 1 << 24)
        meta = replace(
            metas[0],
            rows=sum(meta.rows for meta in metas),
            digest=file_digest(partial),
            made_from=collections.pop(),
        )
        install(folder, name, partial, tracks, meta)
        if rejected := [row for shard in shards for row in _read_rejected(folder, shard.name)]:
            write_rows(folder / f"{name}_rejected.csv", ["path", "reason"], rejected)
    except OSError as error:
        raise MelprintError(
            f"the shards cannot be merged to {folder / name} ({error.strerror}); make room and try again"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    for shard in shards:
        for path in folder.glob(f"{shard.name}[._]*"):
            path.unlink()
    return open_store(folder, name)


def _read_rejected(folder: Path, name: str) -> list[list[str]]:
    path = folder / f"{name}_rejected.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def source_commit() -> str:
    """The commit of the source tree that this package runs from, or nothing."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return answer.stdout.strip()
