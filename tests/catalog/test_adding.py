"""Adding real files, tags, duplicates."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melprint.audio.files import read_mono, to_int16
from melprint.catalog import Catalog
from melprint.catalog.adding import add
from melprint.catalog.dedup import duplicates
from melprint.catalog.rows import DTYPE
from melprint.errors import MelprintError
from melprint.fingerprints.embedding import embed_tracks
from tests.conftest import synthesize

RATE = 8_000


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    return [synthesize(number, 30.0) for number in range(4)]


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.create(tmp_path / "catalog")


def test_rows_are_those_of_each_file_alone_whatever_was_added_with_it(
    catalog: Catalog, waves: list[np.ndarray], tmp_path: Path
) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    for number, wave in enumerate(waves):
        soundfile.write(folder / f"{number}.flac", wave[: RATE * (7 + 5 * number)], RATE)
    add(catalog, [folder])
    view, tracks = catalog.view(), catalog.tracks()
    for position, number in enumerate(view.track_ids.tolist()):
        path = folder / tracks[number].key
        alone, _ = embed_tracks(catalog.fingerprinter, [to_int16(read_mono(path, RATE))], 256)
        assert np.array_equal(view.rows_at(position), alone.astype(DTYPE).astype(np.float32))
        assert tracks[number].duration_s == pytest.approx(soundfile.info(path).duration)


def test_tags_are_read_and_a_file_without_tags_is_taken_too(
    catalog: Catalog, waves: list[np.ndarray], tmp_path: Path
) -> None:
    for suffix in ("flac", "ogg", "mp3"):
        with soundfile.SoundFile(tmp_path / f"a.{suffix}", "w", 22_050, 1) as file:
            file.title, file.artist, file.album = "Überraschung 驚き", "Composer", "Works"
            file.write(synthesize(hash(suffix) % 100, 12.0, 22_050))
    soundfile.write(tmp_path / "b.wav", waves[0], RATE)
    add(catalog, sorted(tmp_path.glob("?.*")))
    tracks = {track.key: track for track in catalog.tracks().values()}
    assert len(tracks) == 4
    for suffix in ("flac", "ogg", "mp3"):
        track = tracks[f"a.{suffix}"]
        assert (track.title, track.artist, track.album) == ("Überraschung 驚き", "Composer", "Works")
    assert tracks["b.wav"].title == ""


def test_the_same_content_is_added_once_and_a_changed_file_takes_the_place_of_what_it_was(
    catalog: Catalog, waves: list[np.ndarray], tmp_path: Path
) -> None:
    folder = tmp_path / "music"
    (folder / "copy").mkdir(parents=True)
    soundfile.write(folder / "a.wav", waves[0], RATE)
    shutil.copy(folder / "a.wav", folder / "copy" / "b.wav")
    first = add(catalog, [folder])
    assert [track.key for track in first.tracks] == ["a.wav"]
    assert first.there == [folder / "copy" / "b.wav"]
    assert not add(catalog, [folder]).tracks
    soundfile.write(folder / "a.wav", waves[1], RATE)
    changed = add(catalog, [folder])
    # What the file was is still there as the copy, which the catalog did not have by that name.
    assert {track.key for track in changed.tracks} == {"a.wav", "copy/b.wav"}
    assert catalog.identify(waves[1][: 6 * RATE])[0].track == "a.wav"
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    soundfile.write(elsewhere / "a.wav", waves[2], RATE)
    assert [track.key for track in add(catalog, [elsewhere]).tracks] == ["a.wav (2)"]
    assert len(catalog) == 3


def test_one_bad_file_never_stops_a_batch(
    catalog: Catalog, waves: list[np.ndarray], tmp_path: Path, music: Callable[..., np.ndarray]
) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    soundfile.write(folder / "good.wav", waves[0], RATE)
    (folder / "empty.wav").touch()
    (folder / "text.mp3").write_text("no music here")
    soundfile.write(folder / "cut.flac", waves[1], RATE)
    whole = (folder / "cut.flac").read_bytes()
    (folder / "cut.flac").write_bytes(whole[: len(whole) // 2])
    soundfile.write(folder / "nothing.wav", np.zeros(0), RATE)
    soundfile.write(folder / "wide.wav", np.stack([music(7, 3.0, 192_000)] * 8, axis=1), 192_000)
    said: list[str] = []
    done = add(catalog, [folder], said=said.append)
    assert {track.key for track in done.tracks} == {"good.wav", "wide.wav"}
    assert {path.name for path, _ in done.rejected} == {"empty.wav", "text.mp3", "cut.flac", "nothing.wav"}
    assert len(said) == 4
    assert all(path.name in sentence for (path, _), sentence in zip(done.rejected, said, strict=True))
    with pytest.raises(MelprintError, match="there is no"):
        add(catalog, [tmp_path / "missing.wav"])


def test_an_unreadable_folder_is_named_and_does_not_stop_the_others(
    catalog: Catalog, waves: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "music" / "locked").mkdir(parents=True)
    soundfile.write(tmp_path / "music" / "a.wav", waves[0], RATE)
    scandir = os.scandir

    def refuse(path: str) -> object:  # the super-user may read everything, so rights alone would not do
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    done = add(catalog, [tmp_path / "music"])
    assert [track.key for track in done.tracks] == ["a.wav"]
    assert [path.name for path, _ in done.rejected] == ["locked"]
    with pytest.raises(MelprintError, match="locked: cannot be read"):
        add(catalog, [tmp_path / "music" / "locked"])


@pytest.fixture
def shared(tmp_path: Path, waves: list[np.ndarray]) -> Path:
    """A track, the same as MP3 that begins a quarter of a second later, an excerpt, another track, and a medley."""
    folder = tmp_path / "shared"
    folder.mkdir()
    soundfile.write(folder / "a.wav", waves[0], RATE)
    soundfile.write(folder / "again.mp3", waves[0][RATE // 4 :], RATE)
    soundfile.write(folder / "excerpt.ogg", waves[0][8 * RATE : 22 * RATE], RATE)
    soundfile.write(folder / "other.wav", waves[1], RATE)
    soundfile.write(
        folder / "medley.wav", np.concatenate([waves[2][: 15 * RATE], waves[1][5 * RATE : 20 * RATE]]), RATE
    )
    return folder


def test_groups_of_tracks_that_share_audio_are_found_with_their_ranges(catalog: Catalog, shared: Path) -> None:
    add(catalog, [shared])
    names = {number: track.key for number, track in catalog.tracks().items()}
    found = {
        frozenset((names[pair.track], pair.key)): pair for group in duplicates(catalog) for pair in group
    }  # fmt: skip
    assert set(found) == {
        frozenset(pair)
        for pair in (
            ("a.wav", "again.mp3"),
            ("a.wav", "excerpt.ogg"),
            ("again.mp3", "excerpt.ogg"),
            ("other.wav", "medley.wav"),
        )
    }
    assert found[frozenset(("a.wav", "again.mp3"))].kind == "same recording"
    assert found[frozenset(("a.wav", "excerpt.ogg"))].kind == "excerpt"
    medley = found[frozenset(("other.wav", "medley.wav"))]
    assert medley.kind == "common part"
    (common,) = medley.ranges
    times = {
        names[medley.track]: (common.start_s, common.end_s),
        medley.key: (common.other_start_s, common.other_end_s),
    }
    assert times["medley.wav"] == pytest.approx((15.0, 30.0), abs=1.0)
    assert times["other.wav"] == pytest.approx((5.0, 20.0), abs=1.0)
    assert sorted(map(len, duplicates(catalog))) == [1, 3]
    assert len(duplicates(catalog, whole_only=True)) == 1


@pytest.mark.parametrize("one_by_one", [False, True])
def test_duplicates_can_be_left_out_when_adding(one_by_one: bool, catalog: Catalog, shared: Path) -> None:
    for paths in [[path] for path in sorted(shared.iterdir())] if one_by_one else [[shared]]:
        add(catalog, paths, skip_duplicates=True)
    # A medley is no duplicate: half of it is new.
    assert {track.key for track in catalog.tracks().values()} == {"a.wav", "medley.wav", "other.wav"}


def test_impossible_options_are_refused(catalog: Catalog) -> None:
    with pytest.raises(MelprintError, match="min_duration_s must be positive"):
        duplicates(catalog, min_duration_s=0)


def test_silence_is_no_common_part_and_a_silent_file_is_not_added(
    catalog: Catalog, waves: list[np.ndarray], tmp_path: Path
) -> None:
    silence = np.zeros(15 * RATE, np.float32)
    for number in (0, 1):
        soundfile.write(tmp_path / f"{number}.wav", np.concatenate([waves[number][: 12 * RATE], silence]), RATE)
    soundfile.write(tmp_path / "silent.wav", silence, RATE)
    soundfile.write(tmp_path / "short.wav", waves[0][:1_600], RATE)
    done = add(catalog, sorted(tmp_path.glob("*.wav")), skip_duplicates=True)
    assert {track.key for track in done.tracks} == {"0.wav", "1.wav"}
    assert {path.name for path, _ in done.rejected} == {"silent.wav", "short.wav"}
    assert not duplicates(catalog)


def test_a_file_is_known_by_its_place_whatever_its_key(
    catalog: Catalog, waves: list[np.ndarray], tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", waves[0], RATE)
    add(catalog, [tmp_path / "a.wav"])
    catalog.update("a.wav", key="mine")
    soundfile.write(tmp_path / "a.wav", waves[1], RATE)
    assert [track.key for track in add(catalog, [tmp_path / "a.wav"]).tracks] == ["mine"]
    assert len(catalog) == 1


def test_one_bad_argument_does_not_stop_the_others(catalog: Catalog, waves: list[np.ndarray], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", waves[0], RATE)
    (tmp_path / "empty").mkdir()
    done = add(catalog, [tmp_path / "empty", tmp_path / "none.wav", tmp_path / "a.wav"])
    assert [track.key for track in done.tracks] == ["a.wav"]
    assert len(done.rejected) == 2
