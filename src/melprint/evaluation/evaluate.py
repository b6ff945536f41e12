"""Running a trial over index types and query lengths.  Axes: R query rows · K neighbours · I queries."""

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melprint.data.manifest import replacing, write_rows
from melprint.errors import MelprintError
from melprint.evaluation.metrics import Outcome, outcome, recall_against, summary
from melprint.evaluation.protocol import Trial
from melprint.index.base import Index
from melprint.index.exact import ExactIndex
from melprint.matching.sequence import Matches, match_sequences
from melprint.progress import console, progress_bar
from melprint.spec import SegmentSpec

NUM_NEIGHBOURS = 20
NUM_BEST = 10
TIMED_QUERIES = 50
WARM_UP_QUERIES = 3
MATCHER = "sequence"

METRIC_COLUMNS = (
    *("index", "matcher", "num_segments", "seconds", "num_queries"),
    *("top1_exact", "top1_exact_low", "top1_exact_high"),
    *("top1_near", "top1_near_low", "top1_near_high"),
    *("top1_song", "top1_song_low", "top1_song_high"),
    *("top3_exact", "top10_exact", "mrr", "recall_at_20", "ann_loss", "num_vectors", "bytes_per_vector"),
    *("build_s", "search_p50_ms", "search_p95_ms", "queries_per_s"),
)
HIT_COLUMNS = (
    *("index", "matcher", "query_id", "num_segments", "seconds", "true_track", "true_start_s"),
    *("found_track", "found_start_s", "score", "exact", "near", "song", "rank", "snr_db", "room", "noise"),
)


@dataclass(frozen=True)
class Result:
    """All figures of an evaluation.

    Attributes:
        metrics: rows of ``metrics.csv``.
        hits: rows of ``hits.csv``.
    """

    metrics: list[dict[str, Any]]
    hits: list[list[Any]]

    def write(self, folder: Path) -> None:
        """Write ``metrics.csv`` and ``hits.csv``."""
        write_rows(
            folder / "metrics.csv", METRIC_COLUMNS, ([row[name] for name in METRIC_COLUMNS] for row in self.metrics)
        )
        write_rows(folder / "hits.csv", HIT_COLUMNS, self.hits)


def evaluate(
    trial: Trial, indexes: Sequence[Index], lengths: Sequence[int], segment: SegmentSpec, cache: Path, store_digest: str
) -> Result:
    """Every index at every length; each query segment is searched once per index.

    Exact search comes first, as the measure of the others: the exact index that is asked for, or else one by
    inner product.  An index that cannot be built on these rows is reported and left out.

    Args:
        trial: what is asked.
        indexes: to be compared.
        lengths: in segments.
        segment: how the stores were cut.
        cache: folder of built indexes; one is built again when the stores or its settings change.
        store_digest: of the searched stores together.

    Raises:
        MelprintError: a length that no query has.
    """
    lengths = sorted(set(lengths))
    if not lengths or lengths[0] < 1:
        raise MelprintError(f"query lengths are numbers of segments from 1 on, got {lengths}")
    if trial.num_segments.max() < lengths[-1]:
        raise MelprintError(f"no query has {lengths[-1]} segments; the longest has {trial.num_segments.max()}")
    used = _used_rows(trial)
    oracle = next((index for index in indexes if isinstance(index, ExactIndex)), ExactIndex())
    others = [index for index in indexes if index is not oracle]
    result = Result([], [])
    exact_rows: NDArray[np.int64] | None = None
    exact_rates: dict[int, float] = {}
    with progress_bar("evaluate", 1 + len(others)) as advance:
        for index in (oracle, *others):
            try:
                build_s = build_or_load(index, trial, cache, store_digest)
            except MelprintError as error:
                if index is oracle:
                    raise
                console.print(f"left out: {error}", style="yellow", markup=False, highlight=False, soft_wrap=True)
                advance(1)
                continue
            bytes_per_vector = index.bytes_per_vector()
            hits = index.search(trial.queries.take(used), NUM_NEIGHBOURS)
            if exact_rows is None:
                exact_rows = hits.rows
            recall = recall_against(exact_rows, hits.rows)
            by_row = np.full((len(trial.queries), NUM_NEIGHBOURS), -1, np.int64)
            by_row[used] = hits.rows
            latency = _latency(index, trial, lengths)
            for length, asked, matches in _matched(trial, by_row, lengths):
                figures = outcome(matches, trial.true_track[asked], trial.true_start[asked])
                rates = summary(figures)
                if trial.borders is None:
                    rates |= dict.fromkeys(("top1_song", "top1_song_low", "top1_song_high"), math.nan)
                exact_rates.setdefault(length, rates["top1_exact"])
                row: dict[str, Any] = {
                    **rates,
                    "index": index.name,
                    "matcher": MATCHER,
                    "num_segments": length,
                    "seconds": segment.query_seconds(length),
                    "recall_at_20": recall,
                    "ann_loss": exact_rates[length] - rates["top1_exact"],
                    "num_vectors": len(trial.references),
                    "bytes_per_vector": bytes_per_vector,
                    "build_s": build_s,
                    **latency[length],
                }
                result.metrics.append(row)
                result.hits.extend(_hit_rows(index.name, trial, asked, length, matches, figures, segment))
            advance(1)
    return result


