"""The chain of audiomentations, in the processes that read.  Axes: B items · R replicas · T samples.

audiomentations draws from the global generators of Python and numpy; they are set from each replica's
key before it is degraded and put back afterwards, so that the result does not depend on the number of
workers.
"""

import importlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from melprint.augment.banks import Surroundings
from melprint.augment.chain import SegmentBatch, Views, WindowSpec
from melprint.augment.cutting import cut_views
from melprint.augment.masks import NUM_MASK_DRAWS
from melprint.spec import SegmentSpec

HostTransform = Callable[..., NDArray[np.float32]]


class HostChain:
    """Crops as the batched chain does, then transforms of audiomentations on every replica.

    Transforms see the segment with its past context, which is cut off at the end.

    Args:
        window: what views are cut from.
        transforms: called in this order with ``samples`` and ``sample_rate``.
        num_replicas: degraded views of each segment.
    """

    on_host = True

    def __init__(self, window: WindowSpec, transforms: Sequence[HostTransform], num_replicas: int = 1) -> None:
        self.window, self.transforms, self.num_replicas = window, list(transforms), num_replicas
        # One draw for each replica's shift and one for its seed.
        self.num_draws = 1 + NUM_MASK_DRAWS * (1 + num_replicas) + 2 * num_replicas

    def __call__(self, batch: SegmentBatch) -> Views:
        """The views of each item."""
        anchors, waves, mask_draws, replica_draws = cut_views(batch, self.window, self.num_replicas)
        seeds = (replica_draws[..., 1].flatten() * 2**32).long().tolist()
        degraded = np.stack([self._degrade(wave, seed) for wave, seed in zip(waves.numpy(), seeds, strict=True)])
        replicas = torch.from_numpy(degraded).unflatten(0, (-1, self.num_replicas))
        return Views(anchors, replicas, mask_draws, batch.keys)

    def _degrade(self, wave: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
        with seeded(seed):
            for transform in self.transforms:
                wave = transform(samples=wave, sample_rate=self.window.segment.sample_rate_hz)
        return wave[self.window.context :]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Set the global generators of Python and numpy, and put them back."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002  (audiomentations draws there)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (the same)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002  (the same)


def host_chain(
    surroundings: Surroundings,
    segment: SegmentSpec,
    *,
    window: Mapping[str, float],
    transforms: Mapping[str, Any],
    num_replicas: int = 1,
) -> HostChain:
    """The chain of a config; transforms that need noise or rooms come as ``_partial_``."""
    from audiomentations.core.transforms_interface import BaseWaveformTransform

    # audiomentations loads these when it first reads a file. In a forked worker that is too late: wandb
    # watches imports and refuses to be called there.
    importlib.import_module("librosa.core.audio")
    made = [t if isinstance(t, BaseWaveformTransform) else t(surroundings) for t in transforms.values()]
    return HostChain(WindowSpec(segment, **window), made, num_replicas)


def corpus_noise(surroundings: Surroundings, **options: Any) -> HostTransform:
    """``audiomentations.AddBackgroundNoise`` with the corpus' noise."""
    from audiomentations import AddBackgroundNoise

    return AddBackgroundNoise(sounds_path=[track.path for track in surroundings.noise_tracks], **options)


def corpus_rooms(surroundings: Surroundings, **options: Any) -> HostTransform:
    """``audiomentations.ApplyImpulseResponse`` with the corpus' rooms."""
    from audiomentations import ApplyImpulseResponse

    return ApplyImpulseResponse(ir_path=[track.path for track in surroundings.room_tracks], **options)
