import functools
import http.server
import os
import struct
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from melprint.audio.files import read_mono, to_int16, write_wav
from melprint.audio.streams import READABLE_SUFFIXES, RawPcm, pcm_blocks, read_beginning
from melprint.errors import MelprintError

RATE = 8_000
Music = Callable[..., np.ndarray]

WRITE_BLOCKS = """
import sys
from melprint.audio.streams import RawPcm, pcm_blocks
from melprint.errors import MelprintError
raw = RawPcm(int(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) > 1 else None
try:
    for block in pcm_blocks("-", 8_000, block_s=0.5, raw=raw):
        sys.stdout.buffer.write(block.tobytes())
except MelprintError as error:
    sys.exit(str(error))
"""


def through_stdin(content: bytes, *arguments: str) -> np.ndarray:
    done = subprocess.run(
        [sys.executable, "-c", WRITE_BLOCKS, *arguments], input=content, capture_output=True, check=False, timeout=60
    )
    if done.returncode:
        raise MelprintError(done.stderr.decode())
    return np.frombuffer(done.stdout, np.int16)


def joined(source: Path | str, **options: Any) -> np.ndarray:
    return np.concatenate([*pcm_blocks(source, RATE, **options), np.empty(0, np.int16)])


def until_broken(source: Path) -> tuple[np.ndarray, str]:
    blocks: list[np.ndarray] = [np.empty(0, np.int16)]
    try:
        blocks.extend(pcm_blocks(source, RATE, block_s=0.25))
    except MelprintError as error:
        return np.concatenate(blocks), str(error)
    return np.concatenate(blocks), ""


def correlation(heard: np.ndarray, wave: np.ndarray) -> float:
    size = min(len(heard), len(wave))
    return float(np.corrcoef(heard[:size], wave[:size])[0, 1])


def encode(path: Path, wave: np.ndarray, rate: int, codec: str, container: str | None = None) -> None:
    import av

    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono" if wave.ndim == 1 else "stereo")
        if codec != "flac":
            stream.bit_rate = 12_200 if path.suffix == ".amr" else 128_000
        samples = np.ascontiguousarray(wave[None] if wave.ndim == 1 else wave.T)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=stream.layout.name)
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(format=stream.format, layout=stream.layout, rate=rate)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "opus"])
@pytest.mark.parametrize("rate", [48_000, RATE])
def test_blocks_are_what_read_mono_reads(tmp_path: Path, music: Music, suffix: str, rate: int) -> None:
    path = tmp_path / f"music.{suffix}"
    wave = music(1, 12.3, rate)
    options = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    soundfile.write(path, np.stack([wave, 0.5 * wave], axis=1), rate, **options)
    blocks = list(pcm_blocks(path, RATE, block_s=2.0))
    assert {len(block) for block in blocks[:-1]} == {2 * RATE}
    assert all(block.dtype == np.int16 for block in blocks)
    expected = to_int16(read_mono(path, RATE))
    assert np.abs(np.concatenate(blocks).astype(int) - expected).max() <= 1
    # Decoders of MP3 round differently where they are asked for other lengths.
    assert np.abs(read_beginning(path, RATE, 60.0).astype(int) - expected).max() <= (suffix == "mp3")


