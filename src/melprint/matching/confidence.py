"""From scores to confidence."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from melprint.matching.thresholds import Thresholds

LEAST = 1e-6  # no measurement says more


@dataclass(frozen=True)
class Confidence:
    """How sure a match is: one minus the chance that unknown music scores as high.

    The scores that one in a hundred and one in a thousand unknown recordings reach were measured by length and size
    of the catalog; the chance is taken to fall by the same factor for every further step of the score, as the tail
    of an exponential does.

    Attributes:
        usual: thresholds that one in a hundred reaches.
        strict: thresholds that one in a thousand reaches.
    """

    usual: Thresholds
    strict: Thresholds

    @classmethod
    def from_measured(cls, measured: Mapping[str, Any]) -> "Confidence":
        """From a model card, or from what ``melprint catalog calibrate`` wrote."""
        return cls(Thresholds.from_card(measured, 0.01), Thresholds.from_card(measured, 0.001))

    def chance(self, score: float, num_segments: int, rows: int, chances: int = 1) -> float:
        """Probability that unknown music scores as high.

        Args:
            score: mean cosine.
            num_segments: that it is the mean of.
            rows: of the catalog.
            chances: stretches of the recording that were looked up, of which the best is judged.
        """
        usual, step = self._line(num_segments, rows)
        single = 10 ** min(0.0, -2 - (score - usual) / step)
        return min(1.0, max(LEAST, single * chances))

    def of(self, score: float, num_segments: int, rows: int, chances: int = 1) -> float:
        """Confidence between 0 and 1."""
        return 1.0 - self.chance(score, num_segments, rows, chances)

    def threshold(self, false_accept_rate: float, num_segments: int, rows: int, chances: int = 1) -> float:
        """The score from which on the chance is at most ``false_accept_rate``."""
        usual, step = self._line(num_segments, rows)
        return usual + step * (math.log10(chances / false_accept_rate) - 2)

    def _line(self, num_segments: int, rows: int) -> tuple[float, float]:
        """Score that one in a hundred reaches, and what a tenth of the chance takes more."""
        usual, strict = self.usual.at(num_segments, rows), self.strict.at(num_segments, rows)
        return usual, max(strict - usual, 0.01)
