"""Any recording or stream as mono 16-bit blocks, in constant memory."""

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from melprint.audio.files import INT16_SCALE, mix_down, refuse_truncated_wav, shown
from melprint.errors import MelprintError

STDIN = "-"
BLOCK_S = 30.0
MOST_CHANNELS = 64
# First bytes of what is no raw PCM on standard input: RIFF, Ogg, FLAC, ID3, EBML (webm), MPEG layer 3; ftyp at byte 4.
CONTAINERS = (b"RIFF", b"OggS", b"fLaC", b"ID3", b"\x1aE\xdf\xa3", b"\xff\xfb", b"\xff\xf3", b"FORM", b"#!AMR")


@dataclass(frozen=True)
class RawPcm:
    """Samples without a header on standard input: 16-bit, little-endian, interleaved."""

    sample_rate_hz: int = 44_100
    channels: int = 2

    def __post_init__(self) -> None:
        if self.sample_rate_hz < 1 or not 1 <= self.channels <= MOST_CHANNELS:
            raise MelprintError(
                f"raw PCM needs a positive rate and 1 to {MOST_CHANNELS} channels,"
                f" got {self.sample_rate_hz} Hz and {self.channels}"
            )


def pcm_blocks(
    source: Path | str,
    sample_rate_hz: int,
    *,
    block_s: float = BLOCK_S,
    start_s: float = 0.0,
    raw: RawPcm | None = None,
) -> Iterator[NDArray[np.int16]]:
    """Mono 16-bit blocks of ``block_s`` at one rate; the last one may be shorter.

    What would clip is clipped: a stream has no end from which its level could be known, and blocks of different level
    would be a change of the music.

    Args:
        source: a file of any format, the URL of a stream, or ``-`` for standard input.
        sample_rate_hz: of the blocks.
        block_s: length of the blocks.
        start_s: where to begin.
        raw: what standard input holds, unless it begins like a file.

    Raises:
        MelprintError: the source cannot be opened, holds no audio, or breaks off; blocks before that have been given.
    """
    channels = _channels(source, sample_rate_hz, start_s, raw)
    size = max(1, round(block_s * sample_rate_hz))
    waiting: list[NDArray[np.int16]] = []
    count, name, found = 0, _name(source), False
    done_s = start_s
    try:
        for mono in map(_to_int16, channels):
            found = found or len(mono) > 0
            done_s += len(mono) / sample_rate_hz
            waiting.append(mono)
            count += len(mono)
            if count >= size:
                joined = np.concatenate(waiting)
                whole = count // size * size
                yield from np.split(joined[:whole], range(size, whole, size))
                waiting, count = [joined[whole:]], count - whole
    except _Broken as error:
        if count:
            yield np.concatenate(waiting)
        if not found:
            raise MelprintError(f"{name}: unreadable ({error})") from error
        raise MelprintError(
            f"{name}: breaks off after {done_s:.1f} s ({error}); what comes before has been read"
        ) from error
    if count:
        yield np.concatenate(waiting)
    if not found and not start_s:
        raise MelprintError(f"{name}: holds no audio")


def read_beginning(path: Path, sample_rate_hz: int, duration_s: float) -> NDArray[np.int16]:
    """The first seconds of a recording ``(T,)``; the rest is not decoded.

    Raises:
        MelprintError: it cannot be read, holds no audio, or breaks off within these seconds.
    """
    wanted = round(duration_s * sample_rate_hz)
    blocks, count = [], 0
    for block in pcm_blocks(path, sample_rate_hz, block_s=min(duration_s, 10.0)):
        blocks.append(block)
        count += len(block)
        if count >= wanted:
            break
    return np.concatenate(blocks)[:wanted]


class _Broken(Exception):
    """The source cannot be read on."""


def _channels(source: Path | str, rate_hz: int, start_s: float, raw: RawPcm | None) -> Iterator[NDArray[np.float32]]:
    if isinstance(source, str) and source == STDIN:
        return _standard_input(rate_hz, start_s, raw or RawPcm())
    if isinstance(source, str) and "://" in source:
        return _by_ffmpeg(source, source, rate_hz, start_s)
    path = Path(source)
    try:
        if path.is_dir() or (path.exists() and not path.is_file() and not path.is_fifo()):
            raise MelprintError(f"{shown(path)}: not a regular file; give a recording")
        if not path.exists():
            raise MelprintError(f"{shown(path)}: there is no such file")
        path.name.encode()
    except UnicodeEncodeError as error:
        raise MelprintError(f"{shown(path)}: its name is not UTF-8; rename it") from error
    except PermissionError as error:
        raise MelprintError(f"{shown(path)}: unreadable (no permission)") from error
    if not os.access(path, os.R_OK):
        raise MelprintError(f"{shown(path)}: unreadable (no permission)")
    if not path.stat().st_size and path.is_file():
        raise MelprintError(f"{shown(path)}: holds no audio")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, OSError, RuntimeError):
        return _by_ffmpeg(str(path), shown(path), rate_hz, start_s)  # m4a, aac, amr, webm, video
    return _by_libsndfile(file, path, rate_hz, start_s)


