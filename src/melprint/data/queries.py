"""Degraded queries whose true place, noise and room are known.  Axes: Q queries · T samples."""

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from melprint.audio.files import INT16_SCALE, to_int16, write_wav
from melprint.augment.banks import Surroundings
from melprint.augment.device import degrade, describe
from melprint.augment.filters import ApplyRoom
from melprint.augment.noise import AddNoise
from melprint.data.dataset import copy_window
from melprint.data.manifest import Track, alone, write_manifest, write_rows
from melprint.errors import MelprintError
from melprint.progress import progress_bar
from melprint.randomness import keyed_uniforms

QUERIES = "queries.csv"
QUIET_DB = -50.0  # an excerpt below this is a pause: nothing in it can be recognised
TRIES = 8  # places that are tried to avoid a pause
BATCH = 32
SETTINGS = ".settings.sha256"


@dataclass(frozen=True)
class QuerySpec:
    """How queries are made: one noise and one room over the whole query, an arbitrary start.

    Attributes:
        num_queries: spread evenly over the tracks.
        duration_s: of each; ``None`` takes every track once and whole, which gives a query store that
            matches the reference store row by row.
        snr_db: range of the signal-to-noise ratio, drawn uniformly.
        room_probability: share of the queries that are reverberated.
        context_s: music before the query that reverberates into it.
        seed: another seed gives other queries.
    """

    num_queries: int = 500
    duration_s: float | None = 10.0
    snr_db: tuple[float, float] = (0.0, 10.0)
    room_probability: float = 0.8
    context_s: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Query:
    """What is known of one query.

    Attributes:
        query_id: its file's name without suffix.
        track_id: the reference that it was cut from.
        start_s: where in the reference it begins.
        duration_s: its length.
        snr_db: ratio of the reverberated music to the noise.
        room: the response, or nothing.
        noise: the noise file.
    """

    query_id: str
    track_id: str
    start_s: float
    duration_s: float
    snr_db: float
    room: str
    noise: str


COLUMNS = [field.name for field in fields(Query)]


class QueryRenderer:
    """Renders the queries of some tracks with the noise and rooms of one split."""

    def __init__(self, spec: QuerySpec, tracks: Sequence[Track], surroundings: Surroundings) -> None:
        sample_rate_hz = surroundings.sample_rate_hz
        self.spec, self.sample_rate_hz, self.surroundings = spec, sample_rate_hz, surroundings
        self.context = round(spec.context_s * sample_rate_hz)
        self.room = ApplyRoom(surroundings, spec.room_probability)
        self.noise = AddNoise(surroundings, spec.snr_db)
        if spec.duration_s is None:
            self.tracks = list(tracks)
            return
        if spec.num_queries < 1:
            raise MelprintError(f"num_queries must be positive, got {spec.num_queries}")
        length = round(spec.duration_s * sample_rate_hz)
        long_enough = [track for track in tracks if track.num_samples >= length]
        if not long_enough:
            raise MelprintError(f"no track lasts {spec.duration_s} s; ask for shorter queries or give longer music")
        self.tracks = [long_enough[number % len(long_enough)] for number in range(spec.num_queries)]

    def __len__(self) -> int:
        return len(self.tracks)

    def __iter__(self) -> Iterator[tuple[Query, NDArray[np.int16]]]:
        """Each query with its waveform ``(T,)``."""
        size = BATCH if self.spec.duration_s is not None else 1
        for first in range(0, len(self), size):
            yield from self._render(range(first, min(first + size, len(self))))

    @torch.no_grad()
    def _render(self, numbers: range) -> Iterator[tuple[Query, NDArray[np.int16]]]:
        transforms = (self.room, self.noise)
        own = 2 + self.room.num_draws + self.noise.num_draws
        uniforms = keyed_uniforms(self.spec.seed, np.arange(numbers.start, numbers.stop)[:, None], own + TRIES)
        tracks = [self.tracks[number] for number in numbers]
        cut = [self._cut(track, tries) for track, tries in zip(tracks, uniforms[:, own:], strict=True)]
        starts = [start for start, _ in cut]
        waves = torch.from_numpy(np.stack([wave for _, wave in cut])).float() / INT16_SCALE
        draws = torch.from_numpy(uniforms)[:, 2:own]
        waves = degrade(waves, transforms, draws, self.context)
        parameters = describe(transforms, draws)
        for row, number in enumerate(numbers):
            pcm = to_int16(waves[row, self.context :].numpy())
            yield (
                Query(
                    f"query-{number:05d}",
                    tracks[row].track_id,
                    starts[row] / self.sample_rate_hz,
                    len(pcm) / self.sample_rate_hz,
                    float(parameters[row]["noise_snr_db"]),
                    str(parameters[row].get("room", "")),
                    str(parameters[row]["noise"]),
                ),
                pcm,
            )

    def _cut(self, track: Track, tries: NDArray[np.float64]) -> tuple[int, NDArray[np.int16]]:
        """The start of an excerpt that is no pause, and its samples with the context before them."""
        samples = track.samples(self.sample_rate_hz)
        if self.spec.duration_s is None:
            length, starts = len(samples), [0]
        else:
            length = round(self.spec.duration_s * self.sample_rate_hz)
            starts = (tries * (len(samples) - length + 1)).astype(int).tolist()
        for start in starts:
            excerpt = samples[start : start + length].astype(np.float32) / INT16_SCALE
            if np.square(excerpt).mean() > 10 ** (QUIET_DB / 10):
                break
        wave = np.zeros(self.context + length, np.int16)
        copy_window(samples, start, self.context, wave)
        return start, wave


def write_queries(renderer: QueryRenderer, folder: Path) -> None:
    """Render to ``folder``: wavs, ``manifest.csv`` and ``queries.csv``; done once for the same settings."""
    with alone(folder):
        _write_queries(renderer, folder)


def _write_queries(renderer: QueryRenderer, folder: Path) -> None:
    around = renderer.surroundings
    parts = [track for part in (renderer.tracks, around.noise_tracks, around.room_tracks) for track in part]
    settings = repr((renderer.spec, [(track.track_id, track.num_samples, track.sha256) for track in parts]))
    digest = hashlib.sha256(settings.encode()).hexdigest()
    stamp = folder / SETTINGS
    if stamp.exists() and stamp.read_text() == digest and (folder / QUERIES).exists():
        return
    stamp.unlink(missing_ok=True)
    queries, tracks = [], []
    with progress_bar("render queries", len(renderer)) as advance:
        for query, pcm in renderer:
            path = folder / "wav" / f"{query.query_id}.wav"
            write_wav(path, pcm, renderer.sample_rate_hz)
            tracks.append(Track(query.query_id, path, len(pcm), "query", hashlib.sha256(pcm.data).hexdigest(), "", ""))
            queries.append(query)
            advance(1)
    write_manifest(folder, tracks)
    write_rows(folder / QUERIES, COLUMNS, map(astuple, queries))
    stamp.write_text(digest)


def read_queries(path: Path) -> list[Query]:
    """The table that :func:`write_queries` wrote.

    Raises:
        MelprintError: missing or without the columns of a query.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                Query(
                    row["query_id"],
                    row["track_id"],
                    float(row["start_s"]),
                    float(row["duration_s"]),
                    float(row["snr_db"]),
                    row["room"],
                    row["noise"],
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError) as error:
        raise MelprintError(f"{path} is not a table of queries ({error}); render the queries again") from error
