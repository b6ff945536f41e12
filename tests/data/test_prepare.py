import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melprint.audio.files import write_wav
from melprint.data import prepare as module
from melprint.data.manifest import read_manifest
from melprint.data.prepare import prepare, recordings_of
from melprint.data.splits import split_by_group
from melprint.errors import MelprintError

RATE = 8_000


def rejected(folder: Path) -> dict[str, str]:
    with (folder / "rejected.csv").open() as file:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}


def test_a_folder_of_mixed_formats_becomes_wavs_with_a_manifest(album_folder: Path, tmp_path: Path) -> None:
    done = prepare(recordings_of(album_folder), tmp_path)
    tracks = read_manifest(tmp_path)
    assert len(tracks) == len(done.tracks) == 12
    assert len({track.sha256 for track in tracks}) == 12
    for track in tracks:
        info = soundfile.info(track.path)
        assert (info.format, info.subtype, info.channels, info.samplerate) == ("WAV", "PCM_16", 1, RATE)
        assert info.frames == track.num_samples == pytest.approx(16 * RATE, abs=10)
    split_of_album = {(track.track_id.split("/")[0], track.split) for track in tracks}
    assert len(split_of_album) == 6  # no album is divided
    assert set(Counter(track.split for track in tracks)) == {"train", "val", "test"}
    assert rejected(tmp_path) == {}


def test_useless_files_are_left_out_by_name(tmp_path: Path, rng: np.random.Generator) -> None:
    source = tmp_path / "in"
    source.mkdir()
    sound = rng.integers(-9_000, 9_000, 2 * RATE, dtype=np.int16)
    soundfile.write(source / "a.wav", sound, RATE)
    soundfile.write(source / "b-same-audio.flac", sound, RATE)
    soundfile.write(source / "short.wav", sound[:100], RATE)
    soundfile.write(source / "silent.wav", np.zeros(2 * RATE), RATE)
    soundfile.write(source / "nan.wav", np.full(2 * RATE, np.nan), RATE, subtype="FLOAT")
    (source / "text.ogg").write_text("no audio")
    (source / "cut.wav").write_bytes((source / "a.wav").read_bytes()[:-9_000])
    prepare(recordings_of(source), tmp_path / "out")
    assert [track.track_id for track in read_manifest(tmp_path / "out")] == ["a.wav"]
    reasons = rejected(tmp_path / "out")
    for name, word in {
        "b-same-audio.flac": "same audio as",
        "short.wav": "too short",
        "silent.wav": "silent",
        "nan.wav": "NaN",
        "text.ogg": "unreadable",
        "cut.wav": "truncated",
    }.items():
        assert word in reasons[name]
    assert len(reasons) == 6


def test_a_wav_that_conforms_is_used_in_place(tmp_path: Path, rng: np.random.Generator) -> None:
    write_wav(tmp_path / "in" / "a.wav", rng.integers(-9_000, 9_000, 2 * RATE, dtype=np.int16), RATE)
    prepare(recordings_of(tmp_path / "in"), tmp_path / "out")
    (track,) = read_manifest(tmp_path / "out")
    assert track.path == (tmp_path / "in" / "a.wav").resolve()
    assert not (tmp_path / "out" / "wav").exists()


def test_nothing_is_used_in_place_where_the_source_will_go(tmp_path: Path, rng: np.random.Generator) -> None:
    write_wav(tmp_path / "in" / "a.wav", rng.integers(-9_000, 9_000, 2 * RATE, dtype=np.int16), RATE)
    prepare(recordings_of(tmp_path / "in"), tmp_path / "out", in_place=False)
    (track,) = read_manifest(tmp_path / "out")
    assert track.path.is_relative_to(tmp_path / "out")
    np.testing.assert_array_equal(track.samples(RATE), soundfile.read(tmp_path / "in" / "a.wav", dtype="int16")[0])


