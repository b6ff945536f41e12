"""Neural audio fingerprinting: train, fingerprint, index, evaluate."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from melprint.errors import MelprintError
from melprint.spec import MelSpec, SegmentSpec
from melprint.version import __version__

if TYPE_CHECKING:
    from melprint.catalog import Catalog
    from melprint.models import Fingerprinter
    from melprint.weights.onnx import OnnxFingerprinter

# libgomp threads spin while they wait; on small shared machines that makes torch and faiss 15 to 50 times
# slower. It is read when the first of them is loaded, hence here.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


__all__ = ["Catalog", "Fingerprinter", "MelSpec", "MelprintError", "SegmentSpec", "__version__", "load"]


@overload
def load(model: str | Path = ..., device: Any = ..., runtime: Literal["torch"] = ...) -> "Fingerprinter": ...
@overload
def load(model: str | Path = ..., device: Any = ..., *, runtime: Literal["onnx"]) -> "OnnxFingerprinter": ...
def load(
    model: str | Path = "compact", device: Any = "cpu", runtime: Literal["torch", "onnx"] = "torch"
) -> "Fingerprinter | OnnxFingerprinter":
    """Open a trained network: waveforms ``(B, T)`` in [-1, 1] in, unit fingerprints ``(B, D)`` out.

    Args:
        model: ``compact`` (small and fast) or ``base`` (finds more), which come with the package; or a file: a
            checkpoint of ``train.py``, ``.safetensors``, or with ``runtime="onnx"`` what ``melprint export`` wrote.
        device: ``cpu``, ``cuda``, or a ``torch.device``.
        runtime: ``torch``, or ``onnx`` for onnxruntime: takes and gives numpy arrays, and imports no torch.

    Raises:
        MelprintError: missing, damaged, not a network of melprint; its digest is not that of the release; a runtime
            that is unknown or not installed.
    """
    if runtime == "torch":
        from melprint.models.checkpoint import load as load_torch

        return load_torch(model, device)
    if runtime == "onnx":
        from melprint.weights.onnx import load_onnx

        return load_onnx(model, str(device))
    raise MelprintError(f"runtime must be torch or onnx, got {runtime!r}")


def __getattr__(name: str) -> Any:
    """Load the networks and catalogs, and torch with them, when they are first asked for."""
    if name == "Catalog":
        from melprint import catalog

        return catalog.Catalog
    if name == "Fingerprinter":
        from melprint import models

        return models.Fingerprinter
    raise AttributeError(f"module 'melprint' has no attribute {name!r}")
