"""Indexes of faiss on a CUDA GPU; they are saved in the form of a processor, which they can be turned into."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from melprint.errors import MelprintError
from melprint.fingerprints.rows import Rows
from melprint.index.base import Hits
from melprint.index.faiss import ADD_ROWS, FaissIndex
from melprint.progress import progress_bar


def require_gpu(faiss: Any, name: str, needed: str) -> None:
    """Refuse a faiss without the class that is needed, and a machine without a GPU.

    Raises:
        MelprintError: with what to install, or that the index must be left out here.
    """
    if not hasattr(faiss, needed):
        raise MelprintError(
            f'{name} needs a faiss that has {needed} (extra "gpu"; cagra: the wheel faiss-gpu-cuvs); this one has not:'
            " leave it out of index=[…] here"
        )
    if faiss.get_num_gpus() < 1:
        raise MelprintError(f"{name} needs a CUDA GPU, and faiss sees none; leave it out of index=[…] here")


class GpuFaissIndex(FaissIndex):
    """A factory string whose index is trained, filled and searched on the first GPU.

    Product quantisers use lookup tables of half precision, as neural-audio-fp sets them.  faiss has no GPU
    form of graphs, refinement, scalar quantisers without lists, and lists on disk.
    """

    needed = "StandardGpuResources"

    def check(self, rows: Rows, train_rows: int | None = None) -> None:
        """Refuse what :func:`require_gpu` and :class:`FaissIndex` refuse."""
        require_gpu(self.faiss, self.name, self.needed)
        super().check(rows, train_rows)

    def build(self, rows: Rows, train_rows: int | None = None, path: Path | None = None) -> None:
        """Train and add on the GPU, one block of rows at a time."""
        del path
        self.check(rows, train_rows)
        empty = self._prepared(rows, train_rows)
        training = self._training_rows(empty, rows, train_rows)
        try:
            index = self._on_gpu(empty)
            index.train(training)
            with progress_bar(f"build {self.name}", len(rows)) as advance:
                for block in rows.blocks(ADD_ROWS):
                    index.add(block)
                    advance(len(block))
        except RuntimeError as error:
            raise MelprintError(f"faiss cannot build {self.name} on the GPU: {str(error).splitlines()[-1]}") from error
        self._ready(index)
        self.num_bytes = None

    def save(self, path: Path) -> None:
        """Write the form of a processor."""
        on_gpu, self.index = self.index, self.faiss.index_gpu_to_cpu(self.index)
        try:
            super().save(path)
        finally:
            self.index = on_gpu

    def load(self, path: Path, rows: Rows, *, mmap: bool = False) -> None:
        """Read the form of a processor and copy it to the GPU."""
        require_gpu(self.faiss, self.name, self.needed)
        super().load(path, rows, mmap=mmap)
        self._ready(self._on_gpu(self.index))

    def release(self) -> None:
        """Free the index and its scratch memory on the GPU."""
        super().release()
        self._resources = None

    def _on_gpu(self, index: Any) -> Any:
        options = self.faiss.GpuClonerOptions()
        options.useFloat16LookupTables = True
        self._resources = self.faiss.StandardGpuResources()
        return self.faiss.index_cpu_to_gpu(self._resources, 0, index, options)

    def _set(self, index: Any, parameters: Mapping[str, float]) -> None:
        on_gpu = "Gpu" in type(index).__name__
        space = self.faiss.GpuParameterSpace() if on_gpu else self.faiss.ParameterSpace()
        for name, value in parameters.items():
            space.set_index_parameter(index, name, value)


class CagraIndex(GpuFaissIndex):
    """A graph that is built on the GPU (Ootomo et al. 2023, CAGRA), from all rows at once.

    Args:
        name: as it stands in tables.
        metric: ``l2`` or ``ip``.
        graph_degree: edges of each vector.
        itopk_size: candidates that a search keeps; more find more.
    """

    needed = "GpuIndexCagra"

    def __init__(
        self, name: str = "cagra", metric: Literal["ip", "l2"] = "l2", graph_degree: int = 64, itopk_size: int = 128
    ) -> None:
        super().__init__(f"HNSW{graph_degree // 2},Flat", name, metric)  # the form that it is saved in
        self.graph_degree, self.itopk_size = graph_degree, itopk_size

    def build(self, rows: Rows, train_rows: int | None = None, path: Path | None = None) -> None:
        """Copy all rows to the GPU and build the graph."""
        del path
        self.check(rows, train_rows)
        faiss = self.faiss
        config = faiss.GpuIndexCagraConfig()
        config.graph_degree = self.graph_degree
        self._resources = faiss.StandardGpuResources()
        metric = faiss.METRIC_INNER_PRODUCT if self.metric == "ip" else faiss.METRIC_L2
        index = faiss.GpuIndexCagra(self._resources, rows.dim, metric, config)
        index.train(rows.take(np.arange(len(rows))))
        self._ready(index)
        self.num_bytes = None

    def search(self, queries_QD: NDArray[np.float32], k: int) -> Hits:
        """The ``k`` nearest rows of each query segment."""
        parameters = self.faiss.SearchParametersCagra()
        parameters.itopk_size = max(self.itopk_size, k)
        return Hits(*self.index.search(queries_QD, k, params=parameters))

    def save(self, path: Path) -> None:
        """Write the graph as one of HNSW."""
        on_gpu, graph = self.index, self.faiss.IndexHNSWCagra()
        self.index.copyTo(graph)
        self.index = graph
        try:
            FaissIndex.save(self, path)
        finally:
            self.index = on_gpu

    def _on_gpu(self, index: Any) -> Any:
        self._resources = self.faiss.StandardGpuResources()
        on_gpu = self.faiss.GpuIndexCagra(self._resources, index.d, index.metric_type)
        on_gpu.copyFrom(index)
        return on_gpu
