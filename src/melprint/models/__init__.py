"""Networks: log-mel front end + encoder + projection = :class:`Fingerprinter`."""

from melprint.models.checkpoint import load, model_digest
from melprint.models.fingerprinter import Fingerprinter, build_fingerprinter

__all__ = ["Fingerprinter", "build_fingerprinter", "load", "model_digest"]
