"""Queries that are degraded by one factor at one level, everything else clean.

Axes: B queries · C context + query + reserve samples · T samples of a query.

The same excerpts, noises and rooms serve all levels of a factor, so that cells are paired.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from melprint.audio.changes import change_pitch, change_speed, change_tempo, clip_loudest, pass_band
from melprint.audio.codecs import CODECS, code
from melprint.audio.convolution import convolve_spectra
from melprint.audio.files import INT16_SCALE
from melprint.audio.levels import mix_at_snr
from melprint.augment.banks import NoiseBank, RoomBank
from melprint.data.corpora.corpus import Corpus
from melprint.data.corpora.rooms import simulate_rooms
from melprint.data.dataset import copy_window
from melprint.data.manifest import Track
from melprint.errors import MelprintError
from melprint.randomness import keyed_uniforms

CONTEXT_S = 1.0  # music before a query that reverberates into it
RESERVE_S = 0.5  # after it, for coders and phases
MOST_SPEED = 1.1
ROOMS_PER_LEVEL = 8
QUIET_DB = -50.0
TRIES = 8
MUSIC_TRACKS = 30
VOICES = ("speech", "babble")  # kinds of noise
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
    "rerecorded": "dB SNR",
}
RERECORDING_KBIT_S = 24.0


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


Change = Callable[[Scene, NDArray[np.float32], float], NDArray[np.float32]]


def _as_track(path: Path, track_id: str) -> Track:
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
    start, waves, note = scene.start, scene.waves, ""
    if factor == "phase":
        hop = scene.rate // 2
        start = start // hop * hop + round(level * scene.rate)
        waves = scene.cut(start)
    if factor in IN_CONTEXT:
        waves = IN_CONTEXT[factor](scene, waves, level)
    queries = waves[:, scene.num_context :]
    if factor in CODECS or factor == "rerecorded":
        coder, kbit_s = ("opus", RERECORDING_KBIT_S) if factor == "rerecorded" else (factor, level)
        coded = [code(wave, scene.rate, coder, kbit_s) for wave in queries]
        queries = np.stack([wave for wave, _ in coded])
        note = f"{np.mean([rate for _, rate in coded]):.1f} kbit/s"
    elif factor in IN_TIME:
        queries = np.stack(
            [IN_TIME[factor](wave, scene.rate, 1 + level / 100)[: scene.num_samples] for wave in queries]
        )
    return queries[:, : scene.num_samples], start / scene.rate, note


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


def _rerecorded(scene: Scene, waves: NDArray[np.float32], snr_db: float) -> NDArray[np.float32]:
    """Played by a small loudspeaker that is driven too hard, in a room, beside noise, and heard by a telephone.

    The loudspeaker gives nothing below 400 Hz and saturates; the room has an RT60 of half a second; the microphone
    hears from 150 to 3,300 Hz.  What it hears is coded by Opus (:data:`RERECORDING_KBIT_S`) afterwards.
    """
    peak = np.abs(waves).max(axis=1, keepdims=True).clip(1e-5)
    played = np.tanh(2 * pass_band(waves / peak, scene.rate, 400.0, "highpass")).astype(np.float32)
    heard = _with_noise(scene, scene.noise, _in_rooms(scene, played, 0.5), snr_db)
    heard = pass_band(pass_band(heard, scene.rate, 150.0, "highpass"), scene.rate, 3_300.0, "lowpass")
    return heard / np.abs(heard).max(axis=1, keepdims=True).clip(1e-5) * np.float32(0.9)


def _filtered(kind: Literal["lowpass", "highpass"]) -> Change:
    return lambda scene, waves, cutoff_hz: pass_band(waves, scene.rate, cutoff_hz, kind)


# Changes of waves with the music that comes before the query: it reverberates into it, and filters settle in it.
IN_CONTEXT: Mapping[str, Change] = {
    "snr": lambda scene, waves, snr_db: _with_noise(scene, scene.noise, waves, snr_db),
    "speech": lambda scene, waves, snr_db: _with_noise(scene, scene.speech, waves, snr_db),
    "music": lambda scene, waves, snr_db: _with_noise(scene, scene.music, waves, snr_db),
    "rt60": lambda scene, waves, rt60_s: _in_rooms(scene, waves, rt60_s) if rt60_s > 0 else waves,
    "lowpass": _filtered("lowpass"),
    "highpass": _filtered("highpass"),
    "clipping": lambda scene, waves, percent: clip_loudest(waves, percent / 100),
    "rerecorded": _rerecorded,
    "gain": lambda scene, waves, gain_db: np.clip(waves * np.float32(10 ** (gain_db / 20)), -1, 1),
}
# Changes that move what comes after the beginning: of each query by itself, from its beginning on.
IN_TIME: Mapping[str, Callable[[NDArray[np.float32], int, float], NDArray[np.float32]]] = {
    "speed": lambda wave, rate, factor: change_speed(wave, factor),
    "tempo": change_tempo,
    "pitch": change_pitch,
}
