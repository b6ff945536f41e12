"""What training is made of."""

import logging
import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig

from melprint.build.common import plain
from melprint.build.resuming import OBJECTIVE
from melprint.data.corpora.corpus import Corpus
from melprint.data.datamodule import FingerprintData
from melprint.errors import MelprintError
from melprint.losses.chunks import refuse_batch_norm
from melprint.models.checkpoint import load
from melprint.models.fingerprinter import Fingerprinter, build_fingerprinter
from melprint.progress import console
from melprint.training.checkpoints import checkpoints
from melprint.training.module import FingerprintModule
from melprint.training.pictures import Pictures
from melprint.training.progress import ProgressBar
from melprint.training.rates import scaled_rate
from melprint.training.retrieval import RetrievalValidation
from melprint.training.throughput import Throughput


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
        fingerprinter=_network(config),
        loss=instantiate(config.loss),
        mask=instantiate(config.augment.mask, _convert_="all"),
        optimizer=instantiate(config.optimizer, lr=rate_from(config)),
        schedule=instantiate(config.scheduler),
        config={"model": plain(config.model), "config": plain(config)},
        chunk_size=chunk_size,
        seed=config.seed,
    )


def _network(config: DictConfig) -> Fingerprinter:
    fingerprinter = build_fingerprinter(**plain(config.model))
    if config.init is not None:
        begun = load(config.init)
        try:
            fingerprinter.load_state_dict(begun.state_dict())
        except RuntimeError as error:
            raise MelprintError(
                f"init={config.init} is another network than this model=…; take the one that it was trained as"
            ) from error
        if (begun.segment, begun.front_end.mel) != (fingerprinter.segment, fingerprinter.front_end.mel):
            raise MelprintError(f"init={config.init} was trained with another segment or mel than this model=…")
    return fingerprinter


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
