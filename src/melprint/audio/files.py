"""Reading any recording as mono at one rate, and 16-bit wavs without copying them."""

import os
import struct
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from melprint.errors import MelprintError

BY_LIBSNDFILE = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff"})
BY_FFMPEG = frozenset({".m4a", ".m4b", ".aac", ".amr", ".wma", ".weba", ".webm", ".mka", ".mp2", ".ac3", ".ape", ".wv"})
SUFFIXES = BY_LIBSNDFILE | BY_FFMPEG
INT16_SCALE = 32_768.0
CANCELLATION_DB = -20.0  # a mix this far below its channels has lost the music to opposite phases
BLOCK_FRAMES = 1 << 18
MISSING_FRAMES = {"FLAC": 0, "MP3": 1 << 15}  # of an MP3 without a header of its length, the number is an estimate
STREAMED_WAV_BYTES = 0x7FFF_F000  # writers on a pipe put 0 or about 2**31 or 2**32 where the length belongs


def find_recordings(folder: Path, unreadable: Callable[[MelprintError], None] | None = None) -> list[Path]:
    """Audio files below ``folder``, sorted; a file reached through symbolic links counts once.

    Args:
        folder: to look through.
        unreadable: told of each folder below that cannot be read; by default the first one is an error.

    Raises:
        MelprintError: the folder is missing, cannot be read, or holds no audio file.
    """

    def complain(error: OSError) -> None:
        refused = MelprintError(f"{shown(Path(error.filename))}: cannot be read ({error.strerror})")
        if unreadable is None or Path(error.filename) == folder:
            raise refused from error
        unreadable(refused)

    if not folder.is_dir():
        raise MelprintError(f"{folder} is not a folder; give one that holds wav, flac, mp3, ogg, opus or m4a files")
    found: dict[Path, Path] = {}
    visited: set[str] = set()
    for parent, subfolders, names in os.walk(folder, onerror=complain, followlinks=True):
        if (real_parent := os.path.realpath(parent)) in visited:
            subfolders.clear()
            continue
        visited.add(real_parent)
        subfolders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path.suffix.lower() in SUFFIXES:
                real = path.resolve()
                if real not in found or found[real].is_symlink():
                    found[real] = path
    if not found:
        raise MelprintError(f"{folder} holds no wav, flac, mp3, ogg, opus or m4a file")
    return sorted(found.values())


def shown(path: Path) -> str:
    """A path as it can be printed and written to tables, whatever bytes its name has."""
    return str(path).encode("utf-8", "replace").decode()


def is_prepared(path: Path, sample_rate_hz: int) -> bool:
    """Whether the file already is a mono 16-bit wav at this rate."""
    if path.suffix.lower() != ".wav":
        return False
    info = soundfile.info(path)
    return (info.format, info.subtype, info.channels, info.samplerate) == ("WAV", "PCM_16", 1, sample_rate_hz)


def read_mono(path: Path, sample_rate_hz: int) -> NDArray[np.float32]:
    """A whole recording as mono float32 ``(T,)`` at ``sample_rate_hz``, resampled by soxr.

    Channels are averaged; where opposite phases would cancel, the loudest channel is taken instead.
    Memory: 4 bytes a sample and channel at the new rate, 115 MB an hour and channel at 8 kHz.

    Raises:
        MelprintError: unreadable, truncated, or holding NaN or infinite samples.
    """
    if path.exists() and not path.is_file():
        raise MelprintError(f"{path}: not a regular file; save it first")
    if path.suffix.lower() in BY_FFMPEG:
        from melprint.audio.streams import read_whole

        return read_whole(path, sample_rate_hz)
    try:
        with soundfile.SoundFile(path) as file:
            refuse_truncated_wav(path)
            resampler = None  # at the same rate, samples stay what they are to the bit
            if file.samplerate != sample_rate_hz:
                resampler = soxr.ResampleStream(file.samplerate, sample_rate_hz, file.channels, dtype="float32")
            blocks, read = [np.zeros((0, file.channels), np.float32)], 0
            # Not SoundFile.blocks: where a read falls short, it gives what happened to be in memory.
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                if not np.isfinite(block).all():
                    raise MelprintError(f"{path}: holds NaN or infinite samples; export it again")
                read += len(block)
                blocks.append(resampler.resample_chunk(block) if resampler else block)
            if file.format in ("FLAC", "MP3") and read < file.frames - MISSING_FRAMES[file.format]:
                raise MelprintError(f"{path}: truncated, {read} of {file.frames} frames are there")
            if resampler:
                blocks.append(resampler.resample_chunk(blocks[0], last=True))
    except UnicodeEncodeError as error:
        raise MelprintError(f"{shown(path)}: its name is not UTF-8; rename it") from error
    except (soundfile.SoundFileError, OSError, RuntimeError, ValueError) as error:
        raise MelprintError(f"{path}: unreadable ({(str(error) or type(error).__name__).splitlines()[0]})") from error
    return mix_down(np.concatenate(blocks))


