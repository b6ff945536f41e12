import numpy as np
import pytest
import torch

from melprint.augment.coding import CodecLike
from melprint.errors import MelprintError

RATE = 8_000


def coded(wave: torch.Tensor, **options: object) -> torch.Tensor:
    transform = CodecLike(probability=1.0, **options)  # type: ignore[arg-type]
    return transform(wave, torch.rand(len(wave), 3, dtype=torch.float64), 0)


def spectrum(wave: torch.Tensor) -> torch.Tensor:
    return torch.stft(wave, 512, window=torch.hann_window(512), return_complex=True).abs()


def test_what_is_far_weaker_than_its_neighbours_vanishes_and_the_strong_stays() -> None:
    time = torch.arange(RATE) / RATE
    loud, faint = torch.sin(2 * torch.pi * 1_000 * time), 0.02 * torch.sin(2 * torch.pi * 1_062.5 * time)
    out = spectrum(coded((loud + faint)[None], step_db=(-6.0, -6.0), cutoff=(1.0, 1.0)))[0]
    before = spectrum((loud + faint)[None])[0]
    assert float(out[64].mean() / before[64].mean()) == pytest.approx(1.0, abs=0.15)  # 1,000 Hz
    assert float(out[68].mean()) < 0.3 * float(before[68].mean())  # 1,062.5 Hz, 34 dB down


def test_a_finer_step_leaves_less_error() -> None:
    wave = torch.randn(4, RATE, generator=torch.Generator().manual_seed(0))
    errors = [
        float((coded(wave, step_db=(step, step), cutoff=(1.0, 1.0)) - wave).square().mean())
        for step in (-20.0, -6.0, 6.0)
    ]
    assert errors[0] < 0.1 * errors[1] < 0.1 * errors[2]


def test_nothing_is_left_above_the_cutoff() -> None:
    wave = torch.randn(4, RATE)
    power = torch.fft.rfft(coded(wave, cutoff=(0.5, 0.5))).abs().square().mean(0)
    hz = np.arange(len(power)) * RATE / wave.shape[1]
    assert float(power[hz > 2_100].mean()) < 1e-3 * float(power[hz < 1_900].mean())


def test_only_the_drawn_share_is_coded() -> None:
    transform = CodecLike(probability=0.3)
    wave, draws = torch.randn(100, 4_000), torch.rand(100, 3, dtype=torch.float64)
    same = (transform(wave, draws, 0) == wave).all(1)
    assert torch.equal(same, draws[:, 0] >= 0.3)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(MelprintError, match="cutoff"):
        CodecLike(cutoff=(0.5, 1.5))
