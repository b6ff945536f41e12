import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melprint.audio.files import write_wav
from melprint.data.corpora import FolderCorpus, FolderNoise, NafpCorpus, PackageCorpus, PackageNoise, PinkNoise, Rooms
from melprint.data.corpora import packages as packages_module
from melprint.data.corpora.noise import pink_noise
from melprint.data.corpora.packages import fetch_packages
from melprint.data.corpora.rooms import simulate_rooms
from melprint.errors import MelprintError

RATE = 8_000


def test_simulated_rooms_differ_by_split_and_decay_as_asked(tmp_path: Path) -> None:
    short = simulate_rooms(tmp_path / "short", {"train": 4, "test": 4}, rt60_s=(0.15, 0.2))
    long = simulate_rooms(tmp_path / "long", {"train": 4}, rt60_s=(0.8, 0.9))

    def decay_s(path: Path) -> float:
        """Time in which the energy that is still to come falls from -5 to -25 dB, tripled (Schroeder 1965)."""
        response = soundfile.read(path)[0]
        remaining = np.cumsum(response[::-1] ** 2)[::-1]
        level = 10 * np.log10(np.maximum(remaining / remaining[0], 1e-12))
        return 3 * (np.argmax(level < -25) - np.argmax(level < -5)) / RATE

    assert np.median([decay_s(room.path) for room in short]) < 0.5
    assert np.median([decay_s(room.path) for room in long]) > 0.6
    contents = {room.path.read_bytes() for room in short + long}
    assert len(contents) == 12
    again = simulate_rooms(tmp_path / "again", {"train": 4, "test": 4}, rt60_s=(0.15, 0.2))
    assert [room.path.read_bytes() for room in again] == [room.path.read_bytes() for room in short]


def test_pink_noise_falls_by_three_decibels_an_octave(rng: np.random.Generator) -> None:
    power = np.abs(np.fft.rfft(pink_noise(RATE * 60, rng))) ** 2
    octaves = [power[60 * low : 120 * low].mean() for low in (100, 200, 400, 800, 1_600)]
    np.testing.assert_allclose(10 * np.log10(octaves[:-1]) - 10 * np.log10(octaves[1:]), 3.01, atol=0.2)


def test_a_folder_corpus_shares_no_noise_and_no_room_between_splits(album_folder: Path, tmp_path: Path) -> None:
    corpus = FolderCorpus(
        str(album_folder),
        str(tmp_path / "corpus"),
        rooms=Rooms(simulated={"train": 3, "val": 1, "test": 2}),
    )
    prepared = corpus.prepare()
    for kind in (prepared.noise, prepared.rooms):
        digests = {split: {t.sha256 for t in kind if t.split == split} for split in ("train", "val", "test")}
        assert all(digests.values())
        assert not digests["train"] & digests["test"]
        assert not digests["train"] & digests["val"]
    assert {track.split for track in prepared.music} == {"train", "val", "test"}
    assert {track.split for track in prepared.distractors()} == {"train", "val"}
    stamps = [track.path.stat().st_mtime_ns for track in prepared.music]
    assert [track.path.stat().st_mtime_ns for track in corpus.prepare().music] == stamps


def test_the_users_own_noise_must_have_two_sides(tmp_path: Path, rng: np.random.Generator) -> None:
    for side in ("tr", "ts"):
        for number in range(9):
            write_wav(tmp_path / side / f"{number}.wav", rng.integers(-99, 99, 4_000, dtype=np.int16), RATE)
    splits = [r.split for r in FolderNoise(str(tmp_path)).recordings(tmp_path, tmp_path, RATE)]
    assert [splits.count(split) for split in ("train", "val", "test")] == [8, 1, 9]
    shutil.rmtree(tmp_path / "ts")
    with pytest.raises(MelprintError, match="needs the folders train and test"):
        FolderNoise(str(tmp_path)).recordings(tmp_path, tmp_path, RATE)


def test_the_published_dataset_is_used_in_place(tmp_path: Path, rng: np.random.Generator) -> None:
    base = tmp_path / "nafp"
    music = {
        "train-10k-30s": 3,
        "val-query-db-500-30s/db": 2,
        "test-query-db-500-30s/db": 2,
        "test-query-db-500-30s/query": 2,
        "test-dummy-db-100k-full": 4,
    }
    folders = {f"music/{name}": count for name, count in music.items()}
    folders |= {f"aug/{kind}/{side}": 2 for kind in ("bg", "ir") for side in ("tr", "ts")}
    for folder, count in folders.items():
        for number in range(count):
            write_wav(base / folder / f"{number}.wav", rng.integers(-99, 99, 9_000, dtype=np.int16), RATE)
    before = {path: path.stat().st_mtime_ns for path in base.rglob("*")}
    corpus = NafpCorpus(str(base), str(tmp_path / "manifests")).prepare()
    counts = {split: sum(t.split == split for t in corpus.music) for split in ("train", "val", "test", "dummy")}
    assert counts == {"train": 3, "val": 2, "test": 2, "dummy": 4}
    assert [track.split for track in corpus.distractors()] == ["dummy"] * 4
    assert len(corpus.queries) == 2
    assert {path: path.stat().st_mtime_ns for path in base.rglob("*")} == before
    (base / "music/test-query-db-500-30s/query/1.wav").unlink()
    with pytest.raises(MelprintError, match="files of the same names"):
        NafpCorpus(str(base), str(tmp_path / "manifests")).prepare()


def test_without_apt_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages_module.shutil, "which", lambda tool: None)
    with pytest.raises(MelprintError, match="data=folder"):
        fetch_packages(["amoebax-data"], tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="packages come through apt")
def test_real_music_noise_and_rooms_come_from_packages(tmp_path: Path) -> None:
    corpus = PackageCorpus(
        root=str(tmp_path / "corpus"),
        packages={"train": ["amoebax-data"], "test": ["asc-music"]},
        noise=PackageNoise(
            speech={"train": ["asterisk-core-sounds-en-wav"], "test": ["asterisk-core-sounds-it-wav"]},
            effects={"train": ["bucklespring-data"], "test": ["micropolis-data"]},
        ),
        rooms=Rooms({"train": 2, "val": 1, "test": 1}, {"jconvolver-config-files": {"**/street2-*.wav": "train"}}),
        not_music=["asc-music/*/frontiers.mp3"],
    ).prepare()
    assert {track.split for track in corpus.music} == {"train", "test", "ambience"}
    assert not any("frontiers" in track.track_id for track in corpus.music_of("test"))
    assert [track.track_id for track in corpus.distractors() if "frontiers" in track.track_id]
    assert len(corpus.music) >= 8
    assert all(track.num_samples >= 30 * RATE for track in corpus.music)
    assert "Copyright" in (corpus.root / corpus.music[0].licence).read_text()
    assert all((corpus.root / part).exists() for t in corpus.noise for part in t.licence.split() if "/" in part)
    kinds = {(track.track_id.split("/")[0], track.split) for track in corpus.noise}
    assert kinds == {(k, s) for k in ("speech", "babble", "effects", "pink") for s in ("train", "val", "test")}
    assert sum(track.source == "debian:jconvolver-config-files" for track in corpus.rooms) == 2
    assert not (tmp_path / "corpus" / "packages").exists()


def test_pink_noise_alone_needs_no_network(tmp_path: Path) -> None:
    recordings = PinkNoise().recordings(tmp_path / "cache", tmp_path / "out", RATE)
    assert {recording.split for recording in recordings} == {"train", "val", "test"}
    assert len({recording.path.read_bytes() for recording in recordings}) == len(recordings)
