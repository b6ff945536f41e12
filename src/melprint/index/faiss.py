"""Indexes of faiss, from a factory string and search parameters."""

import contextlib
import io
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from melprint.errors import MelprintError
from melprint.fingerprints.rows import Rows
from melprint.index.base import Hits
from melprint.index.lists import can_search, search_lists
from melprint.progress import progress_bar
from melprint.randomness import rng_for

MAX_TRAIN_ROWS = 10_000_000
ENOUGH_TRAIN_ROWS = 1 << 18  # for what learns no centroids, e.g. the ranges of scalar quantisers
ADD_ROWS = 1 << 16
SHARD_ROWS = 1 << 20
# IVFPQ with refinement: faiss's own factory strings can say the parts of the refinement but not their bits.
REFINED = re.compile(r"IVF(\d+),PQ(\d+)x(\d+)\+(\d+)x(\d+)")
LISTS = "{lists}"


class FaissIndex:
    """An index that ``faiss.index_factory`` can make.

    Args:
        factory: e.g. ``IVF256,PQ64x8``; also ``IVF256,PQ64x8+4x4``, a refinement of 4 parts of 4 bits.
            ``{lists}`` stands for a number that grows with the rows.
        name: as it stands in tables.
        metric: ``l2`` (as published for neural-audio-fp) or ``ip``.
        construction: attributes set before training, as ``faiss.ParameterSpace`` names them, e.g. ``efConstruction``.
        search: attributes set before searching, e.g. ``nprobe`` or ``efSearch``.
        lists_per_sqrt: ``{lists}`` is the power of two that is nearest to this times the square root of the rows.
        clustering: attributes of faiss's ``ClusteringParameters`` for all codebooks, e.g. ``niter``.
        on_disk: keep the inverted lists in a file beside the index; memory then holds one shard of them while building.
        max_train_rows: larger training sets are sampled.
        seed: of that sample.
    """

    def __init__(
        self,
        factory: str,
        name: str,
        metric: Literal["ip", "l2"] = "l2",
        construction: Mapping[str, float] | None = None,
        search: Mapping[str, float] | None = None,
        lists_per_sqrt: float = 1 / 3,
        clustering: Mapping[str, int] | None = None,
        on_disk: bool = False,
        max_train_rows: int = MAX_TRAIN_ROWS,
        seed: int = 0,
    ) -> None:
        self.faiss = import_faiss()
        self.factory, self.name, self.metric = factory, name, metric
        self.construction, self.search_parameters = dict(construction or {}), dict(search or {})
        self.lists_per_sqrt, self.clustering, self.on_disk = lists_per_sqrt, dict(clustering or {}), on_disk
        self.max_train_rows, self.seed = max_train_rows, seed
        self.index: Any = None
        self.num_bytes: int | None = None
        self._workspace: TemporaryDirectory[str] | None = None

    def check(self, rows: Rows, train_rows: int | None = None) -> None:
        """Refuse a factory string that faiss does not know, and fewer rows than its codebooks have entries.

        Raises:
            MelprintError: with the number of rows that are needed.
        """
        self._prepared(rows, train_rows)

    def build(self, rows: Rows, train_rows: int | None = None, path: Path | None = None) -> None:
        """Train on a sample of the first ``train_rows`` rows (all by default) and add all rows.

        Memory holds the index and one block of rows; with ``on_disk``, one shard of the index.

        Raises:
            MelprintError: what :meth:`check` refuses, or faiss fails.
        """
        index = self._prepared(rows, train_rows)
        try:
            if not index.is_trained:
                index.train(self._training_rows(index, rows, train_rows))
            if self.on_disk:
                self._add_on_disk(index, rows, path)
            else:
                with progress_bar(f"build {self.name}", len(rows)) as advance:
                    for block in rows.blocks(ADD_ROWS):
                        index.add(block)
                        advance(len(block))
        except RuntimeError as error:
            raise MelprintError(
                f"faiss cannot build {self.name} ({self.factory}) on {len(rows)} rows: {_reason(error)}"
            ) from error
        self._ready(index)
        self.num_bytes = None

    def extend(self, rows: Rows) -> None:
        """Add rows behind those that are there; codebooks and lists stay as they were learnt.

        Raises:
            MelprintError: faiss fails.
        """
        try:
            for block in rows.blocks(ADD_ROWS):
                self.index.add(block)
        except RuntimeError as error:
            raise MelprintError(f"faiss cannot add {len(rows)} rows to {self.name}: {_reason(error)}") from error
        self.num_bytes = None

    def search(self, queries_QD: NDArray[np.float32], k: int) -> Hits:
        """The ``k`` nearest rows of each query segment."""
        if self.index is None:
            raise MelprintError(f"index {self.name} is empty; build it first")
        queries = np.ascontiguousarray(queries_QD, np.float32)
        if can_search(self.faiss, self.index, len(queries)):
            return search_lists(self.faiss, self.index, queries, k)
        return Hits(*self.index.search(queries, k))

    def save(self, path: Path) -> None:
        """Write the built index; complete or absent."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        try:
            if self.on_disk and self._workspace is not None:
                self._move_lists(path)
            self.faiss.write_index(self.index, str(partial))
            partial.replace(path)
        except RuntimeError as error:
            partial.unlink(missing_ok=True)
            raise MelprintError(f"the index cannot be written to {path}: {_reason(error)}") from error
        self.num_bytes = self._size_of(path)

    def load(self, path: Path, rows: Rows, *, mmap: bool = False) -> None:
        """Read what :meth:`save` wrote for the same rows; with ``mmap``, pages come from the file when needed."""
        faiss = self.faiss
        flags = faiss.IO_FLAG_ONDISK_SAME_DIR if self.on_disk else faiss.IO_FLAG_MMAP_IFC if mmap else 0
        try:
            index = faiss.read_index(str(path), flags)
        except RuntimeError as error:
            raise MelprintError(f"{path} is not a faiss index; delete it to have it built again") from error
        if index.d != rows.dim:
            raise MelprintError(
                f"{path} is an index of {index.d} dimensions, the store has {rows.dim}; delete it to build it again"
            )
        if index.ntotal != len(rows):
            raise MelprintError(
                f"{path} holds {index.ntotal} rows, the store {len(rows)}; delete it to have it built again"
            )
        self._ready(index)
        self.num_bytes = self._size_of(path)

    def release(self) -> None:
        """Free the index."""
        self.index = self.num_bytes = self._workspace = None

    def settings(self) -> dict[str, object]:
        """Everything that changes the built index."""
        return {
            "kind": "faiss",
            "factory": self.factory,
            "metric": self.metric,
            "construction": self.construction,
            "lists_per_sqrt": self.lists_per_sqrt,
            "clustering": self.clustering,
            "on_disk": self.on_disk,
            "max_train_rows": self.max_train_rows,
            "seed": self.seed,
            "faiss": self.faiss.__version__,
        }

    def bytes_per_vector(self) -> float:
        """Size of the saved index, with lists on disk, divided by its rows."""
        if self.num_bytes is None:
            writer = _Counter()
            self.faiss.write_index(self.index, self.faiss.PyCallbackIOWriter(writer))
            self.num_bytes = writer.num_bytes
        return self.num_bytes / self.index.ntotal

    def factory_for(self, num_rows: int) -> str:
        """The factory string for this many rows.

        >>> FaissIndex("IVF{lists},PQ64x8", "ivfpq").factory_for(619_500)
        'IVF256,PQ64x8'
        """
        lists = 2 ** round(math.log2(max(1.0, self.lists_per_sqrt * math.sqrt(num_rows))))
        return self.factory.replace(LISTS, str(lists))

    def _prepared(self, rows: Rows, train_rows: int | None) -> Any:
        """An empty index with its construction parameters set, for which there are rows enough."""
        try:
            index = self._empty(rows.dim, len(rows))
            self._prepare_training(index)
            self._set(index, self.construction)
        except RuntimeError as error:
            raise MelprintError(
                f"faiss cannot build {self.name} ({self.factory}) of {rows.dim} dimensions: {_reason(error)}"
            ) from error
        needed, available = self._fewest_training_rows(index), train_rows or len(rows)
        if available < needed:
            what = "rows" if not train_rows else "distractor rows"
            raise MelprintError(
                f"{self.name} ({self.factory_for(len(rows))}) needs at least {needed} {what} to train on, there are"
                f" {available}; leave it out of index=[…], or give it fewer lists or bits"
            )
        return index

    def _empty(self, dim: int, num_rows: int) -> Any:
        faiss = self.faiss
        metric = faiss.METRIC_INNER_PRODUCT if self.metric == "ip" else faiss.METRIC_L2
        factory = self.factory_for(num_rows)
        refined = REFINED.fullmatch(factory)
        if refined is None:
            return faiss.index_factory(dim, factory, metric)
        num_lists, num_parts, bits, refine_parts, refine_bits = map(int, refined.groups())
        coarse = faiss.IndexFlat(dim, metric)
        index = faiss.IndexIVFPQR(coarse, dim, num_lists, num_parts, bits, refine_parts, refine_bits)
        index.own_fields = True  # the index frees its quantiser ...
        coarse.this.disown()  # ... and Python does not
        return index

    def _parts(self, index: Any) -> Iterator[Any]:
        """The index and those that it is made of."""
        faiss = self.faiss
        while index is not None:
            index = faiss.downcast_index(index)
            yield index
            index = getattr(index, "base_index", None) if not hasattr(index, "index") else index.index

    def _codebooks(self, index: Any) -> Iterator[tuple[Any, int]]:
        """Clustering parameters of every codebook, with its number of entries."""
        for part in self._parts(index):
            if hasattr(part, "nlist"):
                yield part.cp, part.nlist
            for quantizer in (getattr(part, name, None) for name in ("pq", "refine_pq")):
                if quantizer is not None:
                    yield quantizer.cp, 2**quantizer.nbits

    def _fewest_training_rows(self, index: Any) -> int:
        return max((entries for _, entries in self._codebooks(index)), default=1)

    def _training_rows(self, index: Any, rows: Rows, train_rows: int | None) -> NDArray[np.float32]:
        """A seeded sample, no larger than what faiss would look at: it draws its own from more."""
        available = train_rows or len(rows)
        looked_at = max((entries * cp.max_points_per_centroid for cp, entries in self._codebooks(index)), default=0)
        wanted = min(max(looked_at, ENOUGH_TRAIN_ROWS), self.max_train_rows)
        if available <= wanted:
            return rows.take(np.arange(available))
        chosen = rng_for(self.seed).choice(available, wanted, replace=False)
        return rows.take(np.sort(chosen))

    def _prepare_training(self, index: Any) -> None:
        for parameters, _ in self._codebooks(index):
            # faiss warns on standard error, once a sub-quantiser, below 39 rows a centroid; tables say how many rows.
            parameters.min_points_per_centroid = 1
            for name, value in self.clustering.items():
                if not hasattr(parameters, name):
                    raise MelprintError(f"{self.name}: faiss has no clustering parameter {name}")
                setattr(parameters, name, value)
        for part in self._parts(index):
            # Simulated annealing of the codebooks for minutes, for a filter that is never switched on.
            if hasattr(part, "do_polysemous_training"):
                part.do_polysemous_training = False

    def _add_on_disk(self, index: Any, rows: Rows, path: Path | None) -> None:
        """Shards are filled in memory, written, and merged list by list into one file."""
        from faiss.contrib.ondisk import merge_ondisk

        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        workspace = TemporaryDirectory(prefix=".lists-", dir=path.parent if path else None)
        shards: list[str] = []
        with progress_bar(f"build {self.name}", len(rows)) as advance:
            shard, first = self.faiss.clone_index(index), 0
            for block in rows.blocks(ADD_ROWS):
                shard.add_with_ids(block, np.arange(first, first + len(block)))
                first += len(block)
                advance(len(block))
                if shard.ntotal >= SHARD_ROWS or first == len(rows):
                    shards.append(str(Path(workspace.name, f"shard-{len(shards)}")))
                    self.faiss.write_index(shard, shards[-1])
                    shard = self.faiss.clone_index(index)
        with contextlib.redirect_stdout(io.StringIO()):  # it reports every shard
            merge_ondisk(index, shards, str(Path(workspace.name, "lists")))
        for name in shards:
            Path(name).unlink()
        self._workspace = workspace

    def _move_lists(self, path: Path) -> None:
        assert self._workspace is not None
        lists = self.faiss.downcast_InvertedLists(self.index.invlists)
        target = lists_of(path)
        shutil.move(lists.filename, target)
        lists.filename = str(target)
        self._workspace.cleanup()
        self._workspace = None

    def _size_of(self, path: Path) -> int:
        return path.stat().st_size + (lists_of(path).stat().st_size if self.on_disk else 0)

    def _set(self, index: Any, parameters: Mapping[str, float]) -> None:
        space = self.faiss.ParameterSpace()
        for name, value in parameters.items():
            space.set_index_parameter(index, name, value)

    def _ready(self, index: Any) -> None:
        try:
            self._set(index, self.search_parameters)
        except RuntimeError as error:
            raise MelprintError(
                f"{self.name} ({self.factory}) has no such search parameter: {self.search_parameters}"
            ) from error
        self.index = index


class _Counter:
    """Takes what is written and keeps its size."""

    def __init__(self) -> None:
        self.num_bytes = 0

    def __call__(self, data: bytes) -> int:
        self.num_bytes += len(data)
        return len(data)


def lists_of(path: Path) -> Path:
    """The inverted lists of an index on disk."""
    return path.with_name(path.name + ".lists")


def _reason(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1]


def import_faiss() -> Any:
    """The faiss module.

    Raises:
        MelprintError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MelprintError(
            'this index needs faiss; install one of the extras: pip install "melprint[cpu]" or "melprint[gpu]"'
        ) from error
    return faiss


def centroids_of(rows_ND: NDArray[np.float32], num_centroids: int, seed: int) -> tuple[NDArray, NDArray[np.int64]]:
    """k-means: centroids ``(K, D)`` and the nearest of them for each row ``(N,)``."""
    kmeans = import_faiss().Kmeans(
        rows_ND.shape[1], num_centroids, niter=15, seed=seed, min_points_per_centroid=1, max_points_per_centroid=1 << 20
    )
    kmeans.train(rows_ND)
    return kmeans.centroids, kmeans.index.search(rows_ND, 1)[1][:, 0]
