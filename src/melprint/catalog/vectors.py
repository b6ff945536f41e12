"""Where nearest fingerprints are looked up: compared exactly, in a faiss index that grows, or in Milvus.

Axes: Q query segments · K neighbours · N rows · D fingerprint size.

Each kind covers the rows of a catalog up to some row; what was added since is compared exactly by
:func:`nearest`, so a track is found from the moment it is in the database, whatever happened to the index.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from melprint.catalog.view import View
from melprint.errors import MelprintError
from melprint.fingerprints.rows import Rows
from melprint.index.base import Hits
from melprint.index.exact import ExactIndex
from melprint.index.faiss import FaissIndex

EXACT = "exact"
AUTO = "auto"
MILVUS = "milvus"
EXACT_UP_TO = 30_000  # rows of "auto": comparing with all takes about 25 ms a query of 10 s on 2 cores
AUTO_FAISS = "ivf-sq8"
# As in conf/index, by inner product: what an operator chooses between.  docs/scale.md compares them.
FAISS_KINDS: dict[str, dict[str, Any]] = {
    "ivf-sq8": {"factory": "IVF{lists},SQ8", "lists_per_sqrt": 1.0, "search": {"nprobe": 12}},
    "ivfpq": {"factory": "IVF{lists},PQ64x8", "lists_per_sqrt": 1.0, "search": {"nprobe": 32}},
    "hnsw": {"factory": "HNSW16,SQ8", "construction": {"efConstruction": 80}, "search": {"efSearch": 64}},
}
TAIL_ROWS = 20_000  # compared exactly, before the index is made to follow
TAIL_SHARE = 0.02
GROWN = 4  # an index whose lists were learnt on a quarter of the rows is learnt again
FEWEST_PER_LIST = 39  # what faiss asks for
TRIES = 10


class Vectors(Protocol):
    """One kind of search.

    Attributes:
        name: as it stands in ``info``.
    """

    name: str

    def refuse(self, dim: int) -> None:
        """Say what a new catalog lacks for fingerprints of ``dim`` numbers.

        Raises:
            MelprintError: with what to install, to start or to change.
        """

    def covered(self, view: View) -> int:
        """Rows from this one on are not in the index, or not yet."""

    def search(self, view: View, queries_QD: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """The ``k`` nearest rows, best first, -1 for none; fewer columns if there cannot be more.

        Rows of removed tracks may be among them, or ``len(view.rows)`` in the place of what the view does not have.
        """

    def follow(self, view: View, *, anew: bool = False) -> None:
        """Bring the index up to the catalog's rows; only one process does at a time.

        Args:
            view: of the catalog.
            anew: make it from the beginning.
        """

    def forget(self, track_ids: Iterable[int]) -> None:
        """Drop rows of removed tracks where that is possible; they are left out of answers anyway."""

    def drop(self) -> None:
        """Remove what it keeps; another kind has taken its place."""

    def check(self, view: View) -> list[str]:
        """What is wrong with the index, in sentences."""

    def num_bytes(self) -> int:
        """Size on this machine."""

    def close(self) -> None:
        """Give memory and connections back."""


class ExactVectors:
    """Nothing but the rows themselves."""

    name = EXACT

    def refuse(self, dim: int) -> None:
        """Nothing."""

    def covered(self, view: View) -> int:
        """None: all are compared."""
        del view
        return 0

    def search(self, view: View, queries_QD: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Nothing is covered."""
        del view
        return np.full((len(queries_QD), k), -1, np.int64)

    def follow(self, view: View, *, anew: bool = False) -> None:
        """Nothing to do."""

    def forget(self, track_ids: Iterable[int]) -> None:
        """Nothing to do."""

    def drop(self) -> None:
        """Nothing to do."""

    def check(self, view: View) -> list[str]:
        """Nothing can be wrong."""
        del view
        return []

    def num_bytes(self) -> int:
        """Nothing."""
        return 0

    def close(self) -> None:
        """Nothing to do."""


