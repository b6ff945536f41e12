"""What training is made of."""

import json
import logging
import os
import pickle
import shutil
import warnings
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig

from melprint.build.common import plain
from melprint.data.corpora.corpus import Corpus
from melprint.data.datamodule import FingerprintData
from melprint.data.manifest import replacing
from melprint.errors import MelprintError
from melprint.losses.chunks import refuse_batch_norm
from melprint.models.fingerprinter import build_fingerprinter
from melprint.progress import console
from melprint.training.checkpoints import LAST, checkpoints
from melprint.training.module import FingerprintModule
from melprint.training.pictures import Pictures
from melprint.training.progress import ProgressBar
from melprint.training.rates import scaled_rate
from melprint.training.retrieval import RetrievalValidation
from melprint.training.throughput import Throughput
from melprint.version import __version__

FINISHED = "training.json"  # its presence says that the run was not cut short
OBJECTIVE = "val/top1_exact"


# What makes a run what it is: a checkpoint goes on only in a run that has the same.
RECIPE = ("model", "loss", "augment", "optimizer", "scheduler", "data", "train", "lr_scaling", "seed", "trainer")
FREE = ("train.num_workers", "train.chunk_size")  # change how a run is computed, not what
TRAINER = ("devices", "num_nodes", "precision", "limit_train_batches", "accumulate_grad_batches", "gradient_clip_val")
LENGTH = ("trainer.max_epochs", "trainer.max_steps")  # may grow, and the schedule with them


def module_from(config: DictConfig) -> FingerprintModule:
    """The network with its loss and optimizer.

    Raises:
        MelprintError: a chunk size that is none, or one that batch normalisation forbids.
    """
    chunk_size = config.train.chunk_size
    if chunk_size is not None:
        if not isinstance(chunk_size, int) or chunk_size < 1:
            raise MelprintError(f"train.chunk_size must be a positive whole number or null, got {chunk_size!r}")
        if config.train.batch_size % chunk_size and chunk_size < config.train.batch_size:
            console.print(
                f"train.chunk_size={chunk_size} does not divide train.batch_size={config.train.batch_size}:"
                f" the last chunk has {config.train.batch_size % chunk_size} items",
                highlight=False,
                soft_wrap=True,
            )
    return FingerprintModule(
        fingerprinter=build_fingerprinter(**plain(config.model)),
        loss=instantiate(config.loss),
        mask=instantiate(config.augment.mask, _convert_="all"),
        optimizer=instantiate(config.optimizer, lr=rate_from(config)),
        schedule=instantiate(config.scheduler),
        config={"model": plain(config.model), "config": plain(config)},
        chunk_size=chunk_size,
        seed=config.seed,
    )


def rate_from(config: DictConfig) -> float:
    """The peak of the learning rate for the batch of all devices; said aloud where a rule changes it."""
    rule, reference = config.lr_scaling.rule, config.lr_scaling.batch_size
    batch_size = config.train.batch_size * num_devices(config)
    rate = scaled_rate(config.optimizer.lr, rule, batch_size, reference)
    if rule != "none":
        console.print(
            f"learning rate {config.optimizer.lr:g} for {reference} items, {rule}: {rate:.4g} for {batch_size}",
            highlight=False,
            soft_wrap=True,
        )
    return rate


def num_devices(config: DictConfig) -> int:
    """Processes of a run: as torchrun or SLURM started them, or as the trainer will."""
    for variable in ("WORLD_SIZE", "SLURM_NTASKS"):
        if os.environ.get(variable, "").isdigit() and not is_interactive_slurm():
            return int(os.environ[variable])
    devices = config.trainer.devices
    if devices in ("auto", -1, "-1"):
        devices = torch.cuda.device_count() or 1
    count = len(devices) if isinstance(devices, ListConfig) else int(devices)
    return count * int(config.trainer.get("num_nodes", 1))


def is_interactive_slurm() -> bool:
    """Whether Lightning would take this SLURM allocation for a shell and not for a job."""
    return os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")


def data_from(config: DictConfig, corpus: Corpus, module: FingerprintModule) -> FingerprintData:
    """Training batches of a corpus."""
    chain = instantiate(config.augment.chain, _convert_="all")
    segment = module.fingerprinter.segment
    if segment.sample_rate_hz != corpus.sample_rate_hz:
        raise MelprintError(
            f"the model takes {segment.sample_rate_hz} Hz, the corpus has {corpus.sample_rate_hz} Hz; change one"
        )
    if not isinstance(config.train.batch_size, int):
        raise MelprintError(f"train.batch_size must be a whole number, got {config.train.batch_size!r}")
    options = {key: value for key, value in plain(config.train).items() if key != "chunk_size"}
    return FingerprintData(corpus, partial(chain, segment=segment), seed=config.seed, **options)


