from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

import melprint
from melprint.audio.files import write_wav
from melprint.augment.chain import WindowSpec
from melprint.augment.device import DeviceChain
from melprint.augment.filters import ApplyRoom
from melprint.augment.masks import SpectrogramMask
from melprint.augment.noise import AddNoise
from melprint.data.corpora.corpus import Corpus
from melprint.data.datamodule import FingerprintData
from melprint.data.manifest import Track
from melprint.data.queries import QuerySpec
from melprint.errors import MelprintError
from melprint.losses import NtXent
from melprint.models import build_fingerprinter, model_digest
from melprint.spec import SegmentSpec
from melprint.training.checkpoints import checkpoints
from melprint.training.module import FingerprintModule
from melprint.training.retrieval import RetrievalValidation
from melprint.training.schedule import cosine_with_warmup

RATE = 8_000
SEGMENT = SegmentSpec()
MODEL = {
    "segment": {},
    "mel": {"num_mels": 64, "unit_level": True},
    "encoder": {"_target_": "melprint.models.compact.CompactEncoder", "widths": [8, 16, 32], "num_features": 64},
    "projection": {"_target_": "melprint.models.projection.DivideAndEncode", "dim": 32, "hidden": 8},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    from tests.conftest import synthesize

    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)

    def track(name: str, split: str, pcm: np.ndarray) -> Track:
        write_wav(root / f"{name}.wav", pcm.astype(np.int16), RATE)
        return Track(name, root / f"{name}.wav", len(pcm), split, "", "", "")

    music = [track(f"m{n}", "train" if n < 4 else "val", synthesize(n, 25.0) * 20_000) for n in range(6)]
    decay = np.exp(-np.arange(1_000) / 150)
    noise = [track(f"n-{split}", split, rng.integers(-9_000, 9_000, 40_000)) for split in ("train", "val")]
    rooms = [track(f"r-{split}", split, rng.standard_normal(1_000) * decay * 9_000) for split in ("train", "val")]
    return Corpus(root, music, noise, rooms)


def chain_of(surroundings) -> DeviceChain:
    return DeviceChain(WindowSpec(SEGMENT), [ApplyRoom(surroundings), AddNoise(surroundings)], num_replicas=1)


def fit(corpus: Corpus, out: Path, epochs: int, ckpt_path: Path | None = None, stop_after: int | None = None):
    """Train for ``stop_after`` of ``epochs`` epochs."""
    pl.seed_everything(3, verbose=False)
    module = FingerprintModule(
        build_fingerprinter(**MODEL),
        NtXent(),
        SpectrogramMask(),
        partial(torch.optim.AdamW, lr=3e-3),
        partial(cosine_with_warmup, warmup_share=0.1),
        {"model": MODEL},
    )
    data = FingerprintData(corpus, chain_of, batch_size=12, seed=3)

    class Stop(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if stop_after is not None and trainer.current_epoch == stop_after:
                raise KeyboardInterrupt

    validation = RetrievalValidation(corpus, SEGMENT, QuerySpec(num_queries=20, duration_s=5.0), lengths=(1, 3, 9))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        callbacks=[Stop(), validation, *checkpoints(out, "val/top1_exact")],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    try:
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    except (KeyboardInterrupt, SystemExit):
        assert stop_after is not None
    return module, trainer


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(corpus: Corpus, tmp_path: Path) -> None:
    whole, trainer = fit(corpus, tmp_path / "whole", epochs=4)
    fit(corpus, tmp_path / "twice", epochs=4, stop_after=2)
    resumed, again = fit(corpus, tmp_path / "twice", epochs=4, ckpt_path=tmp_path / "twice" / "last.ckpt")
    assert model_digest(resumed.fingerprinter) == model_digest(whole.fingerprinter)
    assert trainer.callback_metrics["val/top1_exact"] == again.callback_metrics["val/top1_exact"]
    assert trainer.global_step == again.global_step > 0


def test_training_finds_queries_that_an_untrained_network_does_not(corpus: Corpus, tmp_path: Path) -> None:
    """Of 98 places, chance finds one; a minute of synthetic notes is learnt in a few dozen steps."""
    validation = RetrievalValidation(corpus, SEGMENT, QuerySpec(num_queries=40, duration_s=5.0), lengths=(1, 9))
    torch.manual_seed(0)
    before = validation.measure(build_fingerprinter(**MODEL).eval())
    module, _ = fit(corpus, tmp_path, epochs=12)
    after = validation.measure(module.fingerprinter.eval())
    assert after["val/top1_exact_5s"] > before["val/top1_exact_5s"] + 0.2
    assert set(after) == {"val/top1_exact", "val/top1_exact_1s", "val/top1_exact_5s"}
    opened = melprint.load(tmp_path / "last.ckpt")
    assert model_digest(opened) == model_digest(module.fingerprinter)


def test_validation_of_a_perfect_fingerprinter_is_perfect(corpus: Corpus) -> None:
    """Queries without noise or room, on the grid: the waveform itself is a fingerprint that finds them."""
    validation = RetrievalValidation(corpus, SEGMENT, QuerySpec(num_queries=10, duration_s=5.0), lengths=(1, 9))
    validation.query_waves = [
        validation.reference_waves[t][s * 4_000 : s * 4_000 + 40_000]
        for t, s in zip(validation.true_track, validation.true_start, strict=True)
    ]

    class Waveform(nn.Module):
        segment, dim = SEGMENT, 8_000
        weight = nn.Parameter(torch.zeros(1))

        def forward(self, wave: torch.Tensor) -> torch.Tensor:
            return nn.functional.normalize(wave, dim=1)

    model = Waveform()
    model.register_parameter("used", Waveform.weight)
    assert validation.measure(model)["val/top1_exact"] == 1.0  # type: ignore[arg-type]


def test_short_validation_queries_are_refused(corpus: Corpus) -> None:
    with pytest.raises(MelprintError, match="hold no 19 segments"):
        RetrievalValidation(corpus, SEGMENT, QuerySpec(duration_s=5.0))


def rates(schedule: Callable[..., torch.optim.lr_scheduler.LRScheduler], steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = schedule(optimizer, steps)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_the_rate_rises_in_a_line_and_falls_in_half_a_cosine() -> None:
    seen = rates(partial(cosine_with_warmup, warmup_share=0.2, floor=0.1), 100)
    np.testing.assert_allclose(seen[:20], 2 * np.arange(1, 21) / 20)
    np.testing.assert_allclose(seen[20:], 2 * (0.1 + 0.9 * (1 + np.cos(np.pi * np.arange(80) / 80)) / 2))
    with pytest.raises(MelprintError, match="warmup_share"):
        rates(partial(cosine_with_warmup, warmup_share=1.0), 10)


def test_lamb_of_torch_optimizer_trains_the_module(corpus: Corpus) -> None:
    import torch_optimizer

    module = build_fingerprinter(**MODEL)
    optimizer = torch_optimizer.Lamb(module.parameters(), lr=1e-2)
    before = model_digest(module)
    NtXent()(module(torch.randn(8, 8_000)).unflatten(0, (4, 2))).backward()
    optimizer.step()
    assert model_digest(module) != before
