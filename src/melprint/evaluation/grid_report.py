"""A grid as a table, one heat map for each factor, and a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from melprint.data.manifest import replacing, write_rows
from melprint.evaluation.plots import embedded, png
from melprint.evaluation.report import page_named, percent
from melprint.evaluation.robustness import COLUMNS

KINDS = {"song": "right track", "near": "at most one row off"}


def write_grid(rows: Sequence[Mapping[str, Any]], folder: Path, origin: Mapping[str, Any]) -> Path:
    """Write ``robustness.csv``, ``FACTOR.png`` and ``robustness.html``.

    Returns:
        The path of the page.
    """
    factors = list(dict.fromkeys(str(row["factor"]) for row in rows))
    of_factor = {factor: [row for row in rows if row["factor"] == factor] for factor in factors}
    plots = {factor: heat_map(of_factor[factor]) for factor in factors}
    write_rows(folder / "robustness.csv", COLUMNS, ([row[name] for name in COLUMNS] for row in rows))
    for factor, plot in plots.items():
        (folder / f"{factor}.png").write_bytes(plot)
    path = folder / "robustness.html"
    with replacing(path) as file:
        file.write(
            page_named("robustness.html.j2").render(
                title=f"melprint: {origin['run']}, robustness",
                num_queries=int(rows[0]["num_queries"]),
                num_songs=int(rows[0]["num_songs"]),
                factors=factors,
                of_factor=of_factor,
                lengths=list(dict.fromkeys(f"{row['seconds']:g}" for row in rows)),
                plots={factor: embedded(plot) for factor, plot in plots.items()},
                percent=percent,
                origin=origin,
            )
        )
    return path


def heat_map(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG: hit rates of one factor by level and query length, with intervals in the cells."""
    import numpy as np
    from matplotlib.figure import Figure

    levels = sorted({float(row["level"]) for row in rows})
    lengths = sorted({float(row["seconds"]) for row in rows})
    cell = {(float(row["level"]), float(row["seconds"])): row for row in rows}
    figure = Figure(figsize=(11, 1.4 + 0.42 * len(levels)), layout="constrained")
    axes = figure.subplots(1, len(KINDS), sharey=True)
    for axis, (kind, words) in zip(axes, KINDS.items(), strict=True):
        rates = np.array([[cell[level, length][f"top1_{kind}"] for length in lengths] for level in levels])
        picture = axis.imshow(100 * rates, vmin=0, vmax=100, aspect="auto", cmap="viridis")
        for y, level in enumerate(levels):
            for x, length in enumerate(lengths):
                row = cell[level, length]
                low, high = (100 * row[f"top1_{kind}_{bound}"] for bound in ("low", "high"))
                colour = "black" if rates[y, x] > 0.6 else "white"
                axis.text(
                    x,
                    y,
                    f"{100 * rates[y, x]:.0f}\n{low:.0f}–{high:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color=colour,
                )
        axis.set_xticks(range(len(lengths)), [f"{length:g}" for length in lengths])
        axis.set_yticks(range(len(levels)), [f"{level:g}" for level in levels])
        axis.set(title=words, xlabel="query length in s")
    axes[0].set_ylabel(f"{rows[0]['factor']} in {rows[0]['unit']}")
    figure.colorbar(picture, ax=axes, label="%")
    return png(figure)
