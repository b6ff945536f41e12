"""Losses on fingerprints ``(B, V, D)``, one a file; gathering across devices; gradients by chunk."""

from melprint.losses.alignment_uniformity import AlignmentUniformity, alignment, uniformity
from melprint.losses.chunks import embed_in_chunks
from melprint.losses.decoupled import Decoupled, decoupled
from melprint.losses.gather import gather_views
from melprint.losses.nt_xent import NtXent, nt_xent
from melprint.losses.sigmoid import Sigmoid, sigmoid
from melprint.losses.supcon import SupCon, supcon
from melprint.losses.triplet import Triplet, triplet

__all__ = [
    "AlignmentUniformity",
    "Decoupled",
    "NtXent",
    "Sigmoid",
    "SupCon",
    "Triplet",
    "alignment",
    "decoupled",
    "embed_in_chunks",
    "gather_views",
    "nt_xent",
    "sigmoid",
    "supcon",
    "triplet",
    "uniformity",
]
