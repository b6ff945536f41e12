"""Locating a recording in another one, or in the tracks of a catalog, by name."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from melprint.audio.files import shown
from melprint.audio.streams import read_beginning
from melprint.catalog.catalog import Catalog
from melprint.errors import MelprintError
from melprint.matching.temporal import Range, similarity
from melprint.models.checkpoint import load
from melprint.models.fingerprinter import Fingerprinter
from melprint.recognition.locate import fingerprints_of_file, locate_files, locate_rows, phases_of, plot_ranges
from melprint.recognition.search import search

LOCATED_S = 3_600.0  # of a query that is looked for in a catalog
FEWEST_HITS = 3  # neighbours in a track that make it worth a look


@dataclass(frozen=True)
class Located:
    """A stretch of a recording that is a stretch of a track."""

    track: str
    query_start_s: float
    query_end_s: float
    reference_start_s: float
    reference_end_s: float
    score: float

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def locate(
    query: Path,
    reference: Path,
    *,
    plot: Path | None = None,
    model: str = "compact",
    num_tracks: int = 5,
    device: str = "cpu",
) -> list[Located]:
    """Which parts of ``query`` are which parts of ``reference``, a recording or a catalog; best track first.

    Args:
        query: a recording.
        reference: a recording, or the folder of a catalog, whose stored fingerprints are compared.
        plot: a PNG of the similarities with the ranges on it; of a catalog, those with the best track.
        model: for a recording.
        num_tracks: of a catalog, at most.
        device: of the network.

    Raises:
        MelprintError: a recording that cannot be read, or a folder that is no catalog.
    """
    if plot is not None and plot.suffix.lower() != ".png":
        raise MelprintError(f"the plot is written as PNG, got {plot}")
    if not reference.is_dir():
        fingerprinter = load(model, device)
        ranges = locate_files(fingerprinter, query, reference)
        if plot is not None:
            rows = fingerprints_of_file(fingerprinter, reference)
            _plot(plot, fingerprinter, query, rows, ranges)
        return [_located(shown(reference), found) for found in ranges]
    with Catalog.open(reference, device) as catalog:
        return _in_catalog(catalog, query, plot, num_tracks)


def _in_catalog(catalog: Catalog, query: Path, plot: Path | None, num_tracks: int) -> list[Located]:
    view = catalog.view()
    wave = read_beginning(query, catalog.segment.sample_rate_hz, LOCATED_S)
    if not len(wave):
        raise MelprintError(f"{shown(query)}: holds no audio")
    if not len(view.first):
        return []
    searched = search(catalog.fingerprinter, partial(catalog.search, view=view), [wave])
    positions = view.tracks_at(searched.neighbours)
    # Tracks that neighbours fall into; which of them align is for the temporal network to say.
    votes = np.bincount(positions[positions >= 0], minlength=len(view.first))
    likely = np.argsort(-votes, kind="stable")[: 4 * num_tracks]
    found: list[tuple[float, int, list[Range]]] = []
    phases = phases_of(catalog.fingerprinter, wave)
    for position in likely[votes[likely] >= FEWEST_HITS].tolist():
        ranges = locate_rows(phases, catalog.segment, view.rows_at(position))
        if ranges:
            weight = max((its.query_end_s - its.query_start_s) * its.score for its in ranges)
            found.append((weight, position, ranges))
    found.sort(key=lambda entry: -entry[0])
    found = found[:num_tracks]
    tracks = catalog.tracks(int(view.track_ids[position]) for _, position, _ in found)
    if plot is not None and found:
        _plot(plot, catalog.fingerprinter, query, view.rows_at(found[0][1]), found[0][2])
    return [
        _located(tracks[number].key, its)
        for _, position, ranges in found
        if (number := int(view.track_ids[position])) in tracks  # not removed meanwhile
        for its in ranges
    ]


def _plot(path: Path, fingerprinter: Fingerprinter, query: Path, reference: Any, ranges: list[Range]) -> None:
    plot_ranges(path, similarity(fingerprints_of_file(fingerprinter, query), reference), ranges, fingerprinter.segment)


def _located(track: str, found: Range) -> Located:
    return Located(
        track,
        round(found.query_start_s, 3),
        round(found.query_end_s, 3),
        round(found.reference_start_s, 3),
        round(found.reference_end_s, 3),
        round(found.score, 4),
    )
