"""Built indexes that are kept on disk, each with a note of what it was built from."""

import hashlib
import json
import time
from pathlib import Path

from melprint.data.manifest import replacing
from melprint.errors import MelprintError
from melprint.fingerprints.rows import Rows
from melprint.index.base import Index


def note_of(path: Path) -> Path:
    """Where the note of a kept index is."""
    return path.with_name(path.name + ".json")


def keep(index: Index, path: Path, store_digest: str, build_s: float) -> None:
    """Save an index and, once it is complete, its note."""
    note_of(path).unlink(missing_ok=True)
    index.save(path)
    if path.exists():
        with replacing(note_of(path)) as file:
            note = {"store": store_digest, "build_s": build_s, "bytes": path.stat().st_size, **index.settings()}
            json.dump(note, file, default=str)


def reopen(index: Index, path: Path, rows: Rows, store_digest: str, *, mmap: bool = False) -> float:
    """Load a kept index.

    Returns:
        Seconds that building it took.

    Raises:
        MelprintError: it was built from other rows, with other settings, or is damaged.
    """
    try:
        note = json.loads(note_of(path).read_text(encoding="utf-8"))
        build_s, of_store, size = float(note.pop("build_s")), note.pop("store"), note.pop("bytes")
        intact = size == path.stat().st_size
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MelprintError(
            f"{path} has no note of what it was built from; delete it to have it built again"
        ) from error
    if not intact:
        raise MelprintError(f"{path} is not as long as it was when it was saved; delete it to have it built again")
    if of_store != store_digest:
        raise MelprintError(
            f"{path} was built from other rows than the store has now; delete it to have it built again"
        )
    if note != json.loads(json.dumps(index.settings(), default=str)):
        raise MelprintError(f"{path} was built with other settings than {index.name} has now; delete it or rename one")
    index.load(path, rows, mmap=mmap)
    return build_s


def build_or_reopen(
    index: Index, rows: Rows, folder: Path, store_digest: str, train_rows: int | None, *, mmap: bool = False
) -> float:
    """Seconds that building took; the index of the same rows and settings is built once.

    Args:
        index: to be filled.
        rows: to be searched.
        folder: of kept indexes.
        store_digest: of the rows.
        train_rows: train on so many of the first rows.
        mmap: map the kept index instead of reading it.
    """
    settings = json.dumps({**index.settings(), "store": store_digest, "train_rows": train_rows}, default=str)
    path = folder / f"{index.name}-{hashlib.sha256(settings.encode()).hexdigest()[:16]}.index"
    if note_of(path).exists() and path.exists():
        return reopen(index, path, rows, store_digest, mmap=mmap)
    start = time.perf_counter()
    index.build(rows, train_rows, path)
    build_s = time.perf_counter() - start
    keep(index, path, store_digest, build_s)
    if mmap and path.exists():
        index.load(path, rows, mmap=True)
    return build_s
