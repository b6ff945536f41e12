import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from melprint.audio.files import write_wav
from melprint.augment.banks import Surroundings
from melprint.cli import app
from melprint.data.hearing import KINDS, transforms_of, versions_of
from melprint.data.manifest import Track
from melprint.errors import MelprintError
from tests.conftest import synthesize

RATE = 8_000


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    rng = np.random.default_rng(0)

    def track(name: str, pcm: np.ndarray) -> Track:
        write_wav(tmp_path / f"{name}.wav", pcm.astype(np.int16), RATE)
        return Track(name, tmp_path / f"{name}.wav", len(pcm), "train", "", "", "")

    decay = rng.standard_normal(2_000) * np.exp(-np.arange(2_000) / 300) * 2_000
    decay[0] = 30_000
    return Surroundings([track("noise", rng.integers(-9_000, 9_000, 60_000))], [track("room", decay)], RATE)


def test_a_version_begins_where_it_says(around: Surroundings) -> None:
    wave = synthesize(1, 20.0)
    for version in versions_of(wave, transforms_of(["noise"], around, (20.0, 20.0)), RATE, count=4, duration_s=5.0):
        start = round(version.start_s * RATE)
        clean = wave[start : start + 5 * RATE]
        noise = version.wave / 32_768 - clean
        ratio = 10 * np.log10(np.square(clean).mean() / np.square(noise).mean())
        assert ratio == pytest.approx(20.0, abs=0.1)
        assert version.parameters["noise_snr_db"] == pytest.approx(20.0)


def test_a_changed_tempo_is_aligned_by_the_time_that_is_told(around: Surroundings) -> None:
    """The first second correlates best with the recording where the version says that it begins."""
    wave = synthesize(2, 30.0)
    transform = transforms_of(["playback"], around, (0.0, 10.0))
    transform[0].pitch = 0.0
    transform[0].together = 0.0
    version = versions_of(wave, transform, RATE, count=1, duration_s=8.0, seed=3)[0]
    assert abs(float(version.parameters["tempo"]) - 1) > 0.005
    head = np.abs(
        np.lib.stride_tricks.sliding_window_view(np.abs(version.wave[:RATE].astype(float)), 400)[::40].mean(1)
    )
    best, found = -1.0, 0.0
    for start in np.arange(version.start_s - 0.5, version.start_s + 0.5, 0.02):
        part = np.abs(wave[round(start * RATE) : round(start * RATE) + RATE]).astype(float)
        envelope = np.lib.stride_tricks.sliding_window_view(part, 400)[::40].mean(1)
        value = float(np.corrcoef(head, envelope)[0, 1])
        if value > best:
            best, found = value, float(start)
    assert found == pytest.approx(version.start_s, abs=0.06)


def test_the_whole_recording_has_one_room_from_beginning_to_end(around: Surroundings) -> None:
    wave = synthesize(3, 6.0)
    version = versions_of(wave, transforms_of(["room"], around, (0.0, 0.0)), RATE, count=1)[0]
    room = around.rooms.responses[0].numpy()
    want = np.convolve(wave, room)[: len(wave)]
    np.testing.assert_allclose(version.wave / 32_768, np.clip(want, -1, 1), atol=2e-3)
    assert version.parameters == {"room": "room"}


def test_every_kind_says_what_it_did(around: Surroundings) -> None:
    torch.manual_seed(0)
    version = versions_of(synthesize(4, 8.0), transforms_of(KINDS, around, (5.0, 5.0)), RATE, count=1, duration_s=5.0)[
        0
    ]
    told = {"tempo", "pitch", "room", "lowpass_hz", "highpass_hz", "device_span_db", "noise", "noise_snr_db"}
    assert told | {"codec_step_db", "codec_band"} == set(version.parameters)


def test_the_command_writes_wavs_their_parameters_and_a_sheet(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.flac", synthesize(5, 12.0, 22_050), 22_050)
    out = tmp_path / "out"
    done = CliRunner().invoke(
        app, ["augment", str(tmp_path / "in.flac"), str(out), "--versions", "2", "--duration-s", "4"]
    )
    assert done.exit_code == 0, done.output
    with (out / "versions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["version-000.wav", "version-001.wav"]
    for row in rows:
        info = soundfile.info(out / row["file"])
        assert (info.frames, info.samplerate) == (4 * RATE, RATE)
        assert 0 <= float(row["noise_snr_db"]) <= 10
    assert (out / "versions.png").read_bytes().startswith(b"\x89PNG")
    assert soundfile.info(out / "original.wav").duration == pytest.approx(12.0, abs=0.01)


def test_what_cannot_be_done_is_said(around: Surroundings) -> None:
    with pytest.raises(MelprintError, match="there is no augmentation echo; known ones are playback, room"):
        transforms_of(["echo"], around, (0.0, 1.0))
    with pytest.raises(MelprintError, match=r"the recording lasts 2\.00 s"):
        versions_of(synthesize(0, 2.0), [], RATE, count=1, duration_s=5.0)
