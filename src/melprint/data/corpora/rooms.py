"""Room impulse responses: simulated, measured ones from packages, or the user's own."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melprint.audio.files import INT16_SCALE, read_mono, write_wav
from melprint.audio.responses import from_direct_sound
from melprint.data.corpora.packages import fetch_packages, licence_of
from melprint.data.prepare import Recording
from melprint.progress import progress_bar
from melprint.randomness import rng_for

SPLIT_KEY = {"train": 0, "val": 1, "test": 2}
SMALLEST_ROOM_M, LARGEST_ROOM_M = (2.5, 2.5, 2.2), (12.0, 9.0, 4.5)
WALL_DISTANCE_M = 0.4
MAX_ORDER = 35  # image sources; later reflections of the most reverberant rooms are left out

WORTH_PROCESSES = 32  # a process needs seconds to start, a room a tenth of one


def simulate_rooms(
    folder: Path,
    num_rooms: Mapping[str, int],
    *,
    rt60_s: tuple[float, float] = (0.1, 1.0),
    sample_rate_hz: int = 8_000,
    seed: int = 0,
) -> list[Recording]:
    """Image-source responses of shoebox rooms (Allen & Berkley 1979), each split with rooms of its own.

    Args:
        folder: receives ``SPLIT/room-NNN-rtMMMms.wav``; what is there already stays.
        num_rooms: rooms of each split.
        rt60_s: reverberation times, drawn uniformly; Sabine's formula gives the absorption.
        sample_rate_hz: of the responses.
        seed: another seed gives other rooms.
    """
    wanted = [(split, number) for split, count in num_rooms.items() for number in range(count)]
    make = partial(_simulate_one, folder=folder, rt60_s=rt60_s, sample_rate_hz=sample_rate_hz, seed=seed)
    with progress_bar("simulate rooms", len(wanted)) as advance, ExitStack() as stack:
        made: Iterable[Recording] = map(make, wanted)
        if len(wanted) >= WORTH_PROCESSES:
            pool = stack.enter_context(ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")))
            made = pool.map(make, wanted, chunksize=8)
        recordings = []
        for recording in made:
            recordings.append(recording)
            advance(1)
    return recordings


def _simulate_one(
    key: tuple[str, int], folder: Path, rt60_s: tuple[float, float], sample_rate_hz: int, seed: int
) -> Recording:
    import pyroomacoustics

    split, number = key
    rng = rng_for(seed, SPLIT_KEY[split], number)
    while True:
        rt60 = rng.uniform(*rt60_s)
        size = rng.uniform(SMALLEST_ROOM_M, LARGEST_ROOM_M)
        source, microphone = rng.uniform(WALL_DISTANCE_M, size - WALL_DISTANCE_M, (2, 3))
        try:
            absorption, order = pyroomacoustics.inverse_sabine(rt60, size)
        except ValueError:  # no wall absorbs enough for so short a reverberation in so large a room
            continue
        break
    name = f"{split}/room-{number:03d}-rt{round(1000 * rt60):04d}ms"
    path = folder / f"{name}.wav"
    if not path.exists():
        room = pyroomacoustics.ShoeBox(
            size,
            fs=sample_rate_hz,
            materials=pyroomacoustics.Material(absorption),
            max_order=min(order, MAX_ORDER),
        )
        room.add_source(source)
        room.add_microphone(microphone)
        room.compute_rir()
        write_wav(path, response_to_int16(room.rir[0][0]), sample_rate_hz)
    return Recording(path, name, split, source="pyroomacoustics", licence="generated")


def measured_rooms(
    files: Mapping[str, Mapping[str, str]], cache: Path, folder: Path, *, sample_rate_hz: int = 8_000
) -> list[Recording]:
    """Measured responses from packages.

    Args:
        files: for each package a glob below it and the split that the matching files go to.
        cache: where packages are unpacked.
        folder: receives the responses.
        sample_rate_hz: of the responses.
    """
    recordings = []
    for package, root in fetch_packages(list(files), cache).items():
        for pattern, split in files[package].items():
            for path in sorted(root.glob(pattern)):
                name = f"{split}/{package}-{path.stem}"
                target = folder / f"{name}.wav"
                if not target.exists():
                    write_wav(target, response_to_int16(read_mono(path, sample_rate_hz)), sample_rate_hz)
                recordings.append(Recording(target, name, split, f"debian:{package}", licence_of(package)))
    return recordings


def response_to_int16(response_K: Sequence[float] | NDArray[np.floating]) -> NDArray[np.int16]:
    """A response from its direct sound on, scaled to full range: 16 bits are few for what decays."""
    response = from_direct_sound(np.asarray(response_K, np.float32))
    return np.rint(response / np.abs(response).max() * (INT16_SCALE - 1)).astype(np.int16)
