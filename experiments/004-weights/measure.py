"""Measure fingerprinting systems on the same queries: ``python experiments/004-weights/measure.py WORK SYSTEM…``.

A system is ``compact``, ``base``, a checkpoint, ``audfprint2`` (at 8 kHz, where it does best on such audio),
``audfprint2-11025`` (its default rate) or ``chromaprint``.  All of them search the music of the test packages of
``data=games`` among distractors from the other packages (about 60,000 rows of fingerprints in all), for

``mixed``   2,000 queries, signal-to-noise ratio 0 to 10 dB, 80 % in a room;
the grid    one factor at one level at a time, everything else clean (see GRID).

Every cell leaves a line for each query length in WORK/SYSTEM.jsonl; cells that are there are not measured again.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from hydra import compose, initialize_config_dir

import melprint
from melprint.audio.files import to_int16
from melprint.build.common import corpus_from
from melprint.data.corpora.corpus import AMBIENCE, Corpus
from melprint.data.manifest import Track, of_split
from melprint.data.queries import QueryRenderer, QuerySpec
from melprint.evaluation.classical import Audfprint, Chromaprint
from melprint.evaluation.metrics import wilson_interval
from melprint.evaluation.scene import GridSpec, Scene, render
from melprint.fingerprints.embedding import embed_tracks
from melprint.fingerprints.rows import Rows
from melprint.matching.sequence import Borders
from melprint.models import model_digest
from melprint.models.fingerprinter import Fingerprinter
from melprint.recognition.search import NUM_NEIGHBOURS, PHASES, Place, exactly, search
from melprint.spec import SegmentSpec

CONF = Path(__file__).parents[2] / "conf"
RATE_HZ = 8_000
SECONDS = (1, 2, 3, 5, 6, 10)
ROWS = 60_000
MIXED, MIXED_CLASSICAL = 2_000, 300  # queries; classical systems are asked the first ones only
GRID_QUERIES, GRID_CLASSICAL = 120, 40
GRID_SECONDS = (1, 2, 5, 10)
GRID: dict[str, Sequence[float]] = {
    "snr": [-10, -5, 0, 5, 10, 15, 20],
    "rt60": [0.2, 0.5, 0.8],
    "mp3": [32, 64],
    "opus": [16, 32],
    "speed": [-10, -5, -2, 2, 5, 10],
    "lowpass": [1000, 2000],
    "highpass": [500, 1000],
    "rerecorded": [0, 10, 20],
}


@dataclass(frozen=True)
class Found:
    """Answers to some queries; track -1 is none. ``other`` is the best score in any track but the true one."""

    track: np.ndarray
    start_s: np.ndarray
    score: np.ndarray
    other: np.ndarray | None = None


class System(Protocol):
    kind: str
    digest: str  # of the network; measured again where it is another

    def enroll(self, tracks: Sequence[Track]) -> None: ...

    def look_up(
        self, waves: Sequence[np.ndarray], true_track: np.ndarray, seconds: Sequence[int]
    ) -> Iterator[tuple[int, Found]]: ...


class Neural:
    kind = "neural"

    def __init__(self, model: Fingerprinter, phases: int = PHASES) -> None:
        self.model, self.phases, self.digest = model, phases, model_digest(model)

    def enroll(self, tracks: Sequence[Track]) -> None:
        rows, first = embed_tracks(self.model, (track.samples(RATE_HZ) for track in tracks), 256)
        self.rows, self.borders = Rows([rows]), Borders(first)

    def look_up(
        self, waves: Sequence[np.ndarray], true_track: np.ndarray, seconds: Sequence[int]
    ) -> Iterator[tuple[int, Found]]:
        searched = search(self.model, exactly(self.rows), waves, self.phases, 4 * NUM_NEIGHBOURS)
        present = searched._replace(neighbours=searched.neighbours[:, :NUM_NEIGHBOURS])
        absent = searched.without(true_track, self.borders)
        for length in seconds:
            found = [best(places) for places in present.best_places(self.rows, self.borders, 1, length * RATE_HZ)]
            others = [best(places) for places in absent.best_places(self.rows, self.borders, 1, length * RATE_HZ)]
            track, start_s, score = (np.array(column) for column in zip(*(place[:3] for place in found), strict=True))
            yield length, Found(track, start_s, score, np.array([place.score for place in others]))


def best(places: Sequence[Place]) -> Place:
    return places[0] if places else Place(-1, np.nan, -np.inf)


class Classical:
    kind = "classical"

    digest = ""

    def __init__(self, system: Audfprint | Chromaprint) -> None:
        self.system = system

    def enroll(self, tracks: Sequence[Track]) -> None:
        self.system.enroll(track.samples(RATE_HZ) for track in tracks)

    def look_up(
        self, waves: Sequence[np.ndarray], true_track: np.ndarray, seconds: Sequence[int]
    ) -> Iterator[tuple[int, Found]]:
        del true_track
        for length in seconds:
            answers = [self.system.look_up(wave[: length * RATE_HZ]) for wave in waves]
            yield (
                length,
                Found(
                    np.array([answer.track for answer in answers]),
                    np.array([answer.start_s for answer in answers]),
                    np.array([answer.score for answer in answers]),
                ),
            )


def system_of(name: str) -> System:
    if name.startswith("audfprint2"):
        return Classical(
            Audfprint(RATE_HZ, system_rate_hz=11_025 if name.endswith("11025") else RATE_HZ, max_time=1 << 16)
        )
    if name == "chromaprint":
        return Classical(Chromaprint(RATE_HZ))
    return Neural(melprint.load(name))


def corpus_of(games: Path) -> Corpus:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return corpus_from(compose("train", ["data=games", f"data.corpus.root={games}"]))


def references_of(corpus: Corpus, rows: int) -> list[Track]:
    """The test tracks, and distractors spread over the other packages until there are so many rows."""
    segment, tracks = SegmentSpec(), [*corpus.music_of("test"), *of_split(corpus.music, AMBIENCE)]
    count = sum(segment.num_segments(track.num_samples) for track in tracks)
    others = of_split(corpus.music, "train", "val")
    for track in [others[i] for i in np.random.default_rng(0).permutation(len(others))]:
        if count >= rows:
            break
        tracks.append(track)
        count += segment.num_segments(track.num_samples)
    return tracks


def mixed_queries(corpus: Corpus, count: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Waves, the number of the track of each among the test tracks, and where in it they begin in seconds."""
    tracks = corpus.music_of("test")
    number = {track.track_id: position for position, track in enumerate(tracks)}
    spec = QuerySpec(MIXED, 10.0, (0.0, 10.0), 0.8, 1.0, 0)
    rendered = list(islice(QueryRenderer(spec, tracks, corpus.surroundings("test")), count))
    queries = [query for query, _ in rendered]
    return (
        [wave for _, wave in rendered],
        np.array([number[query.track_id] for query in queries]),
        np.array([query.start_s for query in queries]),
    )


