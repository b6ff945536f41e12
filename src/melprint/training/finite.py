"""Stopping at a loss that is no number, with what led to it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melprint.augment.chain import TrainingBatch
from melprint.errors import MelprintError

FAILED_BATCH = "failed-batch.pt"


class FiniteLoss:
    """Watches the losses of a run.

    On a CPU every step is looked at before it changes the weights.  On a GPU looking would make the host wait, so
    steps are gathered and looked at together, as often as values are logged.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[int, Tensor, Tensor]] = []

    def check(self, module: Any, batch: TrainingBatch, loss: Tensor) -> None:
        """Note the loss of a step, and stop the run at one that is not finite.

        Raises:
            MelprintError: says the step and the rate, and where the batch was kept.
        """
        self.waiting.append((module.global_step, batch.source.keys, loss.detach()))
        if loss.device.type == "cpu" or module.logs_now:
            self.look(module)

    def look(self, module: Any) -> None:
        """Look at the steps that were gathered.

        Raises:
            MelprintError: as :meth:`check`.
        """
        if not self.waiting:
            return
        finite = torch.isfinite(torch.stack([value for _, _, value in self.waiting])).tolist()
        if not all(finite):
            failed = self.waiting[finite.index(False)]
            self.waiting.clear()
            self._stop(module, *failed)
        self.waiting.clear()

    def _stop(self, module: Any, step: int, keys: Tensor, loss: Tensor) -> None:
        rate = module.trainer.optimizers[0].param_groups[0]["lr"]
        rank = f"-{module.global_rank}" if module.global_rank else ""  # the loss is of all, the batch of each
        path = Path(module.trainer.default_root_dir) / FAILED_BATCH.replace(".pt", f"{rank}.pt")
        data = module.trainer.datamodule  # the same keys give the same batch
        batch = data.on_after_batch_transfer(data.dataset[keys.cpu().numpy()], 0)
        views = batch.views(slice(None))
        torch.save(
            {
                "step": step,
                "epoch": module.current_epoch,
                "learning_rate": rate,
                "loss": loss.cpu(),
                "keys": keys.cpu(),
                "anchors": views.anchors.cpu(),
                "replicas": views.replicas.cpu(),
            },
            path,
        )
        raise MelprintError(
            f"the loss became {loss.item()} at step {step} of epoch {module.current_epoch}, at a learning rate of"
            f" {rate:.3g}; lower optimizer.lr or lengthen the warm-up, and go on from the last checkpoint with"
            f" ckpt_path=last, or look at the batch, which is in {path}"
        )