def build_or_load(index: Index, trial: Trial, cache: Path, store_digest: str) -> float:
    """Seconds that building took; a kept index of the same rows and settings is loaded, with its figure."""
    settings = {**index.settings(), "store": store_digest, "train_rows": trial.num_distractors}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
    path, note = cache / f"{index.name}-{key}.faiss", cache / f"{index.name}-{key}.json"
    if note.exists() and path.exists():
        index.load(path, trial.references)
        return float(json.loads(note.read_text())["build_s"])
    start = time.perf_counter()
    index.build(trial.references, trial.num_distractors or None)
    build_s = time.perf_counter() - start
    index.save(path)
    if path.exists():
        with replacing(note) as file:
            json.dump({"build_s": build_s, **settings}, file, default=str)
    return build_s


def _used_rows(trial: Trial) -> NDArray[np.int64]:
    """Every query row that some query needs, once."""
    used = np.zeros(len(trial.queries) + 1, np.int64)
    np.add.at(used, trial.first_segment, 1)
    np.add.at(used, trial.first_segment + trial.num_segments, -1)
    return np.flatnonzero(np.cumsum(used[:-1]) > 0)


def _matched(
    trial: Trial, hit_rows: NDArray[np.int64], lengths: Sequence[int]
) -> Iterator[tuple[int, NDArray[np.int64], Matches]]:
    """The queries that are asked at each length, and their matches."""
    matches = match_sequences(
        trial.queries,
        hit_rows,
        trial.first_segment,
        trial.num_segments,
        lengths,
        trial.references,
        trial.borders,
        num_best=NUM_BEST,
    )
    for length in lengths:
        asked = trial.asked_at(length)
        yield length, asked, matches[length].of(asked)


def _latency(index: Index, trial: Trial, lengths: Sequence[int]) -> Mapping[int, dict[str, float]]:
    """Search time of single queries at each length, all segments in one call, after a warm-up."""
    figures = {}
    for length in lengths:
        asked = np.flatnonzero(trial.num_segments >= length)[:TIMED_QUERIES]
        segments = [trial.queries.take(trial.first_segment[query] + np.arange(length)) for query in asked]
        for rows in segments[:WARM_UP_QUERIES]:
            index.search(rows, NUM_NEIGHBOURS)
        times = []
        for rows in segments:
            start = time.perf_counter()
            index.search(rows, NUM_NEIGHBOURS)
            times.append(time.perf_counter() - start)
        together = np.concatenate(segments)
        start = time.perf_counter()
        index.search(together, NUM_NEIGHBOURS)
        p50, p95 = np.percentile(times, [50, 95]) * 1e3
        figures[length] = {
            "search_p50_ms": float(p50),
            "search_p95_ms": float(p95),
            "queries_per_s": len(segments) / (time.perf_counter() - start),
        }
    return figures


def _hit_rows(
    index: str,
    trial: Trial,
    asked: NDArray[np.int64],
    length: int,
    matches: Matches,
    figures: Outcome,
    segment: SegmentSpec,
) -> Iterator[list[Any]]:
    def name(track: int) -> str:
        return trial.track_ids[track] if trial.track_ids and track >= 0 else ""

    for row, query in enumerate(asked.tolist()):
        detail = trial.details[query] if trial.details else None
        found = int(matches.track[row, 0])
        yield [
            index,
            MATCHER,
            trial.query_ids[query],
            length,
            segment.query_seconds(length),
            name(int(trial.true_track[query])),
            detail.start_s + (trial.true_start[query] - round(detail.start_s / segment.hop_s)) * segment.hop_s
            if detail
            else trial.true_start[query] * segment.hop_s,
            name(found),
            matches.start[row, 0] * segment.hop_s if found >= 0 else "",
            f"{matches.score[row, 0]:.5f}" if found >= 0 else "",
            int(figures.exact[row]),
            int(figures.near[row]),
            int(figures.song[row]),
            int(figures.rank[row]),
            detail.snr_db if detail else "",
            detail.room if detail else "",
            detail.noise if detail else "",
        ]


def digest_of(digests: Sequence[str]) -> str:
    """One digest for several stores in their order."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()
