"""Speed of training, by parts and against its limits: ``python benchmarks/train.py`` rewrites its part of RESULTS.md.

``--peer-step-s NAME=SECONDS`` adds the seconds that another trainer took, on this machine, for a step of 120 segments
of the published network (60 originals, 60 replicas) with its own data pipeline.
"""

import argparse
import itertools
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from results import write_part
from torch import Tensor, nn

import melprint  # first: it sets how threads wait
from melprint.audio.files import write_wav
from melprint.augment.banks import Surroundings
from melprint.augment.chain import AugmentChain, TrainingBatch, WindowSpec
from melprint.augment.coding import CodecLike
from melprint.augment.device import DeviceChain
from melprint.augment.filters import ApplyRoom, BandLimits, DeviceResponse, Filters
from melprint.augment.host import HostChain, corpus_noise, corpus_rooms
from melprint.augment.masks import SpectrogramMask
from melprint.augment.noise import AddMusic, AddNoise
from melprint.augment.playback import SpeedAndPitch
from melprint.data.dataset import WindowDataset
from melprint.data.manifest import Track
from melprint.data.samplers import DisjointSampler
from melprint.losses import NtXent, embed_in_chunks
from melprint.models import Fingerprinter, build_fingerprinter
from melprint.spec import SegmentSpec
from melprint.training.lamb import Lamb

RATE = 8_000
HEAD = {"_target_": "melprint.models.projection.DivideAndEncode"}
COMPACT_MEL = {"num_mels": 128, "unit_level": True, "floor": 0.1}
NETWORKS = {
    "compact": (COMPACT_MEL, {"_target_": "melprint.models.compact.CompactEncoder"}, 64),
    "published (nafp)": ({}, {"_target_": "melprint.models.nafp.NafpEncoder"}, 60),
}
ENCODERS = {
    "compact": (COMPACT_MEL, {"_target_": "melprint.models.compact.CompactEncoder"}, {}),
    "residual": (COMPACT_MEL, {"_target_": "melprint.models.residual.ResidualEncoder"}, {}),
    "nafp, width 32": ({}, {"_target_": "melprint.models.nafp.NafpEncoder", "width": 32}, {}),
    "nafp": ({}, {"_target_": "melprint.models.nafp.NafpEncoder"}, {}),
    "nmfp": (
        {"f_min_hz": 160.0, "floor": 1e-5, "range_db": 80.0},
        {"_target_": "melprint.models.nafp.NafpEncoder"},
        {"norm": True},
    ),
    "daf (attention)": (
        {"f_min_hz": 0.0, "floor": 1e-10, "power": 2, "range_db": 80.0},
        {
            "_target_": "melprint.models.nafp.NafpEncoder",
            "activation": "relu",
            "padding": "symmetric",
            "time_strides": [2] * 8,
            "attention": True,
        },
        {"norm": True},
    ),
}  # fmt: skip
CHAINS = {
    "plain": "room and noise in bulk",
    "robust": "all of `robust-all` in bulk",
    "host": "room and noise, item by item",
}
PARTS = ("read", "augment", "mel and mask", "forward", "loss", "backward", "optimiser")


