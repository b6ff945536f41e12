"""What training is made of."""

import logging
import shutil
import warnings
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from melprint.build.common import plain
from melprint.data.corpora.corpus import Corpus
from melprint.data.datamodule import FingerprintData
from melprint.errors import MelprintError
from melprint.models.fingerprinter import build_fingerprinter
from melprint.progress import console
from melprint.training.checkpoints import LAST, checkpoints
from melprint.training.module import FingerprintModule
from melprint.training.retrieval import RetrievalValidation

FINISHED = "finished"


def module_from(config: DictConfig) -> FingerprintModule:
    """The network with its loss and optimizer."""
    return FingerprintModule(
        fingerprinter=build_fingerprinter(**plain(config.model)),
        loss=instantiate(config.loss),
        mask=instantiate(config.augment.mask, _convert_="all"),
        optimizer=instantiate(config.optimizer),
        schedule=instantiate(config.scheduler),
        config={"model": plain(config.model), "config": plain(config)},
    )


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
    return FingerprintData(corpus, partial(chain, segment=segment), seed=config.seed, **plain(config.train))


def trainer_from(config: DictConfig, corpus: Corpus, module: FingerprintModule, out: Path) -> pl.Trainer:
    """The trainer with retrieval validation, checkpoints and loggers below ``out``."""
    from pytorch_lightning.callbacks import LearningRateMonitor, RichProgressBar

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
    _quieten_lightning()
    loggers = [instantiate(node, save_dir=str(out)) for node in config.logger.values()]
    callbacks: list[pl.Callback] = [validation, *checkpoints(out / "checkpoints", "val/top1_exact", every)]
    if loggers:
        callbacks.append(LearningRateMonitor("step"))
    if config.trainer.get("enable_progress_bar", True):
        callbacks.append(RichProgressBar())
    options: dict[str, Any] = {"logger": loggers, "callbacks": callbacks, "default_root_dir": str(out)}
    if config.trainer.accelerator == "auto":  # the same choice as device=auto; draws need float64, which MPS lacks
        options["accelerator"] = "gpu" if torch.cuda.is_available() else "cpu"
    trainer: pl.Trainer = instantiate(config.trainer, **options)
    if trainer.world_size > 1:
        raise MelprintError(
            f"{trainer.world_size} devices would each see their own negatives, which no loss here gathers;"
            " train with trainer.devices=1"
        )
    return trainer


def make_room(out: Path, *, overwrite: bool) -> None:
    """Put the checkpoints of an earlier run aside, or remove them: nobody is to take them for the new one's."""
    (out / FINISHED).unlink(missing_ok=True)
    checkpoints_of_old = out / "checkpoints"
    if overwrite:
        shutil.rmtree(checkpoints_of_old, ignore_errors=True)
    elif checkpoints_of_old.exists():
        aside = next(path for n in count(1) if not (path := out / f"checkpoints-{n}").exists())
        checkpoints_of_old.rename(aside)
        console.print(f"the checkpoints of the earlier run are now in {aside}", highlight=False, soft_wrap=True)


def note_finished(trainer: pl.Trainer, out: Path) -> None:
    """Leave a mark that the run in ``out`` was not cut short."""
    if trainer.state.finished:
        (out / FINISHED).touch()


def _quieten_lightning() -> None:
    """Tips for another product, and warnings that nobody here can act on."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for message in (".*LeafSpec.*", ".*smaller than the logging interval.*", ".*does not have many workers.*"):
        warnings.filterwarnings("ignore", message)


def starting_point(config: DictConfig, out: Path) -> str | None:
    """The checkpoint to go on from.

    Raises:
        MelprintError: it is not there, or an unfinished run is there that the new one would take the place of.
    """
    last = out / "checkpoints" / f"{LAST}.ckpt"
    if config.ckpt_path is None:
        if last.exists() and not config.overwrite and not (out / FINISHED).exists():
            raise MelprintError(
                f"{out} holds an unfinished run; go on with ckpt_path=last, begin anew with overwrite=true,"
                " or choose another name=…"
            )
        return None
    path = last if config.ckpt_path == LAST else Path(config.ckpt_path)
    if not path.exists():
        raise MelprintError(f"there is no checkpoint {path} to go on from; leave ckpt_path out to begin anew")
    return str(path)
