"""Write the tables of README.md from the runs: ``python experiments/003-recipes/tables.py WORK --games data/games``."""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from study import BASE_STEPS, LENGTHS, Bench, noted, test_queries

README = Path(__file__).with_name("README.md")
ROUNDS = 4_000
SETS = {"noise and rooms": "near", "codecs": "near", "speed": "near", "narrow bands": "near", "other music": "near"}
SECONDS = {1: "1 s", 5: "3 s", 19: "10 s"}


def bootstrap(values_Q: np.ndarray, track_Q: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """A 95 % interval of the mean, whole tracks drawn with replacement."""
    sums = np.bincount(track_Q, values_Q)
    counts = np.bincount(track_Q)
    sums, counts = sums[counts > 0], counts[counts > 0]
    drawn = np.random.default_rng(seed).integers(len(sums), size=(ROUNDS, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def rows_of(work: Path) -> dict[str, list[dict[str, Any]]]:
    """The runs of each variant that has more than one seed."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for row in noted(work):
        if row["stage"] == "main":
            runs.setdefault(row["variant"], []).append(row)
    return {variant: rows for variant, rows in runs.items() if len(rows) > 1}


def mean_hits(rows: list[dict[str, Any]], name: str, key: str) -> np.ndarray:
    """Of each query, the mean over the seeds."""
    return np.mean([row["hits"][name][key] for row in rows], axis=0)


def percent(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def points(value: float, low: float, high: float) -> str:
    mark = "**" if low > 0 or high < 0 else ""
    return f"{mark}{100 * value:+.1f}{mark} [{100 * low:+.1f}, {100 * high:+.1f}]"


def rates_table(runs: dict[str, list[dict[str, Any]]], track: dict[str, np.ndarray]) -> list[str]:
    name = "noise and rooms"
    head = "| variant | seeds | steps | exact, 1 s | exact, 3 s | exact, 10 s | right track, 1 s | right track, 10 s |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for variant, rows in sorted(runs.items(), key=lambda item: -mean_hits(item[1], name, "exact 1").mean()):
        cells = []
        for key in ("exact 1", "exact 5", "exact 19", "song 1", "song 19"):
            hits = mean_hits(rows, name, key)
            cells.append(percent(hits.mean(), *bootstrap(hits, track[name])))
        lines.append(f"| {variant} | {len(rows)} | {rows[0]['steps']} | {' | '.join(cells)} |")
    return lines


def differences_table(runs: dict[str, list[dict[str, Any]]], track: dict[str, np.ndarray]) -> list[str]:
    base = runs["base"]
    columns = [(name, key) for name in SETS for key in ("near 1", "near 19")]
    head = " | ".join(f"{name}, {SECONDS[int(key.split()[1])]}" for name, key in columns)
    lines = [f"| against the base | {head} |", "|---" * (1 + len(columns)) + "|"]
    cells = []
    for name, key in columns:
        hits = mean_hits(base, name, key)
        cells.append(percent(hits.mean(), *bootstrap(hits, track[name])))
    lines.append(f"| base | {' | '.join(cells)} |")
    for variant, rows in runs.items():
        if variant == "base":
            continue
        cells = []
        for name, key in columns:
            seeds = {row["seed"] for row in rows}  # against the same seeds
            change = mean_hits(rows, name, key) - mean_hits([r for r in base if r["seed"] in seeds], name, key)
            cells.append(points(change.mean(), *bootstrap(change, track[name])))
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return lines


def screening_table(work: Path) -> list[str]:
    lines = ["| variant | setting | steps | validation, exact, % |", "|---|---|---|---|"]
    screened = [row for row in noted(work) if row["stage"] == "screen"]
    return lines + [
        f"| {row['variant']} | `{' '.join(row['setting'])}` | {row['steps']} | {100 * row['validation']:.1f} |"
        for row in screened
    ]


def write_between(text: str, name: str, lines: list[str]) -> str:
    block = "\n".join([f"<!-- {name} -->", *lines, f"<!-- /{name} -->"])
    return re.sub(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _: block, text, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--games", type=Path, required=True)
    arguments = parser.parse_args()
    kept = arguments.work / "tracks.json"
    if not kept.exists():
        queries = test_queries(Bench(arguments.games).corpus)
        kept.write_text(json.dumps({name: made.track.tolist() for name, made in queries.items()}))
    track = {name: np.array(numbers) for name, numbers in json.loads(kept.read_text()).items()}
    runs = rows_of(arguments.work)
    seconds = np.median([row["trained_s"] for rows in runs.values() for row in rows])
    counts = ", ".join(f"{name} {len(numbers)}" for name, numbers in track.items())
    text = README.read_text()
    text = write_between(text, "rates", rates_table(runs, track))
    text = write_between(text, "differences", differences_table(runs, track))
    text = write_between(text, "screening", screening_table(arguments.work))
    facts = (
        f"{sum(map(len, runs.values()))} runs of the main stage; {BASE_STEPS} steps of the base, about {seconds:.0f} s"
        f" of one core each; queries: {counts}; lengths {', '.join(SECONDS[n] for n in LENGTHS)}."
    )
    README.write_text(write_between(text, "facts", [facts]))


if __name__ == "__main__":
    main()