def _by_libsndfile(
    file: soundfile.SoundFile, path: Path, rate_hz: int, start_s: float
) -> Iterator[NDArray[np.float32]]:
    frames = max(1, round(BLOCK_S / 4 * file.samplerate))
    with file:
        refuse_truncated_wav(path)
        if start_s:
            try:
                file.seek(min(round(start_s * file.samplerate), file.frames))
            except (soundfile.SoundFileError, RuntimeError) as error:
                raise MelprintError(f"{shown(path)}: cannot be read from {start_s:g} s on ({error})") from error
        resampled = _Resampler(file.samplerate, rate_hz, file.channels)
        read = file.tell() if file.seekable() else 0
        while True:
            try:
                block = file.read(frames, dtype="float32", always_2d=True)
            except (soundfile.SoundFileError, RuntimeError) as error:
                raise _Broken(_first_line(error)) from error
            if not np.isfinite(block).all():
                raise _Broken("NaN or infinite samples")
            read += len(block)
            if not len(block):
                break
            yield resampled(block)
        yield resampled.rest()
        if file.format == "FLAC" and read < file.frames:
            raise _Broken(f"{read} of {file.frames} frames are there")


def _standard_input(rate_hz: int, start_s: float, raw: RawPcm) -> Iterator[NDArray[np.float32]]:
    stream: IO[bytes] = sys.stdin.buffer
    head = stream.read(12)
    if head.startswith(CONTAINERS) or head[4:8] == b"ftyp":
        yield from _by_ffmpeg(_Piped(head, stream), "standard input", rate_hz, start_s)
        return
    resampled = _Resampler(raw.sample_rate_hz, rate_hz, raw.channels)
    frame = 2 * raw.channels
    skip = round(start_s * raw.sample_rate_hz) * frame
    rest = head
    size = max(frame, raw.sample_rate_hz // 4 * frame)  # a quarter of a second: a live stream is answered as it comes
    while True:
        data = stream.read(size)
        rest += data
        if skip:
            dropped = min(skip, len(rest))
            rest, skip = rest[dropped:], skip - dropped
        whole = len(rest) // frame * frame
        if whole:
            samples = np.frombuffer(rest[:whole], "<i2").reshape(-1, raw.channels)
            yield resampled(samples.astype(np.float32) / np.float32(INT16_SCALE))
            rest = rest[whole:]
        if not data:
            break
    yield resampled.rest()


class _Piped(io.RawIOBase):
    """A pipe of which the first bytes have been read."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self.head, self.stream = head, stream

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        if self.head:
            head, self.head = self.head[:size], self.head[size:]
            return head
        return self.stream.read(size)


def _by_ffmpeg(source: Any, name: str, rate_hz: int, start_s: float) -> Iterator[NDArray[np.float32]]:
    import av

    with _quiet():
        try:
            container: Any = av.open(
                source, timeout=(10.0, 30.0) if isinstance(source, str) and "://" in source else None
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            raise MelprintError(f"{name}: unreadable ({_first_line(error)})") from error
        with container:
            if not container.streams.audio:
                raise MelprintError(f"{name}: holds no audio")
            stream = container.streams.audio[0]
            before = max(0.0, start_s)
            resampled: _Resampler | None = None
            try:
                for frame in container.decode(stream):
                    block = _samples_of(frame)
                    if resampled is None:
                        resampled = _Resampler(frame.sample_rate, rate_hz, block.shape[1])
                        skip = round(before * frame.sample_rate)
                    if skip:
                        dropped = min(skip, len(block))
                        block, skip = block[dropped:], skip - dropped
                    if len(block):
                        yield resampled(block)
            except (av.FFmpegError, OSError) as error:
                raise _Broken(_first_line(error)) from error
            if resampled is not None:
                yield resampled.rest()


def _samples_of(frame: Any) -> NDArray[np.float32]:
    """Samples ``(T, channels)`` in [-1, 1]."""
    values = frame.to_ndarray()
    channels = frame.layout.nb_channels
    values = values.reshape(-1, channels) if not frame.format.is_planar else values.T
    if np.issubdtype(values.dtype, np.floating):
        return values.astype(np.float32)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    return (values / -float(np.iinfo(values.dtype).min)).astype(np.float32)


class _Resampler:
    """Channels at one rate in, mono at another out, block by block."""

    def __init__(self, from_hz: int, to_hz: int, channels: int) -> None:
        self.channels = channels
        self.stream = soxr.ResampleStream(from_hz, to_hz, channels, dtype="float32") if from_hz != to_hz else None

    def __call__(self, block_TC: NDArray[np.float32]) -> NDArray[np.float32]:
        return mix_down(self.stream.resample_chunk(np.ascontiguousarray(block_TC)) if self.stream else block_TC)

    def rest(self) -> NDArray[np.float32]:
        """What the filter still holds."""
        nothing = np.zeros((0, self.channels), np.float32)
        return mix_down(self.stream.resample_chunk(nothing, last=True) if self.stream else nothing)


def _to_int16(mono_T: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.rint(np.clip(mono_T * INT16_SCALE, -INT16_SCALE, INT16_SCALE - 1)).astype(np.int16)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what ffmpeg writes to standard error by itself."""
    import av.logging

    level = av.logging.get_level()
    av.logging.set_level(av.logging.PANIC)
    try:
        yield
    finally:
        av.logging.set_level(level)


def _name(source: Path | str) -> str:
    return "standard input" if source == STDIN else shown(Path(source)) if isinstance(source, Path) else source


def _first_line(error: BaseException) -> str:
    line = (str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r"^\[Errno \S+\] ", "", line)
