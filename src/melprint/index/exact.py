"""Exact search by comparing with every row: the oracle of every other index."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from melprint.errors import MelprintError
from melprint.fingerprints.rows import Rows
from melprint.index.base import Hits

BLOCK_ROWS = 1 << 16
BLOCK_QUERIES = 1 << 10


class ExactIndex:
    """All rows, compared one block at a time; needs no training and keeps no copy of the rows.

    Args:
        metric: ``ip`` (inner product, larger is nearer) or ``l2`` (squared distance, smaller is nearer).
        name: as it stands in tables.
        device: where the products are computed.
    """

    def __init__(self, metric: Literal["ip", "l2"] = "ip", name: str | None = None, device: str = "cpu") -> None:
        if metric not in ("ip", "l2"):
            raise MelprintError(f"metric must be ip or l2, got {metric!r}")
        self.metric, self.name, self.device = metric, name or metric, device
        self.rows: Rows | None = None

    def build(self, rows: Rows, train_rows: int | None = None) -> None:
        """Remember where the rows are."""
        del train_rows
        self.rows = rows

    def search(self, queries_QD: NDArray[np.float32], k: int) -> Hits:
        """The ``k`` nearest rows of each query segment; equally near ones in any order."""
        if self.rows is None:
            raise MelprintError(f"index {self.name} is empty; build it first")
        found = [
            self._search(torch.from_numpy(queries_QD[start : start + BLOCK_QUERIES]).to(self.device), k)
            for start in range(0, len(queries_QD), BLOCK_QUERIES)
        ]
        if not found:
            return Hits(np.zeros((0, k), np.float32), np.zeros((0, k), np.int64))
        return Hits(np.concatenate([hits.scores for hits in found]), np.concatenate([hits.rows for hits in found]))

    def _search(self, queries: torch.Tensor, k: int) -> Hits:
        assert self.rows is not None
        best = torch.full((len(queries), k), -torch.inf, device=queries.device)
        rows = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
        first = 0
        for block in self.rows.blocks(BLOCK_ROWS):
            vectors = torch.as_tensor(block, device=queries.device)
            nearness = queries @ vectors.T
            if self.metric == "l2":
                nearness = 2 * nearness - vectors.square().sum(1)
            scores, order = nearness.topk(min(k, len(vectors)), dim=1)
            best, keep = torch.cat([best, scores], dim=1).topk(k, dim=1)
            rows = torch.cat([rows, order + first], dim=1).gather(1, keep)
            first += len(vectors)
        if self.metric == "l2":
            best = (queries.square().sum(1, keepdim=True) - best).clamp_min(0)
        return Hits(best.cpu().numpy(), rows.cpu().numpy())

    def save(self, path: Path) -> None:
        """Nothing to write: the store is the index."""

    def load(self, path: Path, rows: Rows) -> None:
        """The same as building."""
        del path
        self.build(rows)

    def settings(self) -> dict[str, object]:
        """Nothing changes what is built."""
        return {"kind": "exact"}

    def bytes_per_vector(self) -> float:
        """Float32 rows."""
        return 4.0 * self.rows.dim if self.rows is not None else 0.0
