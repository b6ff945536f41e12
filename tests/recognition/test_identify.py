"""The commands of an operator, on synthesised music with the shipped network."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from melprint.cli import app
from melprint.errors import MelprintError
from melprint.recognition.identify import Place, _distinct, identify
from melprint.recognition.library import Library, make_library

RATE = 8_000
TRACK_S = 40.0


@pytest.fixture(scope="module")
def music_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.conftest import synthesize

    folder = tmp_path_factory.mktemp("collection")
    for number in range(4):
        (folder / "album").mkdir(exist_ok=True)
        wave = synthesize(number, TRACK_S)
        wave[-3 * RATE :] = 0  # tracks end in silence, as they do
        soundfile.write(folder / "album" / f"{number}.flac", wave, RATE)
    return folder


@pytest.fixture(scope="module")
def library_folder(music_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    assert make_library(music_folder, folder).num_tracks == 4
    return folder


def noisy_excerpt(wave: np.ndarray, start_s: float, duration_s: float) -> np.ndarray:
    excerpt = wave[round(start_s * RATE) : round((start_s + duration_s) * RATE)]
    return excerpt + 0.02 * np.random.default_rng(0).standard_normal(len(excerpt))


def test_a_noisy_excerpt_is_found_at_its_place_and_unknown_music_is_refused(
    library_folder: Path, tmp_path: Path, music: Callable[..., np.ndarray]
) -> None:
    soundfile.write(tmp_path / "known.wav", noisy_excerpt(music(2, TRACK_S), 12.34, 5.0), RATE)
    soundfile.write(tmp_path / "unknown.wav", music(99, 5.0), RATE)
    soundfile.write(tmp_path / "resampled.ogg", np.repeat(noisy_excerpt(music(1, TRACK_S), 3.0, 8.0), 2), 2 * RATE)
    (tmp_path / "broken.mp3").write_text("no audio")
    names = ("known.wav", "unknown.wav", "resampled.ogg", "broken.mp3")
    known, unknown, resampled, broken = identify(Library.open(library_folder), [tmp_path / name for name in names])
    assert isinstance(broken, MelprintError)
    assert not isinstance(known, MelprintError)
    assert not isinstance(unknown, MelprintError)
    assert not isinstance(resampled, MelprintError)
    assert (known[0].track, known[0].accepted) == ("album/2.flac", True)
    assert known[0].start_s == pytest.approx(12.34, abs=0.13)  # phases of an eighth of a second
    assert (resampled[0].track, resampled[0].accepted) == ("album/1.flac", True)
    assert not unknown[0].accepted


def test_silence_and_a_recording_of_a_few_milliseconds_are_not_in_the_library(
    library_folder: Path, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(3 * RATE), RATE)
    soundfile.write(tmp_path / "click.wav", np.full(80, 0.5), RATE)
    for matches in identify(Library.open(library_folder), [tmp_path / "silence.wav", tmp_path / "click.wav"]):
        assert not isinstance(matches, MelprintError)
        assert not matches[0].accepted


@pytest.mark.parametrize("duration_s", [1.0, 1.2, 1.7, 2.0, 3.0])
def test_a_short_clean_excerpt_is_found_and_a_threshold_belongs_to_it(
    duration_s: float, library_folder: Path, tmp_path: Path, music: Callable[..., np.ndarray]
) -> None:
    soundfile.write(tmp_path / "clip.wav", music(0, TRACK_S)[5 * RATE : round((5 + duration_s) * RATE)], RATE)
    ((match,),) = identify(Library.open(library_folder), [tmp_path / "clip.wav"])
    assert (match.track, match.accepted) == ("album/0.flac", True)
    assert match.start_s == pytest.approx(5.0, abs=0.01)
    assert match.score == pytest.approx(1.0, abs=0.01)


def test_names_are_shown_as_they_are(
    library_folder: Path, tmp_path: Path, music: Callable[..., np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a [live] :smile:.wav", "b [/b].wav", b"c\xe9.wav".decode("utf-8", "surrogateescape")]
    soundfile.write(tmp_path / "clip.wav", music(0, TRACK_S)[: 3 * RATE], RATE)
    (tmp_path / "b [").mkdir()
    for name in names:
        (tmp_path / name).write_bytes((tmp_path / "clip.wav").read_bytes())
    found = CliRunner().invoke(app, ["identify", str(library_folder), *(str(tmp_path / name) for name in names)])
    assert found.exit_code == 1
    assert "a [live] :smile:.wav" in found.stdout
    assert "b [/b].wav" in found.stdout
    assert "c?.wav: its name is not UTF-8" in capsys.readouterr().err + found.output


def test_a_library_of_other_music_is_not_replaced_by_itself(
    library_folder: Path, tmp_path: Path, music: Callable[..., np.ndarray]
) -> None:
    soundfile.write(tmp_path / "other.wav", music(50, 5.0), RATE)
    before = (library_folder / "library.mm").read_bytes()
    with pytest.raises(MelprintError, match="library of other music"):
        make_library(tmp_path, library_folder)
    assert (library_folder / "library.mm").read_bytes() == before


def test_the_commands_say_what_they_did(
    music_folder: Path, library_folder: Path, tmp_path: Path, music: Callable[..., np.ndarray]
) -> None:
    said = CliRunner().invoke(app, ["fingerprint", str(music_folder), str(library_folder)])
    assert "4 tracks" in said.stdout
    assert "was there already" in said.stdout
    (tmp_path / "queries").mkdir()
    soundfile.write(tmp_path / "queries" / "a.wav", noisy_excerpt(music(3, TRACK_S), 20.0, 6.0), RATE)
    soundfile.write(tmp_path / "queries" / "b.wav", music(77, 6.0), RATE)
    answered = CliRunner().invoke(app, ["identify", str(library_folder), str(tmp_path / "queries"), "--json"])
    a, b = map(json.loads, answered.stdout.splitlines())
    assert (a["track"], a["accepted"]) == ("album/3.flac", True)
    assert a["score"] >= a["threshold"]
    assert not b["accepted"]
    shown = CliRunner().invoke(app, ["identify", str(library_folder), str(tmp_path / "queries")])
    assert "not in the library" in shown.stdout
    assert "0:20.0" in shown.stdout
    assert answered.exit_code == shown.exit_code == 0
    several = CliRunner().invoke(
        app, ["identify", str(library_folder), str(tmp_path / "queries" / "a.wav"), "--json", "--best", "3"]
    )
    scores = [json.loads(line)["score"] for line in several.stdout.splitlines()]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


def test_bad_input_is_refused_in_a_sentence(library_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MelprintError, match="there is no library"):
        Library.open(tmp_path / "none")
    with pytest.raises(MelprintError, match="was not made by base"):
        Library.open(library_folder, "base")
    opened = Library.open(library_folder)
    with pytest.raises(MelprintError, match=r"0\.01"):
        identify(opened, [tmp_path / "any.wav"], false_accept_rate=0.5)
    missing = CliRunner().invoke(app, ["identify", str(library_folder), str(tmp_path / "none.wav")])
    assert missing.exit_code == 1


def test_a_place_that_two_phases_find_is_said_once() -> None:
    places = [Place(0, 1.0, 0.9), Place(0, 1.125, 0.8), Place(1, 1.0, 0.7), Place(0, 9.0, 0.6)]
    assert _distinct(places, 3, 0.25) == [places[0], places[2], places[3]]
