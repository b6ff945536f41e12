import numpy as np
import pytest
import torch

from melprint.augment.banks import NoiseBank, Surroundings
from melprint.augment.noise import AddMusic, AddNoise
from melprint.errors import MelprintError

CONTEXT = 2_000


def test_a_mixture_of_ratios_has_its_shares_and_ranges(surroundings: Surroundings) -> None:
    noise = AddNoise(surroundings, [[0.5, 0, 5], [0.3, 5, 10], [0.2, 10, 15]])
    ratio = noise.ratio_db(torch.rand(40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    shares = np.histogram(ratio, [0, 2.5, 5, 7.5, 10, 12.5, 15])[0] / 40_000
    np.testing.assert_allclose(shares, [0.25, 0.25, 0.15, 0.15, 0.1, 0.1], atol=0.01)


def test_the_ratio_holds_in_the_visible_part(surroundings: Surroundings) -> None:
    noise = AddNoise(surroundings, (3.0, 3.0))
    wave = torch.randn(8, CONTEXT + 8_000)
    wave[:, :CONTEXT] *= 10
    added = noise(wave, torch.rand(8, 4, dtype=torch.float64), CONTEXT) - wave
    power = [part[:, CONTEXT:].square().mean(1) for part in (wave, added)]
    torch.testing.assert_close(10 * torch.log10(power[0] / power[1]), torch.full((8,), 3.0), rtol=0, atol=0.01)


def test_waves_without_noise_stay_as_they_are(surroundings: Surroundings) -> None:
    noise = AddNoise(surroundings, probability=0.5)
    wave, draws = torch.randn(200, CONTEXT + 1_000), torch.rand(200, 4, dtype=torch.float64)
    same = (noise(wave, draws, CONTEXT) == wave).all(1)
    assert torch.equal(same, draws[:, 3] >= 0.5)


def test_other_music_comes_from_the_tracks_of_the_split(surroundings: Surroundings) -> None:
    music = Surroundings([], [], 8_000, surroundings.noise_tracks)
    overlay = AddMusic(music, (0.0, 0.0), probability=1.0)
    wave = torch.randn(2, CONTEXT + 8_000)
    added = overlay(wave, torch.rand(2, 4, dtype=torch.float64), CONTEXT) - wave
    bank = torch.cat([torch.from_numpy(track.samples(8_000).astype(np.float32)) for track in surroundings.noise_tracks])
    for row in added:  # the added wave is a scaled stretch of one of the recordings
        stretch = bank.unfold(0, 500, 1)
        cosine = stretch @ row[3_000:3_500] / (stretch.norm(dim=1) * row[3_000:3_500].norm())
        assert float(cosine.max()) > 0.999


def test_a_short_recording_repeats_itself(surroundings: Surroundings) -> None:
    short = min(surroundings.noise_tracks, key=lambda track: track.num_samples)
    bank = NoiseBank([short], 8_000)
    crop = bank.crop(torch.zeros(4, dtype=torch.int64), torch.rand(4, dtype=torch.float64), 20_000)
    torch.testing.assert_close(crop[:, : 20_000 - short.num_samples], crop[:, short.num_samples :])


@pytest.mark.parametrize("snr_db", [(10.0, 0.0), [[1.0, 0.0]], [[-1.0, 0.0, 5.0]]])
def test_bad_ratios_are_refused(surroundings: Surroundings, snr_db: object) -> None:
    with pytest.raises(MelprintError, match="snr_db must be"):
        AddNoise(surroundings, snr_db)  # type: ignore[arg-type]
