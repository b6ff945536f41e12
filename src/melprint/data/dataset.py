"""Batches of windows around the segments of tracks.  Axes: B items · W samples of a window · K draws."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from melprint.audio.files import map_pcm
from melprint.augment.chain import AugmentChain, SegmentBatch, Views
from melprint.data.manifest import Track
from melprint.errors import MelprintError
from melprint.randomness import keyed_uniforms
from melprint.spec import SegmentSpec

OPEN_FILES = 256  # each mapped file holds a descriptor, of which a process often has no more than 1,024

map_pcm_once = lru_cache(OPEN_FILES)(map_pcm)


class SegmentTable:
    """All segments of a list of tracks, numbered track by track.

    Attributes:
        track: the track of each segment ``(S,)``.
        place: the number of each segment within its track ``(S,)``.
        first: the first segment of each track ``(tracks + 1,)``; the last entry is S.
    """

    def __init__(self, tracks: Sequence[Track], segment: SegmentSpec) -> None:
        counts = np.array([segment.num_segments(track.num_samples) for track in tracks], np.int64)
        self.first: NDArray[np.int64] = np.concatenate([[0], np.cumsum(counts)])
        self.track = np.repeat(np.arange(len(tracks)), counts)
        self.place = np.arange(len(self.track)) - self.first[self.track]

    def __len__(self) -> int:
        return len(self.track)


class WindowDataset(Dataset[SegmentBatch | Views]):
    """Whole batches of windows; the index of one is an array of (epoch, segment) keys.

    Windows are read from memory-mapped wavs. A chain that works on the host is applied here, in the
    worker that loaded the batch.
    """

    def __init__(self, tracks: Sequence[Track], chain: AugmentChain, seed: int = 0) -> None:
        self.tracks, self.chain, self.seed = tracks, chain, seed
        self.table = SegmentTable(tracks, chain.window.segment)

    def __getitem__(self, keys: NDArray[np.int64]) -> SegmentBatch | Views:
        """The batch of these keys ``(B, 2)``."""
        window = self.chain.window
        segment = window.segment
        windows = np.zeros((len(keys), window.num_samples), np.int16)
        tracks = self.table.track[keys[:, 1]]
        starts = self.table.place[keys[:, 1]] * segment.hop_samples
        slack = np.empty((len(keys), 2), np.int64)
        for row, (track, start) in enumerate(zip(tracks.tolist(), starts.tolist(), strict=True)):
            slack[row] = copy_window(self._samples(self.tracks[track].path), start, window.before, windows[row])
        slack[:, 1] -= segment.num_samples
        batch = SegmentBatch(
            torch.from_numpy(windows),
            torch.from_numpy(slack[:, 0].clip(0, window.margin)),
            torch.from_numpy(slack[:, 1].clip(0, window.margin)),
            torch.from_numpy(keys),
            torch.from_numpy(keyed_uniforms(self.seed, keys, self.chain.num_draws)),
        )
        return self.chain(batch) if self.chain.on_host else batch

    def _samples(self, path: Path) -> NDArray[np.int16]:
        return map_pcm_once(path, self.chain.window.segment.sample_rate_hz)


def copy_window(samples: NDArray[np.int16], start: int, before: int, out: NDArray[np.int16]) -> tuple[int, int]:
    """Copy the samples from ``start - before`` into ``out``, where there are any.

    Returns:
        How many samples the track has before ``start`` and from it on.
    """
    low, high = max(0, start - before), min(len(samples), start - before + len(out))
    out[low - start + before : high - start + before] = samples[low:high]
    return start, len(samples) - start


def check_batch_size(batch_size: int, available: int, what: str) -> None:
    """Refuse a batch that cannot be filled.

    Raises:
        MelprintError: not between 2 and ``available``.
    """
    if not 2 <= batch_size <= available:
        raise MelprintError(
            f"a batch of {batch_size} does not fit {available} {what}; choose a batch_size of 2 to {available}"
        )
