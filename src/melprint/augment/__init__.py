"""Degrading music as rooms, noise and imprecise timing do, on the device or on the host."""

from melprint.augment.chain import AugmentChain, SegmentBatch, TrainingBatch, Views, WindowSpec

__all__ = ["AugmentChain", "SegmentBatch", "TrainingBatch", "Views", "WindowSpec"]