def test_a_link_to_nothing_is_left_out_like_any_file(tmp_path: Path, rng: np.random.Generator) -> None:
    write_wav(tmp_path / "in" / "a.wav", rng.integers(-9_000, 9_000, 2 * RATE, dtype=np.int16), RATE)
    (tmp_path / "in" / "b.wav").symlink_to(tmp_path / "nothing.wav")
    for _ in range(2):
        assert len(prepare(recordings_of(tmp_path / "in"), tmp_path / "out").tracks) == 1
        assert "unreadable" in rejected(tmp_path / "out")["b.wav"]


def test_another_source_of_the_same_names_is_not_mistaken(tmp_path: Path, rng: np.random.Generator) -> None:
    for side in ("one", "two"):
        (tmp_path / side).mkdir()
        soundfile.write(tmp_path / side / "a.flac", rng.integers(-9_000, 9_000, 2 * RATE, dtype=np.int16), RATE)
    digests = []
    for side in ("one", "two", "one"):
        prepare(recordings_of(tmp_path / side), tmp_path / "out")
        (track,) = read_manifest(tmp_path / "out")
        digests.append(track.sha256)
        assert hashlib.sha256(np.array(track.samples(RATE)).tobytes()).hexdigest() == track.sha256
    assert digests[0] == digests[2] != digests[1]


def test_an_interrupted_run_goes_on(album_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []
    original = module.read_mono

    def counting(path: Path, rate: int) -> np.ndarray:
        if len(decoded) == 5:
            raise KeyboardInterrupt
        decoded.append(path)
        return original(path, rate)

    monkeypatch.setattr(module, "read_mono", counting)
    with pytest.raises(KeyboardInterrupt):
        prepare(recordings_of(album_folder), tmp_path, workers=1)
    assert not (tmp_path / "manifest.csv").exists()
    first = list(decoded)
    monkeypatch.setattr(module, "read_mono", lambda path, rate: decoded.append(path) or original(path, rate))
    prepare(recordings_of(album_folder), tmp_path, workers=1)
    assert len(read_manifest(tmp_path)) == 12
    assert len(decoded) <= 13  # at most the file that was interrupted is decoded again
    assert not set(first[:4]) & set(decoded[5:])


def test_a_changed_file_is_prepared_again(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "in" / "a.flac"
    path.parent.mkdir()
    digests = []
    for length in (2, 3):
        soundfile.write(path, 0.1 * rng.standard_normal(length * RATE), RATE)
        prepare(recordings_of(tmp_path / "in"), tmp_path / "out")
        digests.append(read_manifest(tmp_path / "out")[0].sha256)
    assert digests[0] != digests[1]


def test_a_folder_without_anything_usable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp3").write_text("no audio")
    with pytest.raises(MelprintError, match="none of 1 files can be used"):
        prepare(recordings_of(tmp_path / "in"), tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.csv").exists()


def test_groups_are_never_divided_and_shares_are_met() -> None:
    groups = [f"album {number // 7}" for number in range(700)]
    splits = split_by_group(groups, val=0.1, test=0.2)
    assert len(set(zip(groups, splits, strict=True))) == 100
    shares = Counter(splits)
    assert shares["test"] == 140
    assert shares["val"] == 70
    assert split_by_group(groups[::-1], val=0.1, test=0.2)[::-1] == splits
    assert split_by_group(["only"], val=0.1, test=0.2) == ["train"]


def test_a_track_that_changed_since_is_refused(album_folder: Path, tmp_path: Path) -> None:
    prepare(recordings_of(album_folder), tmp_path)
    track = read_manifest(tmp_path)[0]
    write_wav(track.path, np.ones(100, np.int16), RATE)
    with pytest.raises(MelprintError, match="100 samples where the manifest has"):
        track.samples(RATE)
    with pytest.raises(MelprintError, match=r"has no manifest\.csv"):
        read_manifest(tmp_path / "nothing")
