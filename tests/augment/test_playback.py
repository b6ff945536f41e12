import numpy as np
import pytest
import torch

from melprint.audio.changes import change_speed
from melprint.augment.playback import SpeedAndPitch, resample_grains
from melprint.errors import MelprintError

RATE = 8_000
TIME = torch.arange(12_000) / RATE


def peak_hz(wave: torch.Tensor) -> torch.Tensor:
    spectrum = torch.fft.rfft(wave * torch.hann_window(wave.shape[1]), n=1 << 17).abs()
    return spectrum.argmax(1) * RATE / (1 << 17)


def tone(hz: float, items: int) -> torch.Tensor:
    return torch.sin(2 * torch.pi * hz * TIME).repeat(items, 1)


def test_the_pitch_changes_by_its_factor_whatever_the_tempo() -> None:
    tempo, pitch = torch.tensor([1.0, 1.05, 0.95, 1.0]), torch.tensor([1.05, 1.05, 1.05, 0.95])
    got = peak_hz(resample_grains(tone(600.0, 4), tempo, pitch, 256)[:, 4_000:])
    np.testing.assert_allclose(got, 600 * pitch, rtol=0.005)


def test_the_tempo_changes_by_its_factor_whatever_the_pitch() -> None:
    """Clicks half a second and a second before the end come earlier or later."""
    wave = torch.zeros(3, 12_000)
    clicks = [12_000 - 4_000, 12_000 - 8_000]
    wave[:, clicks] = 1.0
    tempo = torch.tensor([1.05, 0.95, 1.0])
    out = resample_grains(wave, tempo, torch.ones(3), 256).abs()
    for row, factor in zip(out, tempo.tolist(), strict=True):
        for back in (4_000, 8_000):
            around = round(12_000 - back / factor)
            found = around - 200 + int(row[around - 200 : around + 200].argmax())
            assert abs(found - around) <= 260 * abs(factor - 1) + 2


def test_together_it_is_plain_resampling_from_the_end() -> None:
    rng = np.random.default_rng(0)
    wave = np.convolve(rng.standard_normal(12_000), np.hanning(9) / 4, "same").astype(np.float32)
    factor = torch.tensor([1.04])
    got = resample_grains(torch.from_numpy(wave)[None], factor, factor, 256)[0].numpy()
    want = change_speed(wave[::-1].copy(), 1.04)[::-1]  # aligned at the end
    length = 8_000
    error = got[-length:-20] - want[-length:-20]
    assert np.square(error).mean() < 1e-3 * np.square(want[-length:-20]).mean()


def test_unchanged_waves_are_the_same_and_the_changed_share_is_right() -> None:
    transform = SpeedAndPitch(probability=0.3)
    wave, draws = torch.randn(300, 2_000), torch.rand(300, 4, dtype=torch.float64)
    same = (transform(wave, draws, 0) == wave).all(1)
    assert torch.equal(same, draws[:, 0] >= 0.3)
    still = SpeedAndPitch(tempo=0.0, pitch=0.0, probability=1.0)
    torch.testing.assert_close(still(wave, draws, 0), wave, rtol=1e-4, atol=1e-5)


def test_bad_factors_are_refused() -> None:
    with pytest.raises(MelprintError, match="tempo and pitch"):
        SpeedAndPitch(tempo=0.6)
