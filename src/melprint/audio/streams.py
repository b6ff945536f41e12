"""Reading files, network streams and standard input piece by piece, in memory that does not grow with their length.

Everything becomes mono int16 blocks at one rate.  Axes: T samples · C channels.
"""

import contextlib
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from melprint.audio.files import INT16_SCALE, SUFFIXES, mix_down, refuse_truncated_wav, shown, to_int16
from melprint.errors import MelprintError

PYAV_SUFFIXES = frozenset({
    ".3gp", ".aac", ".ac3", ".amr", ".ape", ".avi", ".flv", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2",
    ".mp4", ".mpeg", ".mpg", ".ts", ".weba", ".webm", ".wma", ".wmv", ".wv",
})  # fmt: skip
READABLE_SUFFIXES = SUFFIXES | PYAV_SUFFIXES | {".aif", ".aiff", ".au", ".caf", ".rf64", ".w64"}

BLOCK_S = 5.0
CHUNK_S = 5.0  # of a file, mixed at once: long enough for a steady choice between the mean and the loudest channel
CHUNK_SAMPLES = 1 << 22  # of all channels: 16 MB, less than 3 s of 8 channels at 192 kHz
MAX_CHANNELS = 64
MAX_SILENCE_S = 60.0  # a longer jump of time stamps is a clock that was set, not music that is missing
MIN_SILENCE_S = 0.05  # containers round their time stamps, and a frame of FLAC is 0.09 s
MISSING_S = 0.5  # a file that ends this much before the length in its header was cut off
OPEN_TIMEOUT_S, READ_TIMEOUT_S = 20.0, 60.0
# Playlists and other demuxers that open further addresses are left out: a file must not make its reader fetch things.
CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,asf_o,au,avi,caf,dts,eac3,flac,flv,loas,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,"
    "mp3,mpc,mpc8,mpeg,mpegts,ogg,rm,tak,tta,voc,w64,wav,wv,xwma"
)
MAGIC = (b"RIFF", b"RF64", b"OggS", b"fLaC", b"ID3", b"\x1aE\xdf\xa3", b"FORM", b"caff", b"#!AMR", b"\x30\x26\xb2\x75",
         b"FLV\x01", b".snd", b"wvpk")  # fmt: skip