class Task:
    """Synthetic recordings on disk, read and degraded as in a training."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)

        def track(name: str, pcm: np.ndarray) -> Track:
            path = folder / f"{name}.wav"
            write_wav(path, pcm.astype(np.int16), RATE)
            return Track(f"kind/{name}", path, len(pcm), "train", "", "", "")

        self.music = [track(f"m{n}", rng.integers(-9_000, 9_000, 90 * RATE)) for n in range(40)]
        noise = [track(f"n{n}", rng.integers(-9_000, 9_000, 30 * RATE)) for n in range(8)]
        decay = np.exp(-np.arange(4_000) / 600)
        rooms = [track(f"r{n}", rng.standard_normal(4_000) * decay * 9_000) for n in range(16)]
        self.around = Surroundings(noise, rooms, RATE, self.music)
        self.window = WindowSpec(SegmentSpec())

    def chain(self, kind: str) -> AugmentChain:
        around = self.around
        if kind == "host":
            return HostChain(self.window, [corpus_rooms(around, p=0.8), corpus_noise(around, p=1.0)])
        room, noise = ApplyRoom(around, 0.8), AddNoise(around)
        if kind == "robust":
            band, device = BandLimits(around, probability=0.3), DeviceResponse(around, probability=0.5)
            filters = Filters(around, {"room": room, "band": band, "device": device})
            music = AddMusic(around, probability=0.1)
            return DeviceChain(self.window, [SpeedAndPitch(), music, filters, noise, CodecLike()])
        return DeviceChain(self.window, [room, noise])

    def batches(self, chain: AugmentChain, size: int):
        dataset = WindowDataset(self.music, chain)
        sampler = DisjointSampler(dataset.table, self.window, size)
        for epoch in itertools.count():
            sampler.set_epoch(epoch)
            for keys in sampler:
                yield lambda keys=keys: dataset[keys]


class Stopwatch:
    """Wall time of named parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {part: [] for part in PARTS}

    def start(self) -> None:
        self.since = time.perf_counter()

    def lap(self, part: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[part].append(now - self.since)
        self.since = now

    def medians(self) -> dict[str, float]:
        return {part: float(np.median(values)) for part, values in self.seconds.items() if values}


def whole_step(task: Task, network: str, chain_kind: str, steps: int) -> tuple[dict[str, float], float]:
    """Seconds of the parts of a step, and views of a batch."""
    mel, encoder, items = NETWORKS[network]
    torch.manual_seed(0)
    model = build_fingerprinter({}, mel, encoder, HEAD)
    chain, mask, loss = task.chain(chain_kind), SpectrogramMask(), NtXent()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    watch, batches = Stopwatch(), task.batches(chain, items)
    for number in range(steps + 2):
        if number == 2:
            watch = Stopwatch()
        read = next(batches)
        watch.start()
        source = read()
        watch.lap("read")
        views = TrainingBatch(source, chain).views(slice(None))
        waves = torch.cat([views.anchors[:, None], views.replicas], dim=1)
        watch.lap("augment")
        with torch.no_grad():
            log_mel = mask(model.front_end(waves.flatten(0, 1)), views.mask_draws.flatten(0, 1))
        watch.lap("mel and mask")
        fingerprints = model.embed(log_mel).unflatten(0, waves.shape[:2])
        watch.lap("forward")
        value = loss(fingerprints)
        watch.lap("loss")
        optimizer.zero_grad()
        value.backward()
        watch.lap("backward")
        optimizer.step()
        watch.lap("optimiser")
    return watch.medians(), 2 * items


def steps_table(task: Task, quick: bool) -> tuple[list[str], dict[str, float]]:
    lines = [
        "| network, chain | segments/s | " + " | ".join(PARTS) + " | all but the network |",
        "|---|---|" + "---|" * (len(PARTS) + 1),
    ]
    totals = {}
    for network, chain in (
        ("compact", "plain"),
        ("compact", "robust"),
        ("compact", "host"),
        ("published (nafp)", "plain"),
        ("published (nafp)", "host"),
    ):
        steps = 3 if quick or network != "compact" else 15
        parts, views = whole_step(task, network, chain, steps)
        total = sum(parts.values())
        totals[f"{network}, {chain}"] = total
        beside = 1 - (parts["forward"] + parts["loss"] + parts["backward"] + parts["optimiser"]) / total
        shares = " | ".join(f"{100 * parts[part] / total:.1f} %" for part in PARTS)
        lines.append(f"| {network}, {CHAINS[chain]} | {views / total:.0f} | {shares} | {100 * beside:.1f} % |")
    return lines, totals


def variants_table(quick: bool) -> list[str]:
    """The network alone on ready spectrograms, with and without what might help."""
    lines = ["| network alone, forward and backward | compact | published (nafp) |", "|---|---|---|"]
    columns: dict[str, list[str]] = {}
    for mel, encoder, items in NETWORKS.values():
        rounds = 2 if quick else (9 if "Compact" in encoder["_target_"] else 3)
        rates = {}
        for name, change in VARIANTS.items():
            torch.manual_seed(0)
            model = build_fingerprinter({}, mel, encoder, HEAD)
            few = 4 if change is in_bfloat16 else items  # without instructions of its own it takes minutes
            log_mel = torch.randn(2 * few, *model.front_end.shape)
            rates[name] = 2 * few / median_s(change(model, log_mel, few), 1 if few < items else rounds)
        base = rates["as it is (channels last, float32)"]
        for name, rate in rates.items():
            columns.setdefault(name, []).append(f"{rate:.3g}/s ({rate / base:.2f}x)")
    return lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in columns.items()]


def train_step(model: Fingerprinter, log_mel: Tensor, items: int, embed: Callable[[Tensor], Tensor] | None = None):
    run, loss = embed or model.embed, NtXent()

    def step() -> None:
        model.zero_grad()
        loss(run(log_mel).unflatten(0, (items, 2))).backward()

    return step


def as_contiguous(model: Fingerprinter, log_mel: Tensor, items: int):
    return train_step(model.to(memory_format=torch.contiguous_format), log_mel, items)


