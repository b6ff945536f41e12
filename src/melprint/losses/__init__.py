"""Losses on fingerprints, one a file."""

from melprint.losses.nt_xent import NtXent, nt_xent
from melprint.losses.triplet import SemiHardTriplet, semi_hard_triplet

__all__ = ["NtXent", "SemiHardTriplet", "nt_xent", "semi_hard_triplet"]
