"""What sounds beside the music.  Axes: B waves · C context + segment samples · K draws."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from melprint.audio.levels import mix_at_snr
from melprint.augment.banks import NoiseBank, Surroundings
from melprint.errors import MelprintError

Ratios = tuple[float, float] | Sequence[Sequence[float]]


class _AddFromBank(nn.Module):
    """A crop from a bank at a signal-to-noise ratio that holds in the visible part."""

    num_draws = 4
    kind: str

    def __init__(self, bank: NoiseBank, snr_db: Ratios, probability: float) -> None:
        super().__init__()
        self.bank, self.probability = bank, probability
        # A plain range is a mixture of one part.
        first, *_ = snr_db
        parts: Any = list(snr_db) if isinstance(first, Sequence) else [[1.0, *snr_db]]
        if any(len(part) != 3 or part[0] <= 0 or part[1] > part[2] for part in parts):
            raise MelprintError(
                "snr_db must be [low, high], or a list of [share, low, high] with positive shares,"
                f" each from low to high; got {snr_db}"
            )
        share, low, high = torch.tensor(parts, dtype=torch.float64).T
        self.register_buffer("ends", share.cumsum(0) / share.sum(), persistent=False)
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)
        self.ends: Tensor
        self.low: Tensor
        self.high: Tensor

    def parameters_of(self, draws_BK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """File, ratio in decibels and whether it is applied, for each wave."""
        return self.bank.choose(draws_BK[:, 0]), self.ratio_db(draws_BK[:, 2]), draws_BK[:, 3] < self.probability

    def ratio_db(self, draw_B: Tensor) -> Tensor:
        """The inverse distribution function of the mixture: uniform within each part."""
        draw_B = draw_B.contiguous()
        part = torch.searchsorted(self.ends, draw_B, right=True).clamp_max(len(self.ends) - 1)
        begin = torch.where(part > 0, self.ends[part - 1], 0.0)
        within = (draw_B - begin) / (self.ends[part] - begin)
        return self.low[part] + (self.high[part] - self.low[part]) * within

    def describe(self, draws_BK: Tensor) -> list[dict[str, float | str]]:
        """File and ratio."""
        file, snr_db, applied = (part.tolist() for part in self.parameters_of(draws_BK))
        return [
            {self.kind: self.bank.names[f], f"{self.kind}_snr_db": round(ratio, 3)} if used else {}
            for f, ratio, used in zip(file, snr_db, applied, strict=True)
        ]

    def forward(self, wave_BC: Tensor, draws_BK: Tensor, context: int) -> Tensor:
        """Waves of the same shape."""
        file, snr_db, applied = self.parameters_of(draws_BK)
        # An infinite ratio adds nothing.
        ratio_db = torch.where(applied, snr_db, torch.inf).float()
        noise = self.bank.crop(file, draws_BK[:, 1], wave_BC.shape[1])
        return mix_at_snr(wave_BC, noise, ratio_db, measured=slice(context, None))


class AddNoise(_AddFromBank):
    """Noise of the corpus.

    Args:
        surroundings: the noise.
        snr_db: range of the ratio, drawn uniformly; or a mixture of ranges, each ``[share, low, high]``.
        probability: share of the waves that get noise.
    """

    kind = "noise"

    def __init__(self, surroundings: Surroundings, snr_db: Ratios = (0.0, 10.0), probability: float = 1.0) -> None:
        super().__init__(surroundings.noise, snr_db, probability)


class AddMusic(_AddFromBank):
    """Other music of the same split: two songs at once, of which the louder is asked for.

    Args:
        surroundings: the music.
        snr_db: ratio of the music that is asked for to the other.
        probability: share of the waves that get other music.
    """

    kind = "music"

    def __init__(self, surroundings: Surroundings, snr_db: Ratios = (0.0, 15.0), probability: float = 0.2) -> None:
        super().__init__(surroundings.music, snr_db, probability)
