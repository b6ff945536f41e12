"""Which checkpoints a run keeps."""

from pathlib import Path

from pytorch_lightning.callbacks import ModelCheckpoint

BEST, LAST = "best", "last"


def checkpoints(folder: Path, monitor: str, every_n_epochs: int = 1) -> list[ModelCheckpoint]:
    """Callbacks that keep ``best.ckpt`` and ``last.ckpt``.

    Two callbacks, because Lightning's ``save_last`` writes only when the best changes as well.

    Args:
        folder: of the checkpoints.
        monitor: the value of which more is better.
        every_n_epochs: as often as it is measured.
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
    return [best, last]
