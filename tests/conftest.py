"""Shared fixtures: seeded random streams and synthesised music."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch or faiss are loaded, hence before them

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

RATE = 8_000


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _seed_torch() -> None:
    torch.manual_seed(0)


def synthesize(seed: int, duration_s: float, rate: int = RATE) -> NDArray[np.float32]:
    """Random notes of three harmonics each over a little noise: no two seconds alike."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(duration_s * rate)) / rate
    wave = 0.005 * rng.standard_normal(len(time))
    for _ in range(round(6 * duration_s)):
        start, length, pitch = rng.uniform(0, duration_s), rng.uniform(0.1, 0.6), 220 * 2 ** (rng.integers(36) / 12)
        note = (time >= start) & (time < start + length)
        fade = np.exp(-4 * (time[note] - start) / length)
        for harmonic in (1, 2, 3):
            wave[note] += 0.1 / harmonic * fade * np.sin(2 * np.pi * harmonic * pitch * time[note])
    return (wave / np.abs(wave).max() * 0.5).astype(np.float32)


@pytest.fixture
def music() -> Callable[..., NDArray[np.float32]]:
    return synthesize


@pytest.fixture(scope="session")
def album_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six albums of two tracks of 16 s, 22.05 kHz stereo, in several formats."""
    folder = tmp_path_factory.mktemp("music")
    suffixes = ["wav", "flac", "ogg"]
    for album in range(6):
        for track in range(2):
            number = 2 * album + track
            wave = synthesize(number, 16.0, 22_050)
            path = folder / f"album-{album}" / f"track-{track}.{suffixes[number % 3]}"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, np.stack([wave, 0.5 * wave], axis=1), 22_050)
    return folder


ROOT = Path(__file__).parents[1]
SMALL = [
    "data=folder",
    "data.corpus.rooms.simulated={train: 3, val: 1, test: 2}",
    "data.corpus.min_duration_s=10",
    "data.corpus.test=0.3",
    "name=small",
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the entry points, as in a clone."""
    folder = tmp_path_factory.mktemp("work")
    for name in ("train.py", "generate.py", "evaluate.py"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "conf", folder / "conf")
    return folder


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def run(work: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, script, *arguments]
    return subprocess.run(command, cwd=work, capture_output=True, text=True, check=False, env=environment())


def fails_with(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    message = done.stderr.strip().splitlines()
    assert "Traceback" not in done.stderr
    assert len([line for line in message if line.startswith("error: ")]) == 1
    assert words in message[-1]