MP3_KBIT_S = {  # by MPEG version 1 or not, layer 3
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MP3_RATES_HZ = (44_100, 48_000, 32_000)
SNIFFED_BYTES = 1 << 13  # an ADTS frame is shorter

_Block = tuple[NDArray[np.float32], int]  # (T, C) and its rate in Hz


@dataclass(frozen=True)
class RawPcm:
    """What headerless PCM on standard input is: signed 16 bits, little-endian, channels interleaved."""

    sample_rate_hz: int = 44_100
    channels: int = 2

    def __post_init__(self) -> None:
        if self.sample_rate_hz < 1 or not 1 <= self.channels <= MAX_CHANNELS:
            raise MelprintError(
                f"raw PCM needs a positive rate and 1 to {MAX_CHANNELS} channels,"
                f" got {self.sample_rate_hz} Hz and {self.channels}"
            )


class _BrokenError(MelprintError):
    """Some of a recording could be decoded."""


def pcm_blocks(
    source: Path | str,
    sample_rate_hz: int,
    *,
    block_s: float = BLOCK_S,
    start_s: float = 0.0,
    raw: RawPcm | None = None,
) -> Iterator[NDArray[np.int16]]:
    """Any recording or stream as mono blocks, in constant memory.

    Files go through libsndfile where it reads them, everything else through ffmpeg's libraries.  Channels are mixed
    by :func:`melprint.audio.files.mix_down`, a few seconds at a time.  Samples beyond full scale are clipped: how far
    a stream would have to be scaled down is known at its end only, and a scale of its own for each block would make
    its level jump.

    Packets that cannot be decoded become silence, and so do jumps of up to a minute in a container's time stamps,
    so that places keep their times.

    Args:
        source: a file or named pipe, an address (``http://``, ``rtsp://``, …), or ``-`` for standard input.
        sample_rate_hz: of the blocks.
        block_s: length of each; the last one may be shorter.
        start_s: what comes before is left out: skipped in files where libsndfile can seek, else decoded and dropped.
        raw: what standard input is where it begins with the mark of no known container.

    Yields:
        int16 ``(T,)``.

    Raises:
        MelprintError: unreadable or without audio; or damaged, after all that can be decoded was given.
    """
    if not block_s > 0:
        raise MelprintError(f"block_s must be positive, got {block_s:g}")
    if not start_s >= 0:
        raise MelprintError(f"start_s must not be negative, got {start_s:g}")
    size = max(1, round(block_s * sample_rate_hz))
    waiting, broken = np.empty(0, np.int16), None
    try:
        for channels_TC in _at_rate(_native(source, start_s, block_s, raw), sample_rate_hz):
            waiting = np.concatenate([waiting, _clipped(mix_down(channels_TC))])
            whole = len(waiting) // size * size
            yield from (waiting[first : first + size].copy() for first in range(0, whole, size))
            waiting = waiting[whole:]
    except MelprintError as error:
        broken = error  # what was decoded before comes first
    if len(waiting):
        yield waiting
    if broken is not None:
        raise broken


def read_whole(path: Path, sample_rate_hz: int) -> NDArray[np.float32]:
    """A whole file ``(T,)`` in [-1, 1], mixed as :func:`melprint.audio.files.read_mono` does it.

    Raises:
        MelprintError: unreadable, without audio, or damaged.
    """
    parts = list(_at_rate(_native(path, 0.0, CHUNK_S, None), sample_rate_hz))
    if len({part.shape[1] for part in parts}) == 1:
        parts = [np.concatenate(parts)]
    return np.concatenate([mix_down(part) for part in parts] or [np.empty(0, np.float32)])


def read_beginning(path: Path, sample_rate_hz: int, duration_s: float) -> NDArray[np.int16]:
    """The first ``duration_s`` of a file ``(T,)``; what follows is not decoded.

    Shorter files are mixed and scaled as :func:`melprint.audio.files.read_mono` and
    :func:`~melprint.audio.files.to_int16` do it, longer ones likewise by their beginning.

    Raises:
        MelprintError: unreadable, without audio, or damaged before ``duration_s``.
    """
    size = round(duration_s * sample_rate_hz)
    parts: list[NDArray[np.float32]] = []
    with contextlib.closing(_at_rate(_native(path, 0.0, duration_s, None), sample_rate_hz)) as chunks:
        for channels_TC in chunks:
            parts.append(channels_TC)
            if sum(map(len, parts)) >= size:
                break
    if len({part.shape[1] for part in parts}) == 1:
        parts = [np.concatenate(parts)[:size]]
    return to_int16(np.concatenate([mix_down(part) for part in parts] or [np.empty(0, np.float32)])[:size])


def _clipped(wave_T: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.rint(np.clip(wave_T * INT16_SCALE, -INT16_SCALE, INT16_SCALE - 1)).astype(np.int16)


def _at_rate(blocks: Iterator[_Block], sample_rate_hz: int) -> Generator[NDArray[np.float32], None, None]:
    """Blocks ``(T, C)`` at one rate; streams may change their rate and channels on the way."""
    resampler, kind, broken = None, (0, 0), None
    try:
        for channels_TC, from_hz in blocks:
            if kind != (from_hz, channels_TC.shape[1]):
                if resampler is not None:
                    yield resampler.resample_chunk(np.zeros((0, kind[1]), np.float32), last=True)
                kind = (from_hz, channels_TC.shape[1])
                resampler = None  # at the same rate, samples stay what they are to the bit
                if from_hz != sample_rate_hz:
                    resampler = soxr.ResampleStream(from_hz, sample_rate_hz, kind[1], dtype="float32")
            yield resampler.resample_chunk(channels_TC) if resampler is not None else channels_TC
    except MelprintError as error:
        broken = error
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros((0, kind[1]), np.float32), last=True)
    if broken is not None:
        raise broken


def _native(source: Path | str, start_s: float, block_s: float, raw: RawPcm | None) -> Iterator[_Block]:
    """Blocks at the rate and with the channels that the source has."""
    chunk_s = min(CHUNK_S, block_s)
    if source == "-":
        if sys.stdin.isatty():
            raise MelprintError("standard input is a terminal; pipe audio into it")
        yield from _dropped(_of_pipe(sys.stdin.buffer, "standard input", raw, chunk_s), start_s)
    elif isinstance(source, str) and "://" in source:
        yield from _dropped(_by_pyav(source, _without_password(source), chunk_s, _network_options(source)), start_s)
    else:
        yield from _of_file(Path(source), start_s, raw, chunk_s)


def _of_file(path: Path, start_s: float, raw: RawPcm | None, chunk_s: float) -> Iterator[_Block]:
    name = shown(path)
    try:
        path.name.encode()
        if path.is_fifo():
            with path.open("rb") as pipe:
                yield from _dropped(_of_pipe(pipe, name, raw, chunk_s), start_s)
            return
        if not path.exists():
            raise MelprintError(f"{name}: there is no such file")
        if not path.is_file():
            raise MelprintError(f"{name}: not a regular file; save it first")
        if not path.stat().st_size:
            raise MelprintError(f"{name}: empty, holds no audio; record or copy it again")
        with path.open("rb"):
            pass  # a file without permission to read it is said to be that, and not of an unknown type
    except UnicodeEncodeError as error:
        raise MelprintError(f"{name}: its name is not UTF-8; rename it") from error
    except OSError as error:
        raise MelprintError(f"{name}: unreadable ({error.strerror})") from error
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError):
        yield from _dropped(_file_by_pyav(path), start_s)
        return
    with file:
        yield from _by_libsndfile(file, path, start_s)


