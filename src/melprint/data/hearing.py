"""Degraded versions of one recording, to listen to and to look at.  Axes: B versions · C context + excerpt samples."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from melprint.audio.files import read_mono, to_int16, write_wav
from melprint.augment.banks import Surroundings
from melprint.augment.coding import CodecLike
from melprint.augment.device import degrade, describe
from melprint.augment.filters import ApplyRoom, BandLimits, DeviceResponse, Filters
from melprint.augment.noise import AddNoise
from melprint.augment.playback import SpeedAndPitch
from melprint.data.corpora.corpus import Rooms
from melprint.data.corpora.noise import FolderNoise, PinkNoise
from melprint.data.manifest import replacing
from melprint.data.prepare import prepare
from melprint.errors import MelprintError
from melprint.progress import progress_bar
from melprint.randomness import keyed_uniforms

CONTEXT_S = 1.0
NUM_ROOMS = 12
KINDS = ("playback", "room", "band", "device", "noise", "codec")
TABLE, SHEET = "versions.csv", "versions.png"


@dataclass(frozen=True)
class Version:
    """One degraded version.

    Attributes:
        name: of its file.
        start_s: where in the recording its first sample is.
        wave: int16 ``(T,)``.
        parameters: what was done to it.
    """

    name: str
    start_s: float
    wave: NDArray[np.int16]
    parameters: Mapping[str, float | str]


def surroundings_for_hearing(noise: Path | None, rooms: Path | None, sample_rate_hz: int, cache: Path) -> Surroundings:
    """The user's noise and rooms, or pink noise and simulated rooms, kept below ``cache`` while they are needed."""
    source: Any = PinkNoise() if noise is None else FolderNoise(str(noise))
    spaces = Rooms({"train": NUM_ROOMS} if rooms is None else {}, {}, None if rooms is None else str(rooms))
    made = []
    for name, what in (("noise", source), ("rooms", spaces)):
        recordings = what.recordings(cache / "packages", cache / f"{name}-made", sample_rate_hz)
        recordings = [recording for recording in recordings if recording.split == "train"]
        prepared = prepare(recordings, cache / name, sample_rate_hz=sample_rate_hz, min_duration_s=0.0)
        made.append(prepared.tracks)
    return Surroundings(made[0], made[1], sample_rate_hz)


def transforms_of(kinds: Sequence[str], around: Surroundings, snr_db: tuple[float, float]) -> list[torch.nn.Module]:
    """The chain of ``augment=robust-all`` but other music, every kind with certainty.

    Raises:
        MelprintError: an unknown kind.
    """
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise MelprintError(f"there is no augmentation {', '.join(unknown)}; known ones are {', '.join(KINDS)}")
    made: list[torch.nn.Module] = []
    if "playback" in kinds:
        made.append(SpeedAndPitch(probability=1.0))
    filters = {
        "room": lambda: ApplyRoom(around),
        "band": lambda: BandLimits(around, probability=1.0),
        "device": lambda: DeviceResponse(around),
    }
    if chosen := {kind: make() for kind, make in filters.items() if kind in kinds}:
        made.append(Filters(around, chosen))
    if "noise" in kinds:
        made.append(AddNoise(around, snr_db))
    if "codec" in kinds:
        made.append(CodecLike(probability=1.0))
    return made


