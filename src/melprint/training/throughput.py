"""How fast a run goes, and how long it waits for data."""

import time
from typing import Any

import pytorch_lightning as pl


class Throughput(pl.Callback):
    """Logs ``train/segments_per_s`` (views of all processes) and ``train/waiting_for_data`` (share of the time).

    By the wall clock between two logged steps: a GPU that works while the host goes on is not disturbed.
    """

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Validation and checkpoints between epochs do not count."""
        del trainer, pl_module
        self._since = self._ended = time.perf_counter()
        self._waited, self._segments = 0.0, 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """What passed since the last step ended was spent waiting."""
        del trainer, pl_module, batch, batch_idx
        self._waited += time.perf_counter() - self._ended

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log, if this step's values reach the loggers."""
        del outputs, batch_idx
        self._ended = time.perf_counter()
        replicas = 1 if trainer.datamodule is None else trainer.datamodule.chain.num_replicas
        self._segments += len(batch) * (1 + replicas) * trainer.world_size
        if trainer.global_step % trainer.log_every_n_steps == 0:
            passed = max(self._ended - self._since, 1e-9)
            pl_module.log("train/segments_per_s", self._segments / passed)
            pl_module.log("train/waiting_for_data", self._waited / passed)
            self._since, self._waited, self._segments = self._ended, 0.0, 0
