"""Paired differences between runs on the same queries.  Axes: I queries."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from scipy.stats import binomtest

from melprint.errors import MelprintError
from melprint.evaluation.metrics import CONFIDENCE, resampled_means
from melprint.randomness import rng_for

COLUMNS = (
    *("run", "against", "index", "matcher", "hit", "num_segments", "seconds", "num_queries", "num_songs"),
    *("rate", "rate_against", "difference", "low", "high", "only_here", "only_there", "mcnemar_p", "song_p"),
)
HITS = ("exact", "near", "song")
TRUTH = ("true_track", "true_start_s", "snr_db", "room", "noise")  # two queries of one name may be two queries

FLIPS = 4_999
ANY = "chosen"  # stands for the index that was named with its run

Key = tuple[str, str, int, float]  # index, matcher, segments, seconds


@dataclass(frozen=True)
class RunHits:
    """Hits of every query of a run.

    Attributes:
        name: of the run.
        hits: for each index, matcher and length, the row of each query.
    """

    name: str
    hits: Mapping[Key, Mapping[str, Mapping[str, str]]]

    @classmethod
    def read(cls, name: str) -> "RunHits":
        """Read ``hits.csv`` of an evaluation, or of the evaluation of a run.

        Args:
            name: ``FOLDER``, or ``FOLDER:INDEX`` for one index, which is then compared with whatever the others have.

        Raises:
            MelprintError: there is none, or it has other columns.
        """
        folder, index = Path(name), ""
        if not folder.exists() and ":" in name:
            before, _, index = name.rpartition(":")
            folder = Path(before)
        for path in (folder / "hits.csv", folder / "evaluation" / "hits.csv"):
            if path.exists():
                break
        else:
            raise MelprintError(f"{folder} has no hits.csv; name a folder that evaluate.py wrote")
        hits: dict[Key, dict[str, Mapping[str, str]]] = {}
        try:
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    key = (row["index"], row["matcher"], int(row["num_segments"]), float(row["seconds"]))
                    hits.setdefault(key, {})[row["query_id"]] = {name: row[name] for name in (*TRUTH, "cluster", *HITS)}
        except (KeyError, ValueError) as error:
            raise MelprintError(f"{path} is not a table of hits ({error}); evaluate again") from error
        if not index:
            return cls(name, hits)
        chosen = {(ANY, *key[1:]): rows for key, rows in hits.items() if key[0] == index}
        if not chosen:
            raise MelprintError(f"{path} has no index {index}, only {', '.join(sorted({key[0] for key in hits}))}")
        return cls(name, chosen)


def compare(
    runs: Sequence[RunHits], index: str | None = None, matcher: str = "sequence", seed: int = 0
) -> list[dict[str, Any]]:
    """Each run against the first, with the same index at the same length on the queries of both.

    The difference of hit rates has a 95 % interval from a bootstrap of whole songs, the same songs in both runs;
    McNemar's exact test asks whether the queries that only one of them answers are evenly divided.

    Args:
        runs: two or more.
        index: to be compared; by default every one that both have.
        matcher: the same in both.
        seed: of the bootstrap.

    Raises:
        MelprintError: nothing can be compared.
    """
    if len(runs) < 2:
        raise MelprintError("compare needs two runs or more")
    if len({ANY in {key[0] for key in run.hits} for run in runs}) > 1:
        raise MelprintError("name an index with every run, or with none: RUN:INDEX RUN:INDEX")
    rows = []
    for run in runs[1:]:
        shared = [k for k in runs[0].hits if k in run.hits and k[1] == matcher and index in (None, k[0])]
        pairs = [(key, sorted(runs[0].hits[key].keys() & run.hits[key].keys())) for key in shared]
        if not any(queries for _, queries in pairs):
            raise MelprintError(
                f"{run.name} and {runs[0].name} share no queries of the same index and length; evaluate both on the"
                " same corpus with the same queries"
            )
        for key, queries in pairs:
            if len(queries) < max(len(runs[0].hits[key]), len(run.hits[key])):
                raise MelprintError(
                    f"{run.name} and {runs[0].name} were asked different queries ({len(queries)} in both of"
                    f" {len(run.hits[key])} and {len(runs[0].hits[key])}); evaluate both on the same queries"
                )
            here, there = run.hits[key], runs[0].hits[key]
            if any(here[query][name] != there[query][name] for query in queries for name in TRUTH):
                raise MelprintError(
                    f"{run.name} and {runs[0].name} have queries of the same names from other places or with other"
                    " noise; evaluate both on the same queries"
                )
            rows += [_row(run, runs[0], key, queries, hit, seed) for hit in HITS if here[queries[0]][hit] != ""]
    return rows


def comparison_table(rows: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """For a screen: a table for each pair of runs, in points of percent."""
    for pair in dict.fromkeys((row["run"], row["against"]) for row in rows):
        own = [row for row in rows if (row["run"], row["against"]) == pair]
        table = Table(title=Text(f"{pair[0]} (here) against {pair[1]} (there)"))
        for name in ("index", "hit", "query", "here", "there", "points", "95 %", "only", "p", "p songs"):
            table.add_column(name, justify="left" if name in ("index", "hit") else "right", no_wrap=True)
        for row in own:
            table.add_row(
                "" if row["index"] == ANY else row["index"],
                row["hit"],
                f"{row['seconds']:g} s",
                f"{100 * row['rate']:.1f}",
                f"{100 * row['rate_against']:.1f}",
                f"{100 * row['difference']:+.1f}",
                f"{100 * row['low']:+.1f} {100 * row['high']:+.1f}",
                f"{row['only_here']}/{row['only_there']}",
                f"{row['mcnemar_p']:.2g}",
                f"{row['song_p']:.2g}",
            )
        counts = f"{own[0]['num_queries']} queries of {own[0]['num_songs']} songs"
        table.caption = (
            f"{counts}; only: answered here and not there / there and not here; p: McNemar's exact test, which takes"
            " queries for independent; p songs: signs of whole songs flipped"
        )
        yield table


def _row(run: RunHits, against: RunHits, key: Key, queries: Sequence[str], hit: str, seed: int) -> dict[str, Any]:
    here, there = (np.array([int(which.hits[key][query][hit]) for query in queries]) for which in (run, against))
    songs = np.array([against.hits[key][query]["cluster"] or query for query in queries])
    low, high = difference_interval(here, there, songs, seed)
    only_here, only_there = int((here > there).sum()), int((here < there).sum())
    return {
        "run": run.name,
        "against": against.name,
        "index": key[0],
        "matcher": key[1],
        "hit": hit,
        "num_segments": key[2],
        "seconds": key[3],
        "num_queries": len(queries),
        "num_songs": len(np.unique(songs)),
        "rate": float(here.mean()),
        "rate_against": float(there.mean()),
        "difference": float((here - there).mean()),
        "low": low,
        "high": high,
        "only_here": only_here,
        "only_there": only_there,
        "mcnemar_p": mcnemar_p(only_here, only_there),
        "song_p": sign_flip_p(here - there, songs, seed),
    }


def difference_interval(
    here: NDArray[np.integer], there: NDArray[np.integer], songs: NDArray[Any], seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of the mean difference, by a bootstrap of whole songs."""
    _, cluster = np.unique(songs, return_inverse=True)
    means = resampled_means((here - there).astype(float), cluster, seed)
    if not len(means):
        return float("nan"), float("nan")
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def sign_flip_p(difference: NDArray[np.integer], songs: NDArray[Any], seed: int = 0) -> float:
    """Two-sided p-value when the sign of each song's sum of differences is as good as a coin.

    McNemar's test takes queries for independent and rejects too often where those of one song go together.
    """
    _, own = np.unique(songs, return_inverse=True)
    sums = np.bincount(own, weights=difference)
    signs = rng_for(seed, 2).choice((-1.0, 1.0), size=(FLIPS, len(sums)))
    as_far = np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9
    return float((1 + as_far.sum()) / (1 + FLIPS))


def mcnemar_p(only_here: int, only_there: int) -> float:
    """Two-sided exact p-value (McNemar 1947): of the discordant queries, half should fall to each side.

    >>> mcnemar_p(5, 0), mcnemar_p(3, 3)
    (0.0625, 1.0)
    """
    discordant = only_here + only_there
    return float(binomtest(only_here, discordant).pvalue) if discordant else 1.0
