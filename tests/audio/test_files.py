import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melprint.audio.files import find_recordings, is_prepared, map_pcm, mix_down, read_mono, to_int16, write_wav
from melprint.errors import MelprintError

RATE = 8_000


def tone(frequency_hz: float, rate: int, duration_s: float = 1.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(round(duration_s * rate)) / rate).astype(np.float32)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "opus"])
@pytest.mark.parametrize("rate", [48_000, 8_000])
def test_every_format_is_read_as_the_tone_that_it_holds(tmp_path: Path, suffix: str, rate: int) -> None:
    path = tmp_path / f"tone.{suffix}"
    options = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    soundfile.write(path, np.stack([tone(1_000, rate, 2.0)] * 2, axis=1), rate, **options)
    wave = read_mono(path, RATE)
    assert wave.shape[0] == pytest.approx(2 * RATE, abs=RATE * 0.1)
    middle = wave[RATE // 2 : RATE // 2 + RATE]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(RATE)))
    assert spectrum.argmax() == 1_000
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def test_what_lies_above_half_the_new_rate_is_gone(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "high.wav", tone(5_000, 48_000), 48_000)
    assert np.abs(read_mono(tmp_path / "high.wav", RATE)[400:-400]).max() < 10 ** (-60 / 20)


def test_channels_that_cancel_do_not_become_silence(tmp_path: Path) -> None:
    wave = tone(440, RATE)
    soundfile.write(tmp_path / "opposed.wav", np.stack([wave, -0.98 * wave], axis=1), RATE)
    np.testing.assert_allclose(read_mono(tmp_path / "opposed.wav", RATE), wave, atol=1e-3)


def test_ordinary_stereo_is_averaged() -> None:
    np.testing.assert_allclose(mix_down(np.array([[1.0, 0.0], [0.5, 0.5]], np.float32)), [0.5, 0.5])


def test_a_waveform_that_would_clip_is_scaled_and_others_are_not() -> None:
    assert to_int16(np.array([0.0, 2.0, -1.0], np.float32)).tolist() == [0, 32767, -16384]
    assert to_int16(np.array([0.5, -0.25], np.float32)).tolist() == [16384, -8192]


def test_a_written_wav_is_mapped_to_the_same_samples(tmp_path: Path, rng: np.random.Generator) -> None:
    pcm = rng.integers(-32768, 32767, 1_000, dtype=np.int16)
    write_wav(tmp_path / "a.wav", pcm, RATE)
    np.testing.assert_array_equal(map_pcm(tmp_path / "a.wav", RATE), pcm)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "a.wav", dtype="int16")[0], pcm)
    assert is_prepared(tmp_path / "a.wav", RATE)
    assert not is_prepared(tmp_path / "a.wav", 16_000)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_a_truncated_wav_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    write_wav(path, np.ones(1_000, np.int16), RATE)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(MelprintError, match="truncated"):
        read_mono(path, RATE)
    with pytest.raises(MelprintError, match="truncated, 750 of 1000 samples"):
        map_pcm(path, RATE)


def test_a_wav_of_unknown_length_from_a_pipe_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pipe.wav"
    write_wav(path, np.ones(1_000, np.int16), RATE)
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert len(read_mono(path, RATE)) == 1_000
    np.testing.assert_array_equal(map_pcm(path, RATE), np.ones(1_000))


def test_nan_and_noise_that_is_no_audio_are_refused(tmp_path: Path) -> None:
    wave = tone(440, RATE)
    wave[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", wave, RATE, subtype="FLOAT")
    (tmp_path / "text.mp3").write_text("not audio")
    with pytest.raises(MelprintError, match="NaN"):
        read_mono(tmp_path / "nan.wav", RATE)
    with pytest.raises(MelprintError, match=r"text\.mp3: unreadable"):
        read_mono(tmp_path / "text.mp3", RATE)


def test_a_file_behind_links_is_found_once(tmp_path: Path) -> None:
    write_wav(tmp_path / "b" / "real.wav", np.ones(10, np.int16), RATE)
    (tmp_path / "a.wav").symlink_to(tmp_path / "b" / "real.wav")
    assert find_recordings(tmp_path) == [tmp_path / "b" / "real.wav"]


def test_linked_folders_are_entered_once_even_in_a_circle(tmp_path: Path) -> None:
    write_wav(tmp_path / "elsewhere" / "a.wav", np.ones(10, np.int16), RATE)
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "album").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "music")
    assert [path.name for path in find_recordings(tmp_path / "music")] == ["a.wav"]


def test_an_empty_or_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MelprintError, match="holds no wav"):
        find_recordings(tmp_path)
    with pytest.raises(MelprintError, match="is not a folder"):
        find_recordings(tmp_path / "nothing")
