import numpy as np
import pytest
import torch

from melprint.audio.levels import mix_at_snr


def power_db(wave: torch.Tensor) -> float:
    return 10 * float(wave.square().mean().log10())


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 7.5])
def test_the_mix_has_the_requested_ratio_where_it_is_measured(snr_db: float) -> None:
    signal, noise = torch.randn(2, 3, 8_000, dtype=torch.float64)
    signal[:, :4_000] *= 5  # context that must not count
    mixed = mix_at_snr(signal, noise, torch.full((3,), snr_db), measured=slice(4_000, None))
    for row in range(3):
        added = (mixed - signal)[row, 4_000:]
        assert power_db(signal[row, 4_000:]) - power_db(added) == pytest.approx(snr_db, abs=1e-4)


def test_each_item_has_its_own_ratio() -> None:
    signal, noise = torch.randn(2, 2, 8_000)
    added = mix_at_snr(signal, noise, torch.tensor([0.0, 20.0])) - signal
    assert power_db(added[0]) - power_db(added[1]) == pytest.approx(20, abs=0.5)


def test_silence_of_either_kind_leaves_the_signal_alone() -> None:
    sound, silence = torch.randn(1, 100), torch.zeros(1, 100)
    torch.testing.assert_close(mix_at_snr(sound, silence, torch.zeros(1)), sound)
    torch.testing.assert_close(mix_at_snr(silence, sound, torch.zeros(1)), silence)
    assert np.isfinite(mix_at_snr(silence, silence, torch.zeros(1)).numpy()).all()