@torch.no_grad()
def versions_of(
    wave_T: NDArray[np.float32],
    transforms: Sequence[torch.nn.Module],
    sample_rate_hz: int,
    *,
    count: int,
    duration_s: float | None = None,
    seed: int = 0,
) -> list[Version]:
    """Excerpts, or the whole recording so often, each with one noise and one room from beginning to end.

    Args:
        wave_T: mono in [-1, 1].
        transforms: applied in this order.
        sample_rate_hz: of the recording.
        count: versions.
        duration_s: of an excerpt that begins anywhere; ``None`` takes the whole recording.
        seed: another seed gives other versions.

    Raises:
        MelprintError: the recording is shorter than the excerpts.
    """
    length = len(wave_T) if duration_s is None else round(duration_s * sample_rate_hz)
    if not 0 < length <= len(wave_T):
        raise MelprintError(
            f"the recording lasts {len(wave_T) / sample_rate_hz:.2f} s; ask for excerpts that are shorter than that"
        )
    context = round(CONTEXT_S * sample_rate_hz)
    num_draws = sum(cast(int, transform.num_draws) for transform in transforms)
    uniforms = keyed_uniforms(seed, np.arange(count)[:, None], 1 + num_draws)
    starts = (uniforms[:, 0] * (len(wave_T) - length + 1)).astype(int)
    padded = np.pad(wave_T, (context, 0))
    draws = torch.from_numpy(uniforms[:, 1:])
    versions = []
    with progress_bar("degrade", count) as advance:
        for number, start in enumerate(starts.tolist()):  # one at a time: a recording may last for hours
            own = draws[number : number + 1]
            excerpt = torch.from_numpy(padded[start : start + context + length].copy())[None]
            degraded = degrade(excerpt, transforms, own, context)[0, context:].numpy()
            parameters = describe(transforms, own)[0]
            # Another tempo is aligned at the end of an excerpt.
            late_s = (1 - float(parameters.get("tempo", 1.0))) * length / sample_rate_hz
            versions.append(
                Version(f"version-{number:03d}.wav", start / sample_rate_hz + late_s, to_int16(degraded), parameters)
            )
            advance(1)
    return versions


def write_versions(
    recording: Path,
    out: Path,
    *,
    kinds: Sequence[str] = KINDS,
    count: int = 6,
    duration_s: float | None = 10.0,
    snr_db: tuple[float, float] = (0.0, 10.0),
    noise: Path | None = None,
    rooms: Path | None = None,
    sample_rate_hz: int = 8_000,
    seed: int = 0,
) -> list[Version]:
    """Write ``original.wav``, the versions, ``versions.csv`` with their parameters and ``versions.png``."""
    wave = read_mono(recording, sample_rate_hz)
    with TemporaryDirectory() as cache:
        around = surroundings_for_hearing(noise, rooms, sample_rate_hz, Path(cache))
        transforms = transforms_of(kinds, around, snr_db)
        versions = versions_of(wave, transforms, sample_rate_hz, count=count, duration_s=duration_s, seed=seed)
    write_wav(out / "original.wav", to_int16(wave), sample_rate_hz)
    for version in versions:
        write_wav(out / version.name, version.wave, sample_rate_hz)
    columns = list(dict.fromkeys(name for version in versions for name in version.parameters))
    with replacing(out / TABLE) as file:
        writer = csv.writer(file)
        writer.writerow(["file", "start_s", "duration_s", *columns])
        for version in versions:
            values = [version.parameters.get(name, "") for name in columns]
            writer.writerow([version.name, round(version.start_s, 4), len(version.wave) / sample_rate_hz, *values])
    (out / SHEET).write_bytes(sheet(wave, versions, sample_rate_hz))
    return versions


def sheet(wave_T: NDArray[np.float32], versions: Sequence[Version], sample_rate_hz: int) -> bytes:
    """A PNG: each version's spectrogram under that of the same stretch of the recording."""
    import io

    from matplotlib.figure import Figure

    columns = min(3, len(versions))
    rows = -(-len(versions) // columns)
    figure = Figure(figsize=(4.6 * columns, 4.2 * rows), layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False, sharex=True, sharey=True)
    for axis in axes.flat:
        axis.set_visible(False)
    for number, version in enumerate(versions):
        row, column = divmod(number, columns)
        start = round(max(0.0, version.start_s) * sample_rate_hz)
        clean = wave_T[start : start + len(version.wave)]
        words = [f"{name} {value}" for name, value in version.parameters.items()]
        lines = ["  ".join(words[first : first + 2]) for first in range(0, len(words), 2)]
        for axis, samples, title in (
            (axes[2 * row, column], clean, f"original from {version.start_s:.2f} s"),
            (axes[2 * row + 1, column], version.wave.astype(np.float32), "\n".join([version.name, *lines])),
        ):
            axis.set_visible(True)
            axis.specgram(samples + 1e-9, NFFT=512, Fs=sample_rate_hz, noverlap=256, cmap="magma", scale="dB")
            axis.set_title(title, fontsize=7)
            axis.set_ylabel("Hz", fontsize=7)
            axis.tick_params(labelsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
