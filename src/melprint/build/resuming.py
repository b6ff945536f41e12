"""Runs that end, are cut short, and go on."""

import json
import os
import pickle
import shutil
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from melprint.build.common import plain
from melprint.data.manifest import replacing
from melprint.errors import MelprintError
from melprint.progress import console
from melprint.training.checkpoints import LAST
from melprint.version import __version__

OBJECTIVE = "val/top1_exact"
FINISHED = "training.json"  # its presence says that the run was not cut short

# What makes a run what it is: a checkpoint goes on only in a run that has the same.
RECIPE = (
    "model",
    "loss",
    "augment",
    "optimizer",
    "scheduler",
    "data",
    "train",
    "lr_scaling",
    "seed",
    "init",
    "trainer",
)
FREE = ("train.num_workers", "train.chunk_size")  # change how a run is computed, not what
TRAINER = ("devices", "num_nodes", "precision", "limit_train_batches", "accumulate_grad_batches", "gradient_clip_val")
LENGTH = ("trainer.max_epochs", "trainer.max_steps")  # may grow, and the schedule with them


def starting_point(config: DictConfig, out: Path, *, in_sweep: bool = False) -> str | None:
    """The checkpoint to go on from; a sweep that is started again goes on by itself.

    Raises:
        MelprintError: it is not there, or an unfinished run is there that the new one would take the place of.
    """
    last = out / "checkpoints" / f"{LAST}.ckpt"
    if config.ckpt_path is None:
        if last.exists() and not config.overwrite and not (out / FINISHED).exists():
            if in_sweep:
                refuse_other_recipe(last, config)
                return str(last)
            if not is_first_process():  # the first one says it
                return None
            raise MelprintError(
                f"{out} holds an unfinished run; go on with ckpt_path=last, begin anew with overwrite=true,"
                " or choose another name=…"
            )
        return None
    path = last if config.ckpt_path == LAST else Path(config.ckpt_path)
    if not path.exists():
        raise MelprintError(f"there is no checkpoint {path} to go on from; leave ckpt_path out to begin anew")
    refuse_other_recipe(path, config)
    return str(path)


def refuse_other_recipe(path: Path, config: DictConfig) -> None:
    """A run that goes on must be the run that was begun.

    Raises:
        MelprintError: names what differs, or the file is no checkpoint of a training.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        begun = content["hyper_parameters"]["config"]
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise MelprintError(f"{path} is not a checkpoint that training can go on from") from error
    now = plain(config)
    before, after = ({**_flat({part: run.get(part) for part in RECIPE})} for run in (begun, now))
    differing = [
        f"{key} ({before.get(key, 'absent')}, here {after.get(key, 'absent')})"
        for key in sorted(set(before) | set(after))
        if before.get(key) != after.get(key) and _matters(key)
    ]
    for key in LENGTH:
        if before.get(key) != after.get(key):
            console.print(
                f"{key} was {before.get(key)} and is {after.get(key)}: the learning rate follows the new length",
                highlight=False,
                soft_wrap=True,
            )
    if differing:
        shown = "; ".join(differing[:4]) + (f"; and {len(differing) - 4} more" if len(differing) > 4 else "")
        raise MelprintError(
            f"{path} is of another recipe: it was trained with {shown}; go on with the same options, or begin a run of"
            " another name=…"
        )


def _matters(key: str) -> bool:
    part, _, option = key.partition(".")
    return option in TRAINER if part == "trainer" else key not in FREE


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, Mapping) and values:
        return {
            name: leaf
            for key, value in values.items()
            for name, leaf in _flat(value, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    return {prefix: values}


def make_room(out: Path, *, overwrite: bool, going_on: bool = False) -> None:
    """Put the checkpoints of an earlier run aside, or remove them: nobody is to take them for the new one's."""
    if not is_first_process():
        return
    (out / FINISHED).unlink(missing_ok=True)
    if going_on:
        return
    checkpoints_of_old = out / "checkpoints"
    if overwrite:
        shutil.rmtree(checkpoints_of_old, ignore_errors=True)
    elif checkpoints_of_old.exists():
        aside = next(path for n in count(1) if not (path := out / f"checkpoints-{n}").exists())
        checkpoints_of_old.rename(aside)
        console.print(f"the checkpoints of the earlier run are now in {aside}", highlight=False, soft_wrap=True)


def is_first_process() -> bool:
    """Whether this is the process that prepares the run's folder; Lightning and torchrun number the others."""
    return all(os.environ.get(variable, "0") == "0" for variable in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def note_finished(config: DictConfig, trainer: pl.Trainer, out: Path, overrides: Sequence[str]) -> float:
    """Leave a mark that the run in ``out`` was not cut short, with what it reached.

    Returns:
        The last validation hit rate, which sweeps maximise; no number where nothing was validated.
    """
    rates = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
    if trainer.state.finished and trainer.is_global_zero:
        said = {
            "objective": rates.get(OBJECTIVE),
            "rates": rates,
            "changed": list(overrides),
            "steps": trainer.global_step,
            "date": date.today().isoformat(),
            "version": __version__,
            "recipe": _recipe(config),
        }
        with replacing(out / FINISHED) as file:
            json.dump(said, file, indent=1)
    return rates.get(OBJECTIVE, float("nan"))


def objective_if_finished(config: DictConfig, out: Path) -> float | None:
    """What an earlier run of the very same recipe reached in ``out``, if it came to its end.

    A sweep that is started again skips such runs.
    """
    path = out / FINISHED
    if config.overwrite or not path.exists():
        return None
    said = json.loads(path.read_text(encoding="utf-8"))
    if said["recipe"] != json.loads(json.dumps(_recipe(config))) or said["objective"] is None:
        return None
    console.print(f"{out} is finished", highlight=False, soft_wrap=True)
    return float(said["objective"])


def _recipe(config: DictConfig) -> dict[str, Any]:
    run = plain(config)
    return {part: run.get(part) for part in RECIPE}
