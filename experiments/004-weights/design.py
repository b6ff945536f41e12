"""Compare designs at equal processor time, on validation tracks: ``python experiments/004-weights/design.py WORK``.

Each variant trains on one core for the same seconds (steps = seconds / what a step of its own takes); every run leaves
a line in WORK/design.jsonl, and runs that are there are not repeated.  Several processes may work on one folder.
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
from melprint.build.common import corpus_from
from melprint.build.training import data_from, module_from
from melprint.data.queries import QueryRenderer, QuerySpec
from melprint.fingerprints.embedding import embed_tracks
from melprint.models.fingerprinter import Fingerprinter

CONF = Path(__file__).parents[2] / "conf"
PLACES = (0, 6, 12, 18)  # segments of a 10 s query that are asked by themselves, as queries of 1 s


def widths(*channels: int, features: int = 512) -> list[str]:
    return [f"model.encoder.widths=[{','.join(map(str, channels))}]", f"model.encoder.num_features={features}"]


VARIANTS: dict[str, list[str]] = {
    "compact 32": ["model=small"],
    "compact 48": widths(48, 96, 192, 256),
    "compact 48, batch 256": [*widths(48, 96, 192, 256), "train.batch_size=256", "optimizer.lr=3e-3"],
    "compact 64": widths(64, 128, 256, 384, features=1024),
    "compact 64, stem 4x2": [*widths(64, 128, 256, 384, features=1024), "model.encoder.stem=[4,2]"],
    "compact 96": widths(96, 192, 384, 512, features=1024),
    "residual 32": ["model=residual", *widths(32, 64, 128, 256), "model.encoder.blocks=[1,1,1,1]"],
    "residual 48": ["model=residual", *widths(48, 96, 192, 256, features=1024), "model.encoder.blocks=[1,1,1,1]"],
    "compact 48, temperature 0.08": [*widths(48, 96, 192, 256), "loss.temperature=0.08"],
    "compact 48, rate 4e-3": [*widths(48, 96, 192, 256), "optimizer.lr=4e-3"],
    "compact 48, rate 1e-3": [*widths(48, 96, 192, 256), "optimizer.lr=1e-3"],
    "nafp-120, as published": ["experiment=nafp-120"],
    "nmfp, as published": ["experiment=nmfp", "train.batch_size=256"],
    "compact 48, no masks": [*widths(48, 96, 192, 256), "augment.mask=null"],
}


class Judge:
    """Degraded queries of the validation tracks; references are all of these tracks."""

    def __init__(self, corpus: Any, split: str = "val", num_queries: int = 800) -> None:
        self.tracks = corpus.music_of(split)
        spec = QuerySpec(num_queries, 10.0, (0.0, 10.0), 0.8, 1.0, 1)
        rendered = list(QueryRenderer(spec, self.tracks, corpus.surroundings(split)))
        number = {track.track_id: position for position, track in enumerate(self.tracks)}
        self.waves = [wave for _, wave in rendered]
        self.track = np.array([number[query.track_id] for query, _ in rendered])
        self.start = np.array([round(query.start_s * 2) for query, _ in rendered])
        self.references = [track.samples(8_000) for track in self.tracks]

    def rates(self, model: Fingerprinter) -> dict[str, float]:
        """Near and right-track rates of queries of 1 s, and the rate of 10 s by the mean of similarities."""
        rows, first = embed_tracks(model, self.references, 256)
        queries, _ = embed_tracks(model, self.waves, 256)
        track_of_row = np.repeat(np.arange(len(first) - 1), np.diff(first))
        similar = torch.from_numpy(np.asarray(queries, np.float32)) @ torch.from_numpy(np.asarray(rows, np.float32)).T
        similar = similar.view(len(self.waves), 19, -1)
        best = similar[:, PLACES].argmax(2).numpy()
        truth = first[self.track][:, None] + self.start[:, None] + np.array(PLACES)
        song = track_of_row[best] == self.track[:, None]
        near = song & (np.abs(best - truth) <= 1)
        whole = sum(similar[:, i, i : similar.shape[2] - 18 + i] for i in range(19)).argmax(1).numpy()
        return {
            "near 1 s": float(near.mean()),
            "song 1 s": float(song.mean()),
            "near 10 s": float((np.abs(whole - truth[:, 0]) <= 1).mean()),
        }


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


def config_of(games: Path, overrides: list[str], seed: int) -> DictConfig:
    fixed = ["data=games", f"data.corpus.root={games}"]
    if not any(override.startswith(("experiment=", "model=")) for override in overrides):
        fixed += ["model=compact"]
    if not any(override.startswith("experiment=") for override in overrides):
        fixed += ["experiment=robust", "scheduler.warmup_share=0.05"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [*fixed, f"seed={seed}", *overrides])


def train(corpus: Any, config: DictConfig, steps: int) -> tuple[Fingerprinter, float]:
    pl.seed_everything(config.seed, verbose=False)
    module = module_from(config)
    clock = StepClock()
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, callbacks=[clock], enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data_from(config, corpus, module))
    return module.fingerprinter.eval(), float(np.median(clock.seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--games", type=Path, default=Path("data/games"))
    parser.add_argument("--seconds", type=float, default=200.0, help="processor time of each training")
    parser.add_argument("--only", nargs="*", default=[], help="variants; by default all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    corpus = corpus_from(config_of(arguments.games, [], 0))
    judge = Judge(corpus)
    for name in arguments.only or VARIANTS:
        claim = arguments.work / f"{name} {arguments.seconds:g} {arguments.seed}.claim"
        if claim.exists():
            continue
        claim.touch()
        config = config_of(arguments.games, VARIANTS[name], arguments.seed)
        _, step_s = train(corpus, config, 8)
        steps = round(arguments.seconds / step_s)
        model, step_s = train(corpus, config, steps)
        millions = sum(weight.numel() for weight in model.parameters()) / 1e6
        row = {"variant": name, "seed": arguments.seed, "seconds": arguments.seconds, "steps": steps}
        row |= {"step_s": round(step_s, 4), "parameters_m": round(millions, 2), **judge.rates(model)}
        print(row, flush=True)
        with (arguments.work / "design.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
