"""Write what was measured into the model cards, docs/results.md and the README: ``python …/tables.py``.

Reads ``results/*.jsonl`` beside this file, which measure.py, defaults.py, int8.py, speed.py and design.py wrote, and
replaces what stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``; the cards of the shipped networks are written
whole.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ship import card_path, open_set

import melprint
from melprint.spec import SegmentSpec
from melprint.weights.shipped import FOLDER, NAMES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results"
SECONDS = (1, 2, 3, 5, 6, 10)
GRID_SECONDS = (1, 2, 5, 10)
SYSTEMS = {
    "base": "**base**",
    "compact": "**compact**",
    "audfprint2": "audfprint2",
    "chromaprint": "Chromaprint",
}
UNITS = {"snr": "dB", "rt60": "s", "mp3": "kbit/s", "opus": "kbit/s", "speed": "%", "lowpass": "Hz", "highpass": "Hz"}
TITLES = {
    "snr": "Signal-to-noise ratio, dB (noise alone)",
    "rt60": "Reverberation time, s (rooms alone)",
    "mp3": "MP3, kbit/s",
    "opus": "Opus, kbit/s",
    "speed": "Speed, % (tempo and pitch together)",
    "lowpass": "Low-pass, Hz",
    "highpass": "High-pass, Hz",
    "rerecorded": "Re-recorded: loudspeaker, room, noise at … dB, telephone, Opus at 24 kbit/s",
}
ROWS = 60_000
Row = dict[str, Any]


def lines_of(name: str) -> list[Row]:
    path = RESULTS / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    digest = json.loads(card_path(name).read_text())["digest"] if name in NAMES else ""
    return [row for row in rows if row.get("digest", "") == digest]  # not those of an earlier network


def with_interval(row: Row, kind: str) -> str:
    return f"{100 * row[kind]:.1f} [{100 * row[f'{kind}_low']:.1f}, {100 * row[f'{kind}_high']:.1f}]"


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


def mixed_table(kind: str, systems: Iterable[str] = SYSTEMS) -> str:
    body = []
    for system in systems:
        rows = {row["seconds"]: row for row in lines_of(system) if row["factor"] == "mixed"}
        if rows:
            body.append(
                [SYSTEMS[system], *(with_interval(rows[s], kind) for s in SECONDS), str(rows[1]["num_queries"])]
            )
    return table([f"{KINDS[kind]}, %", *(f"{s} s" for s in SECONDS), "queries"], body)


DIMS = {"compact": 128, "base": 256}
HOPS = {"compact": "half", "base": "quarter of a"}
COMMANDS = {
    "compact": """`python train.py experiment=compact` (goes on with `ckpt_path=last`), then
`python experiments/004-weights/ship.py compact runs/compact/checkpoints/last.ckpt`.""",
    "base": """The `compact` network and a wider one side by side: `python train.py experiment=compact`,
