"""Indexes of faiss, from a factory string and search parameters."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from melprint.errors import MelprintError
from melprint.fingerprints.rows import Rows
from melprint.index.base import Hits
from melprint.randomness import rng_for

MAX_TRAIN_ROWS = 10_000_000
# IVFPQ with refinement: faiss's own factory strings can say the parts of the refinement but not their bits.
REFINED = re.compile(r"IVF(\d+),PQ(\d+)x(\d+)\+(\d+)x(\d+)")


class FaissIndex:
    """An index that ``faiss.index_factory`` can make.

    Args:
        factory: e.g. ``IVF256,PQ64x8``; also ``IVF256,PQ64x8+4x4``, a refinement of 4 parts of 4 bits.
        name: as it stands in tables.
        metric: ``l2`` (as published for neural-audio-fp) or ``ip``.
        construction: attributes set before training, as ``faiss.ParameterSpace`` names them, e.g. ``efConstruction``.
        search: attributes set before searching, e.g. ``nprobe`` or ``efSearch``.
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
        max_train_rows: int = MAX_TRAIN_ROWS,
        seed: int = 0,
    ) -> None:
        self.faiss = _import_faiss()
        self.factory, self.name, self.metric = factory, name, metric
        self.construction, self.search_parameters = dict(construction or {}), dict(search or {})
        self.max_train_rows, self.seed = max_train_rows, seed
        self.index: Any = None

    def build(self, rows: Rows, train_rows: int | None = None) -> None:
        """Train on the first ``train_rows`` rows (all by default) and add all rows.

        Raises:
            MelprintError: faiss does not know the factory string, or there are too few rows to train on.
        """
        try:
            index = self._empty(rows.dim)
            self._prepare_training(index)
            self._set(index, self.construction)
            if not index.is_trained:
                index.train(self._training_rows(rows, train_rows))
            for block in rows.blocks():
                index.add(block)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise MelprintError(
                f"faiss cannot build {self.name} ({self.factory}) on {len(rows)} rows: {reason}"
            ) from error
        self._ready(index)

    def search(self, queries_QD: NDArray[np.float32], k: int) -> Hits:
        """The ``k`` nearest rows of each query segment."""
        if self.index is None:
            raise MelprintError(f"index {self.name} is empty; build it first")
        return Hits(*self.index.search(np.ascontiguousarray(queries_QD, np.float32), k))

    def save(self, path: Path) -> None:
        """Write the built index; complete or absent."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        try:
            self.faiss.write_index(self.index, str(partial))
            partial.replace(path)
        except RuntimeError as error:
            partial.unlink(missing_ok=True)
            raise MelprintError(f"the index cannot be written to {path}: {str(error).splitlines()[-1]}") from error

    def load(self, path: Path, rows: Rows) -> None:
        """Read what :meth:`save` wrote for the same rows."""
        try:
            index = self.faiss.read_index(str(path))
        except RuntimeError as error:
            raise MelprintError(f"{path} is not a faiss index; delete it to have it built again") from error
        if (index.ntotal, index.d) != (len(rows), rows.dim):
            raise MelprintError(
                f"{path} holds {index.ntotal} rows, the store {len(rows)}; delete it to have it built again"
            )
        self._ready(index)

    def settings(self) -> dict[str, object]:
        """Everything that changes the built index."""
        return {
            "kind": "faiss",
            "factory": self.factory,
            "metric": self.metric,
            "construction": self.construction,
            "max_train_rows": self.max_train_rows,
            "seed": self.seed,
            "faiss": self.faiss.__version__,
        }

    def bytes_per_vector(self) -> float:
        """Size of the serialised index divided by its rows."""
        return len(self.faiss.serialize_index(self.index)) / self.index.ntotal

    def _empty(self, dim: int) -> Any:
        faiss = self.faiss
        metric = faiss.METRIC_INNER_PRODUCT if self.metric == "ip" else faiss.METRIC_L2
        refined = REFINED.fullmatch(self.factory)
        if refined is None:
            return faiss.index_factory(dim, self.factory, metric)
        num_lists, num_parts, bits, refine_parts, refine_bits = map(int, refined.groups())
        coarse = faiss.IndexFlat(dim, metric)
        index = faiss.IndexIVFPQR(coarse, dim, num_lists, num_parts, bits, refine_parts, refine_bits)
        index.own_fields = True  # the index frees its quantiser ...
        coarse.this.disown()  # ... and Python does not
        return index

    def _training_rows(self, rows: Rows, train_rows: int | None) -> NDArray[np.float32]:
        available = train_rows or len(rows)
        if available <= self.max_train_rows:
            return rows.take(np.arange(available))
        chosen = rng_for(self.seed).choice(available, self.max_train_rows, replace=False)
        return rows.take(np.sort(chosen))

    def _prepare_training(self, index: Any) -> None:
        inner = self.faiss.try_extract_index_ivf(index)
        if inner is None:
            return
        inner = self.faiss.downcast_index(inner)
        # faiss warns on standard error, once a sub-quantiser, below 39 rows a centroid; tables say how many rows.
        inner.cp.min_points_per_centroid = 1
        for quantizer in (getattr(inner, name, None) for name in ("pq", "refine_pq")):
            if quantizer is not None:
                quantizer.cp.min_points_per_centroid = 1
        # Simulated annealing of the codebooks for minutes, for a filter that is never switched on.
        if hasattr(inner, "do_polysemous_training"):
            inner.do_polysemous_training = False

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


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MelprintError(
            'this index needs faiss; install one of the extras: pip install "melprint[cpu]" or "melprint[gpu]"'
        ) from error
    return faiss
