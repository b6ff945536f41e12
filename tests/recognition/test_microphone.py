import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from melprint.audio.streams import pcm_blocks
from melprint.errors import MelprintError
from melprint.recognition.microphone import device_blocks

RATE = 8_000
Music = Callable[..., np.ndarray]


@pytest.fixture
def recording(tmp_path: Path, music: Music) -> Path:
    soundfile.write(tmp_path / "a.wav", music(1, 3.3, 44_100), 44_100)
    return tmp_path / "a.wav"


@pytest.mark.parametrize("as_text", [False, True])
def test_a_file_stands_for_a_microphone(recording: Path, as_text: bool) -> None:
    source = str(recording) if as_text else recording
    blocks = list(device_blocks(source, RATE, 0.25, realtime=False))
    assert {len(block) for block in blocks[:-1]} == {RATE // 4}
    np.testing.assert_array_equal(
        np.concatenate(blocks), np.concatenate(list(pcm_blocks(recording, RATE, block_s=0.25)))
    )


def test_a_file_comes_as_slowly_as_it_sounds_and_nothing_is_lost_while_the_caller_sleeps(recording: Path) -> None:
    began = time.monotonic()
    blocks, came_s = [], []
    for block in device_blocks(recording, RATE, 0.1):
        came_s.append(time.monotonic() - began)
        blocks.append(block)
        if len(blocks) == 3:
            time.sleep(1.0)  # ten blocks come meanwhile
        if len(blocks) == 20:
            break
    assert all(came >= 0.1 * (number + 1) - 0.01 for number, came in enumerate(came_s))
    assert came_s[-1] < 2.0 + 0.5  # what came meanwhile was there at once
    np.testing.assert_array_equal(
        np.concatenate(blocks), np.concatenate(list(pcm_blocks(recording, RATE, block_s=0.1)))[: 2 * RATE]
    )


def test_the_thread_ends_with_the_caller(recording: Path) -> None:
    blocks = device_blocks(recording, RATE, 0.1)
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "file as microphone"]


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no wav")
    with pytest.raises(MelprintError, match=r"a\.wav: unreadable"):
        next(device_blocks(tmp_path / "a.wav", RATE, 0.1))
    with pytest.raises(MelprintError, match="no such file"):
        next(device_blocks(tmp_path / "missing.wav", RATE, 0.1))
    with pytest.raises(MelprintError, match="block_s must be positive"):
        next(device_blocks(tmp_path / "a.wav", RATE, 0.0))


class PortAudioError(Exception):
    pass


class FakeSoundDevice:
    """Offers one input, at one rate, that plays a wave from a thread of its own."""

    PortAudioError = PortAudioError

    def __init__(self, wave_TC: np.ndarray, rate_hz: int, overflows: int = 0) -> None:
        self.wave_TC, self.rate_hz, self.overflows = wave_TC, rate_hz, overflows
        self.opened_at_hz = 0
        self.devices = [
            {"name": "Speakers", "max_input_channels": 0, "default_samplerate": 48_000.0},
            {"name": "USB Mic", "max_input_channels": wave_TC.shape[1], "default_samplerate": float(rate_hz)},
        ]

    def query_devices(self, device: Any = None, kind: str | None = None) -> Any:
        if kind is None and device is None:
            return self.devices
        if device in (None, 1, "USB Mic"):
            return self.devices[1]
        raise ValueError(f"No input device matching {device!r}")

    def check_input_settings(self, *, samplerate: int, **_: Any) -> None:
        if samplerate != self.rate_hz:
            raise PortAudioError("Invalid sample rate")

    def InputStream(self, *, samplerate: int, callback: Any, finished_callback: Any, **options: Any) -> Any:  # noqa: N802
        self.opened_at_hz = samplerate
        assert options["channels"] == self.wave_TC.shape[1]

        def play() -> None:
            buffer = np.empty((480, self.wave_TC.shape[1]), np.float32)  # PortAudio uses one again and again
            for first in range(0, len(self.wave_TC) - 479, 480):
                buffer[:] = self.wave_TC[first : first + 480]
                callback(buffer, 480, None, SimpleNamespace(input_overflow=first // 480 < self.overflows))
            finished_callback()

        thread = threading.Thread(target=play)

        class Stream:
            def __enter__(self) -> None:
                thread.start()

            def __exit__(self, *_: Any) -> None:
                thread.join()

        return Stream()


@pytest.fixture
def microphone(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeSoundDevice]:
    def plug_in(*arguments: Any) -> FakeSoundDevice:
        fake = FakeSoundDevice(*arguments)
        monkeypatch.setitem(sys.modules, "sounddevice", fake)  # type: ignore[arg-type]
        return fake

    return plug_in


def heard_until_unplugged(device: Any, **options: Any) -> np.ndarray:
    blocks = []
    with pytest.raises(MelprintError, match="'USB Mic' gives no more audio"):
        blocks.extend(device_blocks_into(blocks, device, **options))
    return np.concatenate(blocks)


def device_blocks_into(blocks: list[np.ndarray], device: Any, **options: Any) -> list[np.ndarray]:
    for block in device_blocks(device, RATE, 0.25, **options):
        assert block.dtype == np.int16
        assert len(block) == RATE // 4
        blocks.append(block)
    return []


@pytest.mark.parametrize("device", [None, "1", "USB Mic"])
@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_a_microphone_is_heard_at_its_own_rate(
    microphone: Callable[..., FakeSoundDevice], music: Music, device: str | None, rate: int
) -> None:
    wave = music(2, 3.0, rate)
    fake = microphone(np.stack([wave, wave], axis=1), rate)
    heard = heard_until_unplugged(device)
    assert fake.opened_at_hz == rate
    assert len(heard) >= 2.5 * RATE
    expected = music(2, 3.0, rate)[:: rate // RATE][: len(heard)]
    assert np.corrcoef(heard, expected)[0, 1] > (0.999 if rate == RATE else 0.98)
    assert heard.std() == pytest.approx(32_768 * expected.std(), rel=0.05)


def test_lost_audio_is_told(microphone: Callable[..., FakeSoundDevice], music: Music) -> None:
    microphone(music(2, 2.0)[:, None], RATE, 3)
    told: list[str] = []
    heard_until_unplugged(None, said=told.append)
    assert "the microphone 'USB Mic' lost audio (input overflow), 3 times so far" in told
    microphone(music(2, 2.0)[:, None], RATE, 1)
    with pytest.warns(UserWarning, match="input overflow"):
        heard_until_unplugged(None)


def test_a_microphone_that_is_not_there_is_refused_with_those_that_are(
    microphone: Callable[..., FakeSoundDevice], music: Music
) -> None:
    fake = microphone(music(2, 1.0)[:, None], RATE)
    with pytest.raises(MelprintError, match="no microphone 'Studio'; known ones are 1 USB Mic"):
        next(device_blocks("Studio", RATE, 0.25))
    fake.devices.pop()
    fake.query_devices = lambda device=None, kind=None: fake.devices if kind is None else fail()  # type: ignore[assignment]
    with pytest.raises(MelprintError, match="no default microphone; plug one in"):
        next(device_blocks(None, RATE, 0.25))


def fail() -> None:
    raise PortAudioError("Error querying device -1")


def test_without_the_package_or_its_library_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MelprintError, match=r"melprint\[listen\]"):
        next(device_blocks(None, RATE, 0.25))
    monkeypatch.delitem(sys.modules, "sounddevice")
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MelprintError, match=r"PortAudio library not found.*libportaudio2"):
        next(device_blocks(None, RATE, 0.25))
