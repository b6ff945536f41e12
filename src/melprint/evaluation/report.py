"""What a person looks at: a table on the screen, a plot, and one HTML page that needs no other file."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console
from rich.table import Table

from melprint.data.manifest import replacing
from melprint.evaluation.localisation import TOLERANCES_S
from melprint.evaluation.plots import (
    HEADINGS,
    arrange,
    embedded,
    kinds_of_hit,
    plot_errors,
    plot_hit_rates,
    plot_tolerances,
)
from melprint.evaluation.tables import Result

PLOT = "hit_rate.png"
ORIGIN = "evaluation.json"


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
                hop_s=result.hop_s,
                open_set=result.open_set,
                widening=widening(result.intervals),
                percent=percent,
                ms=lambda value: "–" if math.isnan(value) else f"{value:.2f}",
                plot=embedded(plots[PLOT]),
                tolerance_plot=embedded(plots.get("localisation.png")),
                curve_plot=embedded(plots.get("open_set.png")),
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


def widening(intervals: Sequence[Mapping[str, Any]]) -> float | None:
    """How much wider the widest interval over songs is than Wilson's, if it is wider at all."""
    ratios = [
        (row["song_high"] - row["song_low"]) / (row["wilson_high"] - row["wilson_low"])
        for row in intervals
        if not math.isnan(row["song_low"])
    ]
    return max(ratios) if ratios and max(ratios) > 1 else None