def grid_cells(corpus: Corpus, count: int) -> Iterator[tuple[str, float, Any]]:
    """Each factor and level with its queries, rendered when they are asked for."""
    scene = Scene(corpus, GridSpec(GRID, GRID_QUERIES, 10.0), corpus.root / "grid")
    number = {track.track_id: position for position, track in enumerate(corpus.music_of("test"))}
    track = np.array([number[its.track_id] for its in scene.tracks])

    def queries(factor: str, level: float) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        waves, start_s, _ = render(scene, factor, level)
        asked = np.linspace(0, GRID_QUERIES - 1, count).round().astype(int)  # spread over all tracks
        return [to_int16(waves[i]) for i in asked], track[asked], start_s[asked]

    for factor, levels in GRID.items():
        for level in levels:
            yield factor, float(level), lambda factor=factor, level=level: queries(factor, level)


def figures(found: Found, true_track: np.ndarray, true_start_s: np.ndarray) -> dict[str, Any]:
    """Rates with 95 % intervals: exact is within a quarter of a second, near within half a second."""
    right = found.track == true_track
    off = np.abs(found.start_s - true_start_s)
    row: dict[str, Any] = {"num_queries": len(right)}
    for kind, hit in (("exact", right & (off <= 0.25)), ("near", right & (off <= 0.5)), ("song", right)):
        low, high = wilson_interval(int(hit.sum()), len(hit))
        row[kind], row[f"{kind}_low"], row[f"{kind}_high"] = float(hit.mean()), low, high
    placed = off[right & (off <= 0.5)]
    row["median_error_s"] = float(np.median(placed)) if len(placed) else None
    return row


def note(path: Path, row: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def measure(name: str, system: System, corpus: Corpus, work: Path, only: str, scale: float) -> None:
    """All cells of a system that WORK does not have."""
    log = work / f"{Path(name).stem}.jsonl"
    noted = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    there = {(row["factor"], row["level"]) for row in noted if row["digest"] == system.digest}
    count = round((MIXED if system.kind == "neural" else MIXED_CLASSICAL) * scale)
    cells: list[tuple[str, float, Any]] = []
    if only in ("all", "mixed"):
        cells.append(("mixed", 0.0, lambda: mixed_queries(corpus, count)))
    if only in ("all", "grid"):
        of_cell = GRID_QUERIES if system.kind == "neural" else GRID_CLASSICAL
        cells += list(grid_cells(corpus, round(of_cell * scale)))
    cells = [cell for cell in cells if cell[:2] not in there]
    if not cells:
        return
    tracks = references_of(corpus, ROWS)
    began = time.perf_counter()
    system.enroll(tracks)
    hours = sum(track.num_samples for track in tracks) / RATE_HZ / 3600
    print(f"{name}: {len(tracks)} tracks, {hours:.2f} h enrolled in {time.perf_counter() - began:.0f} s", flush=True)
    for factor, level, queries in cells:
        waves, track, start_s = queries()
        asked = SECONDS if factor == "mixed" else GRID_SECONDS
        rows = []
        began = time.perf_counter()
        for seconds, found in system.look_up(waves, track, asked):
            row = {"factor": factor, "level": level, "seconds": seconds, **figures(found, track, start_s)}
            rows.append(row | {"digest": system.digest})
            if factor == "mixed":
                np.savez(
                    work / f"{Path(name).stem}-{seconds}s.npz",
                    **{key: value for key, value in vars(found).items() if value is not None},
                    true_track=track,
                    true_start_s=start_s,
                )
            print(f"{name} {factor} {level:g} {seconds} s: song {row['song']:.3f} near {row['near']:.3f}", flush=True)
        print(f"{name} {factor} {level:g}: {time.perf_counter() - began:.0f} s", flush=True)
        for row in rows:
            note(log, row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("systems", nargs="+")
    parser.add_argument("--games", type=Path, default=Path("data/games"))
    parser.add_argument("--only", choices=["all", "mixed", "grid"], default="all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the queries")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    corpus = corpus_of(arguments.games)
    for name in arguments.systems:
        measure(name, system_of(name), corpus, arguments.work, arguments.only, arguments.scale)


if __name__ == "__main__":
    main()
