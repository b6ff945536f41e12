"""What a catalog holds at one moment.  Axes: T tracks · N rows · Q query segments · K neighbours · D size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from melprint.catalog.tables import State
from melprint.fingerprints.rows import Rows
from melprint.matching.sequence import Borders


@dataclass(frozen=True)
class View:
    """Tracks and their rows; later changes of the catalog do not touch it.

    Rows of removed tracks stay in the file until it is compacted.  They are stretches of their own here, so that no
    candidate runs from a track into what is not there any more.

    Attributes:
        version: of the catalog.
        generation: of its file of fingerprints.
        kind: of its index.
        rows: all rows of the file.
        track_ids: numbers of the tracks, by first row ``(T,)``.
        first: their first rows ``(T,)``.
        count: how many rows each has ``(T,)``.
    """

    version: int
    generation: int
    kind: str
    rows: Rows
    track_ids: NDArray[np.int64]
    first: NDArray[np.int64]
    count: NDArray[np.int64]

    @classmethod
    def of(cls, state: State, rows: NDArray[np.floating], spans: Sequence[tuple[int, int, int]]) -> "View":
        """From what the database says and the file holds."""
        ids, first, count = np.array(spans, np.int64).reshape(-1, 3).T
        return cls(state.version, state.generation, state.index, Rows([rows]), ids, first, count)

    def __len__(self) -> int:
        """Rows that belong to tracks."""
        return int(self.count.sum())

    @cached_property
    def _stretches(self) -> tuple[Borders, NDArray[np.int64]]:
        """Every stretch of the file, and the position of its track or -1."""
        total, ends = len(self.rows), self.first + self.count
        gaps = ends < np.append(self.first[1:], total)[: len(ends)]
        starts = np.concatenate([self.first, ends[gaps]])
        owner = np.concatenate([np.arange(len(self.first)), np.full(gaps.sum(), -1)])
        order = np.argsort(starts, kind="stable")
        starts, owner = starts[order], owner[order]
        if total and (not len(starts) or starts[0] > 0):
            starts, owner = np.insert(starts, 0, 0), np.insert(owner, 0, -1)
        return Borders(np.append(starts, total)), owner

    @property
    def borders(self) -> Borders:
        """Stretches of the file: tracks, and what removed tracks have left."""
        return self._stretches[0]

    @property
    def track_of_stretch(self) -> NDArray[np.int64]:
        """Position of the track of each stretch, -1 for what is left of removed ones."""
        return self._stretches[1]

    def tracks_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Position of the track that each row belongs to; -1 for rows of none, and for -1."""
        if not len(self.first):
            return np.full(rows.shape, -1, np.int64)
        position = np.searchsorted(self.first, rows, side="right") - 1
        inside = (position >= 0) & (rows < self.first[position] + self.count[position])
        return np.where(inside, position, -1)

    @cached_property
    def _by_id(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = np.argsort(self.track_ids, kind="stable")
        return self.track_ids[order], order

    def positions_of(self, track_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where tracks stand in the arrays, -1 for those that are not there."""
        if not len(self.first):
            return np.full(track_ids.shape, -1, np.int64)
        ids, order = self._by_id
        place = np.searchsorted(ids, track_ids).clip(max=len(ids) - 1)
        return np.where(ids[place] == track_ids, order[place], -1)

    def position_of(self, track_id: int) -> int:
        """Where a track stands in the arrays, -1 if it is not there."""
        return int(self.positions_of(np.array(track_id)))

    def rows_at(self, position: int) -> NDArray[np.float32]:
        """Fingerprints ``(n, D)`` of one track."""
        return self.rows.take(np.arange(self.first[position], self.first[position] + self.count[position]))

    def stretches(self, num_rows: int = 1 << 16) -> Iterator[NDArray[np.floating]]:
        """Rows of the tracks in order, as they are stored, in blocks of at most ``num_rows``."""
        for first, count in zip(self.first.tolist(), self.count.tolist(), strict=True):
            for start in range(first, first + count, num_rows):
                yield self.rows.parts[0][start : min(start + num_rows, first + count)]
