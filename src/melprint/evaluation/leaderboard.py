"""Any number of evaluations in one table and one page."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melprint.data.manifest import replacing, write_rows
from melprint.errors import MelprintError
from melprint.evaluation.plots import HEADINGS, embedded, png
from melprint.evaluation.report import ORIGIN, page_named, percent
from melprint.evaluation.tables import METRIC_COLUMNS
from melprint.evaluation.trainings import Training, differences

COLUMNS = ("run", "mode", "model", "date", "hardware", *METRIC_COLUMNS)
TEXT = ("index", "matcher")
EXACT = ("l2", "ip")
WORTH_SHOWING_S = 1e-3  # exact search has nothing to build


@dataclass(frozen=True)
class Evaluation:
    """One folder that ``evaluate.py`` wrote.

    Attributes:
        run: where it is, seen from the folder that was searched.
        origin: what ``evaluation.json`` says; empty for older ones.
        metrics: rows of ``metrics.csv``.
    """

    run: str
    origin: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]


def evaluations_below(folder: Path) -> list[Evaluation]:
    """Every evaluation in a folder and below it.

    Raises:
        MelprintError: there is no such folder, or a table is not one of metrics.
    """
    if not folder.is_dir():
        raise MelprintError(f"there is no folder {folder}")
    found = []
    for path in sorted(folder.rglob("metrics.csv")):
        if (path.parent / "hparams.yaml").exists():  # a training log of the same name
            continue
        origin = path.with_name(ORIGIN)
        name = path.parent.relative_to(folder).as_posix()
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = [_typed(row) for row in csv.DictReader(file)]
            said = json.loads(origin.read_text(encoding="utf-8")) if origin.exists() else {}
        except (KeyError, ValueError) as error:
            raise MelprintError(f"{path.parent} is not an evaluation ({error}); evaluate again") from error
        found.append(Evaluation(name.removesuffix("/evaluation") if name != "." else folder.name, said, rows))
    return found


def _typed(row: Mapping[str, str]) -> dict[str, Any]:
    return {name: row[name] if name in TEXT else float(row[name]) for name in METRIC_COLUMNS}


def write_leaderboard(evaluations: Sequence[Evaluation], folder: Path, trainings: Sequence[Training] = ()) -> Path:
    """Write ``leaderboard.csv`` and ``leaderboard.html``.

    Returns:
        The path of the page.
    """
    rows = [_row(evaluation, metric) for evaluation in evaluations for metric in evaluation.metrics]
    write_rows(folder / "leaderboard.csv", COLUMNS, ([row[name] for name in COLUMNS] for row in rows))
    lengths = sorted({row["seconds"] for row in rows})
    short = short_names([evaluation.run for evaluation in evaluations])
    entries = _entries(rows, short)
    for entry in entries:
        entry["frontier"] = on_frontier(entry["last"], [other["last"] for other in entries])
    sizes = sorted({row["num_vectors"] for row in rows})
    path = folder / "leaderboard.html"
    with replacing(path) as file:
        file.write(
            page_named("leaderboard.html.j2").render(
                num_runs=len(evaluations),
                lengths=lengths,
                kinds=[(kind, words) for kind, words in HEADINGS.items()],
                entries=entries,
                percent=percent,
                number=lambda value, digits=1: "–" if math.isnan(value) else f"{value:,.{digits}f}",
                isnan=math.isnan,
                frontier=embedded(plot_frontier(entries)) if entries else "",
                trainings=list(zip(trainings, differences(trainings), strict=True)),
                training_lengths=sorted({length for training in trainings for length in training.rates}),
                scale=embedded(plot_scale(rows)) if len(sizes) > 1 else "",
                origins=[(evaluation.run, evaluation.origin) for evaluation in evaluations],
            )
        )
    return path


def _row(evaluation: Evaluation, metric: Mapping[str, Any]) -> dict[str, Any]:
    said = evaluation.origin
    return {
        "run": evaluation.run,
        "mode": said.get("mode", ""),
        "model": str(said.get("model", ""))[:12],
        "date": said.get("date", ""),
        "hardware": said.get("hardware", ""),
        **metric,
    }


def short_names(runs: Sequence[str]) -> dict[str, str]:
    """Names of the runs of a sweep without the settings that all of them share.

    >>> short_names(["s/index=l2 seed=0", "s/index=ivf seed=0"])
    {'s/index=l2 seed=0': 'index=l2', 's/index=ivf seed=0': 'index=ivf'}
    >>> short_names(["a", "b"])
    {'a': 'a', 'b': 'b'}
    """
    words = {run: run.replace("/", " ").split() for run in runs}
    names = {}
    for run in runs:
        siblings = [set(words[other]) for other in runs if Path(other).parent == Path(run).parent]
        shared = set.intersection(*siblings) if len(siblings) > 1 else set()
        names[run] = " ".join(word for word in words[run] if word not in shared) or run
    return names


def _entries(rows: Sequence[Mapping[str, Any]], short: Mapping[str, str]) -> list[dict[str, Any]]:
    """One entry for each run, index and matcher, with its row at each length.

    Every run of a sweep over indexes has the row of exact search too: of those that say the same, the first is shown.
    """
    entries: dict[tuple[Any, ...], dict[str, Any]] = {}
    alone = {run: len({row["index"] for row in rows if row["run"] == run}) == 1 for run in short}
    rates: dict[tuple[str, str], tuple[float, ...]] = {}
    for row in rows:
        if row["matcher"] == "sequence":
            of = (row["run"], row["index"])
            rates[of] = (*rates.get(of, ()), row["num_queries"], row["top1_exact"])
    for row in rows:
        run, index, matcher = row["run"], row["index"], row["matcher"]
        shared = index in EXACT and matcher == "sequence" and not alone[run]
        says = (row["mode"], row["model"], row["num_vectors"], index, rates[run, index])
        key = says if shared else (run, index, matcher)
        entry = entries.setdefault(key, {"run": short[run], "index": index, "matcher": matcher, "rows": {}})
        entry["rows"].setdefault(row["seconds"], row)
        entry["last"] = entry["rows"][max(entry["rows"])]
    return list(entries.values())


def on_frontier(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no other index of as many vectors is better in one of recall, latency and memory and as good in the rest.

    >>> fast = {"recall_at_20": 0.9, "search_p50_ms": 1.0, "bytes_per_vector": 64.0, "num_vectors": 10.0}
    >>> exact = {"recall_at_20": 1.0, "search_p50_ms": 9.0, "bytes_per_vector": 512.0, "num_vectors": 10.0}
    >>> poor = {"recall_at_20": 0.8, "search_p50_ms": 2.0, "bytes_per_vector": 64.0, "num_vectors": 10.0}
    >>> [on_frontier(row, [fast, exact, poor]) for row in (fast, exact, poor)]
    [True, True, False]
    """

    def merits(which: Mapping[str, Any]) -> tuple[float, float, float]:
        return which["recall_at_20"], -which["search_p50_ms"], -which["bytes_per_vector"]

    own = merits(row)
    if any(math.isnan(value) for value in own):
        return False
    rivals = [merits(other) for other in others if other["num_vectors"] == row["num_vectors"]]
    return not any(
        all(a >= b for a, b in zip(rival, own, strict=True)) and any(a > b for a, b in zip(rival, own, strict=True))
        for rival in rivals
    )


