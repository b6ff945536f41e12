"""The nearest of many rows, tile by tile.  Axes: Q queries · R rows of a tile · K neighbours.

Nearness is a number that grows as rows come nearer: the inner product q·x, or q·x - |x|²/2, which ranks as the
distance does.  After the first rows hardly any product is among the best of its query; the maximum of groups of
products tells which groups to look into, at a tenth of the time that the matrix product takes.
"""

import torch
from torch import Tensor

GROUPS = 32
WAITING_PER_QUERY = 8


def handicap_of(rows_RD: Tensor, metric: str) -> Tensor | None:
    """What is added to the product of each row ``(R,)``, if anything is."""
    return rows_RD.square().sum(1) / -2 if metric == "l2" else None


def nearness_of(queries_QD: Tensor, rows_RD: Tensor, handicap_R: Tensor | None, out: Tensor) -> Tensor:
    """Nearness ``(Q, R)``, in the beginning of the flat tensor ``out``."""
    shape = (len(queries_QD), len(rows_RD))
    out = out[: shape[0] * shape[1]].view(shape)
    if handicap_R is None:
        return torch.mm(queries_QD, rows_RD.T, out=out)
    return torch.addmm(handicap_R, queries_QD, rows_RD.T, out=out)


class Best:
    """The k best rows of each query among those that were offered so far.

    Of equally near rows the lowest are kept, as long as rows are offered in ascending order.

    Args:
        num_queries: Q.
        k: K.
        device: of everything that is offered.
    """

    def __init__(self, num_queries: int, k: int, device: torch.device | str = "cpu") -> None:
        self.k = k
        self.scores = torch.full((num_queries, k), -torch.inf, device=device)
        self.rows = torch.full((num_queries, k), -1, dtype=torch.int64, device=device)
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._num_waiting = 0

    def begin(self, query_Q: Tensor, nearness_QR: Tensor, row_R: Tensor) -> None:
        """Offer the first rows of some queries, the more promising the better."""
        k = min(self.k, nearness_QR.shape[1])
        scores, columns = nearness_QR.topk(k, dim=1)
        tied = ((nearness_QR >= scores[:, -1:]).sum(dim=1) > k).nonzero()[:, 0]  # more than k could be the k best
        if len(tied):
            ranked, order = nearness_QR[tied].sort(dim=1, descending=True, stable=True)
            scores[tied], columns[tied] = ranked[:, :k], order[:, :k]
        self.scores[query_Q, : scores.shape[1]] = scores.float()
        self.rows[query_Q, : scores.shape[1]] = row_R[columns]

    def offer(self, query_Q: Tensor, nearness_QR: Tensor, row_R: Tensor) -> None:
        """Offer more rows to some queries."""
        floor = self.scores[query_Q, -1:].to(nearness_QR.dtype)
        whole = nearness_QR.shape[1] // GROUPS * GROUPS
        if whole:
            grouped = nearness_QR[:, :whole].unflatten(1, (-1, GROUPS))
            query, group = (grouped.amax(1) > floor).nonzero(as_tuple=True)
            members = grouped[query, :, group]
            found, place = (members > floor[query]).nonzero(as_tuple=True)
            self._wait(query_Q[query[found]], row_R[place * GROUPS + group[found]], members[found, place])
        if whole < nearness_QR.shape[1]:
            rest = nearness_QR[:, whole:]
            query, column = (rest > floor).nonzero(as_tuple=True)
            self._wait(query_Q[query], row_R[whole + column], rest[query, column])
        if self._num_waiting > WAITING_PER_QUERY * len(self.scores):
            self._merge()

    def ranked(self) -> tuple[Tensor, Tensor]:
        """Scores ``(Q, K)`` and rows ``(Q, K)``, best first; minus infinity and -1 where there are no more."""
        self._merge()
        return self.scores, self.rows

    def _wait(self, query: Tensor, row: Tensor, score: Tensor) -> None:
        self._waiting.append((query, row, score.float()))
        self._num_waiting += len(query)

    def _merge(self) -> None:
        num_queries, device = len(self.scores), self.scores.device
        own = torch.arange(num_queries, device=device).repeat_interleave(self.k)
        query, row, score = (
            torch.cat(parts)
            for parts in zip((own, self.rows.flatten(), self.scores.flatten()), *self._waiting, strict=True)
        )
        order = row.argsort()
        order = order[score[order].argsort(descending=True, stable=True)]
        order = order[query[order].argsort(stable=True)]
        first = torch.searchsorted(query[order], torch.arange(num_queries, device=device))
        kept = order[first[:, None] + torch.arange(self.k, device=device)]
        self.scores, self.rows = score[kept], row[kept]
        self._waiting, self._num_waiting = [], 0