def mix_down(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(T, C)`` to ``(T,)``: the mean, or the loudest channel where the mean has cancelled out.

    >>> tone = np.sin(np.arange(100, dtype=np.float32))
    >>> bool(np.abs(mix_down(np.stack([tone, -tone], axis=1))).max() > 0.9)
    True
    """
    if channels.shape[1] == 1:
        return channels[:, 0]
    mono = channels.mean(axis=1, dtype=np.float32)
    channel_power = np.einsum("tc,tc->c", channels, channels, dtype=np.float64)
    if float(mono @ mono) < 10 ** (CANCELLATION_DB / 10) * channel_power.mean():
        return np.ascontiguousarray(channels[:, channel_power.argmax()])
    return mono


def to_int16(wave_T: NDArray[np.floating]) -> NDArray[np.int16]:
    """Round to 16 bits; a waveform that would clip is scaled down to fit instead."""
    peak = float(np.abs(wave_T).max(initial=0.0))
    scale = min(INT16_SCALE, (INT16_SCALE - 1) / peak) if peak else INT16_SCALE
    return np.rint(wave_T * scale).astype(np.int16)


def write_wav(path: Path, pcm_T: NDArray[np.int16], sample_rate_hz: int) -> None:
    """Write a mono 16-bit wav that is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file, wave.open(file, "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(sample_rate_hz)
            out.writeframes(np.ascontiguousarray(pcm_T, dtype="<i2").tobytes())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def map_pcm(path: Path, sample_rate_hz: int) -> NDArray[np.int16]:
    """The samples ``(T,)`` of a prepared wav as a read-only view of the file.

    Raises:
        MelprintError: missing, truncated, or not a mono 16-bit wav at this rate.
    """
    try:
        with path.open("rb") as file:
            with wave.open(file, "rb") as header:
                shape = (header.getnchannels(), header.getsampwidth(), header.getframerate())
                num_samples, offset = header.getnframes(), file.tell()
            size = os.fstat(file.fileno()).st_size
            if not 0 < 2 * num_samples < STREAMED_WAV_BYTES:
                num_samples = (size - offset) // 2
            if shape != (1, 2, sample_rate_hz):
                raise MelprintError(
                    f"{path}: {shape[0]} channels of {8 * shape[1]} bits at {shape[2]} Hz, not mono 16-bit at"
                    f" {sample_rate_hz} Hz; run melprint prepare on its folder"
                )
            if size < offset + 2 * num_samples:
                raise MelprintError(
                    f"{path}: truncated, {max(0, size - offset) // 2} of {num_samples} samples are there;"
                    " prepare the folder again"
                )
            return np.memmap(file, "<i2", "r", offset, (num_samples,)) if num_samples else np.zeros(0, np.int16)
    except (OSError, EOFError, wave.Error) as error:
        raise MelprintError(f"{path}: not a readable wav ({error}); prepare the folder again") from error


def refuse_truncated_wav(path: Path) -> None:
    """Libsndfile shortens a truncated RIFF file without a word; the header tells the loss."""
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return
        size = os.fstat(file.fileno()).st_size
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", head)
            if name == b"data":
                there = size - file.tell()
                if 0 < length < STREAMED_WAV_BYTES and there < length:
                    raise MelprintError(f"{path}: truncated, {there} of {length} bytes of audio are there")
                return
            file.seek(length + length % 2, os.SEEK_CUR)
