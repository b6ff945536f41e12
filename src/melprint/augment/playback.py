"""Music that runs too fast, too slow, too high or too low.

Axes: B waves · C context + segment samples · G = 2 overlapping grains · K draws.
"""

import torch
from torch import Tensor, nn

from melprint.augment.chosen import change_chosen
from melprint.errors import MelprintError

SECONDS_LONG = 1 << 15  # samples


class SpeedAndPitch(nn.Module):
    """Tempo and pitch changed by drawn factors, together (as of a tape) or each by itself.

    Grains of 64 ms, crossfaded in pairs, are read at the pitch's rate from places that advance at the tempo's rate:
    overlap-add in the time domain (Roucos & Wilgus 1985, without the search for the best overlap).  Where both
    factors are equal this is plain resampling; samples between samples come from cubic interpolation (Catmull-Rom).
    The end of the segment stays where it is, and the past context gives what a faster tempo needs.

    Args:
        tempo: largest relative change, e.g. 0.05 for factors from 0.95 to 1.05.
        pitch: the same.
        together: share of the changed waves whose pitch follows the tempo.
        probability: share of the waves that are changed.
        grain: samples of a crossfade.
    """

    num_draws = 4

    def __init__(
        self,
        tempo: float = 0.05,
        pitch: float = 0.05,
        together: float = 0.5,
        probability: float = 0.3,
        grain: int = 256,
    ) -> None:
        super().__init__()
        if not (0 <= tempo < 0.5 and 0 <= pitch < 0.5):
            raise MelprintError(f"tempo and pitch must lie in [0, 0.5), got {tempo} and {pitch}")
        self.tempo, self.pitch, self.together, self.probability, self.grain = tempo, pitch, together, probability, grain

    def factors_of(self, draws_BK: Tensor) -> tuple[Tensor, Tensor]:
        """Tempo and pitch of each wave that is changed."""
        tempo = 1 + self.tempo * (2 * draws_BK[:, 1] - 1)
        pitch = 1 + self.pitch * (2 * draws_BK[:, 2] - 1)
        return tempo, torch.where(draws_BK[:, 3] < self.together, tempo, pitch)

    def describe(self, draws_BK: Tensor) -> list[dict[str, float | str]]:
        """Both factors."""
        tempo, pitch = (factor.tolist() for factor in self.factors_of(draws_BK))
        changed = (draws_BK[:, 0] < self.probability).tolist()
        return [
            {"tempo": round(t, 4), "pitch": round(p, 4)} if used else {}
            for t, p, used in zip(tempo, pitch, changed, strict=True)
        ]

    def forward(self, wave_BC: Tensor, draws_BK: Tensor, context: int) -> Tensor:
        """Waves of the same shape."""
        del context

        def change(wave_BC: Tensor, draws_BK: Tensor) -> Tensor:
            return resample_grains(wave_BC, *self.factors_of(draws_BK), self.grain)

        return change_chosen(change, draws_BK[:, 0] < self.probability, wave_BC, draws_BK)


def resample_grains(wave_BC: Tensor, tempo_B: Tensor, pitch_B: Tensor, grain: int) -> Tensor:
    """Each wave at its tempo and pitch, aligned at its end; before its beginning there is silence."""
    waves, samples = wave_BC.shape
    # Silence for whatever the factors reach, so that no position has to be looked at.
    before = samples // 2 + grain
    padded = nn.functional.pad(wave_BC, (before, 2 + grain))
    row_B1 = torch.arange(waves, device=wave_BC.device)[:, None] * padded.shape[1]
    last = float(before + samples - 1)
    # Positions in float32 are right to a thousandth of a sample within some seconds, and not within minutes.
    precision = torch.float32 if samples < SECONDS_LONG else torch.float64
    tempo_B1, pitch_B1 = tempo_B[:, None].to(precision), pitch_B[:, None].to(precision)

    before_end = torch.arange(samples - 1, -1, -1, device=wave_BC.device)  # samples until the end
    within = (before_end % grain).to(wave_BC.dtype)
    centre = before_end - within
    one = interpolate(padded, row_B1, last - (centre * tempo_B1 + within * pitch_B1))
    next_one = interpolate(padded, row_B1, last - ((centre + grain) * tempo_B1 + (within - grain) * pitch_B1))
    return torch.lerp(one, next_one, torch.sin(within / grain * (torch.pi / 2)).square())


def interpolate(padded_BP: Tensor, row_B1: Tensor, at_BC: Tensor) -> Tensor:
    """Values between samples by Catmull-Rom splines, at positions within rows that begin at ``row_B1``."""
    floor = at_BC.long()
    share = (at_BC - floor).to(padded_BP.dtype)
    index, flat = floor + row_B1, padded_BP.flatten()
    p0, p1, p2, p3 = (torch.take(flat, index + k) for k in (-1, 0, 1, 2))
    return p1 + 0.5 * share * (p2 - p0 + share * (2 * p0 - 5 * p1 + 4 * p2 - p3 + share * (3 * (p1 - p2) + p3 - p0)))
