"""Where along an alignment the audio is the same.  Axes: C alignments · J segments."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melprint.spec import SegmentSpec

# Of the mean cosine.  A segment of which half is other audio still has three quarters of it where the music is loud.
SAME_SHARE = 0.7


def best_stretch(cosines_J: NDArray[np.floating], floor: float) -> tuple[int, int, float]:
    """The stretch with the greatest sum of what lies above ``floor``: first segment, the one behind its last, mean.

    Segments below the floor are bridged where what follows outweighs them (Kadane's maximum subarray).

    >>> first, last, mean = best_stretch(np.array([0.1, 0.9, 0.2, 0.9, 0.1, 0.1]), 0.5)
    >>> first, last, round(mean, 3)
    (1, 4, 0.667)
    """
    (first,), (last,) = best_stretches(np.asarray(cosines_J)[None], floor)
    mean = float(cosines_J[first:last].mean()) if last > first else 0.0
    return int(first), int(last), mean


def best_stretches(
    cosines_CJ: NDArray[np.floating], floor: float | NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """That of every alignment: first segments and those behind the last ``(C,)``; equal ones where nothing is above.

    Args:
        cosines_CJ: along each alignment.
        floor: for all, or for each ``(C, 1)``.
    """
    sums = np.cumsum(cosines_CJ - floor, axis=1, dtype=np.float64)
    sums = np.concatenate([np.zeros((len(sums), 1)), sums], axis=1)
    lowest = np.minimum.accumulate(sums, axis=1)
    last = (sums - lowest).argmax(axis=1)
    # The latest place of the lowest sum before the end: no segment is taken that adds nothing.
    place = np.arange(sums.shape[1])
    new_low = np.where(sums <= lowest, place, 0)
    first = np.maximum.accumulate(new_low, axis=1)[np.arange(len(sums)), last]
    return first.astype(np.int64), last.astype(np.int64)


class Extent(NamedTuple):
    """Seconds from the beginning of the first segment, and the mean cosine of the segments between."""

    start_s: float
    end_s: float
    similarity: float


def extent(cosines_J: NDArray[np.floating], score: float, segment: SegmentSpec) -> Extent | None:
    """Where along an alignment the audio is that of the match, to about half a hop.

    A border lies half a hop inside the outermost segments, for of these on average so much is other audio; at the
    ends of what was compared it lies at the end.

    Args:
        cosines_J: of all segments along the alignment.
        score: mean cosine of the match.
        segment: how all was cut.

    Returns:
        Nothing where no segment is like the match.
    """
    first, last, similarity = best_stretch(cosines_J, SAME_SHARE * score)
    if last <= first:
        return None
    start_s = (first + 0.5) * segment.hop_s if first else 0.0
    end_s = (last - 1) * segment.hop_s + segment.duration_s
    return Extent(start_s, end_s if last == len(cosines_J) else end_s - segment.hop_s / 2, similarity)
