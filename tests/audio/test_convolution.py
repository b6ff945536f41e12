import numpy as np
import pytest
import torch

from melprint.audio.convolution import convolve_spectra, response_spectra
from melprint.errors import MelprintError


@pytest.mark.parametrize("taps", [1, 7, 100])
def test_behind_the_context_the_product_is_linear_convolution(taps: int) -> None:
    wave, response = torch.randn(3, 500, dtype=torch.float64), torch.randn(3, taps, dtype=torch.float64)
    got = convolve_spectra(wave, response_spectra(response, 500))
    for row in range(3):
        want = np.convolve(wave[row].numpy(), response[row].numpy())[:500]
        np.testing.assert_allclose(got[row, taps - 1 :].numpy(), want[taps - 1 :], atol=1e-9)


def test_spectra_of_another_length_are_refused() -> None:
    with pytest.raises(MelprintError, match="do not fit"):
        convolve_spectra(torch.randn(1, 500), response_spectra(torch.randn(1, 5), 400))
