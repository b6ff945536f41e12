import numpy as np
import pytest
import torch

from melprint.augment.banks import NoiseBank, RoomBank, Surroundings
from melprint.errors import MelprintError


def test_kinds_of_noise_are_equally_likely_and_files_weigh_by_length(surroundings: Surroundings) -> None:
    files = surroundings.noise.choose(torch.rand(40_000, dtype=torch.float64))
    shares = np.bincount(files.numpy(), minlength=3) / 40_000
    np.testing.assert_allclose(shares, [0.5 * 3 / 8, 0.5 * 5 / 8, 0.5], atol=0.01)


def test_a_crop_is_a_stretch_of_its_file(surroundings: Surroundings) -> None:
    bank = surroundings.noise
    whole = np.array(surroundings.noise_tracks[1].samples(8_000)) / 32_768
    crop = bank.crop(torch.tensor([1]), torch.tensor([0.5], dtype=torch.float64), 4_000)[0].numpy()
    start = int(0.5 * (50_000 - 4_000 + 1))
    np.testing.assert_allclose(crop, whole[start : start + 4_000], atol=1e-7)


def test_a_short_file_repeats(surroundings: Surroundings) -> None:
    crop = surroundings.noise.crop(torch.tensor([2]), torch.tensor([0.7], dtype=torch.float64), 12_000)[0]
    torch.testing.assert_close(crop[9_000:], crop[:3_000])


def test_responses_begin_with_the_direct_sound_and_have_unit_energy(surroundings: Surroundings) -> None:
    bank = surroundings.rooms
    torch.testing.assert_close(bank.responses.norm(dim=1), torch.ones(2))
    assert bank.responses[0].nonzero().flatten().tolist() == [0, 100]


def test_empty_banks_are_refused() -> None:
    with pytest.raises(MelprintError, match="no noise"):
        NoiseBank([], 8_000)
    with pytest.raises(MelprintError, match="no room"):
        RoomBank([], 8_000)
