"""The batched chain: every operation on all items at once, on the network's device.

Axes: B items · C context + segment samples · T samples of a segment · R replicas · K draws.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from melprint.audio.levels import SILENCE_RMS
from melprint.augment.banks import Surroundings
from melprint.augment.chain import SegmentBatch, Views, WindowSpec
from melprint.augment.cutting import cut_views
from melprint.augment.masks import NUM_MASK_DRAWS
from melprint.augment.varispeed import Varispeed
from melprint.errors import MelprintError
from melprint.spec import SegmentSpec

Parameters = dict[str, float | str]


class Transform(Protocol):
    """One operation of the chain.

    Attributes:
        num_draws: uniform numbers that it needs for each item.
    """

    num_draws: int

    def __call__(self, wave_BC: Tensor, draws_BK: Tensor, context: int) -> Tensor:
        """Waves of the same shape; the first ``context`` samples are past that nobody will see."""

    def describe(self, draws_BK: Tensor) -> list[Parameters]:
        """What it does to each wave, by name and unit; empty where it leaves one as it is."""


class Gain(nn.Module):
    """A change of level drawn uniformly in decibels, after scaling the segment's peak to 1."""

    num_draws = 1

    def __init__(self, gain_db: tuple[float, float] = (-20.0, 0.0)) -> None:
        super().__init__()
        self.gain_db = gain_db

    def forward(self, wave_BC: Tensor, draws_BK: Tensor, context: int) -> Tensor:
        """Waves of the same shape."""
        low, high = self.gain_db
        gain = 10 ** ((low + (high - low) * draws_BK[:, :1]) / 20)
        peak = wave_BC[:, context:].abs().amax(dim=1, keepdim=True)
        return wave_BC * (gain / peak.clamp_min(SILENCE_RMS)).to(wave_BC.dtype)

    def describe(self, draws_BK: Tensor) -> list[Parameters]:
        """The drawn level."""
        low, high = self.gain_db
        return [{"gain_db": round(low + (high - low) * draw, 1)} for draw in draws_BK[:, 0].tolist()]


def device_chain(
    surroundings: Surroundings,
    segment: SegmentSpec,
    *,
    window: Mapping[str, float],
    transforms: Mapping[str, nn.Module | Callable[[Surroundings], nn.Module]],
    num_replicas: int = 1,
    varispeed: Varispeed | None = None,
) -> "DeviceChain":
    """The batched chain of a config; transforms that need noise or rooms come as ``_partial_``."""
    made = [t if isinstance(t, nn.Module) else t(surroundings) for t in transforms.values()]
    return DeviceChain(WindowSpec(segment, **window), made, num_replicas, varispeed)


class DeviceChain(nn.Module):
    """Crops with time offsets, then transforms of the replicas, without a loop over items.

    Args:
        window: what views are cut from.
        transforms: applied to every replica in this order.
        num_replicas: degraded views of each segment.
        varispeed: changes the music of an item before its views are cut.

    Attributes:
        window: what has to be read for an item.
    """

    on_host = False

    def __init__(
        self,
        window: WindowSpec,
        transforms: Sequence[nn.Module],
        num_replicas: int = 1,
        varispeed: Varispeed | None = None,
    ) -> None:
        super().__init__()
        self.views_window, self.varispeed = window, varispeed
        self.window = varispeed.widened(window) if varispeed else window
        self.transforms = nn.ModuleList(transforms)
        self.num_replicas = num_replicas
        self.draws_of_replica = 1 + sum(map(_num_draws, transforms))
        self.num_draws = 1 + NUM_MASK_DRAWS * (1 + num_replicas) + num_replicas * self.draws_of_replica
        if varispeed:
            self.num_draws += varispeed.num_draws

    @torch.no_grad()
    def forward(self, batch: SegmentBatch) -> Views:
        """The views of each item."""
        window = self.views_window
        if self.varispeed:
            batch = self.varispeed(batch, self.window)
        anchors, waves, mask_draws, replica_draws = cut_views(batch, window, self.num_replicas)
        with torch.autocast(waves.device.type, enabled=False):  # audio is not the network's: responses need float32
            waves = degrade(waves, self.transforms, replica_draws.flatten(0, 1)[:, 1:], window.context)
        replicas = waves[:, window.context :].unflatten(0, (-1, self.num_replicas))
        return Views(anchors, replicas, mask_draws, batch.keys)


def degrade(wave_BC: Tensor, transforms: Iterable[Any], draws_BK: Tensor, context: int) -> Tensor:
    """Waves after all transforms, each of which takes its columns of the draws; a whole query as well as a segment."""
    for transform, draws in with_draws(transforms, draws_BK):
        wave_BC = transform(wave_BC, draws, context)
    return wave_BC


def describe(transforms: Iterable[Any], draws_BK: Tensor) -> list[Parameters]:
    """What :func:`degrade` does to each wave with the same draws."""
    described: list[Parameters] = [{} for _ in draws_BK]
    for transform, draws in with_draws(transforms, draws_BK):
        for row, parameters in zip(described, transform.describe(draws), strict=True):
            row.update(parameters)
    return described


def with_draws(transforms: Iterable[Any], draws_BK: Tensor) -> Iterator[tuple[Any, Tensor]]:
    """Each transform with its columns of the draws."""
    first = 0
    for transform in transforms:
        last = first + _num_draws(transform)
        yield transform, draws_BK[:, first:last]
        first = last


def _num_draws(transform: nn.Module) -> int:
    num_draws = getattr(transform, "num_draws", None)
    if not isinstance(num_draws, int):
        raise MelprintError(f"{type(transform).__name__} does not say how many draws it needs (num_draws)")
    return num_draws
