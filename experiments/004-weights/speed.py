"""How fast the shipped networks fingerprint: ``python experiments/004-weights/speed.py FOLDER_OF_OGG [--threads 2]``.

From decoded audio (16-bit segments in memory) and from Ogg files end to end (decoding, resampling, network, catalog),
as multiples of real time, beside the classical systems' fingerprinting of the same decoded audio; best of three turns.
Writes results/speed.jsonl.  Measure on a quiet machine.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch

import melprint
from melprint.audio.files import find_recordings, read_mono, to_int16
from melprint.audio.framing import segments_of
from melprint.catalog import Catalog
from melprint.catalog.adding import add
from melprint.evaluation.classical import Audfprint, Chromaprint
from melprint.fingerprints.embedding import embed_segments
from melprint.weights.shipped import NAMES

ROUNDS = 3
RATE_HZ = 8_000
RESULTS = Path(__file__).parent / "results"


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    files = find_recordings(arguments.folder)
    duration_s = sum(soundfile.info(path).duration for path in files)
    waves = [to_int16(read_mono(path, RATE_HZ)) for path in files[:8]]
    decoded_s = sum(map(len, waves)) / RATE_HZ
    work = Path(tempfile.mkdtemp())

    def fresh_catalog(name: str) -> None:
        shutil.rmtree(work / name, ignore_errors=True)
        with Catalog.create(work / name, name) as catalog:
            add(catalog, [arguments.folder])

    def decoded(name: str) -> None:
        model = melprint.load(name)
        for wave in waves:
            embed_segments(model, segments_of(wave, model.segment), 256)

    def exported(name: str) -> None:
        model = melprint.load(name, runtime="onnx")
        for wave in waves:
            segments = segments_of(wave, model.segment)
            for start in range(0, len(segments), 256):
                model(segments[start : start + 256].astype(np.float32) / 32_768)

    tasks: dict[str, tuple[Callable[[], object], float]] = {}
    for name in NAMES:
        tasks[f"{name}, decoded audio"] = (lambda name=name: decoded(name), decoded_s)
        tasks[f"{name}, Ogg files"] = (lambda name=name: fresh_catalog(name), duration_s)
        tasks[f"{name}, decoded audio, onnxruntime"] = (lambda name=name: exported(name), decoded_s)
    tasks["audfprint2, decoded audio, one core"] = (lambda: Audfprint(RATE_HZ).enroll(waves), decoded_s)
    tasks["Chromaprint, decoded audio, one core"] = (lambda: Chromaprint(RATE_HZ).enroll(waves), decoded_s)
    best = dict.fromkeys(tasks, float("inf"))
    for _ in range(ROUNDS):
        for task, (run, _) in tasks.items():
            best[task] = min(best[task], seconds(run))
    shutil.rmtree(work)
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "speed.jsonl").open("w") as file:
        for task, (_, of_s) in tasks.items():
            row = {"task": task, "times_real_time": round(of_s / best[task], 1), "audio_s": round(of_s, 1)}
            print(row, flush=True)
            file.write(json.dumps(row | {"threads": arguments.threads}) + "\n")


if __name__ == "__main__":
    main()
