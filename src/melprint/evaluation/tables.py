"""The tables of an evaluation and their columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melprint.data.manifest import write_rows
from melprint.evaluation import localisation, openset

METRIC_COLUMNS = (
    *("index", "matcher", "num_segments", "seconds", "num_queries"),
    *("top1_exact", "top1_exact_low", "top1_exact_high"),
    *("top1_near", "top1_near_low", "top1_near_high"),
    *("top1_song", "top1_song_low", "top1_song_high"),
    *("top3_exact", "top10_exact", "mrr", "recall_at_20", "ann_loss", "num_vectors", "bytes_per_vector"),
    *("build_s", "search_p50_ms", "search_p95_ms", "queries_per_s"),
)
HIT_COLUMNS = (
    *("index", "matcher", "query_id", "cluster", "num_segments", "seconds", "true_track", "true_start_s"),
    *("found_track", "found_start_s", "score", "exact", "near", "song", "rank", "snr_db", "room", "noise"),
)
INTERVAL_COLUMNS = (
    *("index", "matcher", "num_segments", "seconds", "hit", "num_queries", "num_songs", "rate"),
    *("wilson_low", "wilson_high", "song_low", "song_high"),
)
COST_COLUMNS = (
    *("index", "num_segments", "seconds", "num_vectors", "bytes_per_vector", "build_s", "peak_memory_mb", "num_timed"),
    *(f"{part}_p{p}_ms" for part in ("embed", "search", "score") for p in (50, 95, 99)),
    *("batch_queries", "batch_search_queries_per_s", "batch_score_queries_per_s"),
)
TABLES: Mapping[str, Sequence[str]] = {
    "metrics": METRIC_COLUMNS,
    "hits": HIT_COLUMNS,
    "intervals": INTERVAL_COLUMNS,
    "costs": COST_COLUMNS,
    "localisation": localisation.COLUMNS,
    "open_set": openset.COLUMNS,
    "open_set_curve": openset.CURVE_COLUMNS,
}


@dataclass(frozen=True)
class Result:
    """All figures of an evaluation; each attribute is a table of the same name.

    Attributes:
        metrics: hit rates by index, matcher and length.
        hits: one row a query.
        intervals: of the hit rates, with songs as clusters.
        costs: time and memory.
        localisation: errors of the found beginnings.
        open_set: false accepts and what is accepted, at calibrated thresholds.
        open_set_curve: both kinds of error against the threshold.
        hop_s: between two rows of the references.
    """

    metrics: list[dict[str, Any]] = field(default_factory=list)
    hits: list[dict[str, Any]] = field(default_factory=list)
    intervals: list[dict[str, Any]] = field(default_factory=list)
    costs: list[dict[str, Any]] = field(default_factory=list)
    localisation: list[dict[str, Any]] = field(default_factory=list)
    open_set: list[dict[str, Any]] = field(default_factory=list)
    open_set_curve: list[dict[str, Any]] = field(default_factory=list)
    hop_s: float = 0.5

    def write(self, folder: Path) -> None:
        """Write each table that has rows; ``metrics.csv`` last."""
        for name in reversed(list(TABLES)):
            rows = getattr(self, name)
            (folder / f"{name}.csv").unlink(missing_ok=True)
            if rows:
                columns = TABLES[name]
                write_rows(folder / f"{name}.csv", columns, ([row[column] for column in columns] for row in rows))