def trainer_from(config: DictConfig, corpus: Corpus, module: FingerprintModule, out: Path) -> pl.Trainer:
    """The trainer with retrieval validation, checkpoints and loggers below ``out``."""
    from pytorch_lightning.callbacks import LearningRateMonitor

    every, epochs = config.validation.every_n_epochs, config.trainer.max_epochs
    if not 1 <= every <= (epochs if epochs and epochs > 0 else every):
        raise MelprintError(
            f"validation.every_n_epochs must lie between 1 and trainer.max_epochs={epochs}, got {every}"
        )
    validation = RetrievalValidation(
        corpus,
        module.fingerprinter.segment,
        instantiate(config.validation.queries, _convert_="all"),
        max_references_s=config.validation.max_references_s,
        every_n_epochs=every,
    )
    check_trainer(config)
    _quieten_lightning()
    loggers = [instantiate(node, save_dir=str(out)) for node in config.logger.values()]
    kept = checkpoints(out / "checkpoints", OBJECTIVE, every, config.checkpoint_minutes)
    callbacks: list[pl.Callback] = [validation, *kept]
    if loggers:
        callbacks += [LearningRateMonitor("step"), Throughput(), Pictures(config.pictures_every_n_epochs)]
    if config.trainer.get("enable_progress_bar", True):
        callbacks.append(ProgressBar())
    options: dict[str, Any] = {"logger": loggers, "callbacks": callbacks, "default_root_dir": str(out)}
    if config.trainer.accelerator == "auto":  # the same choice as device=auto; draws need float64, which MPS lacks
        options["accelerator"] = "gpu" if torch.cuda.is_available() else "cpu"
    trainer: pl.Trainer = instantiate(config.trainer, use_distributed_sampler=False, **options)
    if trainer.world_size > 1 and not config.trainer.get("sync_batchnorm", False):
        refuse_batch_norm(module.fingerprinter, f"training on {trainer.world_size} devices")
    return trainer


def refuse_devices_in_sweep(trainer: pl.Trainer) -> None:
    """Each job of a sweep runs in the process that its launcher started.

    Raises:
        MelprintError: the trainer would start more, by calling the whole sweep again.
    """
    if trainer.world_size > 1 and type(trainer.strategy.launcher).__name__ == "_SubprocessScriptLauncher":
        raise MelprintError(
            f"a job of a sweep cannot start {trainer.world_size} processes by itself; give each job one device, or"
            " start as many tasks with sweep=slurm hydra.launcher.tasks_per_node=…"
        )


def check_trainer(config: DictConfig) -> None:
    """Refuse what would fail later and less clearly.

    Raises:
        MelprintError: an option of the trainer or its logging that cannot be.
    """
    trainer = config.trainer
    for name, value in (
        ("trainer.log_every_n_steps", trainer.log_every_n_steps),
        ("pictures_every_n_epochs", config.pictures_every_n_epochs),
    ):
        if not isinstance(value, int) or value < 1:
            raise MelprintError(f"{name} must be a positive whole number, got {value!r}")
    if trainer.max_epochs in (-1, None) and trainer.max_steps in (-1, None):
        raise MelprintError(
            f"a run needs an end for its schedule: set trainer.max_epochs or trainer.max_steps,"
            f" got {trainer.max_epochs} and {trainer.max_steps}"
        )
    if trainer.get("gradient_clip_val") and str(trainer.precision).startswith("16") and config.optimizer.get("fused"):
        raise MelprintError("trainer.gradient_clip_val with precision=16-mixed needs optimizer.fused=false")


def fit(trainer: pl.Trainer, module: FingerprintModule, data: FingerprintData, ckpt_path: str | None) -> None:
    """Train, from a checkpoint if there is one.

    Raises:
        KeyboardInterrupt: as Lightning would not say it.
    """
    try:
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    except SystemExit as stopped:
        if trainer.interrupted:
            raise KeyboardInterrupt from stopped
        raise


def is_first_process() -> bool:
    """Whether this is the process that prepares the run's folder; Lightning and torchrun number the others."""
    return all(os.environ.get(variable, "0") == "0" for variable in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


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


def _quieten_lightning() -> None:
    """Tips for another product, and warnings that nobody here can act on."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for message in (
        ".*LeafSpec.*",
        ".*your dataloader is not resumable.*",  # the sampler goes on where the checkpoint was written
        ".*sync_dist=True.*",  # the loss is that of all processes already
        ".*Detected call of `lr_scheduler.step.*",
        ".*smaller than the logging interval.*",
        ".*does not have many workers.*",
    ):
        warnings.filterwarnings("ignore", message)


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
