"""Fingerprints by onnxruntime, without torch.  Axes: B batch · T samples · D fingerprint size."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melprint.errors import MelprintError
from melprint.spec import MelSpec, SegmentSpec
from melprint.weights.shipped import is_shipped, shipped_file

SUFFIX = ".onnx"
INPUT, OUTPUT = "wave", "fingerprint"


class OnnxFingerprinter:
    """A network that ``melprint export`` wrote: waveform in, fingerprint out, the front end in the graph.

    Attributes:
        segment: how audio is cut.
        dim: D.
        digest: of the weights and the geometry, as :func:`melprint.models.model_digest` gives it.

    Args:
        path: of the ``.onnx`` file.
        device: ``cpu``, or ``cuda`` with onnxruntime-gpu.
        threads: of onnxruntime; by default as it chooses.

    Raises:
        MelprintError: missing, damaged, or not written by melprint; onnxruntime is not installed.
    """

    def __init__(self, path: Path, device: str = "cpu", threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MelprintError("runtime='onnx' needs onnxruntime: pip install 'melprint[onnx]'") from error
        if not path.is_file():
            raise MelprintError(f"there is no {path}; write it with melprint export")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(str(device).partition(":")[0])
        if provider not in onnxruntime.get_available_providers():
            raise MelprintError(f"this onnxruntime cannot run on {device}; take device='cpu'")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
            said: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
            geometry: dict[str, Any] = json.loads(said["melprint"])
        except KeyError as error:
            raise MelprintError(f"{path} was not written by melprint export") from error
        except Exception as error:
            raise MelprintError(f"{path} is damaged or no ONNX file ({str(error).splitlines()[0]})") from error
        self.segment, self.mel = SegmentSpec(**geometry["segment"]), MelSpec(**geometry["mel"])
        self.dim, self.digest = int(geometry["dim"]), str(geometry["digest"])

    def __call__(self, wave_BT: NDArray[np.floating]) -> NDArray[np.float32]:
        """Fingerprints ``(B, D)`` of waveforms ``(B, T)`` in [-1, 1].

        Raises:
            MelprintError: another number of samples than a segment has.
        """
        wave_BT = np.ascontiguousarray(wave_BT, np.float32)
        if wave_BT.ndim != 2 or wave_BT.shape[1] != self.segment.num_samples:
            raise MelprintError(
                f"waveforms must be (batch, {self.segment.num_samples}), {self.segment.duration_s:g} s at"
                f" {self.segment.sample_rate_hz} Hz; got {wave_BT.shape}"
            )
        if not len(wave_BT):
            return np.zeros((0, self.dim), np.float32)
        fingerprints: NDArray[np.float32] = self._session.run([OUTPUT], {INPUT: wave_BT})[0]
        return fingerprints


def load_onnx(model: str | Path, device: str = "cpu") -> OnnxFingerprinter:
    """A shipped network by its name, or a file that ``melprint export`` wrote.

    Raises:
        MelprintError: as :class:`OnnxFingerprinter`; a file of another kind.
    """
    if is_shipped(model):
        return OnnxFingerprinter(shipped_file(str(model), SUFFIX), device)
    path = Path(model)
    if path.suffix != SUFFIX:
        raise MelprintError(f"runtime='onnx' opens {SUFFIX} files, got {path}; write one with melprint export")
    return OnnxFingerprinter(path, device)
