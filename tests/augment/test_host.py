import random
from functools import partial

import audiomentations
import numpy as np
import torch

from melprint.augment.banks import Surroundings
from melprint.augment.chain import SegmentBatch, WindowSpec
from melprint.augment.filters import ApplyRoom
from melprint.augment.host import HostChain, corpus_noise, corpus_rooms, host_chain, seeded
from melprint.augment.noise import AddNoise
from melprint.randomness import keyed_uniforms
from melprint.spec import SegmentSpec

SEGMENT = SegmentSpec()
WINDOW = WindowSpec(SEGMENT)


def batch_of(chain: HostChain, size: int = 5) -> SegmentBatch:
    windows = torch.randint(-9_000, 9_000, (size, WINDOW.num_samples), dtype=torch.int16)
    slack = torch.full((size,), WINDOW.margin)
    keys = np.stack([np.zeros(size, np.int64), np.arange(size)], axis=1)
    draws = torch.from_numpy(keyed_uniforms(0, keys, chain.num_draws))
    return SegmentBatch(windows, slack, slack, torch.from_numpy(keys), draws)


def test_both_chains_add_the_same_noise_at_the_same_ratio(surroundings: Surroundings) -> None:
    """With one noise of the segment's own length there is nothing left to draw but where it begins."""
    track = surroundings.noise_tracks[2]
    wave = torch.randn(1, track.num_samples) * 0.1
    one = Surroundings([track], surroundings.room_tracks, 8_000)
    on_device = AddNoise(one, snr_db=(5.0, 5.0))(wave, torch.zeros(1, 4, dtype=torch.float64), 0)
    on_host = corpus_noise(one, min_snr_db=5.0, max_snr_db=5.0, p=1.0)(samples=wave[0].numpy(), sample_rate=8_000)
    np.testing.assert_allclose(on_device[0].numpy(), on_host, atol=2e-4)


def test_both_chains_reverberate_alike(surroundings: Surroundings) -> None:
    """audiomentations keeps the delay before the direct sound and its own level: the decay room has none."""
    one = Surroundings(surroundings.noise_tracks, surroundings.room_tracks[1:], 8_000)
    wave = torch.randn(1, 12_000) * 0.1
    on_device = ApplyRoom(one)(wave, torch.zeros(1, 2, dtype=torch.float64), 4_000)[0, 4_000:].numpy()
    on_host = corpus_rooms(one, p=1.0)(samples=wave[0].numpy(), sample_rate=8_000)[4_000:]
    cosine = on_device @ on_host / np.linalg.norm(on_device) / np.linalg.norm(on_host)
    assert cosine > 0.9999


def test_the_same_key_gives_the_same_views_whatever_else_is_drawn(surroundings: Surroundings) -> None:
    chain = HostChain(
        WINDOW,
        [corpus_noise(surroundings, p=0.9), corpus_rooms(surroundings, p=0.5), audiomentations.Gain(p=0.7)],
        num_replicas=2,
    )
    batch = batch_of(chain)
    whole = chain(batch)
    random.seed(99)
    alone = chain(SegmentBatch(*(field[2:3] for field in batch)))
    np.testing.assert_array_equal(alone.replicas[0].numpy(), whole.replicas[2].numpy())
    assert whole.replicas.shape == (5, 2, 8_000)


def test_global_generators_are_put_back() -> None:
    random.seed(1)
    before = random.getstate()
    with seeded(7):
        first = random.random()
    with seeded(7):
        assert random.random() == first
    assert random.getstate() == before


def test_the_config_form_takes_any_transform(surroundings: Surroundings) -> None:
    chain = host_chain(
        surroundings,
        SEGMENT,
        window={"anchor_shift_s": 0.2, "replica_shift_s": 0.2, "context_s": 0.5},
        transforms={"noise": partial(corpus_noise, p=1.0), "low": audiomentations.LowPassFilter(p=1.0)},
    )
    views = chain(batch_of(chain))
    assert torch.isfinite(views.replicas).all()
    assert not torch.allclose(views.replicas[:, 0], views.anchors)
