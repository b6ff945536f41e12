"""Running a trial over index types and query lengths.  Axes: R query rows · K neighbours · I queries."""

import hashlib
import math
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melprint.errors import MelprintError
from melprint.evaluation import openset
from melprint.evaluation.localisation import Located, Phases, error_row, located_outcome
from melprint.evaluation.measure import PeakMemory, latency
from melprint.evaluation.metrics import Outcome, cluster_interval, outcome, rate, recall_against, summary
from melprint.evaluation.openset import OpenSetSpec, open_set_of, open_set_rows
from melprint.evaluation.protocol import Trial
from melprint.evaluation.tables import Result
from melprint.index.base import Index
from melprint.index.exact import ExactIndex
from melprint.index.kept import build_or_reopen
from melprint.matching.sequence import Matches, match_sequences
from melprint.progress import console, progress_bar
from melprint.spec import SegmentSpec

NUM_NEIGHBOURS = 20
NUM_BEST = 10
MATCHER = "sequence"
HIT_KINDS = ("exact", "near", "song")


@dataclass(frozen=True)
class Options:
    """What is measured beside hit rates.

    Attributes:
        lengths: of queries, in segments.
        num_neighbours: that each segment proposes.
        timing_s: spent on timing single queries of each length and index; 0 times nothing.
        mmap: map kept indexes instead of reading them.
        open_set: how tracks are divided for it; ``None`` leaves it out.
        embed: makes fingerprints of so many segments, to be timed.
        exact: search exactly first, whether it is asked for or not: recall and losses are measured against it.
    """

    lengths: Sequence[int]
    num_neighbours: int = NUM_NEIGHBOURS
    timing_s: float = 1.0
    mmap: bool = False
    open_set: OpenSetSpec | None = None
    embed: Callable[[int], object] | None = None
    exact: bool = True


def evaluate(
    trial: Trial,
    indexes: Sequence[Index],
    segment: SegmentSpec,
    options: Options,
    cache: Path,
    store_digest: str,
    phases: Phases | None = None,
) -> Result:
    """Every index at every length; each query segment is searched once per index.

    Exact search comes first, as the measure of the others: the exact index that is asked for, or else one by
    inner product.  Without it, recall and losses are NaN.

    Args:
        trial: what is asked.
        indexes: to be compared.
        segment: how the stores were cut.
        options: lengths, and what is measured beside hit rates.
        cache: folder of built indexes; one is built again when the stores or its settings change.
        store_digest: of the searched rows together.
        phases: the same queries cut finely, for places below one hop.

    Raises:
        MelprintError: a length that no query has, or an index that cannot be built on these rows; nothing is built
            before all are checked.
    """
    lengths = _checked_lengths(trial, options)
    oracle = next((i for i in indexes if isinstance(i, ExactIndex) and i.required_device is None), None)
    if oracle is None and options.exact:
        oracle = ExactIndex()
    ordered = [*([oracle] if oracle is not None else []), *(index for index in indexes if index is not oracle)]
    for index in ordered:
        index.check(trial.references, trial.num_distractors or None)
    open_set = open_set_of(trial, options.open_set, lengths[-1]) if options.open_set is not None else None
    run = _Run(trial, segment, options, lengths, measured=oracle is not None)
    with progress_bar("evaluate", len(ordered)) as advance:
        for index in ordered:
            memory = PeakMemory()
            memory.restart()
            build_s = build_or_reopen(
                index, trial.references, cache, store_digest, trial.num_distractors or None, mmap=options.mmap
            )
            hits = run.search(index, cache, store_digest)
            run.add_costs(index, build_s, memory)
            run.add_sequence(index, hits, build_s)
            if phases is not None:
                run.add_refined(index, phases, build_s)
            index.release()  # the next one may need all the memory
            advance(1)
    if open_set is not None and options.open_set is not None:
        _add_open_set(run, open_set, ordered[0], options.open_set, cache, store_digest)
    elif options.open_set is not None and trial.borders is not None:
        console.print("too few tracks for an open-set test: none is reported", highlight=False, soft_wrap=True)
    return run.result


def neighbours_once(
    index: Index, queries_QD: NDArray[np.float32], k: int, cache: Path, store_digest: str, num_rows: int
) -> NDArray[np.int64]:
    """Exact neighbours, kept for the next index that is measured by them: at ten million rows they take minutes."""
    asked = hashlib.sha256(np.ascontiguousarray(queries_QD).data).hexdigest()
    metric = getattr(index, "metric", index.name)
    key = hashlib.sha256(f"{store_digest} {asked} {k} {metric}".encode()).hexdigest()[:16]
    path = cache / f"neighbours-{metric}-{key}.npz"
    if path.exists():
        return _kept_neighbours(path, len(queries_QD), k, num_rows)
    rows = index.search(queries_QD, k).rows
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        np.savez(file, rows=rows, sha256=hashlib.sha256(rows.data).hexdigest())
    partial.replace(path)
    return rows


