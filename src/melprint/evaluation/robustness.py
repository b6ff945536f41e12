"""One factor at a time: how hit rates fall with noise, rooms, codecs, speed and the rest.

Axes: B queries · J segments of a query.  Cells are finished one by one, and an interrupted grid goes on with the next.
"""

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melprint.audio.codecs import CODECS, has_codec
from melprint.audio.files import to_int16
from melprint.audio.framing import segments_of
from melprint.data.manifest import write_rows
from melprint.errors import MelprintError
from melprint.evaluation.localisation import Located, located_outcome
from melprint.evaluation.metrics import cluster_interval, summary
from melprint.evaluation.scene import UNITS, Scene, render
from melprint.evaluation.stores import TestStores
from melprint.fingerprints.embedding import embed_segments
from melprint.fingerprints.rows import Rows
from melprint.index.base import Index
from melprint.matching.sequence import Borders, match_sequences
from melprint.models.checkpoint import model_digest
from melprint.models.fingerprinter import Fingerprinter
from melprint.progress import console, progress_bar
from melprint.version import __version__

NUM_NEIGHBOURS = 20
REVISION = 2  # to be raised when cells would come out otherwise
EMBEDDED_AT_ONCE = 256
COLUMNS = (
    *("factor", "unit", "level", "note", "num_segments", "seconds", "num_queries", "num_songs"),
    *(f"top1_{kind}{bound}" for kind in ("exact", "near", "song") for bound in ("", "_low", "_high")),
    *("song_cluster_low", "song_cluster_high"),
)


@dataclass(frozen=True)
class Grid:
    """Everything a grid is measured with.

    Attributes:
        scene: renders queries.
        model: fingerprints them.
        stores: what they are looked for in.
        index: built from the rows of the stores.
        lengths: of queries, in segments.
    """

    scene: Scene
    model: Fingerprinter
    stores: TestStores
    index: Index
    lengths: Sequence[int]

    def run(self, folder: Path) -> list[dict[str, Any]]:
        """Measure every cell that is not finished in ``folder``; rows of all cells.

        Raises:
            MelprintError: queries too short for the longest length.
        """
        longest = self.model.segment.num_segments(self.scene.num_samples)
        if max(self.lengths) > longest:
            raise MelprintError(
                f"queries of {self.scene.spec.duration_s} s have {longest} segments, too few for lengths={self.lengths}"
            )
        cells = folder / f"cells-{self._key()}"
        rows: list[dict[str, Any]] = []
        wanted = [
            (factor, float(level))
            for factor, levels in self.scene.spec.factors.items()
            if self._can(factor)
            for level in levels
        ]
        if not wanted:
            raise MelprintError("no factor of this grid can be measured here; study.grid.factors names others")
        with progress_bar("robustness", len(wanted)) as advance:
            for factor, level in wanted:
                path = cells / f"{factor} {level:g}.csv"
                if not path.exists():
                    write_rows(path, COLUMNS, ([row[name] for name in COLUMNS] for row in self.cell(factor, level)))
                with path.open(newline="", encoding="utf-8") as file:
                    rows += [{name: _number(value) for name, value in row.items()} for row in csv.DictReader(file)]
                advance(1)
        return rows

    def cell(self, factor: str, level: float) -> list[dict[str, Any]]:
        """Hit rates of one factor at one level, for every length."""
        waves, start_s, note = render(self.scene, factor, level)
        segments = np.concatenate([segments_of(to_int16(wave), self.model.segment) for wave in waves])
        queries = Rows([embed_segments(self.model, segments, EMBEDDED_AT_ONCE)])
        hit_rows = self.index.search(queries.parts[0], NUM_NEIGHBOURS).rows
        if factor == "music":  # a louder track that is enrolled would be found with reason
            playing = {track.track_id for track in self.scene.music_tracks}
            numbers = [number for number, name in enumerate(self.names) if name in playing]
            hit_rows[np.isin(self.borders.track_of(hit_rows), numbers)] = -1
        per_query = len(segments) // len(waves)
        matches = match_sequences(
            queries,
            hit_rows,
            np.arange(len(waves)) * per_query,
            np.full(len(waves), per_query),
            self.lengths,
            self.references,
            self.borders,
            num_best=1,
        )
        hop_s = self.model.segment.hop_s
        rows = []
        for length in self.lengths:
            located = Located.first_of(matches[length], hop_s)
            figures = located_outcome(located, self.true_track, start_s, hop_s)
            rates = summary(figures)
            low, high = cluster_interval(figures.song.astype(float), self.true_track)
            rows.append(
                {
                    **rates,
                    "factor": factor,
                    "unit": UNITS[factor],
                    "level": f"{level:g}",
                    "note": note,
                    "num_segments": length,
                    "seconds": self.model.segment.query_seconds(length),
                    "num_songs": len(np.unique(self.true_track)),
                    "song_cluster_low": low,
                    "song_cluster_high": high,
                }
            )
        return rows

    @cached_property
    def references(self) -> Rows:
        """All rows that are searched."""
        return Rows([store.rows for store in self.stores.searched()])

    @cached_property
    def borders(self) -> Borders:
        """Of all tracks that are searched."""
        sizes = [track.num_rows for store in self.stores.searched() for track in store.tracks]
        return Borders(np.cumsum([0, *sizes]))

    @property
    def names(self) -> list[str]:
        """All tracks that are searched."""
        return [track.track_id for store in self.stores.searched() for track in store.tracks]

    @cached_property
    def true_track(self) -> NDArray[np.int64]:
        """The track of each query among all that are searched."""
        number = {name: position for position, name in enumerate(self.names)}
        try:
            return np.array([number[track.track_id] for track in self.scene.tracks])
        except KeyError as error:
            raise MelprintError(
                f"the track {error} of the corpus is not in {self.stores.db.folder}; generate the stores from it"
            ) from error

    def _can(self, factor: str) -> bool:
        coder = "opus" if factor == "rerecorded" else factor
        if coder in CODECS and not has_codec(coder):
            console.print(f"left out {factor}: no encoder for {coder} is installed", highlight=False)
            return False
        if factor == "music" and not self.scene.music_tracks:
            console.print("left out: this corpus has no music but that which is asked for", highlight=False)
            return False
        if factor == "speech" and not self.scene.speech_tracks:
            console.print("left out: this corpus has no speech; give it noise in a folder speech/", highlight=False)
            return False
        return True

    def _key(self) -> str:
        """Cells of other stores, models, music or settings are others."""
        spec = self.scene.spec
        parts = [
            self.stores.digest(),
            model_digest(self.model),
            [(track.track_id, track.sha256) for track in (*self.scene.tracks, *self.scene.corpus.noise)],
            [__version__, REVISION, spec.num_queries, spec.duration_s, spec.seed, list(self.lengths), self.index.name],
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
