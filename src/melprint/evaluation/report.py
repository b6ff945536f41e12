"""What a person looks at: a table on the screen, a plot, and one HTML page that needs no other file."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console
from rich.table import Table

from melprint.data.manifest import replacing

PLOT = "hit_rate.png"
HEADINGS = {"exact": "Exact place", "near": "Within half a second", "song": "Right track"}

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>
 body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
 table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
 th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
 th:first-child, td:first-child { text-align: left }
 small { color: #777 } img { max-width: 100% } dt { font-weight: 600 } dd { margin: 0 0 .4rem 1rem }
 pre { background: #f6f6f6; padding: .8rem; overflow-x: auto }
</style>
<h1>{{ title }}</h1>
<p>{{ summary }}</p>
{% for rate, heading in rates %}
<h2>{{ heading }}</h2>
<table><tr><th>index</th>{% for length in lengths %}<th>{{ length }} s</th>{% endfor %}</tr>
{% for index in indexes %}<tr><td>{{ index }}</td>{% for length in lengths %}{% set row = cells[index, length] %}
<td>{{ percent(row["top1_" + rate]) }}<br>
<small>{{ percent(row["top1_" + rate + "_low"]) }}–{{ percent(row["top1_" + rate + "_high"]) }}</small></td>
{%- endfor %}</tr>
{% endfor %}</table>
{% endfor %}
<p><small>Percent of the queries, with 95 % Wilson intervals below.</small></p>
<img alt="hit rate against query length" src="data:image/png;base64,{{ plot }}">
<h2>Cost</h2>
<table><tr><th>index</th><th>recall@20</th><th>bytes per vector</th><th>build</th>
<th>search of {{ lengths[-1] }} s, p50</th><th>p95</th><th>queries/s together</th></tr>
{% for index in indexes %}{% set row = cells[index, lengths[-1]] %}
<tr><td>{{ index }}</td><td>{{ percent(row.recall_at_20) }} %</td><td>{{ "%.0f"|format(row.bytes_per_vector) }}</td>
<td>{{ "%.2f"|format(row.build_s) }} s</td><td>{{ "%.2f"|format(row.search_p50_ms) }} ms</td>
<td>{{ "%.2f"|format(row.search_p95_ms) }} ms</td><td>{{ "%.0f"|format(row.queries_per_s) }}</td></tr>
{% endfor %}</table>
<p><small>recall@20: share of the 20 exact nearest neighbours that the index finds, over all query segments.
Search: all segments of one query in one call, scoring not included.</small></p>
<h2>Terms</h2>
<dl><dt>exact</dt><dd>the best match begins at the true half second (±0.25 s)</dd>
<dt>near</dt><dd>in the right track, at most one segment off (±0.5 s)</dd>
<dt>song</dt><dd>the right track, anywhere in it</dd></dl>
<h2>Made from</h2>
<dl>{% for key, value in origin.items() %}<dt>{{ key }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
"""


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


def write_report(metrics: Sequence[Mapping[str, Any]], folder: Path, title: str, origin: Mapping[str, str]) -> Path:
    """Write ``report.html`` and ``hit_rate.png``.

    Returns:
        The path of the page.
    """
    lengths, indexes, cells = arrange(metrics)
    plot = plot_hit_rates(metrics)
    (folder / PLOT).write_bytes(plot)
    counts = sorted({int(row["num_queries"]) for row in metrics})
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(PAGE)
    path = folder / "report.html"
    with replacing(path) as file:
        file.write(
            page.render(
                title=title,
                summary=f"{'–'.join(map(str, counts))} queries among {metrics[0]['num_vectors']} fingerprints.",
                rates=[(kind, HEADINGS[kind]) for kind in kinds_of_hit(metrics)],
                lengths=[f"{length:g}" for length in lengths],
                indexes=indexes,
                cells={(index, f"{length:g}"): row for (index, length), row in cells.items()},
                percent=percent,
                plot=base64.b64encode(plot).decode(),
                origin=origin,
            )
        )
    return path


def kinds_of_hit(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """The kinds that were measured; the published protocol knows no tracks, hence no ``song``."""
    return [kind for kind in HEADINGS if not math.isnan(metrics[0][f"top1_{kind}"])]


def arrange(
    metrics: Sequence[Mapping[str, Any]],
) -> tuple[list[float], list[str], dict[tuple[str, float], Mapping[str, Any]]]:
    """Query lengths in seconds, index names in their order, and the row of each pair."""
    lengths = sorted({float(row["seconds"]) for row in metrics})
    indexes = list(dict.fromkeys(str(row["index"]) for row in metrics))
    return lengths, indexes, {(str(row["index"]), float(row["seconds"])): row for row in metrics}


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
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
