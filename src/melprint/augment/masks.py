"""Holes and stripes in spectrograms, each item with its own.  Axes: B batch · F mel bands · N frames."""

import torch
from torch import Tensor, nn

NUM_MASK_DRAWS = 8


class SpectrogramMask(nn.Module):
    """One rectangle (cutout) and one stripe across all frames, each with its own probability.

    The published code draws one mask for the whole batch and fills it with 0, which is the *loudest*
    value of its spectrograms; here every item has its own mask, filled with the item's quietest value.

    Args:
        cutout_height: least and greatest share of the bands.
        cutout_width: least and greatest share of the frames.
        stripe_height: least and greatest share of the bands.
        cutout_probability: share of the items with a rectangle.
        stripe_probability: share of the items with a stripe.
    """

    def __init__(
        self,
        cutout_height: tuple[float, float] = (0.1, 0.4),
        cutout_width: tuple[float, float] = (0.1, 0.4),
        stripe_height: tuple[float, float] = (0.02, 0.08),
        cutout_probability: float = 1.0,
        stripe_probability: float = 1.0,
    ) -> None:
        super().__init__()
        self.cutout_height, self.cutout_width, self.stripe_height = cutout_height, cutout_width, stripe_height
        self.cutout_probability, self.stripe_probability = cutout_probability, stripe_probability

    def forward(self, log_mel_BFN: Tensor, draws_BK: Tensor) -> Tensor:
        """Masked spectrograms of the same shape."""
        draws = draws_BK.to(log_mel_BFN.dtype)
        bands, frames = log_mel_BFN.shape[1:]
        tall = _interval(draws[:, 0], draws[:, 1], self.cutout_height, bands)
        wide = _interval(draws[:, 2], draws[:, 3], self.cutout_width, frames)
        stripe = _interval(draws[:, 4], draws[:, 5], self.stripe_height, bands)
        cut = (draws[:, 6] < self.cutout_probability)[:, None, None]
        striped = (draws[:, 7] < self.stripe_probability)[:, None, None]
        hole = (tall[:, :, None] & wide[:, None, :] & cut) | (stripe[:, :, None] & striped)
        return torch.where(hole, log_mel_BFN.amin(dim=(1, 2), keepdim=True), log_mel_BFN)


def _interval(size_B: Tensor, place_B: Tensor, share: tuple[float, float], length: int) -> Tensor:
    """Boolean ``(B, length)``: an interval of a drawn length around a drawn centre, cut at the ends."""
    half = (share[0] + (share[1] - share[0]) * size_B) * length / 2
    at = torch.arange(length, device=size_B.device) + 0.5
    return (at - place_B[:, None] * length).abs() <= half[:, None]
