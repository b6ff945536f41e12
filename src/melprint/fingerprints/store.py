"""The fingerprint store on disk.  Axes: N rows · D fingerprint size.

A store NAME in a folder is four files: ``NAME.mm`` (rows, C order, float32 or float16, no header),
``NAME_shape.npy`` (``[N, D]``), ``NAME_tracks.csv`` and ``NAME_meta.json``.  The first two are
neural-audio-fp's own format, which its scripts read.  ``NAME_meta.json`` is written last: a store without
it was not finished, unless it came from elsewhere (see :func:`open_foreign`).
"""

import csv
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melprint.data.manifest import replacing, write_rows
from melprint.errors import MelprintError
from melprint.spec import SegmentSpec

DTYPES = ("float32", "float16")
CHECKED_ROWS = 1 << 15
UNIT_TOLERANCE = 0.02  # of the squared length: half precision, and roundings of others


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
        """SHA-256 of the file of rows."""
        return self.meta.digest if self.meta is not None else file_digest(self.folder / f"{self.name}.mm")

    def head(self, num_rows: int) -> "Store":
        """The first rows of this store; the last track may be cut short."""
        tracks = [
            replace(track, num_rows=min(track.num_rows, num_rows - track.first_row))
            for track in self.tracks
            if track.first_row < num_rows
        ]
        return replace(self, rows=self.rows[:num_rows], tracks=tracks)

    def check(self, *, unit_rows: bool = True) -> None:
        """Read every row once.

        Args:
            unit_rows: refuse rows that are not normalised.

        Raises:
            MelprintError: rows are not finite, not normalised, or no longer those that the store was finished with.
        """
        name = self.folder / self.name
        sha = hashlib.sha256()
        for start in range(0, len(self.rows), CHECKED_ROWS):
            block = self.rows[start : start + CHECKED_ROWS]
            sha.update(np.ascontiguousarray(block).data)
            wide = np.asarray(block, np.float32)
            squares = np.einsum("nd,nd->n", wide, wide)
            if not np.isfinite(squares).all():
                row = start + int(np.flatnonzero(~np.isfinite(squares))[0])
                raise MelprintError(f"row {row} of {name}.mm is not finite; generate the store again")
            if unit_rows and (off := np.flatnonzero(np.abs(squares - 1) > UNIT_TOLERANCE)).size:
                row, norm = start + int(off[0]), math.sqrt(squares[off[0]])
                raise MelprintError(
                    f"row {row} of {name}.mm has length {norm:.4g} where fingerprints have length 1 (is it float32, as"
                    " the shape file implies?); normalise the rows, or take them as they are with unit_rows=false"
                )
        whole = self.meta is not None and len(self.rows) == self.meta.rows
        if whole and self.meta is not None and sha.hexdigest() != self.meta.digest:
            raise MelprintError(f"the rows of {name} have changed since the store was finished; generate it again")


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
        loaded = np.atleast_1d(np.load(shape_path))
        shape = tuple(int(n) for n in loaded)
    except (OSError, ValueError, TypeError, EOFError, OverflowError) as error:
        raise MelprintError(f"{folder} has no store {name} ({shape_path.name}: {error})") from error
    if not np.array_equal(loaded, shape):
        raise MelprintError(f"{shape_path} should hold two whole numbers, got {loaded.tolist()}")
    return Store(folder, name, _map_rows(rows_path, shape, "float32"))


def install(folder: Path, name: str, rows: Path, tracks: Sequence[StoredTrack], meta: StoreMeta) -> None:
    """Move finished rows to their place and write the tables; a store that was there is not one until the end."""
    rows_path, _, _, meta_path = names(folder, name)
    meta_path.unlink(missing_ok=True)
    rows.replace(rows_path)
    write_tables(folder, name, tracks, meta)


def check_model(store: Store, model: str, source: str) -> None:
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
    if len(shape) != 2 or min(shape) < 1:
        raise MelprintError(f"{path} should have rows and columns, its shape file says {list(shape)}")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise MelprintError(f"the rows {path} are not there; generate the store again") from error
    row_size = shape[1] * np.dtype(dtype).itemsize
    expected = shape[0] * row_size
    if size == expected // 2 and dtype == "float32":
        raise MelprintError(
            f"{path} has half of the {expected} bytes of {list(shape)} float32: convert it from float16"
        )
    if size == 2 * expected and shape[0] > 1 and _looks_double(path, shape):
        raise MelprintError(f"{path} has twice the {expected} bytes of {list(shape)} {dtype}: convert it from float64")
    # The published scripts append the reference rows to the distractors' file: it may be longer by whole rows.
    if size < expected or size % row_size:
        raise MelprintError(
            f"{path} has {size} bytes where {list(shape)} {dtype} make {expected}; generate the store again"
        )
    return np.memmap(path, dtype, "r", shape=shape)


def _looks_double(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether the beginning of a file makes unit rows when it is read as float64."""
    rows = np.memmap(path, np.float64, "r", shape=shape)[: min(shape[0], 16)]
    return bool(np.allclose(np.square(rows).sum(axis=1), 1, atol=UNIT_TOLERANCE))
