"""The bar of a training."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar


class ProgressBar(RichProgressBar):
    """Lightning's bar, whose figures change as often as values are logged: reading them makes a GPU's host wait."""

    _shown: dict[str, Any] | None = None

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The figures beside the bar."""
        every: Any = getattr(trainer, "log_every_n_steps", 1)
        if self._shown is None or trainer.global_step % every == 0:
            self._shown = super().get_metrics(trainer, pl_module)
        return self._shown