class FaissVectors:
    """A faiss index in a file of the catalog's folder, mapped by readers; a longer one takes its place.

    Args:
        folder: of the catalog.
        kind: of :data:`FAISS_KINDS`.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind, self.name = folder, kind, kind
        self.opened: tuple[Path, FaissIndex] | None = None

    def refuse(self, dim: int) -> None:
        """Faiss that is not installed."""
        self._empty()

    def covered(self, view: View) -> int:
        """Rows of the newest index of this generation that has no more than the view."""
        newest = self._newest(view)
        return self._rows_of(newest) if newest else 0

    def search(self, view: View, queries_QD: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """By the newest index."""
        newest = self._newest(view)
        if newest is None:
            return np.full((len(queries_QD), k), -1, np.int64)
        if self.opened is None or self.opened[0] != newest:
            index = self._empty()
            index.load(newest, Rows([view.rows.parts[0][: self._rows_of(newest)]]), mmap=True)
            self.opened = (newest, index)
        return self.opened[1].search(queries_QD, min(k, self._rows_of(newest))).rows

    def follow(self, view: View, *, anew: bool = False) -> None:
        """Add what is missing once it is much, or learn the lists again once the rows have grown a lot."""
        total = len(view.rows)
        newest = None if anew else self._newest(view)
        covered = self._rows_of(newest) if newest else 0
        if total - covered <= (max(TAIL_ROWS, TAIL_SHARE * total) if newest else 0):
            return
        index = self._empty()
        if total < self._fewest_rows(total):
            return  # too few to learn lists from: compared exactly
        learnt_on = self._learnt_on(newest) if newest else 0
        if newest is not None and total <= GROWN * learnt_on:
            index.load(newest, Rows([view.rows.parts[0][:covered]]))
            index.extend(Rows([view.rows.parts[0][covered:]]))
        else:
            index.build(view.rows)
            learnt_on = total
        path = self.folder / f"index-{self.kind}-{view.generation}-{learnt_on}-{total}.faiss"
        index.save(path)
        for old in self._files():
            if old != path:
                old.unlink(missing_ok=True)  # whoever has it mapped keeps it

    def forget(self, track_ids: Iterable[int]) -> None:
        """Rows stay until the catalog is compacted."""

    def drop(self) -> None:
        """Remove the files."""
        self.opened = None
        for path in self.folder.glob(f"index-{self.kind}-*.faiss"):
            path.unlink(missing_ok=True)

    def check(self, view: View) -> list[str]:
        """Whether the file can be opened, and its neighbours are near."""
        newest = self._newest(view)
        if newest is None or not len(view.first):
            return []
        rows = np.linspace(0, self._rows_of(newest) - 1, min(64, self._rows_of(newest))).astype(np.int64)
        try:
            self.opened = None
            found = self.search(view, view.rows.take(rows), 10)
        except MelprintError as error:
            return [f"{error}; run melprint catalog reindex"]
        share = float((found == rows[:, None]).any(axis=1).mean())
        return [] if share > 0.5 else [f"{newest} finds {share:.0%} of its own rows; run melprint catalog reindex"]

    def num_bytes(self) -> int:
        """All files of the index."""
        return sum(path.stat().st_size for path in self._files())

    def close(self) -> None:
        """Unmap the file."""
        self.opened = None

    def _empty(self) -> FaissIndex:
        return FaissIndex(name=self.kind, metric="ip", max_train_rows=1 << 20, **FAISS_KINDS[self.kind])

    def _fewest_rows(self, total: int) -> int:
        factory = self._empty().factory_for(total)
        lists = int(factory.removeprefix("IVF").partition(",")[0]) if factory.startswith("IVF") else 1
        return max(FEWEST_PER_LIST * lists, 256)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("index-*.faiss"))

    def _newest(self, view: View) -> Path | None:
        mine = [
            path
            for path in self.folder.glob(f"index-{self.kind}-{view.generation}-*.faiss")
            if self._rows_of(path) <= len(view.rows)
        ]
        return max(mine, key=self._rows_of, default=None)

    @staticmethod
    def _rows_of(path: Path) -> int:
        return int(path.stem.rpartition("-")[2])

    @staticmethod
    def _learnt_on(path: Path) -> int:
        return int(path.stem.rsplit("-", 2)[1])


def nearest(vectors: Vectors, view: View, queries_QD: NDArray[np.float32], k: int) -> Hits:
    """The ``k`` nearest rows of tracks, with their inner products; rows of removed tracks are never among them.

    Raises:
        MelprintError: the index fails.
    """
    queries = np.ascontiguousarray(queries_QD, np.float32)
    if not len(queries) or not len(view):
        return Hits(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64))
    rows, covered = _covered_rows(vectors, view, queries, k)
    if covered < len(view.rows):
        tail = ExactIndex()
        tail.build(Rows([view.rows.parts[0][covered:]]))

        def compare(number: int) -> NDArray[np.int64]:
            found = tail.search(queries, min(number, len(view.rows) - covered)).rows
            return np.where(found < 0, -1, found + covered)

        rows = np.concatenate([rows, _living(view, k, compare)], axis=1)
    return _best_of(queries, view, rows, k)


def _covered_rows(vectors: Vectors, view: View, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], int]:
    """Rows ``(Q, K)`` that the index finds, and the row from which on it knows nothing."""
    for _ in range(TRIES):
        covered = vectors.covered(view)
        if not covered:
            return np.full((len(queries), k), -1, np.int64), 0
        try:
            rows = _living(view, k, lambda number: vectors.search(view, queries, number))
        except MelprintError:
            if vectors.covered(view) == covered:
                raise
            continue
        # Another process may put an index in the place of this one, or begin anew, in mid-search.
        if vectors.covered(view) == covered:
            return np.where(rows < covered, rows, -1), covered
    raise MelprintError(f"the index {vectors.name} is being made again and again; try once more")


def _living(view: View, k: int, find: Callable[[int], NDArray[np.int64]]) -> NDArray[np.int64]:
    """Rows ``(Q, K)`` of tracks; asks for more neighbours as long as removed ones take the places of living ones."""
    number = k
    while True:
        rows = find(number)
        alive = view.tracks_at(rows) >= 0
        crowded = (rows >= 0).all(axis=1) & (alive.sum(axis=1) < k)
        if rows.shape[1] < number or not crowded.any():
            break
        number *= 2
    rows = np.where(alive, rows, -1)
    order = np.argsort(~alive, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(rows, order, axis=1)
    return np.pad(kept, ((0, 0), (0, k - kept.shape[1])), constant_values=-1)


def _best_of(queries: NDArray[np.float32], view: View, rows: NDArray[np.int64], k: int) -> Hits:
    """The ``k`` best of some candidates by their true inner products."""
    vectors = view.rows.take(np.maximum(rows, 0))
    scores = np.einsum("qkd,qd->qk", vectors, queries)
    scores[rows < 0] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Hits(np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1))


def vectors_for(folder: Path, kind: str, num_rows: int, milvus: Any = None) -> Vectors:
    """The search that a catalog of this kind and size uses.

    Raises:
        MelprintError: there is no such kind.
    """
    if kind == AUTO:
        kind = EXACT if num_rows <= EXACT_UP_TO or not _has_faiss() else AUTO_FAISS
    if kind == EXACT:
        return ExactVectors()
    if kind in FAISS_KINDS:
        return FaissVectors(folder, kind)
    if kind == MILVUS:
        from melprint.catalog.milvus import MilvusVectors

        if not milvus:
            raise MelprintError(f"{folder} has no address of Milvus; make it with --milvus URI")
        return MilvusVectors(folder, **milvus)
    known = ", ".join((AUTO, EXACT, *FAISS_KINDS, MILVUS))
    raise MelprintError(f"there is no kind of index {kind!r}; take one of {known}")


def _has_faiss() -> bool:
    from importlib.util import find_spec

    return find_spec("faiss") is not None
