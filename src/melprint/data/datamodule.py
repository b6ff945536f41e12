"""The Lightning data module: training batches from a corpus, degraded by a chain."""

from collections.abc import Callable
from typing import Any, Literal

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from melprint.augment.banks import Surroundings
from melprint.augment.chain import AugmentChain, SegmentBatch, Views
from melprint.data.corpora.corpus import Corpus
from melprint.data.dataset import WindowDataset
from melprint.data.samplers import BatchSampler, DisjointSampler, OnePerTrackSampler
from melprint.errors import MelprintError


class FingerprintData(pl.LightningDataModule):
    """Training batches of clean and degraded views.

    Args:
        corpus: prepared audio.
        chain: makes the chain from the noise and the rooms of the training split.
        batch_size: items (originals) of a batch; the network sees ``1 + replicas`` times as many views.
        sampling: ``disjoint`` (every segment, never two that overlap) or ``one-per-track``.
        num_workers: processes that read and, with a host chain, degrade.
        seed: of the run.
    """

    def __init__(
        self,
        corpus: Corpus,
        chain: Callable[[Surroundings], AugmentChain],
        batch_size: int,
        sampling: Literal["disjoint", "one-per-track"] = "disjoint",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.corpus, self.batch_size, self.num_workers, self.seed = corpus, batch_size, num_workers, seed
        self.chain = chain(corpus.surroundings("train"))
        self.dataset = WindowDataset(corpus.music_of("train"), self.chain, seed)
        table = self.dataset.table
        self.sampler: BatchSampler
        match sampling:
            case "disjoint":
                self.sampler = DisjointSampler(table, self.chain.window, batch_size, seed)
            case "one-per-track":
                self.sampler = OnePerTrackSampler(table, batch_size, seed=seed)
            case _:
                raise MelprintError(f"sampling must be disjoint or one-per-track, got {sampling!r}")

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of one epoch; the trainer tells the sampler which."""
        # A resumed trainer makes its first iterator before it tells.
        if self.trainer is not None:
            self.sampler.set_epoch(self.trainer.current_epoch)
        return DataLoader(
            self.dataset,
            sampler=self.sampler,  # type: ignore[arg-type]  # gives whole batches: batch_size is None
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=False,
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Views:
        """Degrade on the device, unless the workers already did."""
        del dataloader_idx
        if not isinstance(batch, SegmentBatch):
            return batch
        chain: Any = self.chain
        return chain.to(batch.windows.device)(batch)
