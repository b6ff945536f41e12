"""Thresholds that were measured once for a network.  Axes: L query lengths."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melprint.errors import MelprintError

FEWEST_DECADES, MOST_DECADES = -1.0, 2.0  # below, the line would make chance alignments of a few tracks look sure
STRICTEST = 0.95


@dataclass(frozen=True)
class Thresholds:
    """The score from which on a match is accepted, by length of the query and size of the library.

    The best of many wrong candidates scores higher in a larger library, and less so for a longer query: the threshold
    is a straight line in the logarithm of the rows, for each length.

    Attributes:
        num_segments: of the queries that were measured, rising ``(L,)``.
        threshold: in a library of ``rows`` rows ``(L,)``.
        slope: added for every tenfold of rows ``(L,)``.
        rows: of the library that was measured with.
    """

    num_segments: NDArray[np.int64]
    threshold: NDArray[np.float64]
    slope: NDArray[np.float64]
    rows: int

    @classmethod
    def from_card(cls, measured: Mapping[str, Any], false_accept_rate: float) -> "Thresholds":
        """Those of a model card at one rate.

        Raises:
            MelprintError: nothing was measured at this rate.
        """
        at_rate = {float(rate): values for rate, values in measured["false_accept_rates"].items()}
        if false_accept_rate not in at_rate:
            known = ", ".join(f"{rate:g}" for rate in sorted(at_rate))
            raise MelprintError(f"thresholds are known for false-accept rates of {known}, got {false_accept_rate:g}")
        values = at_rate[false_accept_rate]
        return cls(
            np.array(measured["num_segments"]),
            np.array(values["threshold"]),
            np.array(values["slope"]),
            int(measured["rows"]),
        )

    def at(self, num_segments: int, rows: int) -> float:
        """The threshold for a query of so many segments in a library of so many rows.

        Between measured lengths it is interpolated; beyond the longest it stays, which refuses a little too much.
        Sizes are followed from a tenth to a hundred times of the measured one; no threshold is above
        :data:`STRICTEST`, and none is above that of a shorter query.

        >>> Thresholds(np.array([1, 3]), np.array([0.8, 0.6]), np.array([0.1, 0.0]), 1000).at(1, 10_000)
        0.9
        """
        decades = np.clip(math.log10(max(rows, 1) / self.rows), FEWEST_DECADES, MOST_DECADES)
        limits = np.minimum.accumulate(self.threshold + self.slope * decades)
        return min(STRICTEST, float(np.interp(num_segments, self.num_segments, limits)))
