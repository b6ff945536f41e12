"""Speed of the parts, as ratios within one run: ``python benchmarks/run.py`` rewrites its part of RESULTS.md."""

import os
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from results import write_part

import melprint  # first: it sets how threads wait
from melprint.audio.files import write_wav
from melprint.augment.banks import Surroundings
from melprint.augment.chain import SegmentBatch, WindowSpec
from melprint.augment.device import DeviceChain
from melprint.augment.filters import ApplyRoom
from melprint.augment.host import HostChain, corpus_noise, corpus_rooms
from melprint.augment.noise import AddNoise
from melprint.data.manifest import Track
from melprint.fingerprints.rows import Rows
from melprint.matching.sequence import match_sequences
from melprint.models import build_fingerprinter
from melprint.randomness import keyed_uniforms
from melprint.spec import SegmentSpec

ROUNDS = 5
HEAD = {"_target_": "melprint.models.projection.DivideAndEncode"}
MODELS = {
    "compact": ({"num_mels": 128, "unit_level": True}, {"_target_": "melprint.models.compact.CompactEncoder"}),
    "published (nafp)": ({}, {"_target_": "melprint.models.nafp.NafpEncoder"}),
}


def median_s(action: Callable[[], object]) -> float:
    action()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def networks() -> list[str]:
    wave = torch.randn(64, 8_000)
    rates = {}
    for name, (mel, encoder) in MODELS.items():
        model = build_fingerprinter({}, mel, encoder, HEAD)

        def train(model=model) -> None:
            model.train()
            model(wave).square().sum().backward()

        def embed(model=model) -> None:
            with torch.inference_mode():
                model.eval()(wave)

        rates[name] = (64 / median_s(train), 64 / median_s(embed))
    base = rates["published (nafp)"]
    rows = [
        f"| {name} | {train:.0f} ({train / base[0]:.1f}x) | {embed:.0f} ({embed / base[1]:.1f}x) |"
        for name, (train, embed) in rates.items()
    ]
    return [
        "| network, 64 segments at once | training, segments/s | fingerprinting, segments/s |",
        "|---|---|---|",
        *rows,
    ]


def augmentation() -> list[str]:
    rng = np.random.default_rng(0)
    window = WindowSpec(SegmentSpec())
    with TemporaryDirectory() as folder:

        def track(name: str, pcm: np.ndarray) -> Track:
            write_wav(Path(folder, f"{name}.wav"), pcm.astype(np.int16), 8_000)
            return Track(f"kind/{name}", Path(folder, f"{name}.wav"), len(pcm), "train", "", "", "")

        noise = [track(f"n{n}", rng.integers(-9_000, 9_000, 240_000)) for n in range(8)]
        decay = np.exp(-np.arange(4_000) / 600)
        rooms = [track(f"r{n}", rng.standard_normal(4_000) * decay * 9_000) for n in range(8)]
        around = Surroundings(noise, rooms, 8_000)
        chains = {
            "batched on the device": DeviceChain(window, [ApplyRoom(around), AddNoise(around)]),
            "audiomentations": HostChain(window, [corpus_rooms(around, p=1.0), corpus_noise(around, p=1.0)]),
        }
        rates = {}
        for name, chain in chains.items():
            keys = np.stack([np.zeros(256, np.int64), np.arange(256)], axis=1)
            windows = torch.from_numpy(rng.integers(-9_000, 9_000, (256, window.num_samples), dtype=np.int16))
            slack = torch.full((256,), window.margin)
            draws = torch.from_numpy(keyed_uniforms(0, keys, chain.num_draws))
            batch = SegmentBatch(windows, slack, slack, torch.from_numpy(keys), draws)
            rates[name] = 256 / median_s(lambda chain=chain, batch=batch: chain(batch))
    base = rates["audiomentations"]
    rows = [f"| {name} | {rate:.0f} ({rate / base:.1f}x) |" for name, rate in rates.items()]
    return ["| room and noise, 256 segments at once | segments/s |", "|---|---|", *rows]


def published_matching(
    queries: np.ndarray, hits: np.ndarray, first: np.ndarray, lengths: list[int], rows: np.ndarray
) -> None:
    """The published loop: every query, length and candidate by itself, the whole product for its diagonal."""
    for query in first:
        for length in lengths:
            part = queries[query : query + length]
            starts = hits[query : query + length] - np.arange(length)[:, None]
            candidates = np.unique(starts[starts >= 0])
            scores = np.zeros(len(candidates))
            for number, start in enumerate(candidates):
                scores[number] = np.mean(np.diag(np.dot(part, rows[start : start + length].T)))
            candidates[np.argsort(-scores)[:10]]


def matching() -> list[str]:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((50_000, 128), dtype=np.float32)
    queries = rows[10_000:10_400] + 0.5 * rng.standard_normal((400, 128), dtype=np.float32)
    hits = np.argpartition(-(queries @ rows.T), 20, axis=1)[:, :20]
    first, lengths = np.arange(0, 380), [1, 3, 5, 9, 11, 19]
    fast = median_s(
        lambda: match_sequences(Rows([queries]), hits, first, np.full(380, 19), lengths, Rows([rows]), None)
    )
    start = time.perf_counter()
    published_matching(queries, hits, first, lengths, rows)
    slow = time.perf_counter() - start
    return [
        "| matching 380 queries at 6 lengths, 20 neighbours a segment | queries/s |",
        "|---|---|",
        f"| melprint, in bulk | {380 / fast:.0f} ({slow / fast:.1f}x) |",
        f"| loop of the published protocol | {380 / slow:.0f} (1.0x) |",
    ]


def main() -> None:
    head = [
        f"`python benchmarks/run.py`, melprint {melprint.__version__}, {date.today()}, {os.cpu_count()} cores"
        f" ({platform.machine()}), torch {torch.__version__}, {torch.get_num_threads()} threads."
        f" Medians of {ROUNDS} runs after a warm-up; on shared machines only the ratios mean something.",
    ]
    parts = ["\n".join(section()) for section in (networks, augmentation, matching)]
    write_part("Parts", ["\n\n".join(["\n".join(head), *parts])])


if __name__ == "__main__":
    main()
