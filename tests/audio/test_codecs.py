import numpy as np
import pytest

from melprint.audio.codecs import CODECS, code
from melprint.errors import MelprintError

RATE = 8_000


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_decoded_lies_where_it_was(codec: str, music) -> None:
    wave = music(3, 6.0)
    decoded, _ = code(wave, RATE, codec, 32)
    assert decoded.shape == wave.shape
    spectra = np.fft.rfft(wave, 2 * len(wave)), np.fft.rfft(decoded, 2 * len(wave))
    lag = int(np.fft.irfft(spectra[1] * spectra[0].conj()).argmax())
    assert min(lag, 2 * len(wave) - lag) <= 1
    assert np.corrcoef(wave, decoded)[0, 1] > 0.9


@pytest.mark.parametrize("codec", CODECS)
def test_fewer_bits_are_worse(codec: str, music) -> None:
    wave = music(4, 6.0)
    (poor, few), (good, many) = code(wave, RATE, codec, 16), code(wave, RATE, codec, 32)
    assert 10 < few < 22 < many < 42
    errors = [np.square(decoded - wave).mean() for decoded in (poor, good)]
    assert errors[1] < errors[0]


def test_what_cannot_be_coded() -> None:
    with pytest.raises(MelprintError, match="no encoder for realaudio"):
        code(np.zeros(8_000, np.float32), RATE, "realaudio", 32)
    with pytest.raises(MelprintError, match="must be positive, got 0 kbit/s"):
        code(np.zeros(8_000, np.float32), RATE, "mp3", 0)
