"""The table of a folder of prepared audio: ``manifest.csv``."""

import csv
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from melprint.audio.files import map_pcm
from melprint.errors import MelprintError

MANIFEST = "manifest.csv"


@dataclass(frozen=True)
class Track:
    """One prepared recording.

    Attributes:
        track_id: unique within its manifest.
        path: a mono 16-bit wav.
        num_samples: its length.
        split: ``train``, ``val``, ``test`` or ``dummy`` (in the store but never asked for).
        sha256: of the samples, little-endian 16-bit.
        source: where the recording came from.
        licence: its terms, or a file that holds them.
    """

    track_id: str
    path: Path
    num_samples: int
    split: str
    sha256: str
    source: str
    licence: str

    def samples(self, sample_rate_hz: int) -> NDArray[np.int16]:
        """A read-only view of the samples ``(T,)``.

        Raises:
            MelprintError: the file is gone, damaged, or not the one that was prepared.
        """
        pcm = map_pcm(self.path, sample_rate_hz)
        if len(pcm) != self.num_samples:
            raise MelprintError(
                f"{self.path}: {len(pcm)} samples where the manifest has {self.num_samples}; prepare the folder again"
            )
        return pcm


COLUMNS = [field.name for field in fields(Track)]


@contextmanager
def replacing(path: Path) -> Iterator[IO[str]]:
    """A text file that takes the place of ``path`` when the block ends well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", newline="", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process prepares or renders in ``folder``, then keep others out."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        yield


def write_rows(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a csv file that is complete or absent."""
    with replacing(path) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def write_manifest(folder: Path, tracks: Iterable[Track]) -> None:
    """Write ``manifest.csv``; paths below ``folder`` are stored relative to it, so that it can be moved."""
    root = folder.resolve()
    rows = []
    for track in tracks:
        path = track.path.resolve()
        rows.append(astuple(replace(track, path=path.relative_to(root) if path.is_relative_to(root) else path)))
    write_rows(folder / MANIFEST, COLUMNS, rows)


def read_manifest(folder: Path) -> list[Track]:
    """The tracks of a prepared folder.

    Raises:
        MelprintError: no manifest, or one that lacks a column or has no row.
    """
    path = folder / MANIFEST
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise MelprintError(f"{folder} has no {MANIFEST}; make it with melprint prepare SRC {folder}") from error
    if not rows:
        raise MelprintError(f"{path} lists no track; prepare a folder that holds music")
    if missing := set(COLUMNS) - set(rows[0]):
        raise MelprintError(f"{path} lacks the columns {', '.join(sorted(missing))}; prepare the folder again")
    tracks = []
    for row in rows:
        try:
            values: dict[str, Any] = {name: row[name] for name in COLUMNS}
            values |= {"path": folder / row["path"], "num_samples": int(row["num_samples"])}
            tracks.append(Track(**values))
        except (TypeError, ValueError) as error:
            raise MelprintError(f"{path} has a row that is no track ({error}); prepare the folder again") from error
    return tracks


def of_split(tracks: Iterable[Track], *splits: str) -> list[Track]:
    """The tracks of these splits, in their order."""
    return [track for track in tracks if track.split in splits]
