"""How fast a catalog is filled and asked: ``python benchmarks/catalog.py FOLDER_OF_MUSIC [--rows 1e4 1e5 1e6 1e7]``.

Adding end to end from compressed files, identifying a query of 10 s among so many fingerprints (real ones, then
synthetic distractors), and monitoring an hour; with the shares of decoding, network, search and matching.
Rewrites its part of RESULTS.md after every size.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from results import write_part

import melprint  # first: it sets how threads wait
from melprint.audio.files import find_recordings
from melprint.audio.streams import read_beginning
from melprint.catalog import Catalog, Track
from melprint.catalog.adding import add
from melprint.catalog.care import export
from melprint.catalog.catalog import NewTrack
from melprint.catalog.view import View
from melprint.evaluation.distractors import DistractorModel
from melprint.fingerprints.store import open_store
from melprint.recognition import identify, search
from melprint.recognition.monitor import monitor

QUERIES = 40
QUERY_S = 10.0
TRACKS_AT_ONCE = 500


class Clock:
    """Seconds spent in named functions."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, module: Any, names: dict[str, str]) -> Iterator[None]:
        """Count what these functions of a module take, by label."""
        kept = {name: getattr(module, name) for name in names}
        try:
            for name, label in names.items():
                setattr(module, name, self._counted(kept[name], label))
            yield
        finally:
            for name, function in kept.items():
                setattr(module, name, function)

    def _counted(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def run(*values: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*values, **options)
            finally:
                self.seconds[label] = self.seconds.get(label, 0.0) + time.perf_counter() - began

        return run


def filled(folder: Path, music: Path, rows: list[int]) -> Iterator[tuple[int, Catalog]]:
    """A catalog of real music that grows to each number of rows by synthetic tracks."""
    with Catalog.create(folder) as catalog:
        add(catalog, [music])
        export(catalog, folder.with_name("store"))
        model = DistractorModel.fit(open_store(folder.with_name("store"), "catalog"))
        number = 0
        for wanted in sorted(rows):
            while len(catalog.view()) < wanted:
                tracks = model.tracks(range(number, number + TRACKS_AT_ONCE), 0)
                new = [NewTrack(_synthetic(number + i, len(its)), its) for i, its in enumerate(tracks)]
                room = wanted - len(catalog.view())
                kept = np.cumsum([len(each.rows) for each in new]) <= room
                catalog.append([each for each, fits in zip(new, kept, strict=True) if fits] or new[:1])
                number += TRACKS_AT_ONCE
            catalog.tidy()
            yield len(catalog.view()), catalog


def _synthetic(number: int, rows: int) -> Track:
    return Track(key=f"synthetic/{number}", duration_s=rows / 2, sha256=f"synthetic {number}", path="")


def time_queries(catalog: Catalog, queries: list[tuple[Path, str]]) -> dict[str, float]:
    """Median milliseconds of a query from its file, and of its parts; share of those that are found."""
    clocks, totals, found = [], [], []
    for path, key in queries:
        clock = Clock()
        with (
            clock.timed(identify, {"read_beginning": "decode"}),
            clock.timed(search, {"embed_audible": "network", "match_sequences": "match"}),
            clock.timed(catalog, {"search": "search"}),
        ):
            began = time.perf_counter()
            answers = identify.identify_one(catalog, path)
            totals.append(1e3 * (time.perf_counter() - began))
        found.append(answers[0].accepted and answers[0].track == key)
        clocks.append(clock.seconds)
    parts = {name: float(np.median([1e3 * its.get(name, 0.0) for its in clocks])) for name in clocks[0]}
    return {
        "found": float(np.mean(found)),
        "total": float(np.median(totals)),
        "p95": float(np.quantile(totals, 0.95)),
        **parts,
    }


def time_monitor(catalog: Catalog, recording: Path) -> dict[str, float]:
    """Multiples of real time, and the peak of a process of its own, network and libraries included."""
    began = time.perf_counter()
    cues = [row for row in monitor(catalog, recording) if row.key]
    seconds = time.perf_counter() - began
    # Not ru_maxrss: that of a child begins with the memory of the process that forked it.
    script = f"""
import sys
from melprint.catalog import Catalog
from melprint.recognition.monitor import monitor
from pathlib import Path
list(monitor(Catalog.open({str(catalog.folder)!r}), Path({str(recording)!r})))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    peak = int(done.stdout.split()[-1])
    return {"times_real": soundfile.info(recording).duration / seconds, "cues": len(cues), "mb": peak / 1e3}


def hour(files: list[Path], path: Path) -> None:
    """An hour of the music, one track after the other, as one Ogg file."""
    left = 3600 * 22_050
    with soundfile.SoundFile(path, "w", 22_050, 1, format="OGG", subtype="VORBIS") as out:
        while left > 0:
            for file in files:
                wave = read_beginning(file, 22_050, 200.0)[:left]
                for start in range(0, len(wave), 1 << 16):  # longer blocks end libsndfile's Vorbis encoder
                    out.write(wave[start : start + (1 << 16)])
                left -= len(wave)
                if left <= 0:
                    return


def report(result: dict[str, Any]) -> list[str]:
    """The part of RESULTS.md."""
    added = ", ".join(f"{times:.0f}" for times in sorted(result["add"]))
    lines = [
        f"`python benchmarks/catalog.py FOLDER`, {date.today().isoformat()}, melprint {result['version']}, network"
        f" compact, {result['cores']} threads, {platform.processor() or platform.machine()}; {result['music']}.",
        "",
        f"Adding end to end: {added} times real time in three rounds.",
        "",
        f"| fingerprints | index | query of {QUERY_S:g} s, ms | 95 % | found | decode | network | search | match"
        " | monitor, x real time | memory, MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["identify"]:
        parts = f"{row['total']:.1f} | {row['p95']:.1f} | {100 * row['found']:.0f} % | "
        parts += " | ".join(f"{row[name]:.1f}" for name in ("decode", "network", "search", "match"))
        followed = row.get("monitor")
        rest = f"{followed['times_real']:.0f} | {followed['mb']:.0f}" if followed else "- | -"
        lines.append(f"| {row['rows']:,} | {row['index']} | {parts} | {rest} |")
    lines += [
        "",
        "Queries are Ogg files, asked one by one, medians of 40; matching includes reading the candidates' rows. Memory"
        " is the peak of a process that monitors an hour of Ogg, with network and libraries. Beyond the real music,"
        " rows are synthetic.",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=float, nargs="+", default=[1e4, 1e5, 1e6])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    files = find_recordings(arguments.folder)
    work = Path(tempfile.mkdtemp(prefix="melprint-benchmark-"))
    result: dict[str, Any] = {"version": melprint.__version__, "cores": arguments.threads, "add": [], "identify": []}
    try:
        duration_s = sum(soundfile.info(path).duration for path in files)
        result["music"] = f"{len(files)} files, {duration_s / 3600:.2f} h of {files[0].suffix.removeprefix('.')}"
        for turn in range(3):
            with Catalog.create(work / f"add-{turn}") as catalog:
                began = time.perf_counter()
                add(catalog, [arguments.folder])
                result["add"].append(duration_s / (time.perf_counter() - began))
        queries = []
        rng = np.random.default_rng(0)
        for number in range(QUERIES):
            file = files[number % len(files)]
            wave, rate_hz = soundfile.read(file, always_2d=True)
            first = rng.integers(max(1, len(wave) - int(QUERY_S * rate_hz)))
            queries.append((work / f"query-{number}.ogg", str(file.relative_to(arguments.folder))))
            soundfile.write(queries[-1][0], wave[first : first + int(QUERY_S * rate_hz)], rate_hz)
        hour(files, work / "hour.ogg")
        for rows, catalog in filled(work / "catalog", arguments.folder, [int(rows) for rows in arguments.rows]):
            view: View = catalog.view()
            time_queries(catalog, queries[:3])
            line = {"rows": rows, "index": catalog.vectors(view).name, **time_queries(catalog, queries)}
            if rows <= 2e6:
                line["monitor"] = time_monitor(catalog, work / "hour.ogg")
            result["identify"].append(line)
            print(json.dumps(line), file=sys.stderr)
            write_part("Catalog", report(result))
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
