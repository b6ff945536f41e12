"""Which segments form a batch.  No batch holds two segments that overlap."""

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from melprint.augment.chain import WindowSpec
from melprint.data.dataset import SegmentTable, check_batch_size
from melprint.randomness import rng_for


class BatchSampler(Protocol):
    """Batches of keys ``(B, 2)``, epoch and segment; a new order for every epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""

    def __iter__(self) -> Iterator[NDArray[np.int64]]: ...

    def __len__(self) -> int: ...


class DisjointSampler:
    """Every segment about once an epoch, in batches that never hold two overlapping views.

    Segments of a track that are a multiple of ``stride`` apart cannot overlap, whatever their time
    offsets. Each epoch gives every track a random phase; the segments with equal (place + phase) modulo
    ``stride`` form a group, and each batch is drawn from one group. The last, incomplete batch of a
    group is left out, and batches beyond the number that every epoch has.

    Args:
        table: the segments.
        window: how far views may lie off their place.
        batch_size: segments of a batch.
        seed: of the run.
    """

    def __init__(self, table: SegmentTable, window: WindowSpec, batch_size: int, seed: int = 0) -> None:
        self.table, self.batch_size, self.seed, self.epoch = table, batch_size, seed, 0
        segment = window.segment
        # One view may lie `margin` late, the next `margin` early, and both must stay apart.
        self.stride = math.ceil((segment.num_samples + 2 * window.margin) / segment.hop_samples)
        available = (len(table) + self.stride) // (self.stride + 1)
        check_batch_size(batch_size, available, f"segments (of which one in {self.stride} can be together)")
        # What every epoch has, whatever its phases: schedules need to know the number of steps.
        self.num_batches = (len(table) - self.stride * (batch_size - 1)) // batch_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """The batches of the epoch."""
        yield from as_keys(self._batches(), self.epoch)

    def _batches(self) -> NDArray[np.int64]:
        rng = rng_for(self.seed, self.epoch)
        phase = rng.integers(self.stride, size=len(self.table.first) - 1)
        group = (self.table.place + phase[self.table.track]) % self.stride
        order = np.lexsort((rng.random(len(group)), group))
        full = [
            members[: len(members) // self.batch_size * self.batch_size].reshape(-1, self.batch_size)
            for members in np.split(order, np.cumsum(np.bincount(group, minlength=self.stride))[:-1])
        ]
        batches = np.concatenate(full)
        return batches[rng.permutation(len(batches))[: self.num_batches]]

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.num_batches


class OnePerTrackSampler:
    """At most one segment of a track in a batch; each pass takes one random segment of every track.

    Source: Araz et al. 2025 (neural-music-fp), who take one anchor of a track in an epoch.

    Args:
        table: the segments.
        batch_size: tracks of a batch.
        passes: passes over all tracks in an epoch; by default as many as give every segment one turn.
        seed: of the run.
    """

    def __init__(self, table: SegmentTable, batch_size: int, passes: int | None = None, seed: int = 0) -> None:
        self.table, self.batch_size, self.seed, self.epoch = table, batch_size, seed, 0
        self.num_tracks = len(table.first) - 1
        check_batch_size(batch_size, self.num_tracks, "tracks, of which a batch takes one segment each")
        self.passes = passes or max(1, round(len(table) / self.num_tracks))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """The batches of the epoch."""
        rng = rng_for(self.seed, self.epoch)
        tracks = rng.permuted(np.tile(np.arange(self.num_tracks), (self.passes, 1)), axis=1)
        kept = tracks[:, : self.num_tracks // self.batch_size * self.batch_size].reshape(-1, self.batch_size)
        first, last = self.table.first[kept], self.table.first[kept + 1]
        yield from as_keys(rng.integers(first, last), self.epoch)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.passes * (self.num_tracks // self.batch_size)


def as_keys(batches: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
    """``(batches, B)`` segments to ``(batches, B, 2)`` keys."""
    return np.stack([np.full_like(batches, epoch), batches], axis=-1)