`python train.py experiment=wide`, `python train.py experiment=wide-varied init=runs/wide/checkpoints/last.ckpt`
(all go on with `ckpt_path=last`), then
`python experiments/004-weights/ship.py base runs/compact/checkpoints/last.ckpt runs/wide-varied/checkpoints/last.ckpt`.
What follows is of the last one; `compact` has its own card.""",
}
ROWS_OF = {"compact": "60,000", "base": "120,000"}
KINDS = {"song": "right track", "near": "within 0.5 s", "exact": "within 0.25 s"}


def grid_table(factor: str, kind: str = "song") -> str:
    body = []
    levels: list[float] = []
    for system in SYSTEMS:
        rows = [row for row in lines_of(system) if row["factor"] == factor]
        levels = levels or list(dict.fromkeys(row["level"] for row in rows))
        for seconds in GRID_SECONDS:
            cells = {row["level"]: row for row in rows if row["seconds"] == seconds}
            if cells:
                size = next(iter(cells.values()))["num_queries"]
                body.append(
                    [
                        SYSTEMS[system],
                        f"{seconds} s",
                        *(f"{100 * cells[level][kind]:.0f}" for level in levels),
                        str(size),
                    ]
                )
    return table([TITLES[factor], "query", *(f"{level:g}" for level in levels), "queries"], body)


def open_set_table() -> str:
    body = [
        [
            name,
            f"{100 * row['rate']:g} %",
            f"{row['seconds']} s",
            f"{row['threshold']:.3f}",
            f"{100 * row['accepted_right']:.1f}",
            f"{100 * row['false_accepts']:.2f}",
        ]
        for name in NAMES
        for row in json.loads(card_path(name).read_text()).get("open_set", [])
    ]
    return table(["", "aim", "query", "threshold", "accepted and right, %", "false accepts, %"], body)


def place_table() -> str:
    body = []
    for system in SYSTEMS:
        rows = {row["seconds"]: row for row in lines_of(system) if row["factor"] == "mixed"}
        if rows:
            errors = (rows[s]["median_error_s"] for s in SECONDS)
            body.append([SYSTEMS[system], *(f"{1000 * e:.0f}" if e is not None else "–" for e in errors)])
    return table(["median error of the place, ms", *(f"{s} s" for s in SECONDS)], body)


def design_table() -> str:
    body = [
        [
            row["variant"],
            f"{row['parameters_m']:.2f} M",
            str(row["steps"]),
            *(f"{100 * row[key]:.1f}" for key in ("song 1 s", "near 1 s", "near 10 s")),
        ]
        for row in lines_of("design")
    ]
    return table(["variant", "parameters", "steps", "right track 1 s", "within 0.5 s, 1 s", "within 0.5 s, 10 s"], body)


def defaults_table() -> str:
    rows = lines_of("defaults-compact")
    body = []
    for hop_s, phases in dict.fromkeys((row["hop_s"], row["phases"]) for row in rows):
        mine = {row["seconds"]: row for row in rows if (row["hop_s"], row["phases"]) == (hop_s, phases)}
        cells = (f"{100 * mine[s]['song']:.1f} / {100 * mine[s]['near']:.1f}" for s in SECONDS)
        error = mine[10]["median_error_s"]
        body.append([f"{hop_s} s", str(phases), *cells, f"{1000 * error:.0f} ms", f"{mine[1]['rows']:,}"])
    return table(["hop", "phases", *(f"{s} s" for s in SECONDS), "error, 10 s", "rows"], body)


def scale_table() -> str:
    body = []
    for path in sorted(RESULTS.glob("scale-*.csv")):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for index in dict.fromkeys(row["index"] for row in rows):
            mine = {float(row["seconds"]): row for row in rows if row["index"] == index}
            song = (f"{100 * float(mine[s]['top1_song']):.1f}" for s in SECONDS)
            name = path.stem.split("-")[1]
            body.append([name, index, f"{int(mine[1]['num_vectors']):,}", *song, mine[1]["num_queries"]])
    body.sort(key=lambda cells: (cells[0], int(cells[2].replace(",", "")), cells[1]))
    return table(["", "index", "rows", *(f"{s} s" for s in SECONDS), "queries"], body)


def int8_table() -> str:
    body = []
    for name in NAMES:
        path = RESULTS / f"int8-{name}.json"
        if not path.exists():
            continue
        said = json.loads(path.read_text())
        for kind in ("float32", "int8"):
            row = said[kind]
            song = (f"{100 * row['song'][str(s)]:.1f}" for s in SECONDS)
            relative = row["segments_per_s"] / said["torch_segments_per_s"]
            body.append([f"{name}, {kind}", f"{row['bytes'] / 1e6:.1f} MB", f"{relative:.2f}", *song])
    return table(["", "file", "speed, PyTorch = 1", *(f"{s} s" for s in SECONDS)], body)


def speed_table() -> str:
    rows = lines_of("speed")
    return table(
        ["fingerprinting", "times real time"], [[row["task"], f"{row['times_real_time']:,.0f}"] for row in rows]
    )


def card_text(name: str) -> str:
    card = json.loads(card_path(name).read_text())
    config, training = card["config"], card["training"]
    curve = training["curve"]
    lengths = sorted((key for key in curve[0] if key != "step"), key=lambda key: float(key[:-1])) if curve else []
    rows = {row["seconds"]: row for row in card.get("mixed", [])}
    rates = table(
        ["", *(f"{s} s" for s in SECONDS)],
        [[KINDS[kind], *(with_interval(rows[s], kind) for s in SECONDS)] for kind in ("song", "near", "exact")],
    )
    weak = weak_points(name)
    return f"""# {name}

{card["summary"]}: {card["parameters"]:,} parameters, 1 s of 8 kHz audio to {DIMS[name]} numbers, every
{HOPS[name]} second.
`melprint.load("{name}")`. Version {card["version"]}, {card["date"]}, digest `{card["digest"][:16]}…`.

## Data

Trained on the soundtracks of 37 free games from Debian and Ubuntu packages (`data=games`: 335 tracks, 15.5 hours; the
packages are named in `conf/data/games.yaml`), validated on 4 others and tested on 9 others. Noise: voices in English
and French, babble, effects and engines of games, pink noise. Rooms: 300 simulated ones and one measured street. No
noise, room or package serves two splits.

## Recipe

{COMMANDS[name]} NT-Xent at a temperature of
{config["loss"]["temperature"]}, {config["train"]["batch_size"]} originals with one degraded version each, AdamW at
{config["optimizer"]["lr"]:g} with a cosine, {training["steps"]:,} steps, seed {config["seed"]}; about
{training["core_hours"] or "…"} hours of one core of an AMD EPYC with AVX2 in all. Weights are rounded to float16.

Validation, exact place, after each epoch:

{table(["steps", *lengths], [[str(point["step"]), *(f"{100 * point[key]:.1f}" for key in lengths)] for point in curve])}

## Hit rates

