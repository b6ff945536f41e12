"""Evaluation against a plain loop that follows the published protocol: ``python benchmarks/evaluate.py``.

Both run in this process, on the same arrays and the same number of threads.  The loop is slow: it is timed on
some of the queries, spread evenly, and its time is scaled to all of them; hits are compared on these queries.
Rewrites its part of RESULTS.md.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from results import write_part

import melprint  # first: it sets how threads wait
from melprint.evaluation.evaluate import Options, evaluate
from melprint.evaluation.measure import PeakMemory
from melprint.evaluation.protocol import Trial, make_trial
from melprint.evaluation.stores import TestStores
from melprint.fingerprints.rows import Rows
from melprint.fingerprints.store import names
from melprint.index.base import Index
from melprint.index.exact import ExactIndex
from melprint.index.faiss import FaissIndex, import_faiss
from melprint.matching.sequence import match_sequences
from melprint.spec import SegmentSpec

LENGTHS = [1, 3, 5, 9, 11, 19]
ROWS_PER_SONG = 59
DIM = 128
NOISE = 0.075  # of each element: queries and references then have a cosine of about 0.76
SCALED = {"niter": 10, "max_points_per_centroid": 64}


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def write_arrays(folder: Path, num_dummy: int, num_songs: int) -> None:
    """Rows in loose clusters, as fingerprints of music are; neighbours in time resemble each other."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2_000, DIM), dtype=np.float32)

    def songs(num_rows: int) -> np.ndarray:
        centre = centres[rng.integers(len(centres), size=-(-num_rows // 4))].repeat(4, axis=0)[:num_rows]
        return unit(centre + 0.9 * rng.standard_normal((num_rows, DIM), dtype=np.float32))

    db = songs(num_songs * ROWS_PER_SONG)
    query = unit(db + NOISE * rng.standard_normal(db.shape, dtype=np.float32))
    for name, rows in (("dummy_db", songs(num_dummy)), ("db", db), ("query", query)):
        path, shape, *_ = names(folder, name)
        rows.tofile(path)
        np.save(shape, rows.shape)


def literal_loop(index: Any, query: np.ndarray, rows: np.ndarray, ids: np.ndarray, num_dummy: int) -> np.ndarray:
    """The published steps, one query and one length at a time; counts of exact, near, top-3 and top-10 hits."""
    hits = np.zeros((len(LENGTHS), 4), int)
    for test_id in ids:
        truth = num_dummy + test_id
        for column, length in enumerate(LENGTHS):
            segments = query[test_id : test_id + length]
            _, neighbours = index.search(segments, 20)
            for offset in range(len(neighbours)):
                neighbours[offset] -= offset
            candidates = np.unique(neighbours[neighbours >= 0])
            scores = np.array([np.mean(np.diag(segments @ rows[c : c + length].T)) for c in candidates])
            best = candidates[np.argsort(-scores)[:10]]
            hits[column] += [best[0] == truth, abs(best[0] - truth) <= 1, truth in best[:3], truth in best]
    return hits


class TimedRows(Rows):
    """Notes how long gathering takes."""

    seconds = 0.0

    def take(self, rows: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        out = super().take(rows)
        TimedRows.seconds += time.perf_counter() - start
        return out


def shares(trial: Trial, index: Index) -> dict[str, float]:
    """Seconds of search, gather and score, in a run of their own on a built index."""
    used = trial.used_rows()
    queries = trial.queries.take(used)
    start = time.perf_counter()
    found = index.search(queries, 20).rows
    search_s = time.perf_counter() - start
    hit_rows = np.full((len(trial.queries), 20), -1, np.int64)
    hit_rows[used] = found
    TimedRows.seconds = 0.0
    start = time.perf_counter()
    match_sequences(
        trial.queries,
        hit_rows,
        trial.first_segment,
        trial.num_segments,
        LENGTHS,
        TimedRows(trial.references.parts),
        trial.borders,
    )
    scored_s = time.perf_counter() - start
    return {"search": search_s, "gather": TimedRows.seconds, "score": scored_s - TimedRows.seconds, "rows": len(used)}


def matrix_product_rate() -> float:
    """Multiply-adds a second of the best of several shapes."""
    best = 0.0
    for queries, rows in ((1_024, 2_048), (4_096, 4_096), (1_024, 65_536)):
        a, b = torch.randn(queries, DIM), torch.randn(rows, DIM)
        out = torch.empty(queries, rows)
        times = []
        for _ in range(12):
            start = time.perf_counter()
            torch.mm(a, b.T, out=out)
            times.append(time.perf_counter() - start)
        best = max(best, queries * rows * DIM / min(times))
    return best


def published_index(kind: str, coarse: Any, rows: np.ndarray, num_dummy: int) -> Any:
    if kind == "l2":
        index = coarse
    else:
        index = import_faiss().IndexIVFPQ(coarse, DIM, 256, 64, 8)
        index.train(rows[:num_dummy])
        index.nprobe = 40
    index.add(rows[:num_dummy])
    index.add(rows[num_dummy:])
    return index


OWN: dict[str, Callable[[], Index]] = {
    "l2": lambda: ExactIndex("l2"),
    "ivfpq": lambda: FaissIndex(
        "IVF{lists},PQ64x8", "ivfpq", lists_per_sqrt=0.5, clustering=SCALED, search={"nprobe": 40}
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dummy", type=int, default=590_000)
    parser.add_argument("--songs", type=int, default=500)
    parser.add_argument("--ids", type=int, default=2_000)
    parser.add_argument("--literal-ids", type=int, default=40)
    given = parser.parse_args()
    lines = [
        "| index | plain loop, s | melprint, s | ratio | hits on the same queries, loop / melprint | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    parts = [
        "| index | build | search | gather | score | search against the matrix-product limit |",
        "|---|---|---|---|---|---|",
    ]
    limit = matrix_product_rate()
    memory = PeakMemory()
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_arrays(folder, given.dummy, given.songs)
        stores = TestStores.open(folder, None, "compat")
        for kind, make in OWN.items():
            memory.restart()
            start = time.perf_counter()
            for store in stores.present():
                store.check()
            trial = make_trial("compat", stores, LENGTHS[-1], given.ids)
            index = make()
            options = Options(LENGTHS, timing_s=0, exact=False)
            own = evaluate(trial, [index], SegmentSpec(), options, folder / "kept", stores.digest())
            own_s, own_mb = time.perf_counter() - start, memory.megabytes()
            asked = np.linspace(0, given.ids - 1, given.literal_ids).round().astype(int)
            ids = trial.first_segment[asked]
            rows = np.concatenate([np.asarray(part) for part in trial.references.parts])
            query = np.asarray(stores.query.rows)
            memory.restart()
            start = time.perf_counter()
            coarse = import_faiss().IndexFlatL2(DIM)
            published = published_index(kind, coarse, rows, given.dummy)
            built_s = time.perf_counter() - start
            start = time.perf_counter()
            loop_hits = literal_loop(published, query, rows, ids, given.dummy)
            loop_s = built_s + (time.perf_counter() - start) * given.ids / given.literal_ids
            loop_mb = memory.megabytes()
            del published, coarse, rows
            mine = hits_of(own, kind, {str(i) for i in ids})
            lines.append(
                f"| {kind} | {loop_s:.0f} | {own_s:.1f} | **{loop_s / own_s:.0f}x** | {loop_hits[:, 0].tolist()} /"
                f" {mine} | {loop_mb:.0f} / {own_mb:.0f} MB |"
            )
            build_start = time.perf_counter()
            index = make()
            index.build(trial.references, given.dummy)
            build_s = time.perf_counter() - build_start
            part = shares(trial, index)
            rate = part["rows"] * len(trial.references) * DIM / part["search"]
            against = f"{100 * rate / limit:.0f} %" if kind == "l2" else "looks at part of the rows"
            seconds = (build_s, part["search"], part["gather"], part["score"])
            parts.append(f"| {kind} | {' | '.join(f'{value:.1f} s' for value in seconds)} | {against} |")
            print(lines[-1], parts[-1], sep="\n", flush=True)
    made_on = (
        f"{os.cpu_count()} cores of {platform.machine()}, torch {torch.__version__}, melprint {melprint.__version__}"
    )
    said = [
        f"`python benchmarks/evaluate.py`, {date.today()}; {made_on}; {given.songs} songs of {ROWS_PER_SONG} rows,",
        f"{given.dummy} distractor rows, {given.ids} queries at six lengths; the loop was timed on {given.literal_ids}",
        "of them and scaled, its index included once. Time of melprint: reading and checking the arrays, building,",
        "searching, scoring, intervals; the other indexes without exact search beside them. The limit is the fastest",
        f"product of matrices of this size that torch computes here, {2 * limit / 1e9:.0f} GFLOP/s.",
    ]
    write_part("Evaluation", [*lines, "", *parts, "", " ".join(said)])


def hits_of(result: Any, index: str, query_ids: set[str]) -> list[int]:
    hits = [row for row in result.hits if row["index"] == index and row["query_id"] in query_ids]
    return [sum(row["exact"] for row in hits if row["num_segments"] == length) for length in LENGTHS]


if __name__ == "__main__":
    main()
