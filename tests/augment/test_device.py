import numpy as np
import pytest
import torch

from melprint.augment.banks import Surroundings
from melprint.augment.chain import SegmentBatch, WindowSpec
from melprint.augment.device import DeviceChain, Gain
from melprint.augment.filters import ApplyRoom
from melprint.augment.noise import AddNoise
from melprint.errors import MelprintError
from melprint.randomness import keyed_uniforms
from melprint.spec import SegmentSpec

SEGMENT = SegmentSpec()
WINDOW = WindowSpec(SEGMENT)


def batch_of(chain: DeviceChain, size: int = 6, seed: int = 0) -> SegmentBatch:
    """Windows that hold their own sample numbers, so that a crop tells where it was cut."""
    ramp = torch.arange(WINDOW.num_samples, dtype=torch.int16).repeat(size, 1)
    slack = torch.full((size,), WINDOW.margin)
    keys = np.stack([np.zeros(size, np.int64), np.arange(size)], axis=1)
    draws = torch.from_numpy(keyed_uniforms(seed, keys, chain.num_draws))
    return SegmentBatch(ramp, slack, slack, torch.from_numpy(keys), draws)


def starts(views: torch.Tensor) -> torch.Tensor:
    return (views[..., 0] * 32_768).round().long()


def test_views_are_shifted_crops_within_their_limits() -> None:
    chain = DeviceChain(WINDOW, [], num_replicas=3)
    batch = batch_of(chain, 2_000)
    views = chain(batch)
    assert views.anchors.shape == (2_000, 8_000)
    assert views.replicas.shape == (2_000, 3, 8_000)
    anchor = starts(views.anchors) - WINDOW.before
    replica = starts(views.replicas) - WINDOW.before - anchor[:, None]
    for shift in (anchor, replica):
        assert int(shift.abs().max()) <= 1_600
        assert float(shift.double().mean().abs()) < 60
        assert float(shift.double().std()) == pytest.approx(3_201 / 12**0.5, rel=0.05)
    assert torch.equal(views.anchors[:, 1:] - views.anchors[:, :-1], torch.full((2_000, 7_999), 1 / 32_768))


def test_views_stay_within_the_track() -> None:
    chain = DeviceChain(WINDOW, [], num_replicas=2)
    batch = batch_of(chain, 500)._replace(
        slack_before=torch.zeros(500, dtype=torch.int64), slack_after=torch.full((500,), 100)
    )
    views = chain(batch)
    for view in (views.anchors, views.replicas):
        shift = starts(view) - WINDOW.before
        assert int(shift.min()) >= 0
        assert int(shift.max()) <= 100


def test_a_room_answers_to_what_was_before_the_segment(surroundings: Surroundings) -> None:
    """The echo of 100 samples ago is in the first sample already; the slow twin convolves by definition."""
    context = 2_000
    wave = torch.randn(2, context + 8_000, dtype=torch.float64)
    room = ApplyRoom(surroundings)
    draws = torch.tensor([[0.1, 0.0], [0.9, 0.0]], dtype=torch.float64)
    got = room(wave, draws, context)
    for row in range(2):
        response = surroundings.rooms.responses[row].numpy()
        want = np.convolve(wave[row].numpy(), response)[: context + 8_000]
        np.testing.assert_allclose(got[row, context:].numpy(), want[context:], atol=1e-4)


def test_probabilities_are_kept(surroundings: Surroundings) -> None:
    wave = torch.randn(1_000, 4_100)
    draws = torch.rand(1_000, 4, dtype=torch.float64)
    noisy = AddNoise(surroundings, probability=0.3)(wave, draws, 100)
    changed = (noisy != wave).any(dim=1).double().mean()
    assert float(changed) == pytest.approx(0.3, abs=0.05)


def test_the_ratio_of_every_item_is_the_one_that_is_reported(surroundings: Surroundings) -> None:
    noise = AddNoise(surroundings, snr_db=(-5, 15))
    wave, draws = torch.randn(20, 8_500), torch.rand(20, 4, dtype=torch.float64)
    added = (noise(wave, draws, 500) - wave)[:, 500:]
    measured = 10 * (wave[:, 500:].square().mean(1) / added.square().mean(1)).log10()
    _, snr_db, _ = noise.parameters_of(draws)
    torch.testing.assert_close(measured.double(), snr_db, atol=0.01, rtol=0)
    assert float(snr_db.min()) >= -5
    assert float(snr_db.max()) <= 15


def test_gain_sets_the_peak_of_the_segment() -> None:
    out = Gain((-6.0, -6.0))(torch.randn(3, 500), torch.rand(3, 1, dtype=torch.float64), 100)
    torch.testing.assert_close(out[:, 100:].abs().amax(dim=1), torch.full((3,), 10 ** (-6 / 20)))


def test_an_item_does_not_depend_on_its_batch(surroundings: Surroundings) -> None:
    chain = DeviceChain(WINDOW, [ApplyRoom(surroundings, 0.5), AddNoise(surroundings)], num_replicas=2)
    batch = batch_of(chain, 6)
    whole = chain(batch)
    alone = chain(SegmentBatch(*(field[3:4] for field in batch)))
    torch.testing.assert_close(alone.replicas[0], whole.replicas[3], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alone.mask_draws[0], whole.mask_draws[3])


def test_replicas_of_an_item_differ(surroundings: Surroundings) -> None:
    chain = DeviceChain(WINDOW, [AddNoise(surroundings)], num_replicas=2)
    views = chain(batch_of(chain))
    assert not torch.allclose(views.replicas[:, 0], views.replicas[:, 1])


def test_bad_settings_are_refused(surroundings: Surroundings) -> None:
    with pytest.raises(MelprintError, match="from low to high"):
        AddNoise(surroundings, snr_db=(10, 0))
    with pytest.raises(MelprintError, match="negative"):
        WindowSpec(SEGMENT, context_s=-1)
    with pytest.raises(MelprintError, match="Identity does not say"):
        DeviceChain(WINDOW, [torch.nn.Identity()])
