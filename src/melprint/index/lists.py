"""Searching inverted lists with many queries at once.  Axes: Q queries · P probed lists · K neighbours · D size.

faiss walks through the probed lists of each query; for many queries it is faster to take list after list, decode
it once, and compare it by a matrix product with all queries that probe it.  What is found is the same.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from melprint.index.base import Hits
from melprint.index.best import Best, handicap_of, nearness_of

QUERIES_PER_LIST = 32  # fewer on average, and faiss's own search is as fast
QUERIES_AT_ONCE = 1 << 15
TILE = 1 << 21  # products that are to stay in the cache


def can_search(faiss: Any, index: Any, num_queries: int) -> bool:
    """Whether the lists of an index can be decoded, and enough queries meet in each."""
    known = (faiss.IndexIVFFlat, faiss.IndexIVFPQ, faiss.IndexIVFScalarQuantizer)
    return type(index) in known and num_queries * index.nprobe >= QUERIES_PER_LIST * index.nlist


def search_lists(faiss: Any, index: Any, queries_QD: NDArray[np.float32], k: int) -> Hits:
    """The ``k`` nearest rows of each query in the lists that it probes."""
    found = [
        _search(faiss, index, queries_QD[start : start + QUERIES_AT_ONCE], k)
        for start in range(0, len(queries_QD), QUERIES_AT_ONCE)
    ]
    return Hits(np.concatenate([hits.scores for hits in found]), np.concatenate([hits.rows for hits in found]))


def _search(faiss: Any, index: Any, queries_QD: NDArray[np.float32], k: int) -> Hits:
    from faiss.contrib.big_batch_search import BlockComputer

    metric = "ip" if index.metric_type == faiss.METRIC_INNER_PRODUCT else "l2"
    decoder = BlockComputer(index)  # owns what its function decodes with
    _, probed_QP = index.quantizer.search(queries_QD, min(index.nprobe, index.nlist))
    queries, best = torch.from_numpy(queries_QD), Best(len(queries_QD), k)
    out = torch.empty(max(TILE, len(queries)))
    # The nearest list of every query first: what is found there spares most of the rest a second look.
    for part, take in ((probed_QP[:, :1], best.begin), (probed_QP[:, 1:], best.offer)):
        query_of, ends = _by_list(part, index.nlist)
        for number in range(index.nlist):
            asking = torch.from_numpy(query_of[ends[number] : ends[number + 1]])
            if not len(asking) or not index.invlists.list_size(number):
                continue
            vectors, rows = _decoded(index, decoder.decode_func, number)
            handicap, own = handicap_of(vectors, metric), queries[asking]
            num_rows = max(1, TILE // len(asking))
            for first in range(0, len(rows), num_rows):
                tile = slice(first, first + num_rows)
                nearness = nearness_of(own, vectors[tile], handicap[tile] if handicap is not None else None, out)
                (best.offer if first else take)(asking, nearness, rows[tile])
    scores, rows = best.ranked()
    if metric == "l2":
        scores = (queries.square().sum(1, keepdim=True) - 2 * scores).clamp_min(0)
    return Hits(scores.numpy(), rows.numpy())


def _by_list(probed_QP: NDArray[np.int64], num_lists: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Queries in the order of the lists that they probe, and where each list ends among them."""
    flat = probed_QP.reshape(-1)
    order = np.argsort(flat, kind="stable")
    return order // max(1, probed_QP.shape[1]), np.searchsorted(flat[order], np.arange(num_lists + 1))


def _decoded(index: Any, decode: Any, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    from faiss.contrib.inspect_tools import get_invlist

    rows, codes = get_invlist(index.invlists, number)
    vectors = decode(codes).reshape(len(rows), index.d)
    if getattr(index, "by_residual", False) and codes.shape[1] != 4 * index.d:
        vectors = vectors + index.quantizer.reconstruct(number)
    return torch.from_numpy(np.ascontiguousarray(vectors)), torch.from_numpy(rows)
