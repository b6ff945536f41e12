"""Cutting waveforms into segments without copying."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from melprint.spec import SegmentSpec

DType = TypeVar("DType", bound=np.generic)


def segments_of(wave_T: NDArray[DType], segment: SegmentSpec) -> NDArray[DType]:
    """All segments of a track as a read-only view ``(S, T)``; a track shorter than one is zero-padded.

    >>> segments_of(np.arange(4), SegmentSpec(sample_rate_hz=2)).tolist()
    [[0, 1], [1, 2], [2, 3]]
    """
    missing = segment.num_samples - len(wave_T)
    if missing > 0:
        wave_T = np.pad(wave_T, (0, missing))
    return np.lib.stride_tricks.sliding_window_view(wave_T, segment.num_samples)[:: segment.hop_samples]
