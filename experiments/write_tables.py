"""Write the measured tables of the demo into the README and into experiments/001-demo.

``python experiments/write_tables.py [RUN]`` reads what ``make demo`` left in RUN (runs/demo by default) and
replaces what stands between ``<!-- NAME -->`` and ``<!-- /NAME -->`` in the two files.
"""

import csv
import json
import os
import platform
import re
import shutil
import sys
from datetime import date
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]


def percent(row: dict[str, str], rate: str) -> str:
    """``54.2`` from ``0.542``."""
    return f"{100 * float(row[rate]):.1f}"


def hit_table(rows: list[dict[str, str]]) -> str:
    """Exact search: one line for each kind of hit, one column for each query length."""
    exact = [row for row in rows if row["index"] == rows[0]["index"]]
    lines = [
        "| top-1 hit rate, % | " + " | ".join(f"{float(row['seconds']):g} s" for row in exact) + " |",
        "|---|" + "---|" * len(exact),
    ]
    names = {"exact": "exact (±0.25 s)", "near": "near (±0.5 s)", "song": "right track"}
    for kind, name in names.items():
        cells = [
            f"{percent(row, f'top1_{kind}')} [{percent(row, f'top1_{kind}_low')}, {percent(row, f'top1_{kind}_high')}]"
            for row in exact
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def index_table(rows: list[dict[str, str]]) -> str:
    """One line for each index: hit rates, loss and cost."""
    lengths = list(dict.fromkeys(row["seconds"] for row in rows))
    lines = [
        "| index | " + " | ".join(f"exact {float(s):g} s" for s in lengths) + " | recall@20 | bytes/vector | build |"
        " 10 s search p50 |",
        "|---|" + "---|" * (len(lengths) + 4),
    ]
    for index in dict.fromkeys(row["index"] for row in rows):
        mine = [row for row in rows if row["index"] == index]
        last = mine[-1]
        cells = [percent(row, "top1_exact") for row in mine]
        cells += [percent(last, "recall_at_20"), f"{float(last['bytes_per_vector']):.0f}"]
        cells += [f"{float(last['build_s']):.2f} s", f"{float(last['search_p50_ms']):.1f} ms"]
        lines.append(f"| {index} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def provenance(run: Path, rows: list[dict[str, str]]) -> str:
    """What gave the figures."""
    meta = json.loads((run / "fingerprints" / "db_meta.json").read_text())
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    model = named[0] if named else platform.processor()
    return (
        f"`make demo`, commit {meta['commit'][:10]}, {date.today()}; {os.cpu_count()} cores of {model}, no GPU,"
        f" torch {torch.__version__}; {rows[0]['num_queries']} queries among {rows[0]['num_vectors']} fingerprints;"
        " in brackets 95 % Wilson intervals."
    )


def replace(path: Path, name: str, content: str) -> None:
    """Put ``content`` between the two marks of ``name``."""
    text = path.read_text()
    mark, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if mark not in text or end not in text:
        raise SystemExit(f"{path} has no {mark} … {end}")
    path.write_text(re.sub(f"{mark}.*?{end}", lambda _: f"{mark}\n{content}\n{end}", text, flags=re.DOTALL))


def main() -> None:
    """Rewrite both files."""
    run = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "runs" / "demo"
    with (run / "evaluation" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for path in (ROOT / "README.md", ROOT / "experiments" / "001-demo" / "README.md"):
        replace(path, "demo", f"{hit_table(rows)}\n\n{provenance(run, rows)}")
    replace(ROOT / "experiments" / "001-demo" / "README.md", "indexes", index_table(rows))
    shutil.copyfile(run / "evaluation" / "hit_rate.png", ROOT / "docs" / "demo-hit-rate.png")


if __name__ == "__main__":
    main()
