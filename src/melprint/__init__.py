"""Neural audio fingerprinting: train, fingerprint, index, evaluate."""

import os
from typing import TYPE_CHECKING, Any

from melprint.errors import MelprintError
from melprint.spec import MelSpec, SegmentSpec
from melprint.version import __version__

if TYPE_CHECKING:
    from melprint.models import Fingerprinter, load

# libgomp threads spin while they wait; on small shared machines that makes torch and faiss 15 to 50 times
# slower. It is read when the first of them is loaded, hence here.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


__all__ = ["Fingerprinter", "MelSpec", "MelprintError", "SegmentSpec", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Load the networks, and torch with them, when they are first asked for."""
    if name in {"Fingerprinter", "load"}:
        from melprint import models

        return getattr(models, name)
    raise AttributeError(f"module 'melprint' has no attribute {name!r}")
