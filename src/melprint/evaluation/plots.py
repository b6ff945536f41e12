"""Pictures of an evaluation, as PNG."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from melprint.evaluation.localisation import TOLERANCES_S

HEADINGS = {"exact": "Exact place", "near": "At most one row off", "song": "Right track"}


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
    return png(figure)


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
    return png(figure)


def plot_errors(curve: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG: the two kinds of error against each other, on probability axes (Martin et al. 1997)."""
    from matplotlib.figure import Figure
    from scipy.special import ndtri

    figure = Figure(figsize=(6, 5), layout="constrained")
    axis = figure.subplots()
    ticks = [0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95]
    for seconds in sorted({row["seconds"] for row in curve}):
        colour = None
        for unknown, style in (("degraded", "-"), ("clean", ":")):
            points = [row for row in curve if (row["seconds"], row["unknown"]) == (seconds, unknown)]
            false, missed = (
                ndtri([min(max(row[kind], 5e-4), 0.98) for row in points])
                for kind in ("false_accept_rate", "false_reject_rate")
            )
            name = f"{seconds:g} s" if unknown == "degraded" else None
            (line,) = axis.plot(false, missed, style, linewidth=1.3, label=name, color=colour)
            colour = line.get_color()
    for set_ticks in (axis.set_xticks, axis.set_yticks):
        set_ticks(ndtri(ticks), [f"{100 * tick:g}" for tick in ticks])
    axis.set(
        xlabel="false accepts of unknown queries, % (dotted: clean)",
        ylabel="known queries refused or answered wrongly, %",
    )
    axis.grid(alpha=0.3)
    axis.legend(title="query")
    return png(figure)


def png(figure: Any) -> bytes:
    """A figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def embedded(png_bytes: bytes | None) -> str:
    """For a page that needs no other file."""
    return base64.b64encode(png_bytes).decode() if png_bytes else ""
