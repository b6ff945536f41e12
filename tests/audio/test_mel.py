import numpy as np
import pytest
import torch

from melprint.audio.mel import LogMel
from melprint.spec import MelSpec, SegmentSpec

PUBLISHED = LogMel(MelSpec(), SegmentSpec())


def slaney_filters(bands: int, low_hz: float, high_hz: float, rate: int, n_fft: int) -> np.ndarray:
    """The Slaney filter bank from its definition (Auditory Toolbox 1998): linear below 1 kHz, then logarithmic."""

    def to_mel(hz: float) -> float:
        return 3 * hz / 200 if hz < 1_000 else 15 + 27 * np.log(hz / 1_000) / np.log(6.4)

    def to_hz(mel: float) -> float:
        return 200 * mel / 3 if mel < 15 else 1_000 * 6.4 ** ((mel - 15) / 27)

    edges = [to_hz(mel) for mel in np.linspace(to_mel(low_hz), to_mel(high_hz), bands + 2)]
    bins = np.arange(n_fft // 2 + 1) * rate / n_fft
    filters = np.zeros((bands, len(bins)))
    for band in range(bands):
        left, centre, right = edges[band : band + 3]
        rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
        filters[band] = np.maximum(0, np.minimum(rising, falling)) * 2 / (right - left)
    return filters


def test_it_is_the_published_front_end_with_a_maximum_per_segment() -> None:
    wave = torch.randn(2, 8_000) * 0.1
    padded = np.pad(wave.numpy().astype(np.float64), ((0, 0), (512, 512)))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    frames = np.stack([padded[:, 256 * n : 256 * n + 1024] for n in range(32)], axis=1)
    magnitude = np.abs(np.fft.rfft(frames * window))
    log_mel = np.log10(magnitude @ slaney_filters(256, 300, 4_000, 8_000, 1024).T + 0.06).transpose(0, 2, 1)
    want = log_mel - log_mel.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(PUBLISHED(wave).numpy(), want, atol=1e-4)


def test_shape_range_and_independence_of_batch_mates() -> None:
    wave = torch.randn(4, 8_000) * torch.tensor([[1.0], [0.1], [0.01], [0.0]])
    log_mel = PUBLISHED(wave)
    assert log_mel.shape == (4, 256, 32) == (4, *PUBLISHED.shape)
    assert torch.isfinite(log_mel).all()
    torch.testing.assert_close(log_mel.amax(dim=(1, 2)), torch.zeros(4))
    torch.testing.assert_close(PUBLISHED(wave[1:2]), log_mel[1:2])


@pytest.mark.parametrize("frequency_hz", [500.0, 1_000.0, 3_000.0])
def test_a_tone_is_strongest_in_the_band_around_it(frequency_hz: float) -> None:
    wave = torch.sin(2 * torch.pi * frequency_hz * torch.arange(8_000) / 8_000)[None]
    band = int(PUBLISHED(wave)[0, :, 16].argmax())
    bins = np.arange(513) * 8_000 / 1024
    filters = slaney_filters(256, 300, 4_000, 8_000, 1024)
    assert filters[band][np.abs(bins - frequency_hz).argmin()] > 0


def test_unit_level_makes_loudness_irrelevant() -> None:
    front_end = LogMel(MelSpec(num_mels=64, unit_level=True), SegmentSpec())
    wave = torch.randn(1, 8_000)
    torch.testing.assert_close(front_end(wave), front_end(0.01 * wave), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("power", "decibels"), [(1, 20), (2, 10)])
def test_decibels_are_clamped_and_scaled_to_one(power: int, decibels: int) -> None:
    time = torch.arange(8_000) / 8_000
    wave = (torch.sin(2 * torch.pi * 1_000 * time) + 0.1 * torch.sin(2 * torch.pi * 2_500 * time))[None]
    options = {"num_mels": 64, "power": power, "floor": 1e-9}
    log10 = LogMel(MelSpec(**options), SegmentSpec())(wave)
    scaled = LogMel(MelSpec(**options, range_db=80.0), SegmentSpec())(wave)
    torch.testing.assert_close(scaled, (decibels * log10).clamp_min(-80) / 40 + 1)
    assert float(scaled.max()) == 1.0
    assert float(scaled.min()) == -1.0


def test_the_slope_is_finite_where_there_is_silence() -> None:
    wave = torch.zeros(1, 8_000, requires_grad=True)
    LogMel(MelSpec(), SegmentSpec())(wave).sum().backward()
    assert torch.isfinite(wave.grad).all()
