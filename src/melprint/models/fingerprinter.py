"""Waveform in, fingerprint out.  Axes: B batch · T samples · F mel bands · N frames · D fingerprint size."""

import importlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from melprint.audio.mel import LogMel
from melprint.errors import MelprintError
from melprint.spec import MelSpec, SegmentSpec

MODEL_PACKAGE = "melprint.models."


class Fingerprinter(nn.Module):
    """Log-mel front end, encoder and projection; rows of the result have unit norm."""

    def __init__(self, segment: SegmentSpec, front_end: LogMel, encoder: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.segment = segment
        self.front_end = front_end
        self.encoder = encoder
        self.projection = projection
        self.dim = int(projection.dim)  # type: ignore[arg-type]  # every projection has one

    def forward(self, wave_BT: Tensor) -> Tensor:
        """Fingerprints ``(B, D)`` of waveforms ``(B, T)`` in [-1, 1]."""
        return self.embed(self.front_end(wave_BT))

    def embed(self, log_mel_BFN: Tensor) -> Tensor:
        """Fingerprints ``(B, D)`` of log-mel spectrograms ``(B, F, N)``; training masks these first."""
        return functional.normalize(self.projection(self.encoder(log_mel_BFN)).float(), dim=1)


def build_fingerprinter(
    segment: Mapping[str, Any], mel: Mapping[str, Any], encoder: Mapping[str, Any], projection: Mapping[str, Any]
) -> Fingerprinter:
    """A network with fresh weights from plain mappings, the same that a checkpoint carries.

    ``encoder`` and ``projection`` name a class of ``melprint.models`` under ``_target_``; nothing else is
    imported, so that opening a stranger's checkpoint runs no stranger's code.

    Raises:
        MelprintError: an unknown class or parameter.
    """
    segment_spec, mel_spec = _call(SegmentSpec, segment), _call(MelSpec, mel)
    front_end = LogMel(mel_spec, segment_spec)
    network = make_part(encoder, input_shape=front_end.shape)
    head = make_part(projection, num_features=network.num_features)
    return Fingerprinter(segment_spec, front_end, network, head)


def make_part(config: Mapping[str, Any], **given: Any) -> Any:
    """A part of a network from a plain mapping, as :func:`build_fingerprinter` describes it.

    Raises:
        MelprintError: an unknown class or parameter.
    """
    return _call(_model_class(config), config, **given)


def _model_class(config: Mapping[str, Any]) -> Any:
    target = str(config.get("_target_", ""))
    module, _, name = target.rpartition(".")
    if not target.startswith(MODEL_PACKAGE):
        raise MelprintError(f"_target_ must name a class of {MODEL_PACKAGE[:-1]}, got {target!r}")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise MelprintError(f"there is no {target}: {error}") from error


def _call(factory: Any, config: Mapping[str, Any], **given: Any) -> Any:
    try:
        return factory(**given, **{key: value for key, value in config.items() if key != "_target_"})
    except TypeError as error:
        raise MelprintError(f"{factory.__name__} does not take what the config gives it: {error}") from error
