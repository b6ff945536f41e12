"""Tracks of random fingerprints: what a catalog does with them does not depend on audio."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melprint.catalog.catalog import Catalog, NewTrack
from melprint.catalog.tables import Track

DIM = 128
NUM_ROWS = 20


def rows_of(seed: int, num_rows: int = NUM_ROWS) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((num_rows, DIM), dtype=np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def track_of(seed: int, key: str | None = None, num_rows: int = NUM_ROWS, **values: str) -> Track:
    sha256 = hashlib.sha256(f"{seed} {num_rows}".encode()).hexdigest()
    return Track(key=key or f"track-{seed}", duration_s=num_rows / 2, sha256=sha256, path="", **values)


def new(seed: int, key: str | None = None, num_rows: int = NUM_ROWS, replaces: int | None = None) -> NewTrack:
    return NewTrack(track_of(seed, key, num_rows), rows_of(seed, num_rows), replaces)


def heard(seed: int, num_rows: int = NUM_ROWS) -> NDArray[np.float32]:
    """The rows of a track as a recording of it would give them."""
    rows = rows_of(seed, num_rows)
    return (rows + 0.03 * rows_of(seed + 1_000_000, num_rows)).astype(np.float32)


def found_keys(catalog: Catalog, queries: NDArray[np.float32], k: int = 1) -> list[list[str]]:
    """Keys of the tracks of the ``k`` nearest rows, without places that are empty."""
    view, names = catalog.view(), catalog.tracks()
    positions = view.tracks_at(catalog.search(queries, k, view).rows)
    return [[names[int(view.track_ids[place])].key for place in line if place >= 0] for line in positions]


def finds(catalog: Catalog, seeds: list[int]) -> float:
    """The share of rows of these tracks whose nearest row is the very one."""
    view, right, total = catalog.view(), 0, 0
    for track in catalog.tables.with_values("key", [f"track-{seed}" for seed in seeds]).values():
        number = int(track.key.removeprefix("track-"))
        rows = catalog.search(heard(number, track.num_rows), 1, view).rows[:, 0]
        right += int((rows == track.first_row + np.arange(track.num_rows)).sum())
        total += track.num_rows
    assert total
    return right / total


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
