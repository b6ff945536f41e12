"""What an index is.  Axes: Q query segments · K neighbours · D fingerprint size."""

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from melprint.fingerprints.rows import Rows


class Hits(NamedTuple):
    """Neighbours of query segments, best first.

    Attributes:
        scores: ``(Q, K)``, in the index's own measure.
        rows: int64 ``(Q, K)``; -1 where nothing was found.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]


class Index(Protocol):
    """Holds the rows of a store and finds the nearest of them.

    Attributes:
        name: as it stands in tables.
    """

    name: str

    def check(self, rows: Rows, train_rows: int | None = None) -> None:
        """Refuse before any work what :meth:`build` could not do with these rows.

        Raises:
            MelprintError: one sentence with the reason.
        """

    def build(self, rows: Rows, train_rows: int | None = None, path: Path | None = None) -> None:
        """Train on the first ``train_rows`` rows (all by default) and add all rows.

        Args:
            rows: to be searched.
            train_rows: how many of them to train on.
            path: where the index is going to be saved: one that lives on disk grows there.
        """

    def search(self, queries_QD: NDArray[np.float32], k: int) -> Hits:
        """The ``k`` nearest rows of each query segment."""

    def save(self, path: Path) -> None:
        """Write the built index; complete or absent."""

    def load(self, path: Path, rows: Rows, *, mmap: bool = False) -> None:
        """Read what :meth:`save` wrote for the same rows, or map it where the kind of index can be mapped.

        Raises:
            MelprintError: it is damaged, or holds another number or size of rows.
        """

    def release(self) -> None:
        """Give memory and connections back; what was saved can be loaded again."""

    def settings(self) -> dict[str, object]:
        """Everything that changes the built index (search parameters do not)."""

    def bytes_per_vector(self) -> float:
        """Size of the built index divided by its rows."""
