"""The last fingerprints of a stream with their neighbours, true to a catalog that changes meanwhile.

Axes: R rows · K neighbours · T samples · D fingerprint size.
"""

import numpy as np
from numpy.typing import NDArray

from melprint.audio.framing import segments_of
from melprint.catalog.catalog import Catalog
from melprint.catalog.view import View
from melprint.recognition.search import embed_audible


class Recent:
    """Fingerprints of a stream as it comes.

    Args:
        catalog: that they are looked up in.
        num_neighbours: K.

    Attributes:
        rows: the last fingerprints ``(R, D)``, zero where there was silence.
        neighbours: of each, rows of :attr:`view` ``(R, K)``.
        count: segments since the beginning.
    """

    def __init__(self, catalog: Catalog, num_neighbours: int) -> None:
        self.catalog, self.num_neighbours = catalog, num_neighbours
        self.waiting = np.empty(0, np.int16)  # audio from the next segment on
        self.rows = np.empty((0, catalog.fingerprinter.dim), np.float32)
        self.neighbours = np.empty((0, num_neighbours), np.int64)
        self.count = 0
        self._view: View | None = None

    @property
    def oldest(self) -> int:
        """Number of the first segment that is kept."""
        return self.count - len(self.rows)

    def feed(self, pcm_T: NDArray[np.int16], keep: int) -> None:
        """Take the next samples, and keep so many of the last segments."""
        segment = self.catalog.segment
        self.waiting = np.concatenate([self.waiting, pcm_T])
        if len(self.waiting) < segment.num_samples:
            return
        segments = segments_of(self.waiting, segment)
        self.waiting = self.waiting[len(segments) * segment.hop_samples :]
        rows, _ = embed_audible(self.catalog.fingerprinter, segments)
        view = self.view()
        neighbours = self._search(rows, view)
        self.rows = np.concatenate([self.rows, rows])[-keep - len(rows) :]
        self.neighbours = np.concatenate([self.neighbours, neighbours])[-keep - len(rows) :]
        self.count += len(rows)

    def view(self) -> View:
        """The catalog as it is now; neighbours are brought up to it."""
        view, known = self.catalog.view(), self._view
        if known is not None and view.generation != known.generation:
            self.neighbours = self._search(self.rows, view)  # rows have other numbers now
        elif known is not None and view.version != known.version:
            self.neighbours = np.where(view.tracks_at(self.neighbours) >= 0, self.neighbours, -1)
        self._view = view
        return view

    def _search(self, rows: NDArray[np.float32], view: View) -> NDArray[np.int64]:
        neighbours = self.catalog.search(rows, self.num_neighbours, view).rows
        neighbours[~rows.any(axis=1)] = -1
        return neighbours