def _kept_neighbours(path: Path, num_queries: int, k: int, num_rows: int) -> NDArray[np.int64]:
    try:
        with np.load(path) as kept:
            rows: NDArray[np.int64] = kept["rows"]
            intact = str(kept["sha256"]) == hashlib.sha256(rows.data).hexdigest()
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise MelprintError(f"{path} is damaged ({error}); delete it to have it made again") from error
    if not intact or rows.shape != (num_queries, k) or rows.dtype != np.int64 or rows.max(initial=-1) >= num_rows:
        raise MelprintError(f"{path} does not hold the neighbours that its name says; delete it to have it made again")
    return rows


def _checked_lengths(trial: Trial, options: Options) -> list[int]:
    lengths = sorted(set(options.lengths))
    if not lengths or lengths[0] < 1:
        raise MelprintError(f"query lengths are numbers of segments from 1 on, got {lengths}")
    # The published protocol asks what the end of the store cuts short too, with what there is.
    if trial.borders is not None and trial.num_segments.max() < lengths[-1]:
        raise MelprintError(f"no query has {lengths[-1]} segments; the longest has {trial.num_segments.max()}")
    if not isinstance(options.num_neighbours, int) or not 1 <= options.num_neighbours <= len(trial.references):
        raise MelprintError(
            f"num_neighbours={options.num_neighbours} must lie between 1 and the {len(trial.references)} rows"
            " that are searched"
        )
    return lengths


def _add_open_set(
    run: "_Run", open_set: openset.OpenSet, index: Index, spec: OpenSetSpec, cache: Path, store_digest: str
) -> None:
    """Exact search over the enrolled tracks alone."""
    exact = ExactIndex(index.metric, index.name, index.device) if isinstance(index, ExactIndex) else ExactIndex()
    exact.build(open_set.trial.references)
    rows, curve = open_set_rows(open_set, exact, run.lengths, run.options.num_neighbours, spec.targets)
    for table, columns in ((rows, run.result.open_set), (curve, run.result.open_set_curve)):
        for row in table:
            columns.append(
                {"index": exact.name, "matcher": MATCHER, "seconds": run.seconds(row["num_segments"]), **row}
            )


