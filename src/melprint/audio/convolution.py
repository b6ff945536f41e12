"""Linear convolution with impulse responses, by block.  Axes: B batch · T samples · K taps."""

import torch
from torch import Tensor

from melprint.errors import MelprintError


def response_spectra(responses_RK: Tensor, num_samples: int) -> Tensor:
    """Spectra ``(R, num_samples // 2 + 1)`` of impulse responses for :func:`convolve_spectra`."""
    return torch.fft.rfft(responses_RK, n=num_samples)


def convolve_spectra(wave_BT: Tensor, spectra_BF: Tensor) -> Tensor:
    """Convolve each row with one response, at the price of one transform of T points.

    The product is circular: the first ``K - 1`` samples of the result are wrong (the tail wraps into
    them) and the others are those of linear convolution.  Callers put at least ``K - 1`` samples of
    past context before what they keep (overlap-save, Oppenheim & Schafer, section 8.7).
    """
    if spectra_BF.shape[-1] != wave_BT.shape[-1] // 2 + 1:
        raise MelprintError(
            f"spectra of {spectra_BF.shape[-1]} bins do not fit waves of {wave_BT.shape[-1]} samples;"
            f" make them with response_spectra(..., {wave_BT.shape[-1]})"
        )
    return torch.fft.irfft(torch.fft.rfft(wave_BT) * spectra_BF, n=wave_BT.shape[-1])
