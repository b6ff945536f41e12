"""Waveforms to fingerprints, a batch at a time.  Axes: S segments · T samples · D fingerprint size."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from melprint.audio.files import INT16_SCALE
from melprint.audio.framing import segments_of
from melprint.models.fingerprinter import Fingerprinter


@torch.inference_mode()
def embed_segments(
    fingerprinter: Fingerprinter, segments_ST: NDArray[np.int16], batch_size: int
) -> NDArray[np.float32]:
    """Fingerprints ``(S, D)`` of 16-bit segments.

    Every batch that the network sees has ``batch_size`` rows, the last filled up with zeros: matrix
    kernels differ by shape in the last bit, and a fingerprint must not depend on where a batch ends.
    """
    device = next(fingerprinter.parameters()).device
    out = np.empty((len(segments_ST), fingerprinter.dim), np.float32)
    for start in range(0, len(segments_ST), batch_size):
        block = segments_ST[start : start + batch_size]
        wave = torch.zeros(batch_size, block.shape[1], device=device)
        wave[: len(block)] = torch.from_numpy(np.array(block)).to(device)
        out[start : start + len(block)] = fingerprinter(wave / INT16_SCALE)[: len(block)].float().cpu().numpy()
    return out


def embed_tracks(
    fingerprinter: Fingerprinter, waves: Iterable[NDArray[np.int16]], batch_size: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Fingerprints of all segments of some waveforms, and the first row of each (with the total at the end)."""
    segments = [segments_of(wave, fingerprinter.segment) for wave in waves]
    first = np.cumsum([0] + [len(part) for part in segments])
    return embed_segments(fingerprinter, np.concatenate(segments), batch_size), first
