"""Write the measured and extrapolated tables and the plot of docs/scale.md.

``python experiments/write_scale.py RUNS`` reads the evaluations below RUNS, which differ in index and number of
distractors, and replaces what stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``.
"""

import csv
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melprint.evaluation.leaderboard import evaluations_below, plot_scale

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scale.md"
SIZES = (56e6, 1e9)
MEASURED = ("search_p50_ms", "build_s")


def measured_rows(runs: Path) -> list[dict[str, Any]]:
    """One row for each index, number of vectors and length; the latest where one was measured twice."""
    rows: dict[tuple[str, float, float], dict[str, Any]] = {}
    for evaluation in sorted(evaluations_below(runs), key=lambda e: (runs / e.run).stat().st_mtime):
        exact_first = evaluation.metrics[0]["index"]
        for row in evaluation.metrics:
            if row["index"] == "ip" and exact_first == "ip":
                continue  # the measure of a sweep over other indexes
            rows[row["index"], row["num_vectors"], row["seconds"]] = dict(row)
    return list(rows.values())


def peak_memory(runs: Path) -> dict[tuple[str, float], float]:
    """Peak memory in MB by index and number of vectors."""
    peak = {}
    for path in sorted(runs.rglob("costs.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                peak[row["index"], float(row["num_vectors"])] = float(row["peak_memory_mb"])
    return peak


def short(number: float) -> str:
    """Two significant digits, with thousands."""
    if number < 1e-3 or math.isnan(number):
        return "–" if math.isnan(number) else "0"
    digits = max(0, 1 - math.floor(math.log10(abs(number))))
    return f"{round(number, 1 - math.floor(math.log10(abs(number)))):,.{digits}f}"


def megabytes(value: float | None) -> str:
    """A size, or that it was not measured."""
    return "–" if value is None else f"{value:,.0f} MB"


def measured_table(rows: Sequence[dict[str, Any]], peak: dict[tuple[str, float], float]) -> list[str]:
    """What was measured, by index and size."""
    lines = [
        "| index | vectors | exact 1 s | exact 10 s | right track 1 s | recall@20 | lost at 1 s | search 1 s |"
        " search 10 s | bytes/vector | build | peak memory |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for index in dict.fromkeys(row["index"] for row in rows):
        for size in sorted({row["num_vectors"] for row in rows if row["index"] == index}):
            mine = sorted(
                (row for row in rows if (row["index"], row["num_vectors"]) == (index, size)), key=lambda r: r["seconds"]
            )
            first, last = mine[0], mine[-1]
            lines.append(
                f"| {index} | {size:,.0f} | {100 * first['top1_exact']:.1f} | {100 * last['top1_exact']:.1f} |"
                f" {100 * first['top1_song']:.1f} | {100 * first['recall_at_20']:.1f} | {100 * first['ann_loss']:.1f} |"
                f" {short(first['search_p50_ms'])} ms | {short(last['search_p50_ms'])} ms |"
                f" {last['bytes_per_vector']:.0f} | {short(last['build_s'])} s | {megabytes(peak.get((index, size)))} |"
            )
    return lines


def extrapolated_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Power laws through the measured sizes, and what they say of larger ones."""
    lines = [
        "| index | search of 10 s | build | memory 56 M | search 56 M | build 56 M | memory 1e9 | search 1e9 |"
        " build 1e9 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    longest = max(row["seconds"] for row in rows)
    for index in dict.fromkeys(row["index"] for row in rows):
        mine = [row for row in rows if row["index"] == index and row["seconds"] == longest]
        if len(mine) < 2:
            continue
        size = np.array([row["num_vectors"] for row in mine])
        laws = []
        for name in MEASURED:
            value = np.array([max(row[name], 1e-3) for row in mine])
            there = np.isfinite(value)
            slope, offset = np.polyfit(np.log10(size[there]), np.log10(value[there]), 1)
            laws.append((slope, offset))
        largest = max(mine, key=lambda row: row["num_vectors"])
        cells = [f"∝ N^{slope:.2f}" for slope, _ in laws]
        for wanted in SIZES:
            search, build = (10 ** (slope * math.log10(wanted) + offset) for slope, offset in laws)
            cells += [f"{largest['bytes_per_vector'] * wanted / 1e9:.0f} GB", duration(search / 1e3)]
            cells += ["–" if index == "l2" else duration(build)]
        lines.append(f"| {index} | " + " | ".join(cells) + " |")
    return lines


def duration(seconds: float) -> str:
    """A time in its unit.

    >>> duration(0.012), duration(90), duration(7200)
    ('12 ms', '90 s', '2.0 h')
    """
    if seconds < 1:
        return f"{1e3 * seconds:.0f} ms"
    return f"{seconds:.0f} s" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def replace(text: str, name: str, lines: Sequence[str]) -> str:
    """Put lines between the two marks of ``name``."""
    before, mark, rest = text.partition(f"<!-- {name} -->")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not mark or not end:
        sys.exit(f"{PAGE} has no mark {name}")
    return "\n".join([before + mark, *lines, end + after])


def main() -> None:
    """Rewrite the page and its plot."""
    runs = Path(sys.argv[1])
    rows = measured_rows(runs)
    text = replace(PAGE.read_text(), "measured", measured_table(rows, peak_memory(runs)))
    text = replace(text, "extrapolated", extrapolated_table(rows))
    PAGE.write_text(text)
    (ROOT / "docs" / "scale.png").write_bytes(plot_scale(rows))


if __name__ == "__main__":
    main()
