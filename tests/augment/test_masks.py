import pytest
import torch

from melprint.augment.masks import NUM_MASK_DRAWS, SpectrogramMask


def spectrograms(items: int) -> torch.Tensor:
    return -torch.rand(items, 50, 20) - 0.1


def test_every_item_has_its_own_hole_filled_with_its_own_floor() -> None:
    before = spectrograms(200)
    after = SpectrogramMask()(before, torch.rand(200, NUM_MASK_DRAWS, dtype=torch.float64))
    hole = after != before
    floor = before.amin(dim=(1, 2), keepdim=True).expand_as(before)
    assert torch.equal(after[hole], floor[hole])
    assert len({tuple(mask.flatten().tolist()) for mask in hole}) > 190
    assert float(hole.double().mean()) == pytest.approx(0.25**2 + 0.05, abs=0.03)


def test_a_stripe_crosses_all_frames_and_a_cutout_is_a_rectangle() -> None:
    before = spectrograms(50)
    draws = torch.rand(50, NUM_MASK_DRAWS, dtype=torch.float64)
    stripe = SpectrogramMask(cutout_probability=0.0)(before, draws) != before
    bands = stripe.any(dim=2)
    floor = before == before.amin(dim=(1, 2), keepdim=True)  # already at the floor: not changed
    assert ((stripe | floor) == (bands[:, :, None] | floor)).all()
    cutout = (SpectrogramMask(stripe_probability=0.0)(before, draws) != before) | floor
    box = cutout.any(dim=2)[:, :, None] & cutout.any(dim=1)[:, None, :]
    assert float((box == cutout).double().mean()) > 0.97


def test_probabilities_are_independent() -> None:
    before = spectrograms(4_000)
    draws = torch.rand(4_000, NUM_MASK_DRAWS, dtype=torch.float64)
    changed = {}
    for name, (cutout, stripe) in {"cutout": (0.5, 0.0), "stripe": (0.0, 0.5)}.items():
        mask = SpectrogramMask(cutout_probability=cutout, stripe_probability=stripe)
        changed[name] = (mask(before, draws) != before).any(dim=2).any(dim=1).double()
    assert float((changed["cutout"] * changed["stripe"]).mean()) == pytest.approx(0.25, abs=0.03)