def _file_by_pyav(path: Path) -> Iterator[_Block]:
    return _by_pyav(str(path), shown(path), CHUNK_S, {"format_whitelist": CONTAINERS})


def _by_libsndfile(file: Any, path: Path, start_s: float) -> Iterator[_Block]:
    name, rate_hz, position = shown(path), file.samplerate, 0
    if not file.frames:
        raise MelprintError(f"{name}: holds no audio")
    if start_s:
        position = min(round(start_s * rate_hz), file.frames)
        try:
            file.seek(position)
        except soundfile.SoundFileError:
            yield from _dropped(_file_by_pyav(path), start_s)
            return
    size = max(1, min(round(CHUNK_S * rate_hz), CHUNK_SAMPLES // file.channels))
    while True:
        # A new buffer each time, as blocks of one rate are handed on without a copy.  Not SoundFile.blocks: where a
        # read falls short, it gives what happened to be in memory.
        buffer = np.empty((size, file.channels), np.float32)
        try:
            block = file.read(out=buffer)
        except soundfile.SoundFileError:
            decoded = max(0, file.tell() - position)  # it tells 0 for mp3
            yield buffer[:decoded], rate_hz
            yield from _rest(path, (position + decoded) / rate_hz)
            return
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            good = int(finite.argmin())
            yield block[:good], rate_hz
            raise _BrokenError(
                f"{name}: holds NaN or infinite samples from {(position + good) / rate_hz:.1f} s on; export it again"
            )
        position += len(block)
        if len(block):
            yield block, rate_hz
        if len(block) < size:
            break
    if file.format in ("FLAC", "MP3") and MISSING_S * rate_hz < file.frames - position < 1 << 60:
        yield from _rest(path, position / rate_hz)
    try:
        refuse_truncated_wav(path)
    except MelprintError as error:
        raise _BrokenError(
            f"{name}: breaks off at {position / rate_hz:.1f} s; it is truncated, copy it again"
        ) from error


def _rest(path: Path, broken_s: float) -> Iterator[_Block]:
    """What follows the place where libsndfile gave up; ffmpeg's decoders go on after a damaged frame."""
    name, more_s = shown(path), 0.0
    try:
        for block in _dropped(_file_by_pyav(path), broken_s):
            more_s += len(block[0]) / block[1]
            yield block
    except _BrokenError:
        raise  # tells the place as well
    except MelprintError:
        pass  # not unreadable, as something was read already
    if more_s > MISSING_S:  # less is what another decoder makes of the same end
        raise _BrokenError(f"{name}: damaged at {broken_s:.1f} s; all that can be decoded was read")
    raise _BrokenError(f"{name}: breaks off at {broken_s:.1f} s; it is truncated, copy it again")


def _dropped(blocks: Iterator[_Block], start_s: float) -> Iterator[_Block]:
    """Leave out the beginning."""
    left_s = start_s
    for channels_TC, rate_hz in blocks:
        drop = min(len(channels_TC), round(left_s * rate_hz))
        left_s -= drop / rate_hz
        if drop < len(channels_TC):
            yield channels_TC[drop:], rate_hz


def _by_pyav(source: str | Any, name: str, chunk_s: float, options: dict[str, str]) -> Iterator[_Block]:
    """The first audio stream of what ffmpeg's libraries open, ``chunk_s`` at a time."""
    import av

    try:
        container: Any = av.open(source, container_options=options, timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MelprintError(f"{name}: unreadable ({_reason(error)})") from error
    with container:
        stream = container.streams.best("audio")
        if stream is None:
            raise MelprintError(f"{name}: holds no audio")
        decoded = _Decoded(chunk_s)
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.FFmpegError, OSError) as error:
                yield from decoded.take_rest()
                raise _BrokenError(f"{name}: breaks off at {decoded.time_s:.1f} s ({_reason(error)})") from error
            try:
                frames = packet.decode()
            except (av.FFmpegError, ValueError):
                decoded.damaged()
                continue
            for frame in frames:
                yield from decoded.take(frame)
        yield from decoded.take_rest()
        expected_s = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        exact = "mp4" in container.format.name.split(",")  # the length of other kinds is an estimate
    if not decoded.time_s:
        raise MelprintError(f"{name}: holds no audio that can be decoded")
    if decoded.damaged_s is not None and decoded.damaged_s < decoded.time_s:
        raise _BrokenError(f"{name}: damaged at {decoded.damaged_s:.1f} s; all that can be decoded was read")
    if decoded.damaged_s is not None or (exact and decoded.time_s < expected_s - MISSING_S):
        raise _BrokenError(f"{name}: breaks off at {decoded.time_s:.1f} s; it is truncated, copy it again")


class _Decoded:
    """Gathers frames to chunks, and keeps time.

    Attributes:
        time_s: how much was taken.
        damaged_s: where the first packet could not be decoded.
    """

    def __init__(self, chunk_s: float) -> None:
        self.chunk_s = chunk_s
        self.parts: list[NDArray[np.float32]] = []
        self.rate_hz = 0
        self.time_s = 0.0
        self.damaged_s: float | None = None
        self.after_damage = False
        self.origin_s: float | None = None  # time stamp of the first sample

    def damaged(self) -> None:
        """A packet was lost here."""
        self.after_damage = True
        if self.damaged_s is None:
            self.damaged_s = self.time_s

    def take(self, frame: Any) -> Iterator[_Block]:
        """Chunks that are complete with this frame."""
        samples_TC = _samples(frame)
        rate_hz = int(frame.sample_rate)
        if not np.isfinite(samples_TC).all():
            self.damaged()  # a decoder's, not the recording's
            samples_TC = np.nan_to_num(samples_TC, nan=0.0, posinf=0.0, neginf=0.0)
        if self.parts and (rate_hz, samples_TC.shape[1]) != (self.rate_hz, self.parts[0].shape[1]):
            yield from self.take_rest()
        self.rate_hz = rate_hz
        for part in (np.zeros((self._missing(frame), samples_TC.shape[1]), np.float32), samples_TC):
            if len(part):
                self.parts.append(part)
                self.time_s += len(part) / rate_hz
        if sum(map(len, self.parts)) >= self.chunk_s * rate_hz:
            yield from self.take_rest()

    def take_rest(self) -> Iterator[_Block]:
        """Everything that waits."""
        parts, self.parts = self.parts, []
        if parts:
            yield np.concatenate(parts), self.rate_hz

    def _missing(self, frame: Any) -> int:
        """Samples between what was taken and this frame, by its time stamp."""
        after_damage, self.after_damage = self.after_damage, False
        if frame.time is None:
            return 0
        if self.origin_s is None:
            self.origin_s = frame.time
        missing_s = frame.time - self.origin_s - self.time_s
        if abs(missing_s) > MAX_SILENCE_S:
            self.origin_s = frame.time - self.time_s
            return 0
        return round(missing_s * self.rate_hz) if missing_s > (0.0 if after_damage else MIN_SILENCE_S) else 0


def _samples(frame: Any) -> NDArray[np.float32]:
    """A decoded frame as ``(T, C)`` in [-1, 1].  Not by its resampler: that adds the channels up in its own way."""
    samples = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / np.float32(2.0 ** (8 * samples.dtype.itemsize - 1))
    return np.asarray(samples, np.float32)


class _Pipe:
    """A file object that cannot seek, with what was read ahead of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.ahead = file, b""

    def peek(self, num_bytes: int) -> bytes:
        while len(self.ahead) < num_bytes and (more := self.file.read(num_bytes - len(self.ahead))):
            self.ahead += more
        return self.ahead[:num_bytes]

    def read(self, num_bytes: int) -> bytes:
        if self.ahead:
            ahead, self.ahead = self.ahead[:num_bytes], self.ahead[num_bytes:]
            return ahead
        # Not read(): a live source need not fill the whole buffer before the first samples are heard.
        return self.file.read1(num_bytes) if hasattr(self.file, "read1") else self.file.read(num_bytes)


def _of_pipe(file: IO[bytes], name: str, raw: RawPcm | None, chunk_s: float) -> Iterator[_Block]:
    pipe = _Pipe(file)
    if not pipe.peek(12):
        raise MelprintError(f"{name}: empty, holds no audio")
    if _is_container(pipe):
        yield from _by_pyav(pipe, name, chunk_s, {"format_whitelist": CONTAINERS})
        return
    if raw is None:
        raise MelprintError(f"{name}: begins like no known container; for raw PCM, give its rate and channels")
    frame_bytes = 2 * raw.channels
    size, waiting, empty = max(1, round(chunk_s * raw.sample_rate_hz)) * frame_bytes, bytearray(), True
    more = b"more"
    while more:
        more = pipe.read(size)
        waiting += more
        whole = len(waiting) // frame_bytes * frame_bytes
        if whole and (whole >= size or not more):
            empty = False
            yield _from_raw(bytes(waiting[:whole]), raw), raw.sample_rate_hz
            del waiting[:whole]
    if empty:
        raise MelprintError(f"{name}: holds less than one sample of {frame_bytes} bytes")


def _from_raw(content: bytes, raw: RawPcm) -> NDArray[np.float32]:
    return np.frombuffer(content, "<i2").reshape(-1, raw.channels).astype(np.float32) / np.float32(INT16_SCALE)


def _is_container(pipe: _Pipe) -> bool:
    """By the first bytes.  Marks of one or two bytes are found in PCM too, and must come again one frame later."""
    head = pipe.peek(12)
    if head.startswith(MAGIC) or head[4:8] == b"ftyp":
        return True
    if head[:1] == b"\x47":
        packets = pipe.peek(2 * 188 + 1)
        return packets[188:189] == packets[376:377] == b"\x47"  # MPEG transport stream
    if len(head) < 6 or head[0] != 0xFF or head[1] < 0xE0:
        return False
    if head[1] & 0xF6 == 0xF0:  # AAC with ADTS headers, which tell their own length
        length, mask = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5, 0xF6
    else:
        length, mask = _mp3_frame_bytes(head), 0xFE
    following = pipe.peek(min(length + 2, SNIFFED_BYTES))[length:]
    return length > 6 and len(following) == 2 and following[0] == 0xFF and following[1] & mask == head[1] & mask


def _mp3_frame_bytes(head: bytes) -> int:
    """Length of an MPEG layer 3 frame by its header, 0 where it is none."""
    version, layer, rate, kbit_s = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or layer != 1 or rate == 3 or kbit_s in (0, 15):
        return 0
    first = version == 3
    rate_hz = MP3_RATES_HZ[rate] // (1 if first else 2 if version == 2 else 4)
    return (144 if first else 72) * 1000 * MP3_KBIT_S[first][kbit_s] // rate_hz + (head[2] >> 1 & 1)


def _network_options(address: str) -> dict[str, str]:
    if address.startswith("rtsp"):
        return {"rtsp_transport": "tcp"}  # packets do not get lost
    return {"reconnect": "1", "reconnect_delay_max": "10"} if address.startswith("http") else {}


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    return address.replace(f"{parts.netloc.rpartition('@')[0]}@", "", 1) if "@" in parts.netloc else address


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
