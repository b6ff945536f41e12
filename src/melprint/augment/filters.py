"""Rooms, devices and band limits: linear filters of the replicas, in one product of spectra.

Axes: B waves · C context + segment samples · F frequency bins · K draws · P points of a response.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from melprint.augment.banks import RoomBank, Surroundings
from melprint.errors import MelprintError

POINTS = 48  # of a response drawn in decibels; a sixth of an octave apart or less
LOWEST_HZ = 30.0


class LinearFilter(nn.Module, ABC):
    """A filter of each wave, given by its response; subclasses say which.

    Attributes:
        num_draws: uniform numbers that it needs for each wave.
    """

    num_draws: int

    @abstractmethod
    def response(self, draws_BK: Tensor, num_samples: int, context: int) -> Tensor:
        """Complex or real responses ``(B, F)`` at the bins of a transform of ``num_samples``."""

    @abstractmethod
    def describe(self, draws_BK: Tensor) -> list[dict[str, float | str]]:
        """What it does to each wave."""

    def forward(self, wave_BC: Tensor, draws_BK: Tensor, context: int) -> Tensor:
        """Filtered waves of the same shape; what wraps around falls into the context."""
        samples = wave_BC.shape[1]
        spectra = torch.fft.rfft(wave_BC).mul_(self.response(draws_BK, samples, context))
        return torch.fft.irfft(spectra, n=samples)


class Filters(LinearFilter):
    """Several filters at the price of one: their responses are multiplied.

    Args:
        surroundings: rooms for those that need them.
        parts: in the order in which they take their draws.
    """

    def __init__(
        self, surroundings: Surroundings, parts: Mapping[str, LinearFilter | Callable[[Surroundings], LinearFilter]]
    ) -> None:
        super().__init__()
        made = [p if isinstance(p, LinearFilter) else p(surroundings) for p in parts.values()]
        if not made:
            raise MelprintError("Filters needs one part at least, e.g. a room")
        self.parts = nn.ModuleList(made)
        self.num_draws = sum(part.num_draws for part in made)

    def response(self, draws_BK: Tensor, num_samples: int, context: int) -> Tensor:
        """The product of the parts' responses."""
        product = None
        for part in self.parts:
            assert isinstance(part, LinearFilter)
            response = part.response(draws_BK[:, : part.num_draws], num_samples, context)
            product = response if product is None else product * response
            draws_BK = draws_BK[:, part.num_draws :]
        assert product is not None
        return product

    def describe(self, draws_BK: Tensor) -> list[dict[str, float | str]]:
        """What all parts do."""
        described: list[dict[str, float | str]] = [{} for _ in draws_BK]
        for part in self.parts:
            assert isinstance(part, LinearFilter)
            for row, parameters in zip(described, part.describe(draws_BK[:, : part.num_draws]), strict=True):
                row.update(parameters)
            draws_BK = draws_BK[:, part.num_draws :]
        return described


class ApplyRoom(LinearFilter):
    """Convolution with a response from a bank; reverberation of the past context reaches the segment.

    Responses are cut to the context plus one sample: longer ones would need music from before it.
    """

    num_draws = 2

    def __init__(self, surroundings: Surroundings, probability: float = 1.0) -> None:
        super().__init__()
        self.bank: RoomBank = surroundings.rooms
        self.probability = probability

    def parameters_of(self, draws_BK: Tensor) -> tuple[Tensor, Tensor]:
        """Room and whether it is applied, for each item."""
        return self.bank.choose(draws_BK[:, 0]), draws_BK[:, 1] < self.probability

    def response(self, draws_BK: Tensor, num_samples: int, context: int) -> Tensor:
        """Spectra of the chosen rooms; 1 where there is none."""
        room, applied = self.parameters_of(draws_BK)
        spectra = self.bank.spectra(room, num_samples, context + 1)
        return torch.where(applied[:, None], spectra, torch.ones((), dtype=spectra.dtype, device=spectra.device))

    def describe(self, draws_BK: Tensor) -> list[dict[str, float | str]]:
        """The room's name."""
        room, applied = (part.tolist() for part in self.parameters_of(draws_BK))
        return [{"room": self.bank.names[r]} if used else {} for r, used in zip(room, applied, strict=True)]


