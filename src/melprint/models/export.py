"""ONNX graphs with the front end inside.  Axes: B batch · T samples · F mel bands · N frames · D fingerprint size."""

import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from melprint.audio.levels import SILENCE_RMS, rms
from melprint.errors import MelprintError
from melprint.models.checkpoint import model_digest
from melprint.models.fingerprinter import Fingerprinter
from melprint.weights.onnx import INPUT, OUTPUT, OnnxFingerprinter

OPSET = 20  # the first whose DFT takes its axis as an input; in onnxruntime since 1.17
TOLERANCE = 1e-4
HALF_FROM = 1_024  # elements of a weight from which on it is stored as float16, where that loses nothing


def export_onnx(fingerprinter: Fingerprinter, path: Path) -> float:
    """Write the network as an ONNX file: ``wave (B, T)`` in [-1, 1] to ``fingerprint (B, D)``, any B.

    Weights that float16 holds exactly, as those of the shipped networks, are stored so and widened when the file is
    opened.  The result is compared with PyTorch before the file appears.

    Returns:
        The greatest difference of any element from PyTorch's, on noise at several levels.

    Raises:
        MelprintError: onnx or onnxscript is missing; the graph cannot be written, or differs by more than 1e-4.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ImportError as error:
        raise MelprintError(f"exporting needs {error.name}: pip install 'melprint[onnx]'") from error
    graph = _Graph(fingerprinter).eval()
    waves = _test_waves(fingerprinter.segment.num_samples)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                graph,
                (waves,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                verbose=False,
            )
        except Exception as error:
            raise MelprintError(f"this network cannot be written as ONNX ({type(error).__name__}: {error})") from error
    assert program is not None
    model = program.model_proto
    _store_halves(model)
    for node in model.graph.node:  # traces of the exporter, with paths of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    said = model.metadata_props.add()
    said.key, said.value = "melprint", json.dumps(_geometry(fingerprinter))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        onnx.save(model, partial)
        difference = _difference(fingerprinter, partial, waves)
        if not difference <= TOLERANCE:
            raise MelprintError(f"the ONNX graph differs from PyTorch by {difference:.1e}, more than {TOLERANCE:g}")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return difference


class _Graph(nn.Module):
    """The network in operations that ONNX has."""

    def __init__(self, fingerprinter: Fingerprinter) -> None:
        super().__init__()
        self.network = fingerprinter
        mel = fingerprinter.front_end.mel
        frames = torch.arange(mel.num_frames(fingerprinter.segment.num_samples))[:, None] * mel.hop_samples
        self.register_buffer("places", (frames + torch.arange(mel.n_fft)).flatten())
        self.places: Tensor

    def forward(self, wave_BT: Tensor) -> Tensor:
        network = self.network
        features = network.projection(network.encoder(self.log_mel(wave_BT)))
        return features / features.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)

    def log_mel(self, wave_BT: Tensor) -> Tensor:
        """As :class:`melprint.audio.mel.LogMel`, without its blocks and views."""
        front_end = self.network.front_end
        mel = front_end.mel
        if mel.unit_level:
            wave_BT = wave_BT / rms(wave_BT).clamp_min(SILENCE_RMS)
        padded_BT = functional.pad(wave_BT, (mel.pad_samples, mel.pad_samples))
        frames_BNW = padded_BT.index_select(1, self.places).unflatten(1, (-1, mel.n_fft)) * front_end.window
        spectrum = torch.view_as_real(torch.fft.rfft(frames_BNW))[..., front_end.bins, :]
        power_BNK = spectrum.square().sum(-1)
        magnitude_BNK = power_BNK if mel.power == 2 else power_BNK.sqrt()
        log_mel_BNF = torch.log10(magnitude_BNK @ front_end.filters_KF + mel.floor)
        log_mel_BNF = log_mel_BNF - log_mel_BNF.amax(dim=(1, 2), keepdim=True)
        if mel.range_db is not None:
            half_range = mel.range_db * mel.power / 40
            log_mel_BNF = log_mel_BNF.clamp_min(-2 * half_range) / half_range + 1
        return log_mel_BNF.transpose(1, 2)


def _geometry(fingerprinter: Fingerprinter) -> dict[str, object]:
    return {
        "segment": asdict(fingerprinter.segment),
        "mel": asdict(fingerprinter.front_end.mel),
        "dim": fingerprinter.dim,
        "digest": model_digest(fingerprinter),
    }


def _test_waves(num_samples: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    levels = torch.tensor([1.0, 0.1, 1e-3, 0.0])[:, None]
    return torch.randn(4, num_samples, generator=generator).clamp(-3, 3) / 3 * levels


def _store_halves(model: Any) -> None:
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < HALF_FROM:
            continue
        value = numpy_helper.to_array(tensor)
        half = value.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), value):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _difference(fingerprinter: Fingerprinter, path: Path, waves: Tensor) -> float:
    there = OnnxFingerprinter(path, threads=1)
    with torch.inference_mode():
        here = fingerprinter.eval()(waves).numpy()
    return max(float(np.abs(there(waves[:count].numpy()) - here[:count]).max()) for count in (1, 3, len(waves)))
