"""What a person looks at: a table on the screen, a plot, and one HTML page that needs no other file."""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console
from rich.table import Table

from melprint.data.manifest import replacing
from melprint.evaluation.evaluate import Result
from melprint.evaluation.localisation import TOLERANCES_S

PLOT = "hit_rate.png"
ORIGIN = "evaluation.json"
HEADINGS = {"exact": "Exact place", "near": "Within half a second", "song": "Right track"}


def percent(fraction: float) -> str:
    """A fraction as percent with one decimal.

    >>> percent(0.5)
    '50.0'
    """
    return f"{100 * fraction:.1f}"


def print_table(metrics: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Top-1 hit rates in percent, one row for each index and kind of hit."""
    lengths, indexes, cells = arrange(metrics)
    counts = sorted({int(row["num_queries"]) for row in metrics})
    table = Table(
        title=f"Top-1 hit rate in %, {'–'.join(map(str, counts))} queries, {metrics[0]['num_vectors']} vectors"
    )
    table.add_column("index")
    table.add_column("hit")
    for length in lengths:
        table.add_column(f"{length:g} s", justify="right")
    for index in indexes:
        kinds = kinds_of_hit(metrics)
        for kind in kinds:
            rates = [percent(cells[index, length][f"top1_{kind}"]) for length in lengths]
            table.add_row(index if kind == kinds[0] else "", kind, *rates, end_section=kind == kinds[-1])
    console.print(table)


def write_report(result: Result, folder: Path, origin: Mapping[str, str]) -> Path:
    """Write all tables, ``evaluation.json``, the plots and ``report.html``.

    Returns:
        The path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metrics = result.metrics
    lengths, indexes, cells = arrange(metrics)
    plots = {PLOT: plot_hit_rates(metrics)}
    if result.localisation:
        plots["localisation.png"] = plot_tolerances(result.localisation, lengths)
    if result.open_set_curve:
        plots["open_set.png"] = plot_errors(result.open_set_curve)
    for name in (PLOT, "localisation.png", "open_set.png"):
        (folder / name).unlink(missing_ok=True)
        if name in plots:
            (folder / name).write_bytes(plots[name])
    page = page_named("report.html.j2")
    counts = sorted({int(row["num_queries"]) for row in metrics})
    path = folder / "report.html"
    with replacing(path) as file:
        file.write(
            page.render(
                title=f"melprint: {origin['run']}, {origin['mode']}",
                summary=f"{'–'.join(map(str, counts))} queries among {metrics[0]['num_vectors']} fingerprints.",
                rates=[(kind, HEADINGS[kind]) for kind in kinds_of_hit(metrics)],
                lengths=[f"{length:g}" for length in lengths],
                indexes=indexes,
                searched=[index for index in indexes if not math.isnan(cells[index, lengths[0]]["ann_loss"])],
                cells={(index, f"{length:g}"): row for (index, length), row in cells.items()},
                costs={(row["index"], f"{row['seconds']:g}"): row for row in result.costs},
                located=[r for r in result.localisation if r["index"] == metrics[0]["index"]],
                tolerances=[f"{tolerance:g}" for tolerance in TOLERANCES_S],
                hop_s=(lengths[1] - lengths[0]) / 2 if len(lengths) > 1 else 0.5,
                open_set=result.open_set,
                widening=widening(result.intervals),
                percent=percent,
                ms=lambda value: "–" if math.isnan(value) else f"{value:.2f}",
                plot=_embedded(plots[PLOT]),
                tolerance_plot=_embedded(plots.get("localisation.png")),
                curve_plot=_embedded(plots.get("open_set.png")),
                origin=origin,
            )
        )
    with replacing(folder / ORIGIN) as file:
        json.dump(dict(origin), file, indent=2)
    result.write(folder)
    return path


def page_named(name: str) -> jinja2.Template:
    """A page of this package, to be rendered."""
    loader = jinja2.PackageLoader("melprint.evaluation", "pages")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(name)


def _embedded(png: bytes | None) -> str:
    return base64.b64encode(png).decode() if png else ""


def widening(intervals: Sequence[Mapping[str, Any]]) -> float | None:
    """How much wider the widest interval over songs is than Wilson's, if it is wider at all."""
    ratios = [
        (row["song_high"] - row["song_low"]) / (row["wilson_high"] - row["wilson_low"])
        for row in intervals
        if not math.isnan(row["song_low"])
    ]
    return max(ratios) if ratios and max(ratios) > 1 else None


def kinds_of_hit(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """The kinds that were measured; the published protocol knows no tracks, hence no ``song``."""
    return [kind for kind in HEADINGS if not math.isnan(metrics[0][f"top1_{kind}"])]


def arrange(
    metrics: Sequence[Mapping[str, Any]],
) -> tuple[list[float], list[str], dict[tuple[str, float], Mapping[str, Any]]]:
    """Query lengths in seconds, index names in their order, and the row of each pair."""
    lengths = sorted({float(row["seconds"]) for row in metrics})
    name = {id(row): label(row) for row in metrics}
    return lengths, list(dict.fromkeys(name.values())), {(name[id(row)], float(row["seconds"])): row for row in metrics}


def label(row: Mapping[str, Any]) -> str:
    """The index, and the matcher where it is not the usual one."""
    return str(row["index"]) if row["matcher"] == "sequence" else f"{row['index']}, {row['matcher']}"


def plot_hit_rates(metrics: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG: exact and song hit rate against query length, one line for each index, with intervals."""
    from matplotlib.figure import Figure

    lengths, indexes, cells = arrange(metrics)
    figure = Figure(figsize=(9, 4), layout="constrained")
    kinds = [kind for kind in kinds_of_hit(metrics) if kind != "near"]
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axis, kind in zip(axes, kinds, strict=True):
        for number, index in enumerate(indexes):
            rows = [cells[index, length] for length in lengths]
            rates = [100 * row[f"top1_{kind}"] for row in rows]
            errors = [
                [rate - 100 * row[f"top1_{kind}_low"] for rate, row in zip(rates, rows, strict=True)],
                [100 * row[f"top1_{kind}_high"] - rate for rate, row in zip(rates, rows, strict=True)],
            ]
            # Lines that coincide are set apart a little, so that each can be seen.
            shifted = [length + 0.06 * (number - (len(indexes) - 1) / 2) for length in lengths]
            axis.errorbar(shifted, rates, yerr=errors, marker="o", markersize=4, capsize=2, linewidth=1.2, label=index)
        axis.set(title=HEADINGS[kind].lower(), xlabel="query length in s", ylim=(0, 101), xticks=lengths)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("top-1 hit rate in %")
    axes[-1].legend(loc="lower right")
    return _png(figure)


def plot_tolerances(rows: Sequence[Mapping[str, Any]], lengths: Sequence[float]) -> bytes:
    """A PNG: share of the queries that are found within a tolerance, for the shortest and the longest."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    shown = sorted({lengths[0], lengths[-1]})
    first = rows[0]["index"]
    for axis, seconds in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
        for row in rows:
            if row["index"] == first and row["seconds"] == seconds:
                rates = [100 * row[f"within_{tolerance:g}s"] for tolerance in TOLERANCES_S]
                low = [100 * row[f"within_{tolerance:g}s_low"] for tolerance in TOLERANCES_S]
                high = [100 * row[f"within_{tolerance:g}s_high"] for tolerance in TOLERANCES_S]
                axis.plot(TOLERANCES_S, rates, marker="o", markersize=4, label=label(row))
                axis.fill_between(TOLERANCES_S, low, high, alpha=0.2)
        axis.set_xscale("log")
        axis.set_xticks(TOLERANCES_S, [f"{tolerance:g}" for tolerance in TOLERANCES_S])
        axis.minorticks_off()
        axis.set(title=f"{seconds:g} s queries", xlabel="tolerance in s", ylim=(0, 101))
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right")
    figure.axes[0].set_ylabel("found within, %")
    return _png(figure)


def plot_errors(curve: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG: the two kinds of error against each other, on probability axes (Martin et al. 1997)."""
    from matplotlib.figure import Figure
    from scipy.special import ndtri

    figure = Figure(figsize=(6, 5), layout="constrained")
    axis = figure.subplots()
    ticks = [0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95]
    for seconds in sorted({row["seconds"] for row in curve}):
        points = [row for row in curve if row["seconds"] == seconds]
        false, missed = (
            ndtri([min(max(row[kind], 5e-4), 0.98) for row in points])
            for kind in ("false_accept_rate", "false_reject_rate")
        )
        axis.plot(false, missed, linewidth=1.3, label=f"{seconds:g} s")
    for set_ticks in (axis.set_xticks, axis.set_yticks):
        set_ticks(ndtri(ticks), [f"{100 * tick:g}" for tick in ticks])
    axis.set(xlabel="false accepts of unknown queries, %", ylabel="known queries refused or answered wrongly, %")
    axis.grid(alpha=0.3)
    axis.legend(title="query")
    return _png(figure)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