@pytest.mark.parametrize("block_s", [0.01, 3.0, 1e9])
def test_the_length_of_blocks_does_not_change_the_samples(tmp_path: Path, music: Music, block_s: float) -> None:
    soundfile.write(tmp_path / "a.wav", music(1, 7.0, 44_100), 44_100)
    expected = joined(tmp_path / "a.wav")
    assert np.abs(joined(tmp_path / "a.wav", block_s=block_s).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.m4a", "aac", 44_100),
        ("a.aac", "aac", 44_100),
        ("a.webm", "libopus", 48_000),
        ("a.mp4", "aac", 48_000),
        ("a.wma", "wmav2", 44_100),
        ("a.amr", "libopencore_amrnb", RATE),
        ("a.mkv", "flac", 44_100),
    ],
)
def test_what_libsndfile_does_not_read_is_read(tmp_path: Path, music: Music, name: str, codec: str, rate: int) -> None:
    containers = {".aac": "adts", ".wma": "asf", ".mkv": "matroska"}
    path, wave = tmp_path / name, music(2, 4.0, rate)
    encode(path, wave, rate, codec, containers.get(path.suffix))
    heard, expected = joined(path), to_int16(read_mono_of(wave, rate, tmp_path))
    assert len(heard) == pytest.approx(len(expected), abs=RATE // 4)
    # Codecs differ in the delay that they leave: found, then taken out.
    lag = best_lag(heard, expected)
    assert abs(lag) <= 0.06 * RATE
    aligned = heard[max(0, lag) :], expected[max(0, -lag) :]
    # AMR is made for speech; the delay of WMA is half a sample beside the lag.
    assert correlation(*aligned) > {".amr": 0.7, ".wma": 0.85}.get(path.suffix, 0.97)
    assert heard.std() == pytest.approx(expected.std(), rel=0.15)
    assert path.suffix in READABLE_SUFFIXES


def read_mono_of(wave: np.ndarray, rate: int, folder: Path) -> np.ndarray:
    soundfile.write(folder / "reference.wav", wave, rate)
    return read_mono(folder / "reference.wav", RATE)


def best_lag(heard: np.ndarray, expected: np.ndarray) -> int:
    size = 1 << 17
    spectrum = np.fft.rfft(heard.astype(float), size) * np.conj(np.fft.rfft(expected.astype(float), size))
    peak = int(np.fft.irfft(spectrum).argmax())
    return peak if peak < size // 2 else peak - size


@pytest.mark.parametrize("suffix", ["flac", "mkv"])
def test_channels_are_mixed_alike_by_both_libraries(tmp_path: Path, music: Music, suffix: str) -> None:
    wave = music(3, 2.0, RATE)
    for name, right in (("mean", 0 * wave), ("opposed", -wave)):
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "mkv":
            encode(path, np.stack([wave, right], axis=1), RATE, "flac", "matroska")
        else:
            soundfile.write(path, np.stack([wave, right], axis=1), RATE)
        expected = to_int16(0.5 * wave if name == "mean" else wave)
        assert np.abs(joined(path).astype(int) - expected).max() <= 1


def test_what_is_too_loud_is_clipped_and_the_rest_keeps_its_level(tmp_path: Path) -> None:
    wave = np.concatenate([np.full(RATE, 0.25), np.full(RATE, 2.0), np.full(RATE, -2.0)]).astype(np.float32)
    soundfile.write(tmp_path / "loud.wav", wave, RATE, subtype="FLOAT")
    heard = joined(tmp_path / "loud.wav", block_s=1.0)
    assert [set(heard[i * RATE : (i + 1) * RATE].tolist()) for i in range(3)] == [{8192}, {32767}, {-32768}]


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg", "a.mkv"])
def test_reading_begins_where_it_is_told_to(tmp_path: Path, music: Music, name: str) -> None:
    path, wave = tmp_path / name, music(4, 9.0, RATE)
    if name == "a.mkv":
        encode(path, wave, RATE, "flac", "matroska")
    else:
        soundfile.write(path, wave, RATE)
    whole, late = joined(path), joined(path, start_s=6.25)
    assert len(late) == len(whole) - 6.25 * RATE
    assert correlation(late[RATE // 4 :], whole[round(6.5 * RATE) :]) > 0.999
    assert not len(joined(path, start_s=1_000.0))


def test_the_beginning_of_a_recording_is_its_beginning(tmp_path: Path, music: Music) -> None:
    soundfile.write(tmp_path / "a.flac", np.stack([music(5, 20.0, 44_100)] * 2, axis=1), 44_100)
    beginning = read_beginning(tmp_path / "a.flac", RATE, 7.5)
    assert len(beginning) == 7.5 * RATE
    assert np.abs(beginning.astype(int) - joined(tmp_path / "a.flac")[: len(beginning)]).max() <= 1


def sparse_w64(path: Path, rate: int, channels: int, duration_s: float) -> None:
    """A Sony Wave64 file of digital silence that takes no space on disk."""
    guid = bytes.fromhex("f3acd3118cd100c04f8edb8a")
    frame = 2 * channels
    data = round(duration_s * rate) * frame
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * frame, frame, 16)
    content = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000") + struct.pack("<Q", 104 + data) + b"wave" + guid
    content += b"fmt " + guid + struct.pack("<Q", 24 + len(form)) + form + b"data" + guid
    content += struct.pack("<Q", 24 + data)
    with path.open("wb") as file:
        file.write(content)
        file.truncate(len(content) + data)


def test_eight_hours_of_eight_channels_need_no_more_memory_than_a_minute(tmp_path: Path) -> None:
    path = tmp_path / "long.w64"
    sparse_w64(path, 192_000, 8, 8 * 3_600)  # 88 GB

    def peak_bytes(start_s: float, num_blocks: int) -> int:
        tracemalloc.start()
        for _ in zip(range(num_blocks), pcm_blocks(path, RATE, block_s=1.0, start_s=start_s), strict=False):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    few, many = peak_bytes(0.0, 6), peak_bytes(0.0, 30)
    assert many < 1.1 * few + (1 << 20)
    assert many < 100 << 20
    assert sum(map(len, pcm_blocks(path, RATE, block_s=1.0, start_s=8 * 3_600 - 2.5))) == 2.5 * RATE
    assert len(read_beginning(path, RATE, 2.0)) == 2 * RATE


@pytest.mark.parametrize("suffix", ["flac", "mp3", "wav", "m4a"])
def test_a_truncated_file_gives_what_is_there_and_says_where_it_ends(tmp_path: Path, music: Music, suffix: str) -> None:
    path, wave = tmp_path / f"cut.{suffix}", music(6, 10.0, 22_050)
    if suffix == "m4a":
        encode_faststart(path, wave)
    else:
        soundfile.write(path, wave, 22_050)
    whole = joined(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    heard, error = until_broken(path)
    assert len(whole) * 0.5 < len(heard) < len(whole) * 0.8
    assert correlation(heard, whole) > 0.99
    assert f"breaks off at {len(heard) / RATE:.1f} s" in error
    assert path.name in error
    assert "\n" not in error
    # What comes before the break is whole.
    assert len(read_beginning(path, RATE, 3.0)) == 3 * RATE
    with pytest.raises(MelprintError, match="breaks off"):
        read_beginning(path, RATE, 9.0)


def encode_faststart(path: Path, wave: np.ndarray) -> None:
    """As an mp4 whose index comes first, so that a part of it is of use."""
    import av

    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("aac", rate=22_050, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[None]), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 22_050, 0
        for part in (frame, None):
            out.mux(stream.encode(part))


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_what_follows_damage_is_read_too_and_keeps_its_time(tmp_path: Path, music: Music, suffix: str) -> None:
    path, wave = tmp_path / f"damaged.{suffix}", music(7, 12.0, 22_050)
    soundfile.write(path, wave, 22_050)
    whole = joined(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4_000] = bytes(4_000)
    path.write_bytes(content)
    heard, error = until_broken(path)
    assert "damaged at" in error
    damaged_s = float(error.split("damaged at ")[1].split(" s")[0])
    assert 4.0 < damaged_s < 8.0
    before = slice(0, round((damaged_s - 0.3) * RATE))
    assert correlation(heard[before], whole[before]) > 0.99
    # MP3 has no time stamps, so that the lost bytes are lost time there.
    lag = best_lag(heard[-2 * RATE :], whole[-2 * RATE :]) + len(heard) - len(whole)
    assert abs(lag) < (0.01 if suffix == "flac" else 1.0) * RATE
    assert len(heard) == pytest.approx(len(whole), abs=RATE)


def test_damage_after_the_beginning_does_not_concern_it(tmp_path: Path, music: Music) -> None:
    path = tmp_path / "damaged.flac"
    soundfile.write(path, music(7, 30.0, RATE), RATE)
    content = bytearray(path.read_bytes())
    content[-9_000:-5_000] = bytes(4_000)
    path.write_bytes(content)
    assert len(read_beginning(path, RATE, 10.0)) == 10 * RATE


def test_samples_that_are_no_numbers_end_the_reading(tmp_path: Path, music: Music) -> None:
    wave = music(8, 3.0)
    wave[2 * RATE] = np.nan
    soundfile.write(tmp_path / "nan.wav", wave, RATE, subtype="FLOAT")
    heard, error = until_broken(tmp_path / "nan.wav")
    assert len(heard) == 2 * RATE
    assert "NaN or infinite samples from 2.0 s on" in error


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.wav", b"", "empty"),
        ("text.mp3", b"not audio at all" * 100, "unreadable"),
        ("noise.bin", bytes(np.random.default_rng(0).integers(0, 256, 4_000, dtype=np.uint8)), "unreadable|no audio"),
        ("pcm.raw", bytes(4_000), "unreadable"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", "unreadable"),
    ],
)
def test_what_is_no_audio_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MelprintError, match=rf"{name}: .*({message})"):
        joined(tmp_path / name)


def test_what_is_no_file_is_refused(tmp_path: Path, music: Music) -> None:
    with pytest.raises(MelprintError, match="no such file"):
        joined(tmp_path / "missing.wav")
    with pytest.raises(MelprintError, match="not a regular file"):
        joined(tmp_path)
    write_wav(tmp_path / "none.wav", np.empty(0, np.int16), RATE)
    with pytest.raises(MelprintError, match="holds no audio"):
        joined(tmp_path / "none.wav")
    encode_picture(tmp_path / "silent.mp4")
    with pytest.raises(MelprintError, match="holds no audio"):
        joined(tmp_path / "silent.mp4")
    for options in ({"block_s": 0.0}, {"start_s": -1.0}):
        with pytest.raises(MelprintError, match="must"):
            joined(tmp_path / "none.wav", **options)
    with pytest.raises(MelprintError, match="and 0"):
        RawPcm(44_100, 0)


def encode_picture(path: Path) -> None:
    import av

    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        out.mux(stream.encode(None))


def test_a_named_pipe_is_read(tmp_path: Path, music: Music) -> None:
    soundfile.write(tmp_path / "a.flac", music(9, 3.0), RATE)
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(
        target=lambda: (tmp_path / "pipe").write_bytes((tmp_path / "a.flac").read_bytes()), daemon=True
    )
    writer.start()
    np.testing.assert_array_equal(joined(tmp_path / "pipe"), joined(tmp_path / "a.flac"))
    writer.join(10)


def test_raw_samples_come_through_standard_input(rng: np.random.Generator) -> None:
    pcm = rng.integers(-20_000, 20_000, 2 * RATE + 1, dtype=np.int16)
    pcm[:6] = -1  # 0xFFFF, which an MPEG frame begins with as well
    stereo = np.stack([pcm, pcm], axis=1).astype("<i2").tobytes()
    np.testing.assert_array_equal(through_stdin(stereo + b"\0", str(RATE), "2"), pcm)


@pytest.mark.parametrize("suffix", ["wav", "mp3", "ogg", "flac", "webm", "aac"])
def test_containers_come_through_standard_input(tmp_path: Path, music: Music, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "webm":
        encode(path, music(9, 2.0, 48_000), 48_000, "libopus")
    elif suffix == "aac":
        encode(path, music(9, 2.0, 48_000), 48_000, "aac", "adts")
    else:
        soundfile.write(path, music(9, 2.0, 48_000), 48_000)
    content = path.read_bytes()
    if content.startswith(b"ID3"):
        content = content[10 + sum(byte << 7 * i for i, byte in enumerate(content[9:5:-1])) :]
    heard, expected = through_stdin(content, str(RATE), "1"), joined(path)
    assert abs(len(heard) - len(expected)) < 0.1 * RATE
    assert correlation(heard[best_lag(heard, expected) :] if best_lag(heard, expected) > 0 else heard, expected) > 0.99


def test_standard_input_of_unknown_kind_is_refused() -> None:
    with pytest.raises(MelprintError, match="no known container"):
        through_stdin(bytes(1_000))
    with pytest.raises(MelprintError, match="holds no audio"):
        through_stdin(b"", str(RATE), "1")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_an_address_is_read(tmp_path: Path, music: Music, served: str) -> None:
    soundfile.write(tmp_path / "a.flac", music(9, 4.0, 44_100), 44_100)
    expected = joined(tmp_path / "a.flac")
    assert np.abs(joined(f"{served}/a.flac", block_s=1.0).astype(int) - expected).max() <= 1
    assert len(joined(f"{served}/a.flac", start_s=3.0)) == RATE
    with pytest.raises(MelprintError, match="404"):
        joined(f"{served}/missing.flac")
    with pytest.raises(MelprintError) as caught:
        joined(f"{served.replace('//', '//me:secret@')}/missing.flac")
    assert "secret" not in str(caught.value)
