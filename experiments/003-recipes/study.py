"""Compare losses, optimizers, augmentation and recipes at equal time: ``python experiments/003-recipes/study.py WORK``.

Stages, each of which leaves a line a run in WORK/runs.jsonl and goes on where it was stopped:

``screen``   two settings of each variant, one seed, few steps, judged on the validation tracks;
``main``     the better setting, three seeds, judged on the test tracks;
``race``     the full network against the compact one, on the clock.

Equal time: the seconds a step takes are measured once, by turns with the base, and each variant gets as many steps as
fit into the time that the base needs for its own.  Several processes
may work on one folder.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import melprint  # noqa: F401  (first: it sets how threads wait)
from melprint.audio.changes import change_speed, pass_band
from melprint.audio.codecs import code
from melprint.audio.files import INT16_SCALE, to_int16
from melprint.augment.banks import NoiseBank
from melprint.build.common import corpus_from
from melprint.build.training import data_from, module_from
from melprint.data.corpora.corpus import Corpus
from melprint.data.manifest import Track
from melprint.data.queries import QueryRenderer, QuerySpec
from melprint.fingerprints.embedding import embed_tracks
from melprint.fingerprints.rows import Rows
from melprint.index.exact import ExactIndex
from melprint.matching.sequence import Borders, match_sequences
from melprint.models.fingerprinter import Fingerprinter

CONF = Path(__file__).parents[2] / "conf"
LENGTHS = (1, 5, 19)  # 1, 3 and 10 s
NEIGHBOURS = 20
BASE_STEPS = 300
SCREEN_STEPS = 100
SEEDS = (0, 1, 2)
TEST_TRACK_S = 90

LARGE_256 = ["train.batch_size=256"]
TRANSFORMS = "+augment.chain.transforms"
BAND = f"{TRANSFORMS}.band={{_target_: melprint.augment.filters.BandLimits, _partial_: true, probability: 0.4}}"
CODEC = f"{TRANSFORMS}.coding={{_target_: melprint.augment.coding.CodecLike, probability: 0.3}}"
SPEED = f"{TRANSFORMS}.playback={{_target_: melprint.augment.playback.SpeedAndPitch, probability: 0.3}}"
MUSIC = f"{TRANSFORMS}.music={{_target_: melprint.augment.noise.AddMusic, _partial_: true, probability: 0.2}}"
DEVICE = f"{TRANSFORMS}.device={{_target_: melprint.augment.filters.DeviceResponse, _partial_: true, probability: 0.5}}"
SLOW, FAST = ["optimizer.lr=1.5e-3"], ["optimizer.lr=4e-3"]

# name: (overrides, two settings that are screened)
VARIANTS: dict[str, tuple[list[str], list[list[str]]]] = {
    "base": ([], [["optimizer.lr=2e-3"], ["optimizer.lr=4e-3"]]),
    "decoupled": (["loss=decoupled"], [["loss.temperature=0.05"], ["loss.temperature=0.1"]]),
    "triplet (now playing)": (["loss=triplet"], [["optimizer.lr=1e-3"], ["optimizer.lr=4e-3"]]),
    "triplet (nmfp)": (["loss=triplet-nmfp"], [["optimizer.lr=1e-3"], ["optimizer.lr=4e-3"]]),
    "alignment, uniformity": (["loss=alignment-uniformity"], [["loss.t=2.0"], ["loss.t=8.0"]]),
    "sigmoid": (["loss=sigmoid"], [["loss.temperature=0.1"], ["loss.temperature=0.05"]]),
    "supcon, 3 replicas": (["loss=supcon", "augment.chain.num_replicas=3", "train.batch_size=64"], [SLOW, FAST]),
    "adamw 256": (LARGE_256, [["optimizer.lr=3e-3"], ["optimizer.lr=6e-3"]]),
    "lamb 256": ([*LARGE_256, "optimizer=lamb-paper"], [["optimizer.lr=5e-3"], ["optimizer.lr=1.5e-2"]]),
    "adamw 1024": (["train.batch_size=1024"], [["optimizer.lr=4e-3"], ["optimizer.lr=1e-2"]]),
    "lamb 1024": (["train.batch_size=1024", "optimizer=lamb-paper"], [["optimizer.lr=1e-2"], ["optimizer.lr=3e-2"]]),
}
# Each switched alone, at the base's setting.
SWITCHES: dict[str, list[str]] = {
    "+ band filters": [BAND],
    "+ codec-like": [CODEC],
    "+ speed and pitch": [SPEED],
    "+ other music": [MUSIC],
    "+ device responses": [DEVICE],
    "no past context": ["augment.chain.window.context_s=0.0"],
    "context 1 s": ["augment.chain.window.context_s=1.0"],
    "one per track": ["train.sampling=one-per-track"],
    "all of robust": ["augment=robust-all"],
    # Added when the first seed of the line above was known: the same, each half as often or less.
    "robust, rarer": [
        "augment=robust-all",
        "augment.chain.transforms.playback.probability=0.15",
        "augment.chain.transforms.music.probability=0.05",
        "augment.chain.transforms.filters.parts.device.probability=0.25",
        "augment.chain.transforms.coding.probability=0.1",
    ],
}
RECIPES: dict[str, list[str]] = {
    "recipe now-playing": ["loss=triplet", "augment.chain.num_replicas=4", "train.batch_size=64"],
    "recipe daf": ["augment=daf", "train.sampling=one-per-track"],
    "recipe nmfp": ["augment=nmfp", "loss=triplet-nmfp", "train.sampling=one-per-track"],
}


class Bench:
    """The corpus, the banks and the queries, made once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.corpus = corpus_from(self.config([], 0))
        self.tests: dict[str, Queries] | None = None
        self.validation: Queries | None = None

    def config(self, overrides: list[str], seed: int) -> DictConfig:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            fixed = ["data=games", f"data.corpus.root={self.root}", "scheduler.warmup_share=0.1", f"seed={seed}"]
            return compose("train", [*fixed, *overrides])

    def train(self, overrides: list[str], seed: int, steps: int) -> tuple[Fingerprinter, float]:
        """The trained network and the processor seconds of a step."""
        config = self.config(overrides, seed)
        pl.seed_everything(seed, verbose=False)
        module = module_from(config)
        data = data_from(config, self.corpus, module)
        clock = StepClock()
        trainer = pl.Trainer(
            accelerator="cpu", max_steps=steps, logger=False, callbacks=[clock], enable_progress_bar=False,
            enable_checkpointing=False, enable_model_summary=False, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
        return module.fingerprinter.eval(), float(np.median(clock.seconds))


class StepClock(pl.Callback):
    """Processor time between the ends of steps."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.last: float | None = None

    def on_train_batch_end(self, *_: Any) -> None:
        now = time.process_time()
        if self.last is not None:
            self.seconds.append(now - self.last)
        self.last = now


class Queries:
    """Queries and references of one split, and the hits of a network."""

    def __init__(self, waves: list[np.ndarray], track: np.ndarray, start: np.ndarray, tracks: list[np.ndarray]) -> None:
        self.waves, self.track, self.start, self.references = waves, track, start, tracks

    def hits(self, model: Fingerprinter, references: tuple[np.ndarray, np.ndarray] | None = None) -> dict[str, Any]:
        """``exact``, ``near`` and ``song`` at each length, as lists of 0 and 1."""
        rows, first = references or embed_tracks(model, self.references, 256)
        queries, first_segment = embed_tracks(model, self.waves, 256)
        index = ExactIndex()
        index.build(Rows([rows]))
        found = index.search(queries, NEIGHBOURS).rows
        matches = match_sequences(
            Rows([queries]), found, first_segment[:-1], np.diff(first_segment), LENGTHS, Rows([rows]), Borders(first),
            num_best=1,
        )  # fmt: skip
        result: dict[str, Any] = {}
        for length in LENGTHS:
            right = matches[length].track[:, 0] == self.track
            off = np.abs(matches[length].start[:, 0] - self.start)
            for kind, hit in (("exact", right & (off == 0)), ("near", right & (off <= 1)), ("song", right)):
                result[f"{kind} {length}"] = hit.astype(int).tolist()
        return result


def cut_short(track: Track, rate: int) -> np.ndarray:
    return track.samples(rate)[: TEST_TRACK_S * rate]


def queries_of(corpus: Corpus, split: str, spec: QuerySpec, tracks: list[Track], short: list[np.ndarray]) -> Queries:
    rendered = list(QueryRenderer(spec, tracks, corpus.surroundings(split)))
    number = {track.track_id: position for position, track in enumerate(tracks)}
    kept = [(q, w) for q, w in rendered if q.start_s + q.duration_s <= len(short[number[q.track_id]]) / 8_000]
    return Queries(
        [wave for _, wave in kept],
        np.array([number[q.track_id] for q, _ in kept]),
        np.array([round(q.start_s * 2) for q, _ in kept]),
        short,
    )


def changed(queries: Queries, change: Any) -> Queries:
    waves = [
        to_int16(change(number, wave.astype(np.float32) / INT16_SCALE)[: 10 * 8_000])
        for number, wave in enumerate(queries.waves)
    ]
    return Queries(waves, queries.track, queries.start, queries.references)


def test_queries(corpus: Corpus) -> dict[str, Queries]:
    """One set for each way in which music arrives; noise and rooms of the test split in all."""
    rate = corpus.sample_rate_hz
    every = corpus.music_of("test")
    short = [cut_short(track, rate) for track in every]

    def made(number: int, snr_db: tuple[float, float], room: float, seed: int, duration_s: float = 10.0) -> Queries:
        spec = QuerySpec(number, duration_s, snr_db, room, 1.0, seed)
        return queries_of(corpus, "test", spec, every, short)

    rng = np.random.default_rng(5)
    other = NoiseBank(every, rate)

    def overlaid(number: int, wave: np.ndarray) -> np.ndarray:
        draw = torch.from_numpy(np.random.default_rng([9, number]).random(3))
        music = other.crop(other.choose(draw[:1]), draw[1:2], len(wave))[0].numpy()
        gain = np.sqrt(np.square(wave).mean() / max(np.square(music).mean(), 1e-10)) * 10 ** (-10 * float(draw[2]) / 20)
        mixed = wave + gain * music
        return mixed / max(1.0, float(np.abs(mixed).max()))

    def coded(number: int, wave: np.ndarray) -> np.ndarray:
        return code(wave, rate, *(("mp3", 16.0), ("opus", 8.0))[number % 2])[0]

    def narrow(number: int, wave: np.ndarray) -> np.ndarray:
        low, high = np.random.default_rng([7, number]).uniform([500, 1_500], [1_000, 2_500])
        return pass_band(pass_band(wave, rate, float(high), "lowpass"), rate, float(low), "highpass")

    factors = 1 + rng.choice([-1, 1], 10_000) * rng.uniform(0.02, 0.05, 10_000)
    return {
        "noise and rooms": made(900, (0.0, 10.0), 0.8, 11),
        "codecs": changed(made(350, (10.0, 20.0), 0.5, 12), coded),
        "speed": changed(made(350, (10.0, 20.0), 0.5, 13, 11.0), lambda n, w: change_speed(w, float(factors[n]))),
        "narrow bands": changed(made(350, (5.0, 15.0), 0.8, 14), narrow),
        "other music": changed(made(350, (20.0, 30.0), 0.5, 15), overlaid),
    }


def judge_validation(bench: Bench, model: Fingerprinter) -> float:
    if bench.validation is None:
        tracks = bench.corpus.music_of("val")
        short = [track.samples(8_000) for track in tracks]
        spec = QuerySpec(300, 10.0, (0.0, 10.0), 0.8, 1.0, 1)
        bench.validation = queries_of(bench.corpus, "val", spec, tracks, short)
    hits = bench.validation.hits(model)
    return float(np.mean([np.mean(hits[f"exact {length}"]) for length in LENGTHS]))


def judge_test(bench: Bench, model: Fingerprinter) -> dict[str, Any]:
    if bench.tests is None:
        bench.tests = test_queries(bench.corpus)
    sets = bench.tests
    references = embed_tracks(model, next(iter(sets.values())).references, 256)
    return {name: queries.hits(model, references) for name, queries in sets.items()}


def note(work: Path, row: dict[str, Any]) -> None:
    with (work / "runs.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def noted(work: Path) -> list[dict[str, Any]]:
    path = work / "runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def claim(work: Path, name: str) -> bool:
    """Whether this worker takes the run: the first to make its file does."""
    try:
        (work / "claims" / name.replace("/", "_")).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def cost(bench: Bench, overrides: list[str]) -> float:
    """Processor time of a step against the base's, by turns."""
    ratios = []
    for _ in range(2):
        _, base = bench.train([], 0, 8)
        _, own = bench.train(overrides, 0, 6)
        ratios.append(own / base)
    return float(np.median(ratios))


def best_setting(work: Path, variant: str) -> list[str]:
    rows = [row for row in noted(work) if row["stage"] == "screen" and row["variant"] == variant]
    return max(rows, key=lambda row: row["validation"])["setting"] if rows else []


def cost_of(work: Path, bench: Bench, variant: str, overrides: list[str]) -> float:
    for row in noted(work):
        if row["stage"] == "cost" and row["variant"] == variant:
            return row["ratio"]
    if variant == "base":
        return 1.0
    ratio = cost(bench, overrides)
    note(work, {"stage": "cost", "variant": variant, "ratio": ratio})
    return ratio


def screen(work: Path, bench: Bench) -> None:
    for variant, (overrides, settings) in VARIANTS.items():
        for number, setting in enumerate(settings):
            if claim(work, f"screen {variant} {number}"):
                steps = max(8, round(SCREEN_STEPS / cost_of(work, bench, variant, overrides)))
                model, _ = bench.train([*overrides, *setting], 0, steps)
                rate = judge_validation(bench, model)
                row = {"variant": variant, "setting": setting, "steps": steps, "validation": rate}
                print(row, flush=True)
                note(work, {"stage": "screen", **row})


def main_stage(work: Path, bench: Bench, only: list[str]) -> None:
    base = best_setting(work, "base")
    plan = {name: ([*base, *overrides] if name != "base" else base) for name, overrides in SWITCHES.items()}
    plan |= {name: [*base, *overrides] for name, overrides in RECIPES.items()}
    for name, (overrides, _) in VARIANTS.items():
        # A setting of the loss comes on top of the base's rate; one of the rate replaces it.
        setting = best_setting(work, name)
        rate = [] if any(s.startswith("optimizer.lr") for s in setting) or name == "base" else base
        plan[name] = [*overrides, *rate, *setting]
    order = only or list(plan)
    for seed in SEEDS:
        for variant in order:
            if claim(work, f"main {variant} {seed}"):
                steps = max(8, round(BASE_STEPS / cost_of(work, bench, variant, plan[variant])))
                began = time.process_time()
                model, step_s = bench.train(plan[variant], seed, steps)
                trained_s = time.process_time() - began
                hits = judge_test(bench, model)
                row = {"variant": variant, "seed": seed, "overrides": plan[variant], "steps": steps}
                row |= {"step_s": step_s, "trained_s": trained_s, "validation": judge_validation(bench, model)}
                shown = {
                    name: np.round([100 * np.mean(h[f"near {n}"]) for n in LENGTHS], 1) for name, h in hits.items()
                }
                print(row["variant"], seed, steps, round(trained_s), round(row["validation"], 3), shown, flush=True)
                note(work, {"stage": "main", **row, "hits": hits})


def race(work: Path, bench: Bench) -> None:
    """How long the full network and the compact one take to the same validation hit rate, on all cores.

    Each point is a training of its own, with a schedule as long as its steps.
    """
    tracks = bench.corpus.music_of("val")[:10]
    short = [cut_short(track, 8_000) for track in tracks]
    queries = queries_of(bench.corpus, "val", QuerySpec(120, 10.0, (0.0, 10.0), 0.8, 1.0, 2), tracks, short)
    runs = [("compact", ["optimizer.lr=2e-3"], steps) for steps in (10, 20, 40)]
    runs += [("nafp", ["model=nafp", "train.batch_size=60", "optimizer.lr=5e-4"], steps) for steps in (25,)]
    for name, overrides, steps in runs:
        began = time.perf_counter()
        model, _ = bench.train(overrides, 0, steps)
        seconds = time.perf_counter() - began
        hits = queries.hits(model)
        rates = {key: float(np.mean(hit)) for key, hit in hits.items() if not key.startswith("near")}
        row = {"network": name, "steps": steps, "seconds": seconds, "queries": len(queries.waves), **rates}
        print(row, flush=True)
        note(work, {"stage": "race", **row})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=["screen", "main", "race"])
    parser.add_argument("work", type=Path)
    parser.add_argument("--games", type=Path, required=True, help="prepared corpus, data/games")
    parser.add_argument("--only", nargs="*", default=[], help="variants of the main stage, in this order")
    arguments = parser.parse_args()
    torch.set_num_threads(2 if arguments.stage == "race" else 1)
    (arguments.work / "claims").mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments.games)
    if arguments.stage == "screen":
        screen(arguments.work, bench)
    elif arguments.stage == "race":
        race(arguments.work, bench)
    else:
        main_stage(arguments.work, bench, arguments.only)


if __name__ == "__main__":
    main()
