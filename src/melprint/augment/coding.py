"""What lossy codecs leave out, in bulk.  Axes: B waves · C samples · F bins · N frames · K draws."""

import torch
from torch import Tensor, nn

from melprint.augment.chosen import change_chosen
from melprint.errors import MelprintError

FLOOR = 1e-7


class CodecLike(nn.Module):
    """Coarse quantisation of a spectrum under a masking curve, as of a codec at a low bit rate.

    Within frames of 64 ms, each bin is rounded to a multiple of a step that lies ``noise_to_mask`` decibels under the
    smoothed spectrum around it: what is weaker than half a step vanishes, and bands with little left become silent.
    Above a drawn cutoff nothing is left.  Real coders (MP3, Opus, …) work on one file at a time in another process and
    cannot be part of a batch; :mod:`melprint.evaluation.robustness` measures with them.

    Args:
        step_db: range of the step relative to the smoothed spectrum; higher is coarser.
        cutoff: range of the upper limit, as a share of the band.
        probability: share of the waves that are coded.
        frame: samples of a frame; half of it overlaps.
        smoothing: bins on each side of the masking curve.
    """

    num_draws = 3

    def __init__(
        self,
        step_db: tuple[float, float] = (-6.0, 6.0),
        cutoff: tuple[float, float] = (0.6, 1.0),
        probability: float = 0.3,
        frame: int = 512,
        smoothing: int = 6,
    ) -> None:
        super().__init__()
        if step_db[0] > step_db[1] or not 0 < cutoff[0] <= cutoff[1] <= 1:
            raise MelprintError(f"need step_db from low to high and cutoff within (0, 1], got {step_db} and {cutoff}")
        self.step_db, self.cutoff, self.probability = step_db, cutoff, probability
        self.frame, self.smoothing = frame, smoothing
        self.register_buffer("window", torch.hann_window(frame), persistent=False)
        self.window: Tensor

    def describe(self, draws_BK: Tensor) -> list[dict[str, float | str]]:
        """Step and upper limit."""
        (coarse, coarsest), (least, most) = self.step_db, self.cutoff
        return [
            {
                "codec_step_db": round(coarse + (coarsest - coarse) * step, 1),
                "codec_band": round(least + (most - least) * upper, 2),
            }
            if chosen < self.probability
            else {}
            for chosen, step, upper in draws_BK.tolist()
        ]

    def forward(self, wave_BC: Tensor, draws_BK: Tensor, context: int) -> Tensor:
        """Waves of the same shape."""
        del context
        return change_chosen(self._code, draws_BK[:, 0] < self.probability, wave_BC, draws_BK)

    def _code(self, wave_BC: Tensor, draws_BK: Tensor) -> Tensor:
        hop = self.frame // 2
        draws = draws_BK.to(wave_BC.dtype)
        spectrum_BFN = torch.stft(wave_BC, self.frame, hop, window=self.window, return_complex=True)
        power_BFN = spectrum_BFN.real.square() + spectrum_BFN.imag.square()
        width = 2 * self.smoothing + 1
        smooth_BNF = nn.functional.avg_pool1d(
            power_BFN.transpose(1, 2), width, stride=1, padding=self.smoothing, count_include_pad=False
        )
        step_db_B = self.step_db[0] + (self.step_db[1] - self.step_db[0]) * draws[:, 1]
        step_BFN = smooth_BNF.transpose(1, 2).sqrt() * 10 ** (step_db_B[:, None, None] / 20) + FLOOR
        upper_B = self.cutoff[0] + (self.cutoff[1] - self.cutoff[0]) * draws[:, 2]
        bins = spectrum_BFN.shape[1]
        kept_BF = torch.arange(bins, device=wave_BC.device) < (upper_B * bins)[:, None]
        coded = torch.view_as_complex(
            torch.round(torch.view_as_real(spectrum_BFN) / step_BFN[..., None]) * step_BFN[..., None]
        )
        return torch.istft(coded * kept_BF[..., None], self.frame, hop, window=self.window, length=wave_BC.shape[1])
