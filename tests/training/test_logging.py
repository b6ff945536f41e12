"""What people look at, read back from where it was written."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from melprint.losses import NtXent
from melprint.models import build_fingerprinter
from melprint.training.images import spectrogram_sheet, to_pixels
from melprint.training.module import FingerprintModule
from melprint.training.pictures import Pictures
from melprint.training.schedule import cosine_with_warmup
from melprint.training.throughput import Throughput
from tests.training.test_training import MODEL, corpus, make_data  # noqa: F401  (a fixture)

SCALARS = {
    "train/loss", "train/gradient_norm", "train/alignment", "train/uniformity", "train/segments_per_s",
    "train/waiting_for_data",
}  # fmt: skip
PICTURES = {"pictures/similarity", "pictures/views"}
SOUNDS = {"sounds/original", "sounds/replica"}


def fit(corpus, logger: pl.loggers.Logger) -> FingerprintModule:  # noqa: F811
    torch.manual_seed(0)
    module = FingerprintModule(
        build_fingerprinter(**MODEL), NtXent(), None, partial(torch.optim.AdamW, lr=3e-3), cosine_with_warmup,
        {"model": MODEL},
    )  # fmt: skip
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, limit_train_batches=4, log_every_n_steps=2, logger=logger,
        callbacks=[Throughput(), Pictures(), pl.callbacks.LearningRateMonitor("step")], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=make_data(corpus))
    return module


def test_tensorboard_has_the_curves_the_pictures_and_the_sounds(corpus, tmp_path: Path) -> None:  # noqa: F811
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(corpus, pl.loggers.TensorBoardLogger(tmp_path, name="t"))
    events = EventAccumulator(str(tmp_path / "t" / "version_0"))
    events.Reload()
    tags = events.Tags()
    assert SCALARS | {"lr-AdamW"} <= set(tags["scalars"])
    assert set(tags["images"]) == PICTURES
    assert set(tags["audio"]) == SOUNDS
    assert len(events.Scalars("train/loss")) == 2
    similarity = events.Images("pictures/similarity")[0]
    assert (similarity.height, similarity.width) == (12, 12)
    assert events.Audio("sounds/replica")[0].sample_rate == 8_000
    assert all(0 <= event.value <= 1 for event in events.Scalars("train/waiting_for_data"))
    assert events.Scalars("train/segments_per_s")[-1].value > 1
    assert -4.1 < events.Scalars("train/uniformity")[-1].value <= 0


@pytest.mark.slow
def test_wandb_offline_has_them_too(corpus, tmp_path: Path) -> None:  # noqa: F811
    logger = pl.loggers.WandbLogger(project="melprint", offline=True, save_dir=str(tmp_path))
    fit(corpus, logger)
    logger.experiment.finish()
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    written = path.read_bytes()  # records of protocol buffers, in which names stand as they are
    assert all(name.encode() in written for name in SCALARS | PICTURES | SOUNDS)
    media = path.parent / "files" / "media"
    assert len(list(media.rglob("*.png"))) == len(PICTURES)
    assert len(list(media.rglob("*.wav"))) == len(SOUNDS)


def test_a_matrix_becomes_colours_from_dark_to_bright() -> None:
    pixels = to_pixels(np.array([[0.0, 0.5], [1.0, 2.0]]), low=0.0, high=1.0)
    assert pixels.shape == (2, 2, 3)
    brightness = pixels.astype(int).sum(-1)
    assert brightness[0, 0] < brightness[0, 1] < brightness[1, 0] == brightness[1, 1]


def test_a_sheet_shows_low_bands_below() -> None:
    log_mel = np.zeros((1, 2, 8, 4))
    log_mel[0, 0, 0] = 1.0  # the lowest band of the first spectrogram
    sheet = spectrogram_sheet(log_mel).astype(int).sum(-1)
    top, bottom = sheet[0, 0], sheet[8 * 2 - 1, 0]
    assert bottom > top
