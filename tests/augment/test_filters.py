import numpy as np
import pytest
import torch
from scipy.signal import butter, sosfreqz

from melprint.augment.banks import Surroundings
from melprint.augment.filters import ApplyRoom, BandLimits, DeviceResponse, Filters
from melprint.errors import MelprintError

RATE, CONTEXT = 8_000, 2_000


def draws(transform, items: int = 64) -> torch.Tensor:
    return torch.rand(items, transform.num_draws, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def levels_db(transform, drawn: torch.Tensor, at_hz: list[float]) -> torch.Tensor:
    """How loud tones come out ``(items, tones)``."""
    time = torch.arange(CONTEXT + RATE) / RATE
    levels = []
    for hz in at_hz:
        tone = torch.sin(2 * torch.pi * hz * time).repeat(len(drawn), 1)
        out = transform(tone, drawn, CONTEXT)[:, CONTEXT + 500 : -500]
        levels.append(20 * torch.log10(out.square().mean(1).sqrt() * 2**0.5))
    return torch.stack(levels, 1)


def test_band_limits_have_the_levels_of_butterworth_filters(surroundings: Surroundings) -> None:
    band = BandLimits(surroundings, (2_500.0, 2_500.0), (700.0, 700.0), (24.0, 24.0), probability=1.0)
    tones = [200.0, 400.0, 700.0, 1_300.0, 2_500.0, 3_500.0]
    got = levels_db(band, draws(band, 3), tones).mean(0)
    analogue = [-10 * np.log10((1 + (hz / 2_500) ** 8) * (1 + (700 / hz) ** 8)) for hz in tones]
    np.testing.assert_allclose(got, analogue, atol=0.6)
    # Digital filters of the same order have the same edges.
    _, low = sosfreqz(butter(4, 700, "highpass", fs=RATE, output="sos"), worN=[700], fs=RATE)
    assert 20 * np.log10(abs(low[0])) == pytest.approx(float(got[2]), abs=0.6)


def test_each_band_limit_is_applied_with_its_probability(surroundings: Surroundings) -> None:
    band = BandLimits(surroundings, probability=0.4)
    weak = (levels_db(band, draws(band, 600), [250.0, 3_900.0]) < -3).double().mean(0)
    np.testing.assert_allclose(weak, [0.4, 0.4], atol=0.06)
    never = BandLimits(surroundings, probability=0.0)
    wave = torch.randn(4, CONTEXT + RATE)
    torch.testing.assert_close(never(wave, draws(never, 4), CONTEXT), wave, rtol=0, atol=1e-5)


def test_a_device_has_an_uneven_response_of_the_wanted_spread(surroundings: Surroundings) -> None:
    device = DeviceResponse(surroundings, deviation_db=4.0, points_per_octave=2.0)
    at = [float(hz) for hz in np.geomspace(30, 4_000, device.num_knots)[1:-1:3]]
    levels = levels_db(device, draws(device, 400), at)
    # Half way between two independent knots the spread is 4 / sqrt(2).
    assert np.all((levels.std(0).numpy() > 2.7) & (levels.std(0).numpy() < 4.3))
    np.testing.assert_allclose(levels.mean(0), 0.0, atol=0.7)


def test_filters_together_are_filters_one_after_the_other(surroundings: Surroundings) -> None:
    parts = {"room": ApplyRoom(surroundings), "band": BandLimits(surroundings), "device": DeviceResponse(surroundings)}
    together = Filters(surroundings, parts)
    wave, drawn = torch.randn(5, CONTEXT + RATE), draws(together, 5)
    one_by_one, rest = wave, drawn
    for part in parts.values():
        one_by_one = part(one_by_one, rest[:, : part.num_draws], CONTEXT)
        rest = rest[:, part.num_draws :]
    torch.testing.assert_close(together(wave, drawn, CONTEXT), one_by_one, rtol=1e-4, atol=1e-4)


def test_parts_may_come_as_factories(surroundings: Surroundings) -> None:
    made = Filters(surroundings, {"room": ApplyRoom})
    wave, drawn = torch.randn(3, CONTEXT + RATE), draws(made, 3)
    torch.testing.assert_close(made(wave, drawn, CONTEXT), ApplyRoom(surroundings)(wave, drawn, CONTEXT))


def test_bad_limits_are_refused(surroundings: Surroundings) -> None:
    with pytest.raises(MelprintError, match="lowpass_hz"):
        BandLimits(surroundings, lowpass_hz=(3_000.0, 2_000.0))
    with pytest.raises(MelprintError, match="deviation_db"):
        DeviceResponse(surroundings, deviation_db=-1)
    with pytest.raises(MelprintError, match="one part"):
        Filters(surroundings, {})
