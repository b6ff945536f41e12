"""The Lightning data module: training batches from a corpus, degraded by a chain."""

import math
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
        passes: with ``one-per-track``, segments that an epoch takes of each track; by default as many as it has.
        num_workers: processes that read and, with a host chain, degrade.
        seed: of the run.
    """

    def __init__(
        self,
        corpus: Corpus,
        chain: Callable[[Surroundings], AugmentChain],
        batch_size: int,
        sampling: Literal["disjoint", "one-per-track"] = "disjoint",
        passes: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.corpus, self.batch_size, self.num_workers, self.seed = corpus, batch_size, num_workers, seed
        self.sampling, self.passes = sampling, passes
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
                return OnePerTrackSampler(table, self.batch_size, self.passes, self.seed, share)
        raise MelprintError(f"sampling must be disjoint or one-per-track, got {self.sampling!r}")

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of one epoch, or what is left of the one that a checkpoint was written in."""
        if self.trainer is not None and self.trainer.world_size > 1:
            self.sampler = self.make_sampler(Share(self.trainer.global_rank, self.trainer.world_size))
        self.sampler.position = self.position
        return DataLoader(
            self.dataset,
            sampler=self.sampler,  # type: ignore[arg-type]  # gives whole batches: batch_size is None
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def position(self) -> tuple[int, int] | None:
        """The epoch, and how many of its batches are done, by all batches that the run has seen.

        The trainer's own count of epochs will not do: a resumed trainer tells it too late for workers that read
        ahead, and with ``max_steps`` it is that of the epoch before.
        """
        if self.trainer is None:
            return None
        loop: Any = self.trainer.fit_loop
        per_epoch = self.trainer.num_training_batches
        per_epoch = len(self.sampler) if not per_epoch or math.isinf(per_epoch) else int(per_epoch)
        return divmod(loop.epoch_loop.batch_progress.total.processed, per_epoch)

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
