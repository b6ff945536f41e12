"""RESULTS.md has one part for each benchmark, which rewrites it and nothing else."""

import re
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = "# Benchmarks"


def write_part(title: str, lines: Sequence[str]) -> None:
    text = "\n".join([f"## {title}", "", *lines])
    old = RESULTS.read_text() if RESULTS.exists() else HEAD
    parts = re.split(r"(?m)^(?=## )", old.rstrip())
    titles = [part.partition("\n")[0].removeprefix("## ").strip() for part in parts]
    if title in titles:
        parts[titles.index(title)] = text
    else:
        parts.append(text)
    RESULTS.write_text("\n\n".join(part.strip() for part in parts if part.strip()) + "\n")