class _Run:
    """Fills the tables of a result, one index after another."""

    def __init__(
        self, trial: Trial, segment: SegmentSpec, options: Options, lengths: Sequence[int], *, measured: bool
    ) -> None:
        self.measured = measured
        self.trial, self.segment, self.options, self.lengths = trial, segment, options, lengths
        self.used = trial.used_rows()
        self.result = Result(hop_s=segment.hop_s)
        self.exact_rows: NDArray[np.int64] | None = None
        self.exact_rates: dict[int, float] = {}
        self.recall = math.nan

    def seconds(self, length: int) -> float:
        return self.segment.query_seconds(length)

    def search(self, index: Index, cache: Path, store_digest: str) -> NDArray[np.int64]:
        """Neighbours of every query row, -1 for rows that no query needs."""
        queries, k = self.trial.queries.take(self.used), self.options.num_neighbours
        if not self.measured:
            found = index.search(queries, k).rows
        elif self.exact_rows is None:
            found = self.exact_rows = neighbours_once(
                index, queries, k, cache, store_digest, len(self.trial.references)
            )
        else:
            found = index.search(queries, k).rows
        self.recall = recall_against(self.exact_rows, found) if self.exact_rows is not None else math.nan
        hit_rows = np.full((len(self.trial.queries), self.options.num_neighbours), -1, np.int64)
        hit_rows[self.used] = found
        return hit_rows

    def add_costs(self, index: Index, build_s: float, memory: PeakMemory) -> None:
        self.latency = {
            length: latency(
                index,
                self.trial,
                length,
                self.options.num_neighbours,
                self.options.timing_s,
                self.options.embed,
            )
            for length in self.lengths
        }
        for length, timed in self.latency.items():
            if timed is None:
                continue
            self.result.costs.append(
                {
                    "index": index.name,
                    "num_segments": length,
                    "seconds": self.seconds(length),
                    "num_vectors": len(self.trial.references),
                    "bytes_per_vector": index.bytes_per_vector(),
                    "build_s": build_s,
                    "peak_memory_mb": memory.megabytes(),
                    "num_timed": timed.num_timed,
                    **{k: v for part in ("embed", "search", "score") for k, v in timed.percentiles_ms(part).items()},
                    "batch_queries": timed.batch_queries,
                    "batch_search_queries_per_s": timed.batch_queries / timed.batch_search_s,
                    "batch_score_queries_per_s": timed.batch_queries / timed.batch_score_s,
                }
            )

    def add_sequence(self, index: Index, hit_rows: NDArray[np.int64], build_s: float) -> None:
        trial = self.trial
        found = match_sequences(
            trial.queries,
            hit_rows,
            trial.first_segment,
            trial.num_segments,
            self.lengths,
            trial.references,
            trial.borders,
            num_best=NUM_BEST,
        )
        for length in self.lengths:
            asked = trial.asked_at(length)
            matches: Matches = found[length].of(asked)
            figures = outcome(matches, trial.true_track[asked], trial.true_start[asked])
            located = Located.first_of(matches, self.segment.hop_s)
            self._add(index, MATCHER, length, asked, figures, located, build_s)

    def add_refined(self, index: Index, phases: Phases, build_s: float) -> None:
        """Places below one hop: the queries are searched at every phase."""
        used = phases.used_rows(self.lengths)
        plain_rows, every = self.trial.queries.take(self.used), phases.queries.take(used)
        ticks = [time.perf_counter()]
        index.search(plain_rows, self.options.num_neighbours)
        ticks.append(time.perf_counter())
        found = np.full((len(phases.queries), self.options.num_neighbours), -1, np.int64)
        found[used] = index.search(every, self.options.num_neighbours).rows
        ticks.append(time.perf_counter())
        plain_s, fine_s = np.diff(ticks).tolist()
        cost = {"relative_embedding": len(every) / len(plain_rows), "relative_search": fine_s / plain_s}
        best = phases.locate(self.trial, found, self.lengths)
        for length in self.lengths:
            asked = self.trial.asked_at(length)
            located = best[length].of(asked)
            truth = self.trial.true_track[asked], self.trial.true_start_s[asked]
            figures = located_outcome(located, *truth, self.segment.hop_s)
            self._add(index, phases.name, length, asked, figures, located, build_s, refined=cost)

    def _add(
        self,
        index: Index,
        matcher: str,
        length: int,
        asked: NDArray[np.int64],
        figures: Outcome,
        located: Located,
        build_s: float,
        *,
        refined: Mapping[str, float] | None = None,
    ) -> None:
        trial, timed, only_first = self.trial, self.latency[length], refined is not None
        key = {"index": index.name, "matcher": matcher, "num_segments": length, "seconds": self.seconds(length)}
        rates = summary(figures)
        if trial.borders is None:
            rates |= dict.fromkeys(("top1_song", "top1_song_low", "top1_song_high"), math.nan)
        if only_first:  # places are not ranked, and the time of one phase says nothing
            rates |= dict.fromkeys(("top3_exact", "top10_exact", "mrr"), math.nan)
        exact_rate = self.exact_rates.setdefault(length, rates["top1_exact"])
        searched = timed.percentiles_ms("search") if timed is not None and not only_first else {}
        per_s = timed.batch_queries / timed.batch_search_s if searched and timed is not None else math.nan
        self.result.metrics.append(
            {
                **key,
                **rates,
                "recall_at_20": self.recall,
                "ann_loss": math.nan if only_first or not self.measured else exact_rate - rates["top1_exact"],
                "num_vectors": len(trial.references),
                "bytes_per_vector": index.bytes_per_vector(),
                "build_s": build_s,
                "search_p50_ms": searched.get("search_p50_ms", math.nan),
                "search_p95_ms": searched.get("search_p95_ms", math.nan),
                "queries_per_s": per_s,
            }
        )
        if len(trial.song_of):
            self.result.intervals.extend(self._intervals(key, figures, trial.song_of[asked], rates))
        if trial.borders is not None:
            errors = error_row(located, trial.true_track[asked], trial.true_start_s[asked])
            cost = refined or {"relative_embedding": 1.0, "relative_search": 1.0}
            self.result.localisation.append({**key, **errors, **cost})
        self.result.hits.extend(self._hits(key, asked, figures, located))

    def _intervals(
        self, key: Mapping[str, Any], figures: Outcome, songs: NDArray[np.int64], rates: Mapping[str, float]
    ) -> Iterator[dict[str, Any]]:
        for kind in HIT_KINDS if self.trial.borders is not None else HIT_KINDS[:2]:
            hit = getattr(figures, kind)
            low, high = cluster_interval(hit.astype(float), songs)
            yield {
                **key,
                "hit": kind,
                "num_queries": len(hit),
                "num_songs": len(np.unique(songs)),
                "rate": rate(hit),
                "wilson_low": rates[f"top1_{kind}_low"],
                "wilson_high": rates[f"top1_{kind}_high"],
                "song_low": low,
                "song_high": high,
            }

    def _hits(
        self, key: Mapping[str, Any], asked: NDArray[np.int64], figures: Outcome, located: Located
    ) -> Iterator[dict[str, Any]]:
        trial = self.trial

        def name(track: int) -> str:
            return trial.track_ids[track] if trial.track_ids and track >= 0 else ""

        columns = (*located, *figures, trial.true_track[asked], trial.true_start_s[asked])
        for query, *values in zip(asked.tolist(), *(column.tolist() for column in columns), strict=True):
            track, start_s, score, exact, near, song, rank, true_track, true_start_s = values
            detail = trial.details[query] if trial.details else None
            yield {
                **key,
                "query_id": trial.query_ids[query],
                "cluster": int(trial.song_of[query]) if len(trial.song_of) else "",
                "true_track": name(true_track),
                "true_start_s": round(true_start_s, 6),
                "found_track": name(track),
                "found_start_s": round(start_s, 6) if track >= 0 else "",
                "score": f"{score:.5f}" if track >= 0 else "",
                "exact": int(exact),
                "near": int(near),
                "song": int(song) if trial.borders is not None else "",
                "rank": rank,
                "snr_db": detail.snr_db if detail else "",
                "room": detail.room if detail else "",
                "noise": detail.noise if detail else "",
            }
