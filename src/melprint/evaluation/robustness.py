"""One factor at a time: how hit rates fall with noise, rooms, codecs, speed and the rest.

Axes: B queries · C context + query + reserve samples · T samples of a query · J segments.

Every query is an excerpt of a test track that begins anywhere, and is degraded by one factor at one level;
everything else is clean.  The same excerpts, noises and rooms serve all levels of a factor, so that cells are
paired.  Cells are finished one by one, and an interrupted grid goes on with the next.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from melprint.audio.changes import change_pitch, change_speed, change_tempo, clip_loudest, pass_band
from melprint.audio.codecs import CODECS, code, has_codec
from melprint.audio.convolution import convolve_spectra
from melprint.audio.files import INT16_SCALE, to_int16
from melprint.audio.framing import segments_of
from melprint.audio.levels import mix_at_snr
from melprint.augment.banks import NoiseBank, RoomBank
from melprint.data.corpora.corpus import Corpus
from melprint.data.corpora.rooms import simulate_rooms
from melprint.data.dataset import copy_window
from melprint.data.manifest import Track, write_rows
from melprint.errors import MelprintError
from melprint.evaluation.localisation import Located, located_outcome
from melprint.evaluation.metrics import cluster_interval, summary
from melprint.evaluation.stores import TestStores
from melprint.fingerprints.embedding import embed_segments
from melprint.fingerprints.rows import Rows
from melprint.index.base import Index
from melprint.matching.sequence import Borders, match_sequences
from melprint.models.checkpoint import model_digest
from melprint.models.fingerprinter import Fingerprinter
from melprint.progress import console, progress_bar
from melprint.randomness import keyed_uniforms
from melprint.version import __version__

CONTEXT_S = 1.0  # music before a query that reverberates into it
RESERVE_S = 0.5  # after it, for coders and phases
MOST_SPEED = 1.1
ROOMS_PER_LEVEL = 8
QUIET_DB = -50.0
TRIES = 8
MUSIC_TRACKS = 30
NUM_NEIGHBOURS = 20
REVISION = 1  # to be raised when cells would come out otherwise
VOICES = ("speech", "babble")  # kinds of noise
EMBEDDED_AT_ONCE = 256
COLUMNS = (
    *("factor", "unit", "level", "note", "num_segments", "seconds", "num_queries", "num_songs"),
    *(f"top1_{kind}{bound}" for kind in ("exact", "near", "song") for bound in ("", "_low", "_high")),
    *("song_cluster_low", "song_cluster_high"),
)
# Factors with their units; levels come from the configuration.
UNITS = {
    "snr": "dB",
    "rt60": "s",
    **dict.fromkeys(CODECS, "kbit/s"),
    "speed": "%",
    "tempo": "%",
    "pitch": "%",
    "lowpass": "Hz",
    "highpass": "Hz",
    "clipping": "% of samples",
    "gain": "dB",
    "speech": "dB SNR",
    "music": "dB SNR",
    "phase": "s",
}


@dataclass(frozen=True)
class GridSpec:
    """What is rendered.

    Attributes:
        factors: levels of each factor; those of codecs without an encoder are left out with a word.
        num_queries: of every cell.
        duration_s: of the queries.
        seed: of excerpts, noises and rooms.
    """

    factors: Mapping[str, Sequence[float]]
    num_queries: int = 200
    duration_s: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := set(self.factors) - set(UNITS):
            raise MelprintError(f"unknown factors {sorted(unknown)}; known ones are {', '.join(UNITS)}")
        if self.num_queries < 1:
            raise MelprintError(f"num_queries must be positive, got {self.num_queries}")
        steps = [level for name in ("speed", "tempo", "pitch") for level in self.factors.get(name, ())]
        if steps and max(steps) > 100 * (MOST_SPEED - 1) + 1e-9:
            raise MelprintError(f"speed, tempo and pitch go up to +{100 * (MOST_SPEED - 1):.0f} %, got {max(steps)}")

    def only(self, names: Sequence[str]) -> "GridSpec":
        """The same with some factors alone.

        Raises:
            MelprintError: a factor that has no levels.
        """
        if unknown := set(names) - set(self.factors):
            raise MelprintError(f"study.only names {sorted(unknown)}, which have no levels in study.grid.factors")
        return replace(self, factors={name: self.factors[name] for name in names})


@dataclass(frozen=True)
class Scene:
    """Excerpts and what they are degraded with.

    Attributes:
        corpus: where everything comes from.
        spec: the grid.
        folder: receives simulated rooms.
    """

    corpus: Corpus
    spec: GridSpec
    folder: Path
    tracks: list[Track] = field(init=False)

    def __post_init__(self) -> None:
        long_enough = [t for t in self.corpus.music_of("test") if t.num_samples >= self.num_context + self.num_cut]
        if not long_enough:
            raise MelprintError(
                f"no test track lasts {(self.num_context + self.num_cut) / self.rate:.1f} s; ask for shorter queries"
                " or give longer music"
            )
        spread = [long_enough[number % len(long_enough)] for number in range(self.spec.num_queries)]
        object.__setattr__(self, "tracks", spread)

    @property
    def rate(self) -> int:
        """Samples a second."""
        return self.corpus.sample_rate_hz

    @property
    def num_context(self) -> int:
        """Samples before each query."""
        return round(CONTEXT_S * self.rate)

    @property
    def num_samples(self) -> int:
        """Samples of a query."""
        return round(self.spec.duration_s * self.rate)

    @property
    def num_cut(self) -> int:
        """Samples from the beginning of a query on."""
        return round((self.spec.duration_s * MOST_SPEED + RESERVE_S) * self.rate)

    @cached_property
    def draws(self) -> NDArray[np.float64]:
        """Uniform numbers of each query ``(B, TRIES + 4)``."""
        return keyed_uniforms(self.spec.seed, np.arange(self.spec.num_queries)[:, None], TRIES + 4)

    @cached_property
    def start(self) -> NDArray[np.int64]:
        """Where in its track each query begins, in samples; not in a pause."""
        starts = []
        for track, tries in zip(self.tracks, self.draws[:, :TRIES], strict=True):
            samples = track.samples(self.rate)
            for draw in tries:
                start = int(draw * (len(samples) - self.num_cut + 1))
                excerpt = samples[start : start + self.num_samples].astype(np.float32) / INT16_SCALE
                if np.square(excerpt).mean() > 10 ** (QUIET_DB / 10):
                    break
            starts.append(start)
        return np.array(starts)

    def cut(self, start: NDArray[np.int64]) -> NDArray[np.float32]:
        """Context, query and reserve ``(B, C)``; silence where a track has not begun."""
        waves = np.zeros((len(self.tracks), self.num_context + self.num_cut), np.int16)
        for track, first, wave in zip(self.tracks, start, waves, strict=True):
            copy_window(track.samples(self.rate), int(first), self.num_context, wave)
        return waves.astype(np.float32) / INT16_SCALE

    @cached_property
    def waves(self) -> NDArray[np.float32]:
        """The excerpts as they are ``(B, C)``."""
        return self.cut(self.start)

    @cached_property
    def noise(self) -> NoiseBank:
        """Noise of the test split."""
        return self.corpus.surroundings("test").noise

    @property
    def speech_tracks(self) -> list[Track]:
        """What of it is voices."""
        return [t for t in self.corpus.noise if t.split == "test" and t.track_id.partition("/")[0] in VOICES]

    @cached_property
    def speech(self) -> NoiseBank:
        """Voices."""
        return NoiseBank(self.speech_tracks, self.rate)

    @cached_property
    def music(self) -> NoiseBank:
        """Music that nobody asks for."""
        return NoiseBank(self.music_tracks, self.rate)

    @property
    def music_tracks(self) -> list[Track]:
        """Some of the distractors."""
        return self.corpus.distractors()[:MUSIC_TRACKS]

    def room_bank(self, rt60_s: float) -> RoomBank:
        """Simulated rooms of one reverberation time."""
        made = simulate_rooms(
            self.folder / f"rt60-{rt60_s:g}-seed{self.spec.seed}-{self.rate}",
            {"test": ROOMS_PER_LEVEL},
            rt60_s=(rt60_s, rt60_s),
            sample_rate_hz=self.rate,
            seed=self.spec.seed,
        )
        return RoomBank([_as_track(item.path, item.track_id) for item in made], self.rate)


def _as_track(path: Path, track_id: str) -> Track:
    import soundfile

    return Track(track_id, path, soundfile.info(path).frames, "test", "", "", "")


def render(scene: Scene, factor: str, level: float) -> tuple[NDArray[np.float32], NDArray[np.float64], str]:
    """The queries of one cell.

    Args:
        scene: what they are made of.
        factor: one of :data:`UNITS`.
        level: in its unit.

    Returns:
        Waves ``(B, T)``, where they begin in their tracks in seconds ``(B,)``, and a word about the cell.
    """
    start, note = scene.start, ""
    if factor == "phase":
        hop = scene.rate // 2
        start = start // hop * hop + round(level * scene.rate)
    waves = scene.waves if factor != "phase" else scene.cut(start)
    query = slice(scene.num_context, None)
    if factor in ("snr", "speech", "music"):
        bank = scene.noise if factor == "snr" else scene.speech if factor == "speech" else scene.music
        waves = _with_noise(scene, bank, waves, level)
    elif factor == "rt60" and level > 0:
        waves = _in_rooms(scene, waves, level)
    elif factor in CODECS:
        coded = [code(wave[query], scene.rate, factor, level) for wave in waves]
        note = f"{np.mean([rate for _, rate in coded]):.1f} kbit/s"
        return np.stack([wave for wave, _ in coded])[:, : scene.num_samples], start / scene.rate, note
    elif factor in ("speed", "tempo", "pitch"):
        change: Callable[[NDArray[np.float32], float], NDArray[np.float32]] = {
            "speed": change_speed,
            "tempo": lambda wave, by: change_tempo(wave, scene.rate, by),
            "pitch": lambda wave, by: change_pitch(wave, scene.rate, by),
        }[factor]
        changed = [change(wave[query], 1 + level / 100) for wave in waves]
        return np.stack([wave[: scene.num_samples] for wave in changed]), start / scene.rate, note
    elif factor in ("lowpass", "highpass"):
        waves = pass_band(waves, scene.rate, level, factor)  # type: ignore[arg-type]
    elif factor == "clipping":
        waves = clip_loudest(waves, level / 100)
    elif factor == "gain":
        waves = np.clip(waves * np.float32(10 ** (level / 20)), -1, 1)
    return waves[:, query][:, : scene.num_samples], start / scene.rate, note


def _with_noise(scene: Scene, bank: NoiseBank, waves: NDArray[np.float32], snr_db: float) -> NDArray[np.float32]:
    draws = torch.from_numpy(scene.draws[:, TRIES:])
    noise = bank.crop(bank.choose(draws[:, 0]), draws[:, 1], waves.shape[1])
    measured = slice(scene.num_context, scene.num_context + scene.num_samples)
    ratio = torch.full((len(waves),), float(snr_db))
    return mix_at_snr(torch.from_numpy(waves), noise, ratio, measured=measured).numpy()


def _in_rooms(scene: Scene, waves: NDArray[np.float32], rt60_s: float) -> NDArray[np.float32]:
    bank = scene.room_bank(rt60_s)
    room = bank.choose(torch.from_numpy(scene.draws[:, TRIES + 2]))
    spectra = bank.spectra(room, waves.shape[1], scene.num_context + 1)
    return convolve_spectra(torch.from_numpy(waves), spectra).numpy()


@dataclass(frozen=True)
class Grid:
    """Everything a grid is measured with.

    Attributes:
        scene: renders queries.
        model: fingerprints them.
        stores: what they are looked for in.
        index: built from the rows of the stores.
        lengths: of queries, in segments.
    """

    scene: Scene
    model: Fingerprinter
    stores: TestStores
    index: Index
    lengths: Sequence[int]

    def run(self, folder: Path) -> list[dict[str, Any]]:
        """Measure every cell that is not finished in ``folder``; rows of all cells.

        Raises:
            MelprintError: queries too short for the longest length.
        """
        longest = self.model.segment.num_segments(self.scene.num_samples)
        if max(self.lengths) > longest:
            raise MelprintError(
                f"queries of {self.scene.spec.duration_s} s have {longest} segments, too few for lengths={self.lengths}"
            )
        cells = folder / f"cells-{self._key()}"
        rows: list[dict[str, Any]] = []
        wanted = [
            (factor, float(level))
            for factor, levels in self.scene.spec.factors.items()
            if self._can(factor)
            for level in levels
        ]
        if not wanted:
            raise MelprintError("no factor of this grid can be measured here; study.grid.factors names others")
        with progress_bar("robustness", len(wanted)) as advance:
            for factor, level in wanted:
                path = cells / f"{factor} {level:g}.csv"
                if not path.exists():
                    write_rows(path, COLUMNS, ([row[name] for name in COLUMNS] for row in self.cell(factor, level)))
                with path.open(newline="", encoding="utf-8") as file:
                    rows += [{name: _number(value) for name, value in row.items()} for row in csv.DictReader(file)]
                advance(1)
        return rows

    def cell(self, factor: str, level: float) -> list[dict[str, Any]]:
        """Hit rates of one factor at one level, for every length."""
        waves, start_s, note = render(self.scene, factor, level)
        segments = np.concatenate([segments_of(to_int16(wave), self.model.segment) for wave in waves])
        queries = Rows([embed_segments(self.model, segments, EMBEDDED_AT_ONCE)])
        hit_rows = self.index.search(queries.parts[0], NUM_NEIGHBOURS).rows
        if factor == "music":  # a louder track that is enrolled would be found with reason
            playing = {track.track_id for track in self.scene.music_tracks}
            numbers = [number for number, name in enumerate(self.names) if name in playing]
            hit_rows[np.isin(self.borders.track_of(hit_rows), numbers)] = -1
        per_query = len(segments) // len(waves)
        matches = match_sequences(
            queries,
            hit_rows,
            np.arange(len(waves)) * per_query,
            np.full(len(waves), per_query),
            self.lengths,
            self.references,
            self.borders,
            num_best=1,
        )
        hop_s = self.model.segment.hop_s
        rows = []
        for length in self.lengths:
            located = Located.first_of(matches[length], hop_s)
            figures = located_outcome(located, self.true_track, start_s, hop_s)
            rates = summary(figures)
            low, high = cluster_interval(figures.song.astype(float), self.true_track)
            rows.append(
                {
                    **rates,
                    "factor": factor,
                    "unit": UNITS[factor],
                    "level": f"{level:g}",
                    "note": note,
                    "num_segments": length,
                    "seconds": self.model.segment.query_seconds(length),
                    "num_songs": len(np.unique(self.true_track)),
                    "song_cluster_low": low,
                    "song_cluster_high": high,
                }
            )
        return rows

    @cached_property
    def references(self) -> Rows:
        """All rows that are searched."""
        return Rows([store.rows for store in self.stores.searched()])

    @cached_property
    def borders(self) -> Borders:
        """Of all tracks that are searched."""
        sizes = [track.num_rows for store in self.stores.searched() for track in store.tracks]
        return Borders(np.cumsum([0, *sizes]))

    @property
    def names(self) -> list[str]:
        """All tracks that are searched."""
        return [track.track_id for store in self.stores.searched() for track in store.tracks]

    @cached_property
    def true_track(self) -> NDArray[np.int64]:
        """The track of each query among all that are searched."""
        number = {name: position for position, name in enumerate(self.names)}
        try:
            return np.array([number[track.track_id] for track in self.scene.tracks])
        except KeyError as error:
            raise MelprintError(
                f"the track {error} of the corpus is not in {self.stores.db.folder}; generate the stores from it"
            ) from error

    def _can(self, factor: str) -> bool:
        if factor in CODECS and not has_codec(factor):
            console.print(f"left out: no encoder for {factor} is installed", highlight=False)
            return False
        if factor == "music" and not self.scene.music_tracks:
            console.print("left out: this corpus has no music but that which is asked for", highlight=False)
            return False
        if factor == "speech" and not self.scene.speech_tracks:
            console.print("left out: this corpus has no speech; give it noise in a folder speech/", highlight=False)
            return False
        return True

    def _key(self) -> str:
        """Cells of other stores, models, music or settings are others."""
        spec = self.scene.spec
        parts = [
            self.stores.digest(),
            model_digest(self.model),
            [(track.track_id, track.sha256) for track in (*self.scene.tracks, *self.scene.corpus.noise)],
            [__version__, REVISION, spec.num_queries, spec.duration_s, spec.seed, list(self.lengths), self.index.name],
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
