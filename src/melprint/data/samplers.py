"""Which segments form a batch.  No batch holds two segments that overlap.

With several processes, a batch is that of one process with as many times the items, divided so that no track is in two
parts: a run on two devices sees what a run on one device with twice the batch sees.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from melprint.augment.chain import WindowSpec
from melprint.data.dataset import SegmentTable, check_batch_size
from melprint.errors import MelprintError
from melprint.randomness import rng_for


@dataclass(frozen=True)
class Share:
    """The part of each batch that one of several processes takes."""

    rank: int = 0
    world_size: int = 1


class BatchSampler(Protocol):
    """Batches of keys ``(B, 2)``, epoch and segment; a new order for every epoch.

    Attributes:
        position: tells an iteration its epoch and the batches of it that are done; ``None`` leaves it to
            :meth:`set_epoch`.
    """

    position: Callable[[], tuple[int, int] | None]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""

    def __iter__(self) -> Iterator[NDArray[np.int64]]: ...

    def __len__(self) -> int: ...


class _Sampler(ABC):
    """What all samplers share: the table, the share of a batch, and where to go on."""

    def __init__(self, table: SegmentTable, batch_size: int, seed: int, share: Share) -> None:
        self.table, self.seed, self.share = table, seed, share
        self.global_batch = batch_size * share.world_size
        self.epoch = 0
        self.position: Callable[[], tuple[int, int] | None] = lambda: None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """The batches of the epoch ``(B, 2)``, or what is left of them."""
        self.epoch, first = self.position() or (self.epoch, 0)
        batches = self._batches()
        if self.share.world_size > 1:
            batches = self._divide(batches)
        keys = np.stack([np.full_like(batches, self.epoch), batches], axis=-1)
        yield from keys[first : len(self)]

    @abstractmethod
    def _batches(self) -> NDArray[np.int64]:
        """At least as many batches as the epoch has ``(batches, global_batch)``."""

    @abstractmethod
    def __len__(self) -> int:
        """Batches of an epoch."""

    def _divide(self, batches: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process' part of each batch; those that cannot be divided by track are left out."""
        parts = []
        for batch in batches:
            order = by_track(self.table.track[batch], self.share.world_size)
            if order is not None:
                parts.append(np.split(batch[order], self.share.world_size)[self.share.rank])
        if len(parts) < len(self):
            raise MelprintError(
                f"{self.global_batch} segments cannot be divided over {self.share.world_size} processes without"
                " a track in two of them; take a smaller batch_size, or sampling=one-per-track"
            )
        return np.stack(parts)


class DisjointSampler(_Sampler):
    """Every segment about once an epoch, in batches that never hold two overlapping views.

    Segments of a track that are a multiple of ``stride`` apart cannot overlap, whatever their time
    offsets. Each epoch gives every track a random phase; the segments with equal (place + phase) modulo
    ``stride`` form a group, and each batch is drawn from one group. The last, incomplete batch of a
    group is left out, and batches beyond the number that every epoch has.

    Args:
        table: the segments.
        window: how far views may lie off their place.
        batch_size: segments of a batch, in each process.
        seed: of the run.
        share: of one process.
    """

    def __init__(
        self, table: SegmentTable, window: WindowSpec, batch_size: int, seed: int = 0, share: Share | None = None
    ) -> None:
        super().__init__(table, batch_size, seed, share or Share())
        segment = window.segment
        # One view may lie `margin` late, the next `margin` early, and both must stay apart.
        self.stride = math.ceil((window.num_samples - window.context) / segment.hop_samples)
        available = (len(table) + self.stride) // (self.stride + 1)
        what = f"segments (of which one in {self.stride} can be together)"
        check_batch_size(self.global_batch, available, what)
        # What every epoch has, whatever its phases: schedules need to know the number of steps.
        self.num_batches = (len(table) - self.stride * (self.global_batch - 1)) // self.global_batch

    def _batches(self) -> NDArray[np.int64]:
        rng = rng_for(self.seed, self.epoch)
        phase = rng.integers(self.stride, size=len(self.table.first) - 1)
        group = (self.table.place + phase[self.table.track]) % self.stride
        order = np.lexsort((rng.random(len(group)), group))
        full = [
            members[: len(members) // self.global_batch * self.global_batch].reshape(-1, self.global_batch)
            for members in np.split(order, np.cumsum(np.bincount(group, minlength=self.stride))[:-1])
        ]
        batches = np.concatenate(full)
        return batches[rng.permutation(len(batches))]

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.num_batches


class OnePerTrackSampler(_Sampler):
    """At most one segment of a track in a batch; each pass takes one random segment of every track.

    Source: Araz et al. 2025 (neural-music-fp), who make as many passes an epoch as a track has segments;
    deep-audio-fingerprinting makes one.

    Args:
        table: the segments.
        batch_size: tracks of a batch, in each process.
        passes: passes over all tracks in an epoch; by default as many as give every segment one turn.
        seed: of the run.
        share: of one process.
    """

    def __init__(
        self,
        table: SegmentTable,
        batch_size: int,
        passes: int | None = None,
        seed: int = 0,
        share: Share | None = None,
    ) -> None:
        super().__init__(table, batch_size, seed, share or Share())
        self.num_tracks = len(table.first) - 1
        check_batch_size(self.global_batch, self.num_tracks, "tracks, of which a batch takes one segment each")
        self.passes = passes or max(1, round(len(table) / self.num_tracks))

    def _batches(self) -> NDArray[np.int64]:
        rng = rng_for(self.seed, self.epoch)
        tracks = rng.permuted(np.tile(np.arange(self.num_tracks), (self.passes, 1)), axis=1)
        kept = tracks[:, : self.num_tracks // self.global_batch * self.global_batch].reshape(-1, self.global_batch)
        return rng.integers(self.table.first[kept], self.table.first[kept + 1])

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.passes * (self.num_tracks // self.global_batch)


def by_track(track: NDArray[np.int64], num_parts: int) -> NDArray[np.int64] | None:
    """An order of a batch in which equal consecutive parts share no track, or ``None`` where none is found.

    Tracks with many segments go first, each to the part with most room left; single ones fill what remains.

    >>> by_track(np.array([7, 8, 7, 9, 8, 6]), 2).tolist()
    [0, 2, 5, 1, 3, 4]
    """
    order = np.argsort(track, kind="stable")
    _, first, count = np.unique(track[order], return_index=True, return_counts=True)
    room = np.full(num_parts, len(track) // num_parts)
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(num_parts)]
    for number in np.argsort(-count, kind="stable"):
        part = int(room.argmax())
        if count[number] > room[part]:
            return None
        parts[part].append(order[first[number] : first[number] + count[number]])
        room[part] -= count[number]
    return np.concatenate([np.sort(np.concatenate(part)) for part in parts])