def plot_frontier(entries: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG: recall against search time and against memory; those that nothing beats are filled."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, column, words in zip(
        axes,
        ("search_p50_ms", "bytes_per_vector"),
        ("search of one query of the longest length, p50, in ms", "bytes per vector"),
        strict=True,
    ):
        for entry in entries:
            last = entry["last"]
            if any(math.isnan(last[name]) for name in (column, "recall_at_20")):
                continue
            colour = "C0" if entry["frontier"] else "0.6"
            axis.plot(last[column], 100 * last["recall_at_20"], "o", color=colour)
            axis.annotate(
                f"{entry['index']} {_size(last['num_vectors'])}",
                (last[column], 100 * last["recall_at_20"]),
                textcoords="offset points",
                xytext=(4, 4),
                fontsize=7,
                color=colour,
            )
        axis.set_xscale("log")
        axis.set_xlabel(words)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("recall@20 against exact search, %")
    return png(figure)


def _size(number: float) -> str:
    """A number of vectors, short.

    >>> _size(1_043_000), _size(21_452), _size(7)
    ('1M', '21k', '7')
    """
    for unit, word in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.0f}{word}"
    return f"{number:.0f}"


def plot_scale(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG: what grows with the number of vectors, one line an index."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2).flatten()
    longest = max(row["seconds"] for row in rows)
    shortest = min(row["seconds"] for row in rows)
    panels = (
        ("top1_exact", 100, shortest, f"exact hit rate of {shortest:g} s queries, %"),
        ("search_p50_ms", 1, longest, f"search of a {longest:g} s query, p50, in ms"),
        ("bytes_per_vector", 1, longest, "bytes per vector"),
        ("build_s", 1, longest, "building, in s"),
    )
    for axis, (column, factor, seconds, words) in zip(axes, panels, strict=True):
        for number, index in enumerate(dict.fromkeys(row["index"] for row in rows)):
            points = sorted(
                (row["num_vectors"], factor * row[column])
                for row in rows
                if row["index"] == index and row["seconds"] == seconds and row["matcher"] == "sequence"
                if column != "build_s" or row[column] > WORTH_SHOWING_S
            )
            if points:
                style = {
                    "color": f"C{number % 10}",
                    "linestyle": "-" if number < 10 else "--",
                    "marker": "os^"[number % 3],
                }
                axis.plot(*zip(*points, strict=True), markersize=4, label=index, **style)
        axis.set(xscale="log", xlabel="vectors", title=words)
        if column != "top1_exact":
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    return png(figure)
