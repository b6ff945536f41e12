"""Impulse responses as arrays."""

import numpy as np
from numpy.typing import NDArray

from melprint.errors import MelprintError

ONSET_DB = -20.0  # the direct sound is the first sample within this of the strongest


def from_direct_sound(response_K: NDArray[np.floating]) -> NDArray[np.floating]:
    """A response without the silence before its direct sound, at unit energy.

    A room then delays nothing, and the true place of a segment stays the true place.

    Raises:
        MelprintError: the response is silent.

    >>> from_direct_sound(np.array([0.0, 0.01, 0.6, 0.8])).tolist()
    [0.6, 0.8]
    """
    level = np.abs(response_K)
    if not level.max(initial=0.0):
        raise MelprintError("an impulse response is silent; leave its file out of the rooms")
    kept = response_K[np.argmax(level >= level.max() * 10 ** (ONSET_DB / 20)) :]
    return kept / np.linalg.norm(kept)
