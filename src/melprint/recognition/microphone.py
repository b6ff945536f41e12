"""Audio as it is heard: from a microphone, or from a file that stands for one."""

import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from melprint.audio.files import INT16_SCALE, mix_down
from melprint.audio.streams import pcm_blocks
from melprint.errors import MelprintError

MAX_CHANNELS = 2
AHEAD_BLOCKS = 256  # of a file that is read as fast as possible, so that long ones do not fill the memory
SILENT_FOR_S = 5.0  # a microphone that gives nothing for this long is gone

_Queue = queue.SimpleQueue[NDArray[Any] | MelprintError | None]


def device_blocks(
    device: str | int | Path | None,
    sample_rate_hz: int,
    block_s: float,
    *,
    realtime: bool = True,
    said: Callable[[str], None] | None = None,
) -> Iterator[NDArray[np.int16]]:
    """Blocks from a microphone, or from a file in its place, until it ends or is no longer asked.

    Another thread fills a queue without limit: while the caller computes, nothing is lost.  A microphone that does
    not offer the rate is heard at its own one and resampled.

    Args:
        device: name or number of the microphone, ``None`` for the system's choice, or a file.
        sample_rate_hz: of the blocks.
        block_s: length of each; the last one of a file may be shorter.
        realtime: whether a file comes as slowly as it sounds.
        said: told when the system lost audio; by default it is a warning.

    Yields:
        int16 ``(T,)``.

    Raises:
        MelprintError: sounddevice or PortAudio is missing, there is no such microphone, it was taken away, or the
            file cannot be read.
    """
    if not block_s > 0:
        raise MelprintError(f"block_s must be positive, got {block_s:g}")
    if isinstance(device, Path) or (isinstance(device, str) and not device.isdecimal() and Path(device).is_file()):
        yield from _of_file(Path(device), sample_rate_hz, block_s, realtime=realtime)
    else:
        number = int(device) if isinstance(device, str) and device.isdecimal() else device
        yield from _of_microphone(number, sample_rate_hz, block_s, said or _warn)


def _of_file(path: Path, sample_rate_hz: int, block_s: float, *, realtime: bool) -> Iterator[NDArray[np.int16]]:
    heard: _Queue = queue.SimpleQueue()
    stopped = threading.Event()

    def play() -> None:
        began, num_samples = time.monotonic(), 0
        try:
            for block in pcm_blocks(path, sample_rate_hz, block_s=block_s):
                num_samples += len(block)
                if realtime:  # a block is heard once its last sample has sounded
                    stopped.wait(max(0.0, began + num_samples / sample_rate_hz - time.monotonic()))
                while not realtime and heard.qsize() >= AHEAD_BLOCKS and not stopped.wait(0.01):
                    pass
                if stopped.is_set():
                    return
                heard.put(block)
        except MelprintError as error:
            heard.put(error)
        except BaseException as error:
            heard.put(MelprintError(f"{path}: unreadable ({error})"))
            raise
        else:
            heard.put(None)

    thread = threading.Thread(target=play, name="file as microphone", daemon=True)
    thread.start()
    try:
        while (block := heard.get()) is not None:
            if isinstance(block, MelprintError):
                raise block
            yield block
    finally:
        stopped.set()
        thread.join()


def _of_microphone(
    device: str | int | None, sample_rate_hz: int, block_s: float, said: Callable[[str], None]
) -> Iterator[NDArray[np.int16]]:
    sounddevice = _sounddevice()
    info = _info(sounddevice, device)
    name, channels = info["name"], min(MAX_CHANNELS, info["max_input_channels"])
    rate_hz = _rate_hz(sounddevice, device, channels, sample_rate_hz, info)
    heard: _Queue = queue.SimpleQueue()
    overflows = 0

    def hear(block_TC: NDArray[np.float32], _frames: int, _time: Any, status: Any) -> None:
        nonlocal overflows
        overflows += bool(status.input_overflow)
        heard.put(block_TC.copy())  # PortAudio uses its buffer again

    resampler = soxr.ResampleStream(rate_hz, sample_rate_hz, 1, dtype="float32") if rate_hz != sample_rate_hz else None
    size, waiting, reported = max(1, round(block_s * sample_rate_hz)), np.empty(0, np.float32), 0
    with ExitStack() as stack:
        try:
            stream: AbstractContextManager[Any] = sounddevice.InputStream(
                samplerate=rate_hz, device=device, channels=channels, dtype="float32", callback=hear,
                finished_callback=lambda: heard.put(None),
            )  # fmt: skip
            stack.enter_context(stream)
        except sounddevice.PortAudioError as error:
            raise MelprintError(
                f"the microphone {name!r} cannot be opened ({error}); see whether another program uses it"
            ) from error
        while True:
            try:
                block = heard.get(timeout=SILENT_FOR_S)
            except queue.Empty:
                block = None
            if not isinstance(block, np.ndarray):
                raise MelprintError(f"the microphone {name!r} gives no more audio; see whether it is still plugged in")
            mono = mix_down(block)
            waiting = np.concatenate([waiting, resampler.resample_chunk(mono) if resampler is not None else mono])
            if overflows > reported:
                reported = overflows
                said(f"the microphone {name!r} lost audio (input overflow), {reported} times so far")
            while len(waiting) >= size:
                yield np.rint(np.clip(waiting[:size] * INT16_SCALE, -INT16_SCALE, INT16_SCALE - 1)).astype(np.int16)
                waiting = waiting[size:]


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise MelprintError(
            "the microphone needs the package sounddevice; install melprint with the extra listen:"
            " pip install 'melprint[listen]'"
        ) from error
    except OSError as error:  # the package is there, the library that it binds is not
        raise MelprintError(
            f"the microphone needs the library PortAudio ({error}); install it, on Debian as libportaudio2"
        ) from error
    return sounddevice


def _info(sounddevice: Any, device: str | int | None) -> dict[str, Any]:
    """What PortAudio knows of an input."""
    wanted = "default microphone" if device is None else f"microphone {device!r}"
    try:
        info = dict(sounddevice.query_devices(device, "input"))
    except (sounddevice.PortAudioError, ValueError) as error:
        inputs = [
            f"{number} {known['name']}"
            for number, known in enumerate(sounddevice.query_devices())
            if known["max_input_channels"]
        ]
        raise MelprintError(
            f"there is no {wanted}; " + (f"known ones are {', '.join(inputs)}" if inputs else "plug one in")
        ) from error
    if not info["max_input_channels"]:
        raise MelprintError(f"{info['name']!r} is no microphone: it has no input channels")
    return info


def _rate_hz(sounddevice: Any, device: str | int | None, channels: int, wanted_hz: int, info: dict[str, Any]) -> int:
    """The wanted rate where the device offers it, else its own."""
    try:
        sounddevice.check_input_settings(device=device, channels=channels, dtype="float32", samplerate=wanted_hz)
    except (sounddevice.PortAudioError, ValueError):
        return round(info["default_samplerate"])
    return wanted_hz


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)
