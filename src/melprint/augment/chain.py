"""What every augmentation chain takes and gives.

Axes: B items · W samples of a window · T samples of a segment · R replicas · K draws.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from melprint.errors import MelprintError
from melprint.spec import SegmentSpec


@dataclass(frozen=True)
class WindowSpec:
    """The stretch of a track that the views of one segment are cut from.

    A view is cut from a wider window, so a time offset brings in the music that is really there and
    nothing wraps around; what lies before the view is the past that a room still answers to.

    Attributes:
        segment: how tracks are cut.
        anchor_shift_s: largest offset of the clean view from the segment's place.
        replica_shift_s: largest offset of a degraded view from the clean one.
        context_s: music before a view that reverberates into it.
        reach: the window as a multiple of what the views need, for a change of speed before they are cut.
    """

    segment: SegmentSpec
    anchor_shift_s: float = 0.2
    replica_shift_s: float = 0.2
    context_s: float = 0.5
    reach: float = 1.0

    def __post_init__(self) -> None:
        if min(self.anchor_shift_s, self.replica_shift_s, self.context_s) < 0:
            raise MelprintError(f"shifts and context must not be negative: {self}")

    @property
    def context(self) -> int:
        """Samples of past context."""
        return self._reached(self.segment.to_samples(self.context_s))

    @property
    def margin(self) -> int:
        """Samples by which a view may lie off the segment's place, either way."""
        return self._reached(
            self.segment.to_samples(self.anchor_shift_s) + self.segment.to_samples(self.replica_shift_s)
        )

    @property
    def before(self) -> int:
        """Samples of the window before the segment's place."""
        return self.context + self.margin

    @property
    def num_samples(self) -> int:
        """W."""
        return self.before + self._reached(self.segment.num_samples) + self.margin

    def _reached(self, samples: int) -> int:
        return math.ceil(self.reach * samples)


class SegmentBatch(NamedTuple):
    """Windows of a batch of segments, as a dataset gives them.

    Attributes:
        windows: int16 ``(B, W)``, zero where the track has not begun or is over.
        slack_before: int64 ``(B,)``, samples of the track before the segment's place, at most the margin.
        slack_after: int64 ``(B,)``, samples of the track after the segment, at most the margin.
        keys: int64 ``(B, 2)``, epoch and item.
        draws: float64 ``(B, K)``, uniform numbers that belong to the keys.
    """

    windows: Tensor
    slack_before: Tensor
    slack_after: Tensor
    keys: Tensor
    draws: Tensor

    def chunk(self, items: slice) -> "SegmentBatch":
        """That of some items."""
        return SegmentBatch(*(part[items] for part in self))


class Views(NamedTuple):
    """Clean and degraded views of a batch of segments.

    Attributes:
        anchors: float32 ``(B, T)``, clean.
        replicas: float32 ``(B, R, T)``, degraded.
        mask_draws: float64 ``(B, 1 + R, M)``, uniform numbers for masks on the spectrograms.
        keys: int64 ``(B, 2)``, epoch and item.
    """

    anchors: Tensor
    replicas: Tensor
    mask_draws: Tensor
    keys: Tensor

    def chunk(self, items: slice) -> "Views":
        """Those of some items."""
        return Views(*(part[items] for part in self))


class TrainingBatch:
    """A batch on its way through a step: its views, made anew whenever a chunk of them is asked for.

    Args:
        source: windows that a chain degrades on the device, or views that the workers made.
        chain: for windows.
    """

    def __init__(self, source: SegmentBatch | Views, chain: "AugmentChain | None" = None) -> None:
        self.source, self.chain = source, chain

    def __len__(self) -> int:
        return len(self.source.keys)

    def views(self, items: slice) -> Views:
        """The views of some items; the same each time."""
        part = self.source.chunk(items)
        if isinstance(part, Views):
            return part
        assert self.chain is not None
        return self.chain(part)


class AugmentChain(Protocol):
    """A batch of windows in, a batch of views out; the same keys give the same views.

    Attributes:
        window: what the chain cuts from.
        num_draws: columns of ``SegmentBatch.draws`` that it needs.
        on_host: whether it runs in the workers that load data, or on the device of the network.
    """

    window: WindowSpec
    num_draws: int
    on_host: bool

    def __call__(self, batch: SegmentBatch) -> Views:
        """The views of each item."""
