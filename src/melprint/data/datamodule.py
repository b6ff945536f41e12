"""The Lightning data module: training batches from a corpus, degraded by a chain."""

from collections.abc import Callable
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from melprint.augment.banks import Surroundings
from melprint.augment.chain import AugmentChain, SegmentBatch, TrainingBatch
from melprint.data.corpora.corpus import Corpus
from melprint.data.dataset import WindowDataset
from melprint.data.samplers import BatchSampler, DisjointSampler, OnePerTrackSampler, Share
from melprint.errors import MelprintError


class FingerprintData(pl.LightningDataModule):
    """Training batches of clean and degraded views.

    Args:
        corpus: prepared audio.
        chain: makes the chain from the noise and the rooms of the training split.
        batch_size: items (originals) of a batch in each process; the network sees ``1 + replicas`` views of each.
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
        self.sampling = sampling
        self.chain = chain(corpus.surroundings("train"))
        self.dataset = WindowDataset(corpus.music_of("train"), self.chain, seed)
        self.sampler = self.make_sampler(Share())

    def make_sampler(self, share: Share) -> BatchSampler:
        """The order of batches, of which one process takes its share.

        Raises:
            MelprintError: the tracks do not give such a batch.
        """
        table = self.dataset.table
        match self.sampling:
            case "disjoint":
                return DisjointSampler(table, self.chain.window, self.batch_size, self.seed, share)
            case "one-per-track":
                return OnePerTrackSampler(table, self.batch_size, seed=self.seed, share=share)
        raise MelprintError(f"sampling must be disjoint or one-per-track, got {self.sampling!r}")

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of one epoch, or what is left of the one that a checkpoint was written in."""
        if self.trainer is not None and self.trainer.world_size > 1:
            self.sampler = self.make_sampler(Share(self.trainer.global_rank, self.trainer.world_size))
        return DataLoader(
            self.dataset,
            sampler=self.sampler,  # type: ignore[arg-type]  # gives whole batches: batch_size is None
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def go_on(self) -> None:
        """Begin the first epoch of a resumed run after the batches that its checkpoint has seen."""
        loop: Any = self.trainer.fit_loop if self.trainer is not None else None
        if loop is not None and loop.restarting:
            self.sampler.first_batch = loop.epoch_loop.batch_progress.current.processed % len(self.sampler)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Without waiting: the batch is pinned where there is a GPU."""
        del dataloader_idx
        return type(batch)(*(part.to(device, non_blocking=True) for part in batch))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> TrainingBatch:
        """Degraded on the device when a step asks for it, unless the workers already did."""
        del dataloader_idx
        if isinstance(batch, SegmentBatch):
            chain: Any = self.chain
            return TrainingBatch(batch, chain.to(batch.windows.device))
        return TrainingBatch(batch)
