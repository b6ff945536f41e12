"""Paired differences, judged by hand-made hits and by simulation."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from melprint.cli import app
from melprint.data.manifest import write_rows
from melprint.errors import MelprintError
from melprint.evaluation.compare import RunHits, compare, difference_interval, mcnemar_p
from melprint.evaluation.tables import HIT_COLUMNS


def write_hits(folder: Path, exact: dict[str, list[int]]) -> str:
    rows = []
    for (index, hits), length in itertools.product(exact.items(), (1, 3)):
        for query, hit in enumerate(hits):
            row = dict.fromkeys(HIT_COLUMNS, "0") | {
                "index": index,
                "matcher": "sequence",
                "query_id": f"q{query}",
                "cluster": str(query // 4),
                "num_segments": str(length),
                "seconds": str((length + 1) / 2),
                "exact": str(hit),
            }
            rows.append([row[name] for name in HIT_COLUMNS])
    write_rows(folder / "evaluation" / "hits.csv", HIT_COLUMNS, rows)
    return str(folder)


def test_the_same_queries_are_paired(tmp_path: Path) -> None:
    first = write_hits(tmp_path / "a", {"l2": [1, 1, 0, 0, 1, 0, 0, 0], "ivf": [1] * 8})
    second = write_hits(tmp_path / "b", {"l2": [1, 0, 1, 1, 1, 1, 0, 0]})
    rows = compare([RunHits.read(first), RunHits.read(second)])
    (row,) = [row for row in rows if row["hit"] == "exact" and row["num_segments"] == 1]
    assert row["index"] == "l2"
    assert (row["rate"], row["rate_against"]) == (5 / 8, 3 / 8)
    assert row["difference"] == pytest.approx(0.25)
    assert (row["only_here"], row["only_there"], row["num_songs"]) == (3, 1, 2)
    assert row["mcnemar_p"] == pytest.approx(10 / 16)  # 3 or more of 4 fair coins, on both sides
    assert row["low"] <= 0.25 <= row["high"]
    between = compare([RunHits.read(f"{first}:l2"), RunHits.read(f"{first}:ivf")])
    assert between[0]["difference"] == pytest.approx(5 / 8)
    shown = CliRunner().invoke(app, ["compare", first, second, "--csv", str(tmp_path / "out.csv")])
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / "out.csv").read_text().count("\n") == 1 + 3 * 2


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    first = write_hits(tmp_path / "a", {"l2": [1] * 8})
    for other, words in (
        ({"ivf": [1] * 8}, "share no queries"),
        ({"l2": [1] * 6}, "were asked different queries"),
    ):
        second = write_hits(tmp_path / words, other)
        with pytest.raises(MelprintError, match=words):
            compare([RunHits.read(first), RunHits.read(second)])
    with pytest.raises(MelprintError, match="two runs or more"):
        compare([RunHits.read(first)])
    with pytest.raises(MelprintError, match=r"has no hits\.csv"):
        RunHits.read(str(tmp_path))
    with pytest.raises(MelprintError, match="has no index hnsw, only l2"):
        RunHits.read(f"{first}:hnsw")


def test_the_interval_of_the_difference_covers_it(rng: np.random.Generator) -> None:
    """Songs gain 10 points on average, some more, some less: of 100 repetitions about 95 cover that."""
    covered = 0
    song = np.repeat(np.arange(80), 6)
    for seed in range(100):
        base = rng.uniform(0.3, 0.7, 80)[song]
        gain = rng.uniform(-0.1, 0.3, 80)[song]
        shared = rng.random(len(song))
        low, high = difference_interval((shared < base + gain).astype(int), (shared < base).astype(int), song, seed)
        covered += low <= 0.1 <= high
    assert 87 <= covered <= 100


def test_mcnemar_is_a_fair_coin() -> None:
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(10, 0) == pytest.approx(2 / 1024)
    assert mcnemar_p(0, 10) == mcnemar_p(10, 0)
