"""Cutting the views of a segment from its window.

Axes: B items · W samples of a window · C context + segment samples · T samples of a segment · R replicas · K draws.
"""

import torch
from torch import Tensor

from melprint.audio.files import INT16_SCALE
from melprint.augment.chain import SegmentBatch, WindowSpec
from melprint.augment.masks import NUM_MASK_DRAWS


def cut_views(batch: SegmentBatch, window: WindowSpec, num_replicas: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shifted crops of every item.

    Returns:
        Anchors ``(B, T)``; replicas with the context before them ``(B * R, C)``, not degraded yet; draws for masks
        ``(B, 1 + R, M)``; draws of the replicas ``(B, R, K)``, of which the first was used for their shift.
    """
    anchor_shift, replica_shift = shifts_of(batch, window, num_replicas)
    samples = window.segment.num_samples
    anchors = crop(batch.windows, window.before + anchor_shift, samples)
    start = window.margin + anchor_shift[:, None] + replica_shift
    repeated = batch.windows if num_replicas == 1 else batch.windows.repeat_interleave(num_replicas, dim=0)
    waves = crop(repeated, start.flatten(), window.context + samples)
    return anchors, waves, *split_draws(batch.draws, num_replicas)


def split_draws(draws_BK: Tensor, num_replicas: int) -> tuple[Tensor, Tensor]:
    """Draws for masks ``(B, 1 + R, M)`` and for replicas ``(B, R, .)``; column 0 is the anchor's shift."""
    masks = NUM_MASK_DRAWS * (1 + num_replicas)
    return (
        draws_BK[:, 1 : 1 + masks].unflatten(1, (1 + num_replicas, NUM_MASK_DRAWS)),
        draws_BK[:, 1 + masks :].unflatten(1, (num_replicas, -1)),
    )


def shifts_of(batch: SegmentBatch, window: WindowSpec, num_replicas: int) -> tuple[Tensor, Tensor]:
    """Time offsets in samples: of the anchors ``(B,)`` and of the replicas from their anchors ``(B, R)``.

    Uniform within the window's limits and within the track.
    """
    _, replica_draws = split_draws(batch.draws, num_replicas)
    anchor_limit = window.segment.to_samples(window.anchor_shift_s)
    replica_limit = window.segment.to_samples(window.replica_shift_s)
    low = -batch.slack_before.clamp_max(anchor_limit)
    high = batch.slack_after.clamp_max(anchor_limit)
    anchor = low + (batch.draws[:, 0] * (high - low + 1)).long()
    low = -(batch.slack_before + anchor).clamp_max(replica_limit)[:, None]
    high = (batch.slack_after - anchor).clamp_max(replica_limit)[:, None]
    return anchor, low + (replica_draws[:, :, 0] * (high - low + 1)).long()


def crop(windows_BW: Tensor, start_B: Tensor, num_samples: int) -> Tensor:
    """Float32 crops ``(B, num_samples)`` of int16 windows, each from its own start."""
    items, width = windows_BW.shape
    # Rows of overlapping stretches are copied as they lie, which takes half the time of picking samples one by one.
    stretches = windows_BW.flatten().unfold(0, num_samples, 1)
    return stretches[torch.arange(items, device=start_B.device) * width + start_B].float() / INT16_SCALE
