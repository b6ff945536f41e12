"""Noise: voices, babble, effects and engines from packages, pink noise, or the user's own recordings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melprint.audio.files import find_recordings, read_mono, to_int16, write_wav
from melprint.data.corpora.packages import fetch_packages, licence_of
from melprint.data.corpora.rooms import SPLIT_KEY
from melprint.data.prepare import Recording
from melprint.errors import MelprintError
from melprint.progress import progress_bar
from melprint.randomness import rng_for

STREAM_S = 60.0
PAUSE_S = 0.15  # between two clips of a stream
LEVEL_RMS = 0.05
MIN_CLIP_S = 0.25
MAX_CLIP_S = 30.0  # longer "effects" of a game are its music
VOICES = (4, 8)  # fewest and most speakers of a babble
NUM_BABBLES = 8
NUM_PINK = 2
VAL_EVERY = 8  # one clip of eight of the training side is kept for validation


@dataclass(frozen=True)
class PackageNoise:
    """Streams of noise made from the clips in packages.

    Attributes:
        speech: packages of spoken clips for ``train`` and for ``test``.
        effects: packages of other sounds for ``train`` and for ``test``.
    """

    speech: Mapping[str, Sequence[str]]
    effects: Mapping[str, Sequence[str]]

    def recordings(self, cache: Path, folder: Path, sample_rate_hz: int) -> list[Recording]:
        """Write the streams of every split below ``folder``; no clip serves two splits."""
        kinds = {"speech": self.speech, "effects": self.effects}
        names = [name for kind in kinds.values() for packages in kind.values() for name in packages]
        packages = fetch_packages(names, cache)
        result = PinkNoise().recordings(cache, folder, sample_rate_hz)
        with progress_bar("make noise", len(kinds) * len(SPLIT_KEY)) as advance:
            for kind, of_split in kinds.items():
                for split in SPLIT_KEY:
                    side = "test" if split == "test" else "train"
                    roots = [packages[name] for name in of_split.get(side, ()) if name in packages]
                    clips = list(_clips(roots, split, sample_rate_hz))
                    if not clips:
                        raise MelprintError(
                            f"no {kind} for {split} in {list(of_split.get(side, ()))}; name more packages"
                        )
                    rng = rng_for(0, SPLIT_KEY[split], len(kind))
                    streams = _streams(clips, sample_rate_hz, rng)
                    source = " ".join(f"debian:{root.name}" for root in roots)
                    licence = " ".join(licence_of(root.name) for root in roots)
                    result += _write(folder, kind, split, streams, sample_rate_hz, source, licence)
                    if kind == "speech":
                        babbles = _babbles(streams, rng)
                        result += _write(folder, "babble", split, babbles, sample_rate_hz, source, licence)
                    advance(1)
        return result


@dataclass(frozen=True)
class PinkNoise:
    """Noise whose power falls by 3 dB an octave; needs nothing from outside."""

    def recordings(self, cache: Path, folder: Path, sample_rate_hz: int) -> list[Recording]:
        """Write streams for every split, each from a random stream of its own."""
        del cache
        result = []
        for split, key in SPLIT_KEY.items():
            streams = [
                pink_noise(round(STREAM_S * sample_rate_hz), rng_for(1, key, number)) for number in range(NUM_PINK)
            ]
            result += _write(folder, "pink", split, streams, sample_rate_hz, "generated", "generated")
        return result


@dataclass(frozen=True)
class FolderNoise:
    """The user's own noise: a folder with ``train`` and ``test`` (or ``tr`` and ``ts``) inside.

    Attributes:
        path: that folder.
    """

    path: str

    def recordings(self, cache: Path, folder: Path, sample_rate_hz: int) -> list[Recording]:
        """The files as they are; one of eight of the training side is kept for validation."""
        del cache, folder, sample_rate_hz
        return train_and_test_files(Path(self.path))


def train_and_test_files(folder: Path) -> list[Recording]:
    """Recordings of a folder with ``tr``/``train`` and ``ts``/``test`` inside.

    Raises:
        MelprintError: one of the two sides is missing: a test with noise or rooms that training saw is none.
    """
    result = []
    for side, names in (("train", ("tr", "train")), ("test", ("ts", "test"))):
        root = next((folder / name for name in names if (folder / name).is_dir()), None)
        if root is None:
            raise MelprintError(f"{folder} needs the folders train and test, so that none is used for both")
        paths = find_recordings(root)
        if side == "train" and len(paths) < 2:
            raise MelprintError(f"{root} holds one file, and validation needs one of its own; add another")
        every = min(VAL_EVERY, len(paths))
        for number, path in enumerate(paths):
            split = "val" if side == "train" and number % every == every - 1 else side
            result.append(Recording(path, path.relative_to(folder).as_posix(), split, str(path)))
    return result


def pink_noise(num_samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Gaussian noise with a 1/f power spectrum ``(T,)``, at LEVEL_RMS."""
    spectrum = rng.standard_normal(num_samples // 2 + 1) + 1j * rng.standard_normal(num_samples // 2 + 1)
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    spectrum[0] = 0
    return at_level(np.fft.irfft(spectrum, num_samples))


def at_level(wave_T: NDArray[np.floating]) -> NDArray[np.float32]:
    """The waveform at LEVEL_RMS, so that clips of a stream are equally loud."""
    rms = np.sqrt(np.mean(np.square(wave_T, dtype=np.float64)))
    return (wave_T * (LEVEL_RMS / max(rms, 1e-9))).astype(np.float32)


def _clips(roots: Sequence[Path], split: str, sample_rate_hz: int) -> Iterator[NDArray[np.float32]]:
    for root in roots:
        for number, path in enumerate(find_recordings(root)):
            for_val = number % VAL_EVERY == VAL_EVERY - 1
            if (split != "test" and for_val != (split == "val")) or "music" in path.relative_to(root).parts:
                continue
            try:
                clip = read_mono(path, sample_rate_hz)
            except MelprintError:
                continue  # games ship a few files that are no audio in spite of their name
            if MIN_CLIP_S <= len(clip) / sample_rate_hz <= MAX_CLIP_S and np.abs(clip).max() > 1e-3:
                yield at_level(clip)


def _streams(
    clips: Sequence[NDArray[np.float32]], sample_rate_hz: int, rng: np.random.Generator
) -> list[NDArray[np.float32]]:
    pause = np.zeros(round(PAUSE_S * sample_rate_hz), np.float32)
    joined = np.concatenate([part for number in rng.permutation(len(clips)) for part in (clips[number], pause)])
    length = round(STREAM_S * sample_rate_hz)
    return [joined[start : start + length] for start in range(0, max(1, len(joined) - length + 1), length)]


def _babbles(streams: Sequence[NDArray[np.float32]], rng: np.random.Generator) -> list[NDArray[np.float32]]:
    length = min(map(len, streams))
    babbles = []
    for _ in range(NUM_BABBLES):
        voices = rng.integers(len(streams), size=rng.integers(*VOICES, endpoint=True))
        shifts = rng.integers(length, size=len(voices))
        voiced = [np.roll(streams[v][:length], s) for v, s in zip(voices, shifts, strict=True)]
        babbles.append(at_level(np.sum(voiced, axis=0)))
    return babbles


def _write(
    folder: Path,
    kind: str,
    split: str,
    streams: Sequence[NDArray[np.float32]],
    sample_rate_hz: int,
    source: str,
    licence: str,
) -> list[Recording]:
    result = []
    for number, stream in enumerate(streams):
        name = f"{kind}/{split}-{number:03d}"
        path = folder / f"{name}.wav"
        write_wav(path, to_int16(stream), sample_rate_hz)
        result.append(Recording(path, name, split, source, licence))
    return result
