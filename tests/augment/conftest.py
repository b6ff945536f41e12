from pathlib import Path

import numpy as np
import pytest

from melprint.audio.files import write_wav
from melprint.augment.banks import Surroundings
from melprint.data.manifest import Track

RATE = 8_000


def stored(path: Path, pcm: np.ndarray, name: str) -> Track:
    write_wav(path, pcm, RATE)
    return Track(name, path, len(pcm), "train", "", "", "")


@pytest.fixture
def surroundings(tmp_path: Path, rng: np.random.Generator) -> Surroundings:
    """Three noises of two kinds and two rooms: an echo after 100 samples, and a decay of 2,000."""
    noise = [
        stored(tmp_path / f"n{n}.wav", rng.integers(-9_000, 9_000, length, dtype=np.int16), name)
        for n, (name, length) in enumerate([("speech/a", 30_000), ("speech/b", 50_000), ("pink/a", 9_000)])
    ]
    echo = np.zeros(500, np.int16)
    echo[[40, 140]] = 20_000, 10_000
    decay = (rng.standard_normal(2_000) * np.exp(-np.arange(2_000) / 300) * 2_000).astype(np.int16)
    decay[0] = 30_000
    rooms = [stored(tmp_path / f"r{n}.wav", pcm, f"room-{n}") for n, pcm in enumerate([echo, decay])]
    return Surroundings(noise, rooms, RATE)
