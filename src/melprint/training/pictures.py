"""What a person looks at and listens to while a network trains."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from melprint.augment.chain import TrainingBatch, Views
from melprint.training.images import spectrogram_sheet, to_pixels

SIMILARITY_ITEMS = 32
EXAMPLES = 4


class Pictures(pl.Callback):
    """Similarities, spectrograms and one sound of the first batch of an epoch, to every logger that shows them.

    ``pictures/similarity``: cosines of originals (rows) and first replicas (columns), a bright diagonal on a dark
    ground once the network has learnt; ``pictures/views``: masked spectrograms of some items, originals in the first
    row; ``sounds/original`` and ``sounds/replica``: one item before and after the augmentation.

    Args:
        every_n_epochs: epochs between two sets of pictures.
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        self.every_n_epochs = every_n_epochs

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After the first step of an epoch that is due."""
        del outputs
        if batch_idx or trainer.current_epoch % self.every_n_epochs or not trainer.is_global_zero:
            return
        loggers = [logger for logger in trainer.loggers if _shows_images(logger)]
        if not loggers:
            return
        views, similarity, log_mel = self._look(pl_module, batch)
        step = trainer.global_step
        sheet = spectrogram_sheet(log_mel)
        matrix = to_pixels(similarity, low=0.0, high=1.0)
        rate = pl_module.fingerprinter.segment.sample_rate_hz
        for logger in loggers:
            _show_image(logger, "pictures/similarity", matrix, step)
            _show_image(logger, "pictures/views", sheet, step)
            _play(logger, "sounds/original", views.anchors[0], rate, step)
            _play(logger, "sounds/replica", views.replicas[0, 0], rate, step)

    @torch.no_grad()
    def _look(self, module: Any, batch: TrainingBatch) -> tuple[Views, NDArray[np.float32], NDArray[np.float32]]:
        views = batch.views(slice(0, min(SIMILARITY_ITEMS, len(batch))))
        waves = torch.cat([views.anchors[:, None], views.replicas], dim=1)
        log_mel = module.fingerprinter.front_end(waves.flatten(0, 1))
        if module.mask is not None:
            log_mel = module.mask(log_mel, views.mask_draws.flatten(0, 1))
        was_training = module.fingerprinter.training
        module.fingerprinter.eval()
        fingerprints = module.fingerprinter.embed(log_mel).unflatten(0, waves.shape[:2])
        module.fingerprinter.train(was_training)
        similarity = fingerprints[:, 0] @ fingerprints[:, 1].T
        shown = log_mel.unflatten(0, waves.shape[:2])[:EXAMPLES]
        return views, similarity.float().cpu().numpy(), shown.transpose(0, 1).float().cpu().numpy()


def _shows_images(logger: Any) -> bool:
    return hasattr(logger, "log_image") or hasattr(logger.experiment, "add_image")


def _show_image(logger: Any, name: str, pixels: NDArray[np.uint8], step: int) -> None:
    if hasattr(logger, "log_image"):  # wandb
        logger.log_image(name, [pixels], step=step)
    else:  # TensorBoard
        logger.experiment.add_image(name, pixels, step, dataformats="HWC")


def _play(logger: Any, name: str, wave: Tensor, sample_rate_hz: int, step: int) -> None:
    samples = (wave / wave.abs().amax().clamp_min(1e-5)).float().cpu().numpy()
    if hasattr(logger, "log_audio"):
        logger.log_audio(name, [samples], step=step, sample_rate=[sample_rate_hz])
    else:
        logger.experiment.add_audio(name, samples[None], step, sample_rate=sample_rate_hz)
