"""Keyed randomness: what is drawn for an item depends on its key and on nothing else."""

import numpy as np
from numpy.typing import NDArray

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def rng_for(seed: int, *key: int) -> np.random.Generator:
    """The random stream of one item, e.g. ``rng_for(seed, epoch, index)``."""
    return np.random.default_rng([seed, *key])


def keyed_uniforms(seed: int, keys: NDArray[np.integer], num_draws: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) for a batch of keys at once.

    Each number is a hash of (seed, key, column) by the finaliser of SplitMix64 (Steele, Lea & Flood
    2014, "Fast splittable pseudorandom number generators"), chained over the key's parts: no state, so
    neither the order of the batch nor the number of workers matters.

    Args:
        seed: of the run.
        keys: ``(B, P)`` integers, e.g. epoch and item.
        num_draws: columns of the result ``(B, num_draws)``.
    """
    with np.errstate(over="ignore"):
        state = np.full(len(keys), _mix(np.array([seed], np.uint64) + GOLDEN_GAMMA)[0])
        for part in keys.astype(np.uint64).T:
            state = _mix(state ^ _mix(part + GOLDEN_GAMMA))
        columns = (np.arange(1, num_draws + 1, dtype=np.uint64)) * GOLDEN_GAMMA
        return (_mix(state[:, None] + columns) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
