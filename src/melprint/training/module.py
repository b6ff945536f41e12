"""The Lightning module.  Axes: B items · V views of an item · T samples · D fingerprint size."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from melprint.augment.chain import Views
from melprint.models.fingerprinter import Fingerprinter


class FingerprintModule(pl.LightningModule):
    """Trains a fingerprinter with a loss on the views of each item.

    Args:
        fingerprinter: the network.
        loss: fingerprints ``(B, V, D)`` to a scalar.
        mask: holes in the spectrograms of all views, or ``None``.
        optimizer: parameters to optimizer.
        schedule: optimizer and number of steps to a scheduler that is stepped with every batch.
        config: plain values that rebuild the network, under ``model``; they go into the checkpoint.
    """

    def __init__(
        self,
        fingerprinter: Fingerprinter,
        loss: nn.Module,
        mask: nn.Module | None,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        schedule: Callable[[Optimizer, int], LRScheduler],
        config: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.save_hyperparameters(dict(config))
        self.fingerprinter = fingerprinter
        self.loss = loss
        self.mask = mask
        self.make_optimizer = optimizer
        self.make_schedule = schedule

    def training_step(self, batch: Views, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        del batch_idx
        views_BVT = torch.cat([batch.anchors[:, None], batch.replicas], dim=1)
        log_mel = self.fingerprinter.front_end(views_BVT.flatten(0, 1))
        if self.mask is not None:
            log_mel = self.mask(log_mel, batch.mask_draws.flatten(0, 1))
        fingerprints = self.fingerprinter.embed(log_mel).unflatten(0, views_BVT.shape[:2])
        loss = self.loss(fingerprints)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(views_BVT))
        return loss

    def configure_optimizers(self) -> Any:
        """One optimizer, its rate scheduled by step."""
        optimizer = self.make_optimizer(self.parameters())
        scheduler = self.make_schedule(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
