"""Validation by what the network is for: degraded queries are searched among clean references."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray

from melprint.data.corpora.corpus import Corpus
from melprint.data.queries import Query, QueryRenderer, QuerySpec
from melprint.errors import MelprintError
from melprint.fingerprints.embedding import embed_tracks
from melprint.fingerprints.rows import Rows
from melprint.index.exact import ExactIndex
from melprint.matching.sequence import Borders, match_sequences
from melprint.models.fingerprinter import Fingerprinter
from melprint.progress import console
from melprint.spec import SegmentSpec

NUM_NEIGHBOURS = 20


class RetrievalValidation(pl.Callback):
    """After training epochs, logs the top-1 hit rate of degraded queries (exact search, exact place).

    Logs ``val/top1_exact_Ns`` for each query length of N seconds, and their mean as ``val/top1_exact``.

    Args:
        corpus: gives the ``val`` tracks, noise and rooms.
        queries: how the queries are made; once, before the first validation.
        lengths: query lengths in segments.
        max_references_s: music in the references; further tracks are left out to keep validation short.
        every_n_epochs: epochs between two validations.
        batch_size: segments that are embedded at once.
    """

    def __init__(
        self,
        corpus: Corpus,
        segment: SegmentSpec,
        queries: QuerySpec,
        lengths: Sequence[int] = (1, 3, 5, 9, 19),
        max_references_s: float = 3_600.0,
        every_n_epochs: int = 1,
        batch_size: int = 256,
    ) -> None:
        self.lengths, self.every_n_epochs, self.batch_size = tuple(lengths), every_n_epochs, batch_size
        if queries.duration_s is None or queries.duration_s < segment.query_seconds(max(lengths)):
            raise MelprintError(
                f"validation queries of {queries.duration_s} s hold no {max(lengths)} segments; lengthen them"
            )
        tracks = corpus.music_of("val")
        total = np.cumsum([track.num_samples for track in tracks]) / corpus.sample_rate_hz
        self.tracks = tracks[: 1 + int(np.searchsorted(total, max_references_s))]
        self.segment, self.renderer = segment, QueryRenderer(queries, self.tracks, corpus.surroundings("val"))

    @cached_property
    def _rendered(self) -> list[tuple[Query, NDArray[np.int16]]]:
        return list(self.renderer)

    @cached_property
    def query_waves(self) -> list[NDArray[np.int16]]:
        """Degraded queries; rendered once, before the first validation."""
        return [wave for _, wave in self._rendered]

    @cached_property
    def reference_waves(self) -> list[NDArray[np.int16]]:
        """The clean tracks."""
        return [track.samples(self.renderer.sample_rate_hz) for track in self.tracks]

    @cached_property
    def true_track(self) -> NDArray[np.int64]:
        """The number of each query's track."""
        number = {track.track_id: position for position, track in enumerate(self.tracks)}
        return np.array([number[query.track_id] for query, _ in self._rendered])

    @cached_property
    def true_start(self) -> NDArray[np.int64]:
        """The segment of its track that each query begins nearest to."""
        return np.array([round(query.start_s / self.segment.hop_s) for query, _ in self._rendered])

    def measure(self, fingerprinter: Fingerprinter) -> dict[str, float]:
        """Hit rate at each length."""
        references, first = embed_tracks(fingerprinter, self.reference_waves, self.batch_size)
        queries, first_segment = embed_tracks(fingerprinter, self.query_waves, self.batch_size)
        index = ExactIndex()
        index.build(Rows([references]))
        matches = match_sequences(
            Rows([queries]),
            index.search(queries, NUM_NEIGHBOURS).rows,
            first_segment[:-1],
            np.diff(first_segment),
            self.lengths,
            Rows([references]),
            Borders(first),
            num_best=1,
        )
        rates = {}
        for length in self.lengths:
            hit = (matches[length].track[:, 0] == self.true_track) & (matches[length].start[:, 0] == self.true_start)
            rates[f"val/top1_exact_{fingerprinter.segment.query_seconds(length):g}s"] = float(hit.mean())
        return {"val/top1_exact": float(np.mean(list(rates.values()))), **rates}

    def _measure_in_evaluation(self, fingerprinter: Fingerprinter) -> dict[str, float]:
        was_training = fingerprinter.training
        fingerprinter.eval()
        try:
            return self.measure(fingerprinter)
        finally:
            fingerprinter.train(was_training)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Measure, log, and say it in a line."""
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        # One process measures; the others wait for what it found.
        rates = self._measure_in_evaluation(pl_module.fingerprinter) if trainer.is_global_zero else {}
        rates = trainer.strategy.broadcast(rates)
        pl_module.log_dict(rates)
        if trainer.is_global_zero:
            by_length = "  ".join(
                f"{pl_module.fingerprinter.segment.query_seconds(length):g} s {100 * rate:.1f} %"
                for length, rate in zip(self.lengths, list(rates.values())[1:], strict=True)
            )
            console.print(
                f"epoch {trainer.current_epoch + 1}: validation, top-1 exact: {by_length}",
                highlight=False,
                soft_wrap=True,
            )