Music, noises and rooms that training never saw, 0 to 10 dB, 80 % in a room, {rows[1]["num_queries"]:,} queries that
begin anywhere, 8.4 hours of music to find them in ({ROWS_OF[name]} rows); percent with 95 % intervals:

{rates}

By signal-to-noise ratio, room, codec, speed, filter, re-recording, collection size, and beside other systems:
docs/results.md of the project.

## Where it fails

{weak}

## Licence

The weights are released under the MIT licence, as the code. The music that they were trained on is free (GPL, CC-BY-SA,
CC-BY, public domain and others, by package; the terms lie beside the prepared corpus in `licences/`).
"""


def weak_points(name: str) -> str:
    measured = name if any(row["factor"] == "snr" for row in lines_of(name)) else "compact"
    cells = {(row["factor"], row["level"], row["seconds"]): row for row in lines_of(measured)}

    def rate(factor: str, level: float, seconds: int) -> str:
        row = cells.get((factor, level, seconds))
        return f"{100 * row['song']:.0f} %" if row else "(not measured)"

    mixed = {row["seconds"]: row for row in lines_of(name) if row["factor"] == "mixed"}
    elsewhere = 100 * (mixed[1]["song"] - mixed[1]["near"])
    first = [] if measured == name else [f"- The next two figures are those of `{measured}`, a part of it."]
    return "\n".join(
        [
            *first,
            f"- Music at another speed: {rate('speed', 10, 5)} of 5 s queries are found at +10 %, {rate('speed', 5, 5)}"
            f" at +5 %, {rate('speed', 2, 5)} at +2 %.",
            f"- Loud noise: {rate('snr', -10, 5)} at -10 dB, {rate('snr', -5, 5)} at -5 dB (5 s, noise alone).",
            f"- Repeats: {elsewhere:.0f} of 100 queries of 1 s are given another place of the right track. Music made"
            " of loops sounds alike in many places.",
            "- It was trained on game music: electronic, orchestral, folk and rock, hardly any singing. Speech, field"
            " recordings and ambience were not asked for.",
            "- Another version, a cover or a live recording of a piece is another recording, and not found.",
        ]
    )


def draw(path: Path) -> None:
    """Right track against signal-to-noise ratio, for queries of 1 and of 5 s."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, seconds in zip(figure.subplots(1, 2, sharey=True), (1, 5), strict=True):
        for system, name in SYSTEMS.items():
            rows = [row for row in lines_of(system) if row["factor"] == "snr" and row["seconds"] == seconds]
            if not rows:
                continue
            level = [row["level"] for row in rows]
            axes.plot(level, [100 * row["song"] for row in rows], marker="o", label=name.strip("*"))
            low, high = ([100 * row[f"song_{bound}"] for row in rows] for bound in ("low", "high"))
            axes.fill_between(level, low, high, alpha=0.12)
        axes.set_title(f"queries of {seconds} s")
        axes.set_xlabel("music to noise, dB")
        axes.grid(alpha=0.3)
        axes.set_ylim(0, 101)
    figure.axes[0].set_ylabel("right track, %")
    figure.axes[0].legend()
    figure.savefig(path, dpi=110)


def replace(path: Path, parts: dict[str, Callable[[], str]]) -> None:
    text = path.read_text(encoding="utf-8")
    for name, make in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if pattern.search(text):
            content = make()
            text = pattern.sub(lambda match, content=content: f"{match[1]}\n{content}\n\n{match[2]}", text)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    for name in NAMES:
        card = json.loads(card_path(name).read_text())
        mixed = [row for row in lines_of(name) if row["factor"] == "mixed"]
        if mixed and (RESULTS / f"{name}-1s.npz").exists():
            card["mixed"] = mixed
            segment = melprint.load(name).segment
            # The same music gives more rows with a shorter hop.
            rows = round(ROWS * SegmentSpec().hop_s / segment.hop_s)
            card["open_set"] = open_set(RESULTS, name, card["thresholds"], rows, segment)
        card_path(name).write_text(json.dumps(card, indent=1) + "\n")
        if "mixed" in card:
            (FOLDER / f"{name}.md").write_text(card_text(name), encoding="utf-8")
    parts: dict[str, Callable[[], str]] = {
        "weights": lambda: mixed_table("song", ["base", "compact", "audfprint2", "chromaprint"]),
        "mixed song": lambda: mixed_table("song"),
        "mixed near": lambda: mixed_table("near"),
        "mixed exact": lambda: mixed_table("exact"),
        "open set": open_set_table,
        "place": place_table,
        "design": design_table,
        "defaults": defaults_table,
        "scale": scale_table,
        "int8": int8_table,
        "speed": speed_table,
        **{f"grid {factor}": lambda factor=factor: grid_table(factor) for factor in TITLES},
    }
    draw(ROOT / "docs/snr.png")
    for path in (ROOT / "README.md", ROOT / "docs/results.md", HERE / "README.md"):
        if path.exists():
            replace(path, parts)


if __name__ == "__main__":
    main()
