"""The fingerprint store on disk.  Axes: N rows · D fingerprint size.

A store NAME in a folder is four files: ``NAME.mm`` (rows, C order, float32 or float16, no header),
``NAME_shape.npy`` (``[N, D]``), ``NAME_tracks.csv`` and ``NAME_meta.json``.  The first two are
neural-audio-fp's own format, which its scripts read.  ``NAME_meta.json`` is written last: a store without
it was not finished, unless it came from elsewhere (see :func:`open_foreign`).
"""

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melprint.data.manifest import replacing, write_rows
from melprint.errors import MelprintError
from melprint.spec import SegmentSpec

DTYPES = ("float32", "float16")
DIGEST_BLOCK = 1 << 24


@dataclass(frozen=True)
class StoredTrack:
    """Where the fingerprints of one track are."""

    track_id: str
    path: str
    first_row: int
    num_rows: int
    duration_s: float


COLUMNS = [column.name for column in fields(StoredTrack)]


@dataclass(frozen=True)
class StoreMeta:
    """What made a store.

    Attributes:
        segment: how tracks were cut.
        model: digest of the network.
        dtype: of the rows.
        rows: N.
        dim: D.
        digest: SHA-256 of ``NAME.mm``.
        made_from: digest of the model, the recordings and the settings; the same again gives the same store.
        version: of melprint.
        commit: of the source tree, where it is known.
    """

    segment: SegmentSpec
    model: str
    dtype: str
    rows: int
    dim: int
    digest: str
    made_from: str
    version: str
    commit: str


@dataclass(frozen=True)
class Store:
    """An open store; rows are a read-only view of the file.

    Attributes:
        folder: where it is.
        name: NAME.
        rows: ``(N, D)``.
        tracks: in the order of their rows; empty for a store of unknown origin.
        meta: ``None`` for a store of unknown origin.
    """

    folder: Path
    name: str
    rows: NDArray[np.floating]
    tracks: list[StoredTrack] = field(default_factory=list)
    meta: StoreMeta | None = None

    @property
    def first_rows(self) -> NDArray[np.int64]:
        """First row of each track, and N at the end."""
        return np.array([track.first_row for track in self.tracks] + [len(self.rows)], np.int64)

    def digest(self) -> str:
        """SHA-256 of the rows."""
        return self.meta.digest if self.meta is not None else file_digest(self.folder / f"{self.name}.mm")


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def names(folder: Path, name: str) -> tuple[Path, Path, Path, Path]:
    """The four files of a store: rows, shape, tracks, meta."""
    return (
        folder / f"{name}.mm",
        folder / f"{name}_shape.npy",
        folder / f"{name}_tracks.csv",
        folder / f"{name}_meta.json",
    )


def write_tables(folder: Path, name: str, tracks: Sequence[StoredTrack], meta: StoreMeta) -> None:
    """Write what stands beside the rows, the meta last."""
    _, shape, table, meta_path = names(folder, name)
    partial = shape.with_name(f".{shape.name}.partial")
    with partial.open("wb") as file:
        np.save(file, np.array([meta.rows, meta.dim], np.int64))
    partial.replace(shape)
    write_rows(table, COLUMNS, map(astuple, tracks))
    with replacing(meta_path) as text:
        json.dump(asdict(meta), text, indent=2)


def is_complete(folder: Path, name: str) -> bool:
    """Whether a finished store of this name is there."""
    return names(folder, name)[3].exists()


def open_store(folder: Path, name: str) -> Store:
    """Open a finished store.

    Raises:
        MelprintError: absent, unfinished, or its parts do not fit together.
    """
    rows_path, _, table, meta_path = names(folder, name)
    if not meta_path.exists():
        what = "was not finished" if rows_path.exists() else "is not there"
        raise MelprintError(f"the store {folder / name} {what}; make it with python generate.py")
    try:
        raw: dict[str, Any] = json.loads(meta_path.read_text(encoding="utf-8"))
        meta = StoreMeta(**{**raw, "segment": SegmentSpec(**raw["segment"])})
        with table.open(newline="", encoding="utf-8") as file:
            tracks = [
                StoredTrack(r["track_id"], r["path"], int(r["first_row"]), int(r["num_rows"]), float(r["duration_s"]))
                for r in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MelprintError(
            f"the tables of the store {folder / name} are damaged ({error}); generate it again"
        ) from error
    store = Store(folder, name, _map_rows(rows_path, (meta.rows, meta.dim), meta.dtype), tracks, meta)
    counted = np.cumsum([0] + [track.num_rows for track in tracks])
    if not np.array_equal(counted, store.first_rows):
        raise MelprintError(f"{table} does not account for the {meta.rows} rows of its store; generate it again")
    return store


def open_foreign(folder: Path, name: str) -> Store:
    """Open ``NAME.mm`` + ``NAME_shape.npy`` of whatever origin; tracks where there is a table.

    Raises:
        MelprintError: absent or damaged.
    """
    rows_path, shape_path, _, meta_path = names(folder, name)
    if meta_path.exists():
        return open_store(folder, name)
    try:
        shape = tuple(int(n) for n in np.atleast_1d(np.load(shape_path)))
    except (OSError, ValueError, TypeError) as error:
        raise MelprintError(f"{folder} has no store {name} ({shape_path.name}: {error})") from error
    return Store(folder, name, _map_rows(rows_path, shape, "float32"))


def install(folder: Path, name: str, rows: Path, tracks: Sequence[StoredTrack], meta: StoreMeta) -> None:
    """Move finished rows to their place and write the tables; a store that was there is not one until the end."""
    rows_path, _, _, meta_path = names(folder, name)
    meta_path.unlink(missing_ok=True)
    rows.replace(rows_path)
    write_tables(folder, name, tracks, meta)


def check_model(store: Store, model: str, source: Path) -> None:
    """Refuse a store that another network made.

    Raises:
        MelprintError: the digests differ.
    """
    if store.meta is not None and store.meta.model != model:
        raise MelprintError(
            f"the store {store.folder / store.name} was made by another model ({store.meta.model[:12]}) than {source}"
            f" ({model[:12]}); generate it again or name the checkpoint that made it"
        )


def _map_rows(path: Path, shape: tuple[int, ...], dtype: str) -> NDArray[np.floating]:
    if len(shape) != 2 or shape[0] < 1:
        raise MelprintError(f"{path} should have rows and columns, its shape file says {list(shape)}")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise MelprintError(f"the rows {path} are not there; generate the store again") from error
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size < expected:
        raise MelprintError(f"{path} has {size} of {expected} bytes; generate the store again")
    return np.memmap(path, dtype, "r", shape=shape)