def in_bfloat16(model: Fingerprinter, log_mel: Tensor, items: int):
    def embed(spectrograms: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model.embed(spectrograms)

    return train_step(model, log_mel, items, embed)


def compiled(model: Fingerprinter, log_mel: Tensor, items: int):
    return train_step(model, log_mel, items, torch.compile(model.embed))


VARIANTS = {
    "as it is (channels last, float32)": train_step,
    "channels first": as_contiguous,
    "bfloat16 autocast": in_bfloat16,
    "torch.compile": compiled,
}


def median_s(action: Callable[[], object], rounds: int) -> float:
    action()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def optimizers_table(quick: bool) -> list[str]:
    import torch_optimizer

    def parameters() -> list[nn.Parameter]:
        return list(build_fingerprinter({}, {}, NETWORKS["published (nafp)"][1], HEAD).parameters())

    makers = {
        "AdamW, fused": lambda p: torch.optim.AdamW(p, fused=True),
        "AdamW, foreach": lambda p: torch.optim.AdamW(p, foreach=True),
        "Adam, fused": lambda p: torch.optim.Adam(p, fused=True),
        "LAMB of the paper (melprint)": Lamb,
        "LAMB of torch_optimizer": torch_optimizer.Lamb,
    }
    times = {}
    for name, make in makers.items():
        weights = parameters()
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        times[name] = median_s(make(weights).step, 2 if quick else 9)
    base = times["AdamW, fused"]
    rows = [f"| {name} | {1e3 * seconds:.0f} | {seconds / base:.1f}x |" for name, seconds in times.items()]
    return ["| optimizer, 16,939,008 parameters | ms a step | |", "|---|---|---|", *rows]


def encoders_table(quick: bool) -> list[str]:
    from torch.utils.flop_counter import FlopCounterMode

    lines = [
        "| `model=` | parameters | multiply-adds a segment | training, segments/s | fingerprinting, segments/s |",
        "|---|---|---|---|---|",
    ]
    for name, (mel, encoder, head) in ENCODERS.items():
        torch.manual_seed(0)
        model = build_fingerprinter({}, mel, encoder, {**HEAD, **head})
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.embed(torch.zeros(1, *model.front_end.shape))
        light = sum(weight.numel() for weight in model.parameters()) < 10e6
        items = 64 if light else 16
        wave = torch.randn(2 * items, RATE) * 0.1
        log_mel = model.front_end(wave)
        rounds = 2 if quick or not light else 7
        train = 2 * items / median_s(train_step(model, log_mel, items), rounds)

        def embed(model: Fingerprinter = model, wave: Tensor = wave) -> None:
            with torch.inference_mode():
                model.eval()(wave)

        ran = 2 * items / median_s(embed, rounds)
        count = sum(weight.numel() for weight in model.parameters())
        lines.append(f"| {name} | {count:,} | {counter.get_total_flops() / 2e6:.1f} M | {train:.0f} | {ran:.0f} |")
    return lines


def chunk_run(items: int, chunk_size: int | None) -> None:
    """One step in a process of its own; prints its seconds and what it added to the memory."""
    torch.manual_seed(0)
    model = build_fingerprinter({}, COMPACT_MEL, NETWORKS["compact"][1], HEAD)
    log_mel, loss = torch.randn(items, 2, *model.front_end.shape), NtXent()

    def step(count: int) -> None:
        views = embed_in_chunks(
            lambda part: model.embed(log_mel[part].flatten(0, 1)).unflatten(0, (-1, 2)), count, chunk_size
        )
        loss(views).backward()

    step(16)
    before = peak_mb()
    step(items)
    added = peak_mb() - before
    start = time.perf_counter()
    step(items)
    sys.stdout.write(f"{time.perf_counter() - start} {added}\n")


def peak_mb() -> float:
    """Of this process alone: getrusage would count the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def chunks_table(quick: bool) -> list[str]:
    lines = ["| items | chunk | s a step | added memory, MB |", "|---|---|---|---|"]
    cases = [(512, None), (512, 128), (2048, None), (2048, 128)] + ([] if quick else [(5120, 128)])
    for items, chunk in cases:
        command = [sys.executable, __file__, "--chunk-run", str(items), str(chunk or 0)]
        seconds, memory = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        lines.append(f"| {items} | {chunk or 'one pass'} | {float(seconds):.2f} | {float(memory):,.0f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--peer-step-s", nargs="*", default=[], metavar="NAME=SECONDS")
    parser.add_argument("--chunk-run", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.chunk_run:
        chunk_run(arguments.chunk_run[0], arguments.chunk_run[1] or None)
        return
    quick = arguments.quick
    with TemporaryDirectory() as folder:
        steps, totals = steps_table(Task(Path(folder)), quick)
    own = totals["published (nafp), plain"]
    peers = [
        "| trainer of the published network, 120 segments a step, data included | s a step | segments/s | |",
        "|---|---|---|---|",
        f"| melprint | {own:.2f} | {120 / own:.1f} | 1.0x |",
    ]
    for given in arguments.peer_step_s:
        name, _, said = given.rpartition("=")
        seconds = float(said)
        peers.append(f"| {name} | {seconds:.2f} | {120 / seconds:.1f} | melprint: {seconds / own:.2f}x as fast |")
    head = (
        f"`python benchmarks/train.py`, melprint {melprint.__version__}, {date.today()}, {os.cpu_count()} cores"
        f" ({platform.machine()}), torch {torch.__version__}, {torch.get_num_threads()} threads."
        " Medians after a warm-up; on shared machines only the ratios mean something."
    )
    parts = [steps, peers if arguments.peer_step_s else [], variants_table(quick), optimizers_table(quick)]
    parts += [chunks_table(quick), encoders_table(quick)]
    write_part("Training", ["\n\n".join([head, *("\n".join(part) for part in parts if part)])])


if __name__ == "__main__":
    main()
