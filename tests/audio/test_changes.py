"""Judged by the frequency and the time of what comes out."""

import numpy as np
import pytest

from melprint.audio.changes import change_pitch, change_speed, change_tempo, clip_loudest, pass_band
from melprint.errors import MelprintError

RATE = 8_000


def tone(frequency_hz: float, duration_s: float = 4.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency_hz * np.arange(round(duration_s * RATE)) / RATE).astype(np.float32)


def frequency_of(wave: np.ndarray) -> float:
    middle = wave[len(wave) // 4 : -len(wave) // 4] * np.hanning(len(wave[len(wave) // 4 : -len(wave) // 4]))
    return float(np.abs(np.fft.rfft(middle, 1 << 18)).argmax() * RATE / (1 << 18))


@pytest.mark.parametrize("factor", [0.9, 1.05, 1.1])
def test_speed_tempo_and_pitch(factor: float) -> None:
    wave = tone(440)
    fast, stretched, shifted = (
        change_speed(wave, factor),
        change_tempo(wave, RATE, factor),
        change_pitch(wave, RATE, factor),
    )
    assert len(fast) == pytest.approx(len(wave) / factor, abs=2)
    assert len(stretched) == pytest.approx(len(wave) / factor, abs=2)
    assert len(shifted) == len(wave)
    assert frequency_of(fast) == pytest.approx(440 * factor, rel=0.003)
    assert frequency_of(stretched) == pytest.approx(440, rel=0.005)
    assert frequency_of(shifted) == pytest.approx(440 * factor, rel=0.005)


def test_a_click_moves_by_the_factor() -> None:
    wave = np.zeros(4 * RATE, np.float32)
    wave[2 * RATE] = 1
    assert np.abs(change_speed(wave, 1.1)).argmax() == pytest.approx(2 * RATE / 1.1, abs=1)


def test_filters_halve_the_power_at_their_cutoff() -> None:
    for kind, passed, stopped in (("lowpass", 250, 2_000), ("highpass", 2_000, 250)):
        powers = [
            np.square(pass_band(tone(f)[None], RATE, 1_000, kind)[0, RATE:]).mean() for f in (passed, 1_000, stopped)
        ]
        assert powers[0] == pytest.approx(0.5, rel=0.01)
        assert powers[1] == pytest.approx(0.25, rel=0.02)
        assert powers[2] < 1e-3
    with pytest.raises(MelprintError, match="between 0 and 4000 Hz, got 5000 Hz"):
        pass_band(tone(100)[None], RATE, 5_000, "lowpass")


def test_clipping_flattens_the_loudest_samples(rng: np.random.Generator) -> None:
    wave = rng.standard_normal((2, 10_000)).astype(np.float32) * [[1.0], [0.1]]
    clipped = clip_loudest(wave.astype(np.float32), 0.1)
    np.testing.assert_allclose((np.abs(clipped) < np.abs(wave) - 1e-6).mean(axis=1), 0.1, atol=0.001)
    np.testing.assert_array_equal(clip_loudest(wave.astype(np.float32), 0.0), wave.astype(np.float32))
    with pytest.raises(MelprintError, match="share of clipped samples"):
        clip_loudest(clipped, 1.0)
