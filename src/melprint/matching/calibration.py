"""From scores to decisions.  Axes: U queries whose track is not in the collection."""

import math

import numpy as np
from numpy.typing import NDArray

from melprint.errors import MelprintError


def threshold_at(unknown_scores_U: NDArray[np.floating], false_accept_rate: float) -> float:
    """The lowest threshold that at most this share of the unknown queries reaches.

    With fewer queries than one false accept needs, it lies just above the highest score: no more can be said.

    Args:
        unknown_scores_U: best scores of queries without an answer; minus infinity where nothing was found.
        false_accept_rate: the target, between 0 and 1.

    Raises:
        MelprintError: there is no score to set a threshold by.

    >>> scores = np.array([0.1, 0.2, 0.3, 0.4])
    >>> [round(threshold_at(scores, rate), 6) for rate in (0.5, 0.25, 0.1)]
    [0.200001, 0.300001, 0.400001]
    """
    if not len(unknown_scores_U):
        raise MelprintError("a threshold needs queries of tracks that are not in the collection; there are none")
    allowed = math.floor(false_accept_rate * len(unknown_scores_U))
    highest_refused = np.sort(unknown_scores_U)[len(unknown_scores_U) - 1 - allowed]
    return float(highest_refused) + 1e-6 if np.isfinite(highest_refused) else -1.0
