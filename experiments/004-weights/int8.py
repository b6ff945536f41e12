"""What dynamic quantisation to 8 bits gives: ``python experiments/004-weights/int8.py NAME WORK``.

Quantises the exported graph of a shipped network with onnxruntime, and compares size, speed on one core and the hit
rates of the mixed test queries with float32; writes WORK/int8-NAME.json.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from measure import MIXED, RATE_HZ, SECONDS, Neural, corpus_of, figures, mixed_queries, references_of
from torch import Tensor, nn

import melprint
from melprint.weights.onnx import OnnxFingerprinter
from melprint.weights.shipped import shipped_file

BATCH, ROUNDS = 64, 7
ROWS = 1  # the test tracks alone: exported networks are slow to enroll with


class AsModule(nn.Module):
    """An exported network in the place of a torch one."""

    def __init__(self, exported: OnnxFingerprinter) -> None:
        super().__init__()
        self.exported, self.segment, self.dim = exported, exported.segment, exported.dim
        self.front_end = SimpleNamespace(mel=exported.mel)
        self.on_cpu = nn.Parameter(torch.zeros(()))

    def forward(self, wave_BT: Tensor) -> Tensor:
        return torch.from_numpy(self.exported(wave_BT.numpy()))


def segments_per_s(run, wave: np.ndarray) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        run(wave)
        times.append(time.perf_counter() - began)
    return len(wave) / min(times)


def main() -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("work", type=Path)
    parser.add_argument("--games", type=Path, default=Path("data/games"))
    parser.add_argument("--queries", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    corpus = corpus_of(arguments.games)
    waves, track, start_s = mixed_queries(corpus, min(arguments.queries, MIXED))
    tracks = references_of(corpus, ROWS)
    noise = np.random.default_rng(0).standard_normal((BATCH, RATE_HZ)).astype(np.float32) / 4
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "int8.onnx"
        # Convolutions by integers exist for unsigned weights only.
        quantize_dynamic(shipped_file(arguments.name, ".onnx"), small, weight_type=QuantType.QUInt8)
        exported = {
            "float32": OnnxFingerprinter(shipped_file(arguments.name, ".onnx"), threads=1),
            "int8": OnnxFingerprinter(small, threads=1),
        }
        said: dict[str, object] = {"num_queries": len(waves)}
        original = melprint.load(arguments.name)
        with torch.inference_mode():
            said["torch_segments_per_s"] = segments_per_s(lambda x: original(torch.from_numpy(x)), noise)
        for kind, network in exported.items():
            path = small if kind == "int8" else shipped_file(arguments.name, ".onnx")
            system = Neural(AsModule(network))  # type: ignore[arg-type]
            system.enroll(tracks)
            rates = {
                seconds: figures(found, track, start_s) for seconds, found in system.look_up(waves, track, SECONDS)
            }
            said[kind] = {
                "bytes": path.stat().st_size,
                "segments_per_s": segments_per_s(network, noise),
                "song": {seconds: rates[seconds]["song"] for seconds in SECONDS},
                "near": {seconds: rates[seconds]["near"] for seconds in SECONDS},
            }
            print(kind, said[kind], flush=True)
    arguments.work.mkdir(parents=True, exist_ok=True)
    (arguments.work / f"int8-{arguments.name}.json").write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()
