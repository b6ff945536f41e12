"""Exact search by comparing with every row: the oracle of every other index."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from melprint.errors import MelprintError
from melprint.fingerprints.rows import Rows
from melprint.index.base import Hits
from melprint.index.best import Best, handicap_of, nearness_of

# A tile of products is to stay in the cache of a processor; a GPU wants all the work that fits.
TILE = {"cpu": 1 << 21, "cuda": 1 << 28}
MOST_QUERIES = {"cpu": 1 << 10, "cuda": 1 << 13}
MOST_ROWS = 1 << 16
DTYPES = {"float32": torch.float32, "float16": torch.float16}


class ExactIndex:
    """All rows, compared one tile at a time; needs no training.

    Args:
        metric: ``ip`` (inner product, larger is nearer) or ``l2`` (squared distance, smaller is nearer).
        name: as it stands in tables.
        device: where the products are computed.
        dtype: of the products; ``float16`` rounds both sides, and is meant for GPUs.
        resident: keep a copy of the rows on the device instead of reading the store at every search.
        required_device: refuse to work elsewhere, e.g. ``cuda``.
    """

    def __init__(
        self,
        metric: Literal["ip", "l2"] = "ip",
        name: str | None = None,
        device: str = "cpu",
        dtype: Literal["float32", "float16"] = "float32",
        resident: bool = False,
        required_device: str | None = None,
    ) -> None:
        if metric not in ("ip", "l2"):
            raise MelprintError(f"metric must be ip or l2, got {metric!r}")
        if dtype not in DTYPES:
            raise MelprintError(f"dtype must be float32 or float16, got {dtype!r}")
        self.metric, self.name, self.device = metric, name or metric, device
        self.dtype, self.resident, self.required_device = DTYPES[dtype], resident, required_device
        self.rows: Rows | None = None
        self.copy: torch.Tensor | None = None

    def check(self, rows: Rows, train_rows: int | None = None) -> None:
        """Refuse a device that is not the required one."""
        del rows, train_rows
        if self.required_device and torch.device(self.device).type != self.required_device:
            raise MelprintError(
                f"{self.name} needs a {self.required_device} device, this run uses {self.device};"
                " leave it out of index=[…] here"
            )

    def build(self, rows: Rows, train_rows: int | None = None, path: Path | None = None) -> None:
        """Remember where the rows are, or copy them to the device."""
        del path
        self.check(rows, train_rows)
        self.rows = rows
        if self.resident:
            self.copy = torch.empty(len(rows), rows.dim, dtype=self.dtype, device=self.device)
            first = 0
            for block in rows.blocks():
                self.copy[first : first + len(block)] = torch.from_numpy(block).to(self.device)
                first += len(block)

    def search(self, queries_QD: NDArray[np.float32], k: int) -> Hits:
        """The ``k`` nearest rows of each query segment; of equally near ones the lowest, as in faiss's flat index."""
        if self.rows is None:
            raise MelprintError(f"index {self.name} is empty; build it first")
        device = torch.device(self.device)
        queries = torch.from_numpy(np.ascontiguousarray(queries_QD)).to(device, self.dtype)
        parts = queries.split(MOST_QUERIES[device.type])
        best = [Best(len(part), k, device) for part in parts]
        out = torch.empty(TILE[device.type], dtype=self.dtype, device=device)
        first = 0
        for block in self._blocks():
            handicap = handicap_of(block, self.metric)
            for part, its_best in zip(parts, best, strict=True):
                _compare(part, its_best, block, handicap, first, out)
            first += len(block)
        if not parts:
            return Hits(np.zeros((0, k), np.float32), np.zeros((0, k), np.int64))
        scores, rows = (torch.cat(columns) for columns in zip(*(its_best.ranked() for its_best in best), strict=True))
        if self.metric == "l2":
            scores = (queries.float().square().sum(1, keepdim=True) - 2 * scores).clamp_min(0)
        return Hits(scores.cpu().numpy(), rows.cpu().numpy())

    def _blocks(self) -> Iterator[torch.Tensor]:
        if self.copy is not None:
            yield from self.copy.split(MOST_ROWS)
            return
        assert self.rows is not None
        for block in self.rows.blocks(MOST_ROWS):
            yield torch.from_numpy(block).to(self.device, self.dtype)

    def save(self, path: Path) -> None:
        """Nothing to write: the store is the index."""

    def load(self, path: Path, rows: Rows, *, mmap: bool = False) -> None:
        """The same as building."""
        del path, mmap
        self.build(rows)

    def release(self) -> None:
        """Forget the rows."""
        self.rows = self.copy = None

    def settings(self) -> dict[str, object]:
        """Nothing changes what is built."""
        return {"kind": "exact"}

    def bytes_per_vector(self) -> float:
        """Rows as they are compared."""
        return float(self.dtype.itemsize * self.rows.dim) if self.rows is not None else 0.0


def _compare(
    queries: torch.Tensor, best: Best, block: torch.Tensor, handicap: torch.Tensor | None, first: int, out: torch.Tensor
) -> None:
    """Offer the rows of a block to some queries, one tile of products at a time."""
    every = torch.arange(len(queries), device=queries.device)
    num_rows = min(max(len(out) // len(queries), 1), MOST_ROWS)
    for start in range(0, len(block), num_rows):
        tile = slice(start, start + num_rows)
        nearness = nearness_of(queries, block[tile], handicap[tile] if handicap is not None else None, out)
        rows = torch.arange(first + start, first + start + nearness.shape[1], device=queries.device)
        (best.offer if first + start else best.begin)(every, nearness, rows)
