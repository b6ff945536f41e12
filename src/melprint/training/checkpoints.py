"""Which checkpoints a run keeps."""

from datetime import timedelta
from pathlib import Path

from pytorch_lightning.callbacks import ModelCheckpoint

BEST, LAST = "best", "last"


def checkpoints(
    folder: Path, monitor: str, every_n_epochs: int = 1, every_minutes: float | None = None
) -> list[ModelCheckpoint]:
    """Callbacks that keep ``best.ckpt`` and ``last.ckpt``.

    More than one callback, because Lightning's ``save_last`` writes only when the best changes as well, and a callback
    that goes by the clock does not write at the end of an epoch.

    Args:
        folder: of the checkpoints.
        monitor: the value of which more is better.
        every_n_epochs: as often as it is measured.
        every_minutes: ``last`` is also written within epochs, so often.
    """
    best = ModelCheckpoint(
        folder,
        BEST,
        monitor=monitor,
        mode="max",
        every_n_epochs=every_n_epochs,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    last = ModelCheckpoint(folder, LAST, enable_version_counter=False, save_on_train_epoch_end=True)
    if every_minutes is None:
        return [best, last]
    by_clock = ModelCheckpoint(
        folder,
        LAST,
        train_time_interval=timedelta(minutes=every_minutes),
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )
    return [best, last, by_clock]
