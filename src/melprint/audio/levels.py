"""Power, and mixing at a signal-to-noise ratio.  Axes: B batch · T samples."""

import torch
from torch import Tensor

SILENCE_RMS = 1e-5  # -100 dB re full scale, under one 16-bit step: such a signal has no level to relate to


def rms(wave_BT: Tensor) -> Tensor:
    """Root mean square of each row, ``(B, 1)``.

    >>> rms(torch.tensor([[3.0, -3.0]]))
    tensor([[3.]])
    """
    return wave_BT.square().mean(dim=-1, keepdim=True).sqrt()


def mix_at_snr(signal_BT: Tensor, noise_BT: Tensor, snr_db_B: Tensor, *, measured: slice = slice(None)) -> Tensor:
    """Add noise to each row so that power(signal) / power(noise) is the given ratio.

    A silent row of either kind leaves the signal as it is: no ratio can be kept there.

    Args:
        signal_BT: ``(B, T)``.
        noise_BT: ``(B, T)``, at any level.
        snr_db_B: ``(B,)`` in decibels.
        measured: the samples in which the ratio is to hold.
    """
    signal_rms, noise_rms = rms(signal_BT[:, measured]), rms(noise_BT[:, measured])
    gain = signal_rms / noise_rms.clamp_min(SILENCE_RMS) * 10 ** (-snr_db_B[:, None] / 20)
    audible = (signal_rms > SILENCE_RMS) & (noise_rms > SILENCE_RMS)
    return signal_BT + torch.where(audible, gain, 0.0).to(signal_BT.dtype) * noise_BT
