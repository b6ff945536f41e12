"""The Lightning module.  Axes: B items · V views of an item · T samples · D fingerprint size."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from melprint.augment.chain import TrainingBatch
from melprint.losses import alignment, embed_in_chunks, gather_views, uniformity
from melprint.losses.chunks import refuse_batch_norm
from melprint.models.fingerprinter import Fingerprinter
from melprint.randomness import rng_for
from melprint.training.finite import FiniteLoss


class FingerprintModule(pl.LightningModule):
    """Trains a fingerprinter with a loss on the views of each item, of all processes together.

    Args:
        fingerprinter: the network.
        loss: fingerprints ``(B, V, D)`` to a scalar.
        mask: holes in the spectrograms of all views, or ``None``.
        optimizer: parameters to optimizer.
        schedule: optimizer and number of steps to a scheduler that is stepped with every batch.
        config: plain values that rebuild the network, under ``model``; they go into the checkpoint.
        chunk_size: items whose activations are held at once, see :func:`melprint.losses.embed_in_chunks`.
        seed: of what the network draws (dropout); by step and process, so that a resumed run draws the same.
    """

    def __init__(
        self,
        fingerprinter: Fingerprinter,
        loss: nn.Module,
        mask: nn.Module | None,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        schedule: Callable[[Optimizer, int], LRScheduler],
        config: Mapping[str, Any],
        chunk_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if chunk_size is not None:
            refuse_batch_norm(fingerprinter, "train.chunk_size")
        self.save_hyperparameters(dict(config))
        self.fingerprinter = fingerprinter
        self.loss = loss
        self.mask = mask
        self.make_optimizer = optimizer
        self.make_schedule = schedule
        self.chunk_size, self.seed = chunk_size, seed
        self.finite = FiniteLoss()

    def on_train_start(self) -> None:
        """Begin a resumed run where its checkpoint was written.

        The trainer made its iterator to count the batches, before it knew of the checkpoint; workers have read ahead.
        """
        loop: Any = self.trainer.fit_loop
        if loop.epoch_loop.batch_progress.total.processed:
            iter(loop._data_fetcher)

    def on_train_end(self) -> None:
        """No failed loss stays unseen."""
        self.finite.look(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Nothing is saved after a failed loss."""
        del checkpoint
        self.finite.look(self)

    def on_train_batch_start(self, batch: TrainingBatch, batch_idx: int) -> None:
        """A stream of its own for every step and process."""
        del batch, batch_idx
        torch.manual_seed(int(rng_for(self.seed, self.global_step, self.global_rank).integers(2**63)))

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        del batch_idx
        fingerprints = embed_in_chunks(lambda items: self.embed(batch, items), len(batch), self.chunk_size, self.device)
        views_BVD = gather_views(fingerprints)
        loss = self.loss(views_BVD)
        self.finite.check(self, batch, loss)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch))
        if self.logs_now:
            with torch.no_grad():
                self.log("train/alignment", alignment(views_BVD), batch_size=len(batch))
                self.log("train/uniformity", uniformity(views_BVD), batch_size=len(batch))
        return loss

    def embed(self, batch: TrainingBatch, items: slice) -> Tensor:
        """Fingerprints ``(items, V, D)`` of the views of some items."""
        with torch.no_grad():
            views = batch.views(items)
            views_BVT = torch.cat([views.anchors[:, None], views.replicas], dim=1)
            log_mel = self.fingerprinter.front_end(views_BVT.flatten(0, 1))
            if self.mask is not None:
                log_mel = self.mask(log_mel, views.mask_draws.flatten(0, 1))
        return self.fingerprinter.embed(log_mel).unflatten(0, views_BVT.shape[:2])

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """The norm of the gradient, as often as other values are logged."""
        if self.logs_now:
            grads = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
            norm = torch.nn.utils.get_total_norm(grads)
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
                norm = norm / scaler.get_scale()  # a fused optimizer takes the scale off by itself, later
            self.log("train/gradient_norm", norm)

    @property
    def logs_now(self) -> bool:
        """Whether this step's values reach the loggers."""
        trainer: Any = self.trainer
        return (self.global_step + 1) % trainer.log_every_n_steps == 0

    def configure_optimizers(self) -> Any:
        """One optimizer, its rate scheduled by step."""
        optimizer = self.make_optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        scheduler = self.make_schedule(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
