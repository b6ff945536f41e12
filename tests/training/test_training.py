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
from melprint.losses import NtXent, embed_in_chunks
from melprint.models import build_fingerprinter, model_digest
from melprint.spec import SegmentSpec
from melprint.training.checkpoints import checkpoints
from melprint.training.finite import FAILED_BATCH
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


class StopAt(pl.Callback):
    """An interruption at the start of an epoch, or in its middle."""

    def __init__(self, epoch: int | None, batch: int = 0) -> None:
        self.epoch, self.batch = epoch, batch

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            raise KeyboardInterrupt


def fit(
    corpus: Corpus,
    out: Path,
    epochs: int,
    ckpt_path: Path | None = None,
    stop: StopAt | None = None,
    every_steps: int | None = None,
    workers: int = 0,
    max_steps: int = -1,
    **module_options,
):
    """Train until an interruption, if there is one."""
    pl.seed_everything(3, verbose=False)
    module = make_module(**module_options)
    data = FingerprintData(corpus, chain_of, batch_size=12, seed=3, num_workers=workers)
    validation = RetrievalValidation(corpus, SEGMENT, QuerySpec(num_queries=20, duration_s=5.0), lengths=(1, 3, 9))
    callbacks: list[pl.Callback] = [validation, *checkpoints(out, "val/top1_exact")]
    if every_steps is not None:
        callbacks.append(pl.callbacks.ModelCheckpoint(out, "within", every_n_train_steps=every_steps))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        max_steps=max_steps,
        logger=False,
        callbacks=[stop or StopAt(None), *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
    )
    try:
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    except (KeyboardInterrupt, SystemExit):
        assert stop is not None
    return module, trainer


def make_module(
    optimizer=partial(torch.optim.AdamW, lr=3e-3),  # noqa: B008  (never changed)
    model=MODEL,
    dropout: float = 0.0,
    **options,
) -> FingerprintModule:
    fingerprinter = build_fingerprinter(**model)
    if dropout:
        fingerprinter.encoder.head = nn.Sequential(nn.Dropout(dropout), fingerprinter.encoder.head)
    return FingerprintModule(
        fingerprinter,
        NtXent(),
        SpectrogramMask(),
        optimizer,
        partial(cosine_with_warmup, warmup_share=0.1),
        {"model": model},
        **options,
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(corpus: Corpus, tmp_path: Path, workers: int) -> None:
    whole, trainer = fit(corpus, tmp_path / "whole", epochs=4)
    fit(corpus, tmp_path / "twice", epochs=4, stop=StopAt(2), workers=workers)
    last = tmp_path / "twice" / "last.ckpt"
    resumed, again = fit(corpus, tmp_path / "twice", epochs=4, ckpt_path=last, workers=workers)
    assert model_digest(resumed.fingerprinter) == model_digest(whole.fingerprinter)
    assert trainer.callback_metrics["val/top1_exact"] == again.callback_metrics["val/top1_exact"]
    assert trainer.global_step == again.global_step > 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_goes_on_in_the_middle_of_an_epoch(corpus: Corpus, tmp_path: Path, workers: int) -> None:
    """Data order, schedule, moments and what dropout draws are those of a run that was never interrupted."""
    options = {"dropout": 0.2}
    whole, _ = fit(corpus, tmp_path / "whole", epochs=2, **options)
    fit(corpus, tmp_path / "twice", epochs=2, stop=StopAt(1, batch=5), every_steps=3, **options)
    (within,) = (tmp_path / "twice").glob("within*.ckpt")
    assert torch.load(within, weights_only=True)["global_step"] % len(make_data(corpus).sampler) not in (0, 1)
    resumed, _ = fit(corpus, tmp_path / "twice", epochs=2, ckpt_path=within, workers=workers, **options)
    assert model_digest(resumed.fingerprinter) == model_digest(whole.fingerprinter)


def test_a_run_that_ends_by_steps_goes_on_after_an_epoch(corpus: Corpus, tmp_path: Path) -> None:
    """Lightning's own count of epochs is one behind there."""
    steps = round(2.5 * len(make_data(corpus).sampler))
    whole, _ = fit(corpus, tmp_path / "whole", epochs=9, max_steps=steps)
    fit(corpus, tmp_path / "twice", epochs=9, max_steps=steps, stop=StopAt(1, batch=3))
    last = tmp_path / "twice" / "last.ckpt"
    resumed, again = fit(corpus, tmp_path / "twice", epochs=9, max_steps=steps, ckpt_path=last)
    assert again.global_step == steps
    assert model_digest(resumed.fingerprinter) == model_digest(whole.fingerprinter)


def test_training_in_chunks_is_training(corpus: Corpus, tmp_path: Path) -> None:
    """The gradients of a real batch, its augmentation replayed; 12 items in chunks of 5."""

    def gradients(chunk_size: int | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        module, data = make_module(chunk_size=chunk_size), make_data(corpus)
        batch = data.on_after_batch_transfer(data.dataset[next(iter(data.sampler))], 0)
        views = embed_in_chunks(lambda items: module.embed(batch, items), len(batch), chunk_size)
        module.loss(views).backward()
        return {name: parameter.grad for name, parameter in module.fingerprinter.named_parameters()}

    whole = gradients(None)
    for name, value in gradients(5).items():
        torch.testing.assert_close(value, whole[name], rtol=1e-3, atol=1e-6)


def test_chunks_and_batch_normalisation_exclude_each_other() -> None:
    normalised = {**MODEL, "encoder": {**MODEL["encoder"], "norm": "batch_norm"}}
    with pytest.raises(MelprintError, match=r"train\.chunk_size would change .* batch normalisation of encoder"):
        make_module(model=normalised, chunk_size=4)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_batch(corpus: Corpus, tmp_path: Path) -> None:
    module, data = make_module(optimizer=partial(torch.optim.SGD, lr=1e30)), make_data(corpus)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises(MelprintError, match=r"the loss became nan at step \d+ of epoch 0, at a learning rate of"):
        trainer.fit(module, datamodule=data)
    kept = torch.load(tmp_path / FAILED_BATCH, weights_only=True)
    again = data.on_after_batch_transfer(data.dataset[kept["keys"].numpy()], 0).views(slice(None))
    assert torch.equal(kept["replicas"], again.replicas)
    assert kept["step"] >= 1


def test_a_failed_loss_among_gathered_ones_is_seen_before_anything_is_saved(corpus: Corpus, tmp_path: Path) -> None:
    """As on a GPU, where steps are looked at together."""
    module, data = make_module(optimizer=partial(torch.optim.SGD, lr=1e30)), make_data(corpus)
    module.finite.check = lambda module, batch, loss: module.finite.waiting.append(  # type: ignore[method-assign]
        (module.global_step, batch.source.keys, loss.detach())
    )
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, limit_train_batches=4, logger=False, callbacks=checkpoints(tmp_path, "x")[1:],
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises(MelprintError, match="the loss became nan at step 1"):
        trainer.fit(module, datamodule=data)
    assert not list(tmp_path.glob("*.ckpt"))
    assert torch.load(tmp_path / FAILED_BATCH, weights_only=True)["step"] == 1


def make_data(corpus: Corpus) -> FingerprintData:
    return FingerprintData(corpus, chain_of, batch_size=12, seed=3)


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
