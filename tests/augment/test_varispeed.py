"""Whole windows at another speed."""

import numpy as np
import pytest
import torch

from melprint.augment.chain import SegmentBatch, WindowSpec
from melprint.augment.device import DeviceChain
from melprint.augment.varispeed import Varispeed
from melprint.errors import MelprintError
from melprint.spec import SegmentSpec

PLAIN = WindowSpec(SegmentSpec())
RATE_HZ = PLAIN.segment.sample_rate_hz
FREQUENCY_HZ = 440.0


def batch_of(varispeed: Varispeed, draws: list[list[float]], seed: int = 0) -> tuple[SegmentBatch, WindowSpec]:
    """A sine with a click at the place of the segment."""
    window = varispeed.widened(PLAIN)
    time_s = (np.arange(window.num_samples) - window.before) / RATE_HZ
    wave = 0.3 * np.sin(2 * np.pi * FREQUENCY_HZ * time_s)
    wave[window.before - 8 : window.before + 8] += 0.6
    windows = torch.from_numpy((wave * 32_768).astype(np.int16)).repeat(len(draws), 1)
    slack = torch.full((len(draws),), window.margin)
    keys = torch.zeros(len(draws), 2, dtype=torch.int64)
    rest = torch.rand(len(draws), 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return SegmentBatch(windows, slack, slack, keys, torch.cat([rest, torch.tensor(draws).double()], 1)), window


def frequency_hz(wave: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 8 * len(wave)))
    return float(spectrum.argmax() * RATE_HZ / (8 * len(wave)))


@pytest.mark.parametrize(("draw", "speed"), [(0.0, 1 / 1.2), (0.5, 1.0), (1.0, 1.2)])
def test_pitch_follows_the_speed_and_the_place_stays(draw: float, speed: float) -> None:
    varispeed = Varispeed(0.2, 1.0)
    batch, window = batch_of(varispeed, [[0.0, draw]])
    changed = varispeed(batch, window)
    (wave,) = changed.windows.float().numpy()
    assert len(wave) == PLAIN.num_samples
    assert frequency_hz(wave[-RATE_HZ:]) == pytest.approx(speed * FREQUENCY_HZ, abs=0.5)
    assert frequency_hz(wave[: RATE_HZ // 2]) == pytest.approx(speed * FREQUENCY_HZ, abs=0.5)
    assert abs(int(wave.argmax()) - PLAIN.before) <= 10
    assert torch.equal(changed.draws, batch.draws[:, :-2])


def test_slack_is_what_the_track_has_at_that_speed() -> None:
    varispeed = Varispeed(0.2, 1.0)
    batch, window = batch_of(varispeed, [[0.0, 1.0], [0.0, 0.0]])
    batch = batch._replace(slack_before=torch.tensor([600, 600]))
    changed = varispeed(batch, window)
    assert changed.slack_before.tolist() == [500, 720]
    assert changed.slack_after.tolist() == [PLAIN.margin, PLAIN.margin]


def test_items_that_are_not_drawn_stay_as_they_are() -> None:
    varispeed = Varispeed(0.2, 0.5)
    batch, window = batch_of(varispeed, [[0.7, 1.0], [0.2, 1.0]])
    kept, changed = varispeed(batch, window).windows
    low = window.before - PLAIN.before
    assert torch.equal(kept, batch.windows[0, low : low + PLAIN.num_samples])
    assert not torch.equal(kept, changed)


def test_both_views_of_an_item_are_changed_alike() -> None:
    chain = DeviceChain(PLAIN, [], varispeed=Varispeed(0.2, 1.0))
    batch, _ = batch_of(Varispeed(0.2, 1.0), [[0.0, 1.0]])
    draws = torch.rand(1, chain.num_draws, dtype=torch.float64)
    draws[:, -2:] = torch.tensor([0.0, 1.0])
    views = chain(batch._replace(draws=draws))
    for wave in (views.anchors[0], views.replicas[0, 0]):
        assert frequency_hz(wave.numpy()) == pytest.approx(1.2 * FREQUENCY_HZ, abs=1.0)


def test_impossible_changes_are_refused() -> None:
    with pytest.raises(MelprintError, match="varispeed needs a change in"):
        Varispeed(0.0)