class _DrawnResponse(LinearFilter):
    """A magnitude drawn at points of a logarithmic frequency axis, in decibels; no phase.

    Such filters ring for some milliseconds before and after, which the context takes up on one side.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        super().__init__()
        self.sample_rate_hz = sample_rate_hz
        points = torch.logspace(math.log10(LOWEST_HZ), math.log10(sample_rate_hz / 2), POINTS, dtype=torch.float64)
        self.register_buffer("points_hz", points.float(), persistent=False)
        self.points_hz: Tensor
        self._weights: Tensor | None = None

    @abstractmethod
    def decibels(self, draws_BK: Tensor) -> Tensor:
        """The drawn magnitudes ``(B, P)``."""

    def response(self, draws_BK: Tensor, num_samples: int, context: int) -> Tensor:
        """Magnitudes ``(B, F)``, between the points in straight lines."""
        del context
        magnitude = 10 ** (self.decibels(draws_BK.float()) / 20)
        return magnitude @ self._between_points(num_samples, magnitude.device)

    def _between_points(self, num_samples: int, device: torch.device) -> Tensor:
        bins = num_samples // 2 + 1
        if self._weights is None or self._weights.shape[1] != bins or self._weights.device != device:
            points = self.points_hz.double().cpu()
            hz = torch.fft.rfftfreq(num_samples, 1 / self.sample_rate_hz, dtype=torch.float64)
            hz = hz.clamp(float(points[0]), float(points[-1]))
            right = torch.searchsorted(points, hz).clamp(1, len(points) - 1)
            share = (hz.log() - points[right - 1].log()) / (points[right] / points[right - 1]).log()
            weights = torch.zeros(len(points), bins, dtype=torch.float64)
            every = torch.arange(bins)
            weights[right, every] += share
            weights[right - 1, every] += 1 - share
            self._weights = weights.float().to(device)
        return self._weights


class BandLimits(_DrawnResponse):
    """The narrow band of small loudspeakers and telephones: a low-pass and a high-pass of drawn cutoffs and slopes.

    Magnitudes are Butterworth's, ``1 / sqrt(1 + (f / fc) ** 2n)``, with 6n dB an octave.  Defaults as the low- and
    high-pass of deep-audio-fingerprinting (Nikou & Giannakopoulos, arXiv:2507.06070).

    Args:
        surroundings: for the sample rate.
        lowpass_hz: range of the upper cutoff.
        highpass_hz: range of the lower cutoff.
        slope_db: range of the slopes, in decibels an octave.
        probability: of each of the two.
    """

    num_draws = 6

    def __init__(
        self,
        surroundings: Surroundings,
        lowpass_hz: tuple[float, float] = (2_000.0, 3_000.0),
        highpass_hz: tuple[float, float] = (500.0, 1_000.0),
        slope_db: tuple[float, float] = (12.0, 36.0),
        probability: float = 0.4,
    ) -> None:
        super().__init__(surroundings.sample_rate_hz)
        for name, (low, high) in (("lowpass_hz", lowpass_hz), ("highpass_hz", highpass_hz), ("slope_db", slope_db)):
            if not 0 < low <= high:
                raise MelprintError(f"{name} must go from a positive value up, got {[low, high]}")
        self.lowpass_hz, self.highpass_hz, self.slope_db = lowpass_hz, highpass_hz, slope_db
        self.probability = probability

    def decibels(self, draws_BK: Tensor) -> Tensor:
        """Of both filters together."""
        draws = draws_BK.unbind(1)
        upper = self._butterworth_db(_between(self.lowpass_hz, draws[0]), draws[1], 1.0)
        lower = self._butterworth_db(_between(self.highpass_hz, draws[2]), draws[3], -1.0)
        applied = self.probability
        return upper * (draws[4] < applied)[:, None] + lower * (draws[5] < applied)[:, None]

    def describe(self, draws_BK: Tensor) -> list[dict[str, float | str]]:
        """The cutoffs that are applied."""
        described: list[dict[str, float | str]] = []
        for draws in draws_BK.tolist():
            limits: dict[str, float | str] = {}
            if draws[4] < self.probability:
                limits["lowpass_hz"] = round(self.lowpass_hz[0] + (self.lowpass_hz[1] - self.lowpass_hz[0]) * draws[0])
            if draws[5] < self.probability:
                low, high = self.highpass_hz
                limits["highpass_hz"] = round(low + (high - low) * draws[2])
            described.append(limits)
        return described

    def _butterworth_db(self, cutoff_hz_B: Tensor, slope_draw_B: Tensor, sign: float) -> Tensor:
        order_B1 = (_between(self.slope_db, slope_draw_B) / 6)[:, None]
        ratio_BP = (self.points_hz / cutoff_hz_B[:, None]) ** sign
        return -10 * torch.log10(1 + ratio_BP ** (2 * order_B1))


class DeviceResponse(_DrawnResponse):
    """A microphone or loudspeaker: an uneven response drawn in decibels and smooth over a third of an octave.

    Stands in for measured microphone responses, which no corpus here brings.

    Args:
        surroundings: for the sample rate.
        deviation_db: standard deviation at each of the drawn frequencies.
        points_per_octave: drawn frequencies.
        probability: share of the waves that it changes.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        deviation_db: float = 4.0,
        points_per_octave: float = 2.0,
        probability: float = 1.0,
    ) -> None:
        super().__init__(surroundings.sample_rate_hz)
        if deviation_db < 0 or points_per_octave <= 0:
            raise MelprintError(
                "deviation_db must not be negative and points_per_octave must be positive,"
                f" got {deviation_db} and {points_per_octave}"
            )
        octaves = math.log2(self.sample_rate_hz / 2 / LOWEST_HZ)
        self.num_knots = 2 + math.ceil(octaves * points_per_octave)
        self.num_draws = 1 + self.num_knots
        self.deviation_db, self.probability = deviation_db, probability
        at = torch.linspace(0, self.num_knots - 1, POINTS)
        weights = (1 - (at - torch.arange(self.num_knots)[:, None]).abs()).clamp_min(0)
        self.register_buffer("knot_weights", weights, persistent=False)
        self.knot_weights: Tensor

    def decibels(self, draws_BK: Tensor) -> Tensor:
        """Normal at the knots, between them in straight lines."""
        normal = torch.erfinv((2 * draws_BK[:, 1:] - 1).clamp(-0.999, 0.999)) * math.sqrt(2)
        return self.deviation_db * normal @ self.knot_weights * (draws_BK[:, :1] < self.probability)

    def describe(self, draws_BK: Tensor) -> list[dict[str, float | str]]:
        """From its deepest dip to its highest peak."""
        span = self.decibels(draws_BK.float())
        span_db = (span.amax(1) - span.amin(1)).tolist()
        return [{"device_span_db": round(db, 1)} if db > 0 else {} for db in span_db]


def _between(limits: tuple[float, float], draw_B: Tensor) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * draw_B
