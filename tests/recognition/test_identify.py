"""Recognition by file and by samples, on synthesised music with the shipped network."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from melprint.catalog import Catalog
from melprint.catalog.adding import add
from melprint.cli import app
from melprint.errors import MelprintError
from melprint.recognition.identify import MATCHERS, Answer, identify
from melprint.recognition.search import Place, _distinct

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
def catalog(music_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    with Catalog.create(tmp_path_factory.mktemp("catalog") / "c") as made:
        assert len(add(made, [music_folder]).tracks) == 4
        yield made


def noisy_excerpt(wave: np.ndarray, start_s: float, duration_s: float) -> np.ndarray:
    excerpt = wave[round(start_s * RATE) : round((start_s + duration_s) * RATE)]
    return excerpt + 0.02 * np.random.default_rng(0).standard_normal(len(excerpt))


def only(answers: list[Answer] | MelprintError) -> Answer:
    assert not isinstance(answers, MelprintError), answers
    return answers[0]


def test_a_noisy_excerpt_is_found_at_its_place_and_unknown_music_is_refused(
    catalog: Catalog, tmp_path: Path, music: Callable[..., np.ndarray]
) -> None:
    soundfile.write(tmp_path / "known.wav", noisy_excerpt(music(2, TRACK_S), 12.34, 5.0), RATE)
    soundfile.write(tmp_path / "unknown.wav", music(99, 5.0), RATE)
    soundfile.write(tmp_path / "resampled.ogg", np.repeat(noisy_excerpt(music(1, TRACK_S), 3.0, 8.0), 2), 2 * RATE)
    (tmp_path / "broken.mp3").write_text("no audio")
    names = ("known.wav", "unknown.wav", "resampled.ogg", "broken.mp3")
    *readable, broken = identify(catalog, [tmp_path / name for name in names])
    assert isinstance(broken, MelprintError)
    known, unknown, resampled = map(only, readable)
    assert (known.track, known.accepted) == ("album/2.flac", True)
    assert known.query_start_s == 0
    assert known.query_end_s == pytest.approx(5.0, abs=0.5)
    assert known.reference_start_s == pytest.approx(12.34, abs=0.13)  # phases of an eighth of a second
    assert (resampled.track, resampled.accepted) == ("album/1.flac", True)
    assert not unknown.accepted
    assert known.confidence is not None
    assert unknown.confidence is not None
    assert known.confidence >= 0.99 > unknown.confidence


@pytest.mark.parametrize("matcher", MATCHERS)
def test_every_matcher_finds_the_track(matcher: str, catalog: Catalog, music: Callable[..., np.ndarray]) -> None:
    for number in range(4):
        answer = catalog.identify(noisy_excerpt(music(number, TRACK_S), 10.0, 6.0), matcher=matcher)[0]
        assert (answer.track, answer.accepted) == (f"album/{number}.flac", True)
        assert answer.reference_start_s is not None
        assert answer.query_start_s is not None
        assert answer.reference_start_s - answer.query_start_s == pytest.approx(10.0, abs=0.6)
    assert not catalog.identify(music(98, 6.0), matcher=matcher)[0].accepted


def test_samples_of_any_shape_rate_and_type_give_the_same_answer(
    catalog: Catalog, music: Callable[..., np.ndarray]
) -> None:
    wave = music(3, TRACK_S)[8 * RATE : 14 * RATE]
    asked = (
        (wave, None),
        (np.stack([wave, wave], axis=1), RATE),
        ((wave * 32_767).astype(np.int16), RATE),
        (np.repeat(wave, 2), 2 * RATE),
    )
    for samples, rate_hz in asked:
        (answer,) = catalog.identify(samples, rate_hz)
        assert (answer.track, answer.accepted) == ("album/3.flac", True)
        assert answer.reference_start_s == pytest.approx(8.0, abs=0.13)
    with pytest.raises(MelprintError, match="must be finite"):
        catalog.identify(np.full(RATE, np.nan))
    with pytest.raises(MelprintError, match="shape"):
        catalog.identify(np.zeros((2, 2, 2)))


def test_a_long_recording_says_where_its_track_begins_and_holds_several(
    catalog: Catalog, music: Callable[..., np.ndarray]
) -> None:
    silence = np.zeros(10 * RATE, np.float32)
    parts = [music(70, 15.0), music(1, TRACK_S)[5 * RATE : 20 * RATE], silence, music(2, TRACK_S)[: 15 * RATE]]
    answers = [answer for answer in catalog.identify(np.concatenate(parts), num_best=4) if answer.accepted]
    found = {answer.track: answer for answer in answers}
    assert set(found) == {"album/1.flac", "album/2.flac"}
    first, second = found["album/1.flac"], found["album/2.flac"]
    assert first.query_start_s == pytest.approx(15.0, abs=1.0)
    assert first.query_end_s == pytest.approx(30.0, abs=1.0)
    assert first.reference_start_s == pytest.approx(5.0, abs=1.0)
    assert second.query_start_s == pytest.approx(40.0, abs=1.0)
    assert second.reference_start_s == pytest.approx(0.0, abs=1.0)


def test_silence_is_named_and_a_click_is_not_in_the_catalog(catalog: Catalog, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(3 * RATE), RATE)
    soundfile.write(tmp_path / "click.wav", np.full(80, 0.5), RATE)
    silence, click = identify(catalog, [tmp_path / "silence.wav", tmp_path / "click.wav"])
    assert isinstance(silence, MelprintError)
    assert "silence.wav: is silent" in str(silence)
    assert not only(click).accepted
    assert not catalog.identify(np.zeros(3 * RATE))[0].accepted


@pytest.mark.parametrize("duration_s", [1.0, 1.2, 1.7, 2.0, 3.0])
def test_a_short_clean_excerpt_is_found_and_a_threshold_belongs_to_it(
    duration_s: float, catalog: Catalog, tmp_path: Path, music: Callable[..., np.ndarray]
) -> None:
    soundfile.write(tmp_path / "clip.wav", music(0, TRACK_S)[5 * RATE : round((5 + duration_s) * RATE)], RATE)
    (answers,) = identify(catalog, [tmp_path / "clip.wav"])
    match = only(answers)
    assert (match.track, match.accepted) == ("album/0.flac", True)
    assert match.reference_start_s == pytest.approx(5.0, abs=0.01)
    assert match.score == pytest.approx(1.0, abs=0.01)


def test_names_are_shown_as_they_are(
    catalog: Catalog, tmp_path: Path, music: Callable[..., np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a [live] :smile:.wav", "b [/b].wav", b"c\xe9.wav".decode("utf-8", "surrogateescape")]
    soundfile.write(tmp_path / "clip.wav", music(0, TRACK_S)[: 3 * RATE], RATE)
    (tmp_path / "b [").mkdir()
    for name in names:
        (tmp_path / name).write_bytes((tmp_path / "clip.wav").read_bytes())
    found = CliRunner().invoke(app, ["identify", str(catalog.folder), *(str(tmp_path / name) for name in names)])
    assert found.exit_code == 1
    assert "a [live] :smile:.wav" in found.stdout
    assert "b [/b].wav" in found.stdout
    assert "c?.wav" in capsys.readouterr().err + found.output


def test_the_commands_say_what_they_did(music_folder: Path, tmp_path: Path, music: Callable[..., np.ndarray]) -> None:
    run = CliRunner().invoke
    folder = tmp_path / "new"
    said = run(app, ["fingerprint", str(music_folder), str(folder)])
    assert "4 tracks added" in said.stdout
    again = run(app, ["fingerprint", str(music_folder), str(folder)])
    assert "0 tracks added" in again.stdout
    assert "4 there already" in again.stdout
    (tmp_path / "queries").mkdir()
    soundfile.write(tmp_path / "queries" / "a.wav", noisy_excerpt(music(3, TRACK_S), 20.0, 6.0), RATE)
    soundfile.write(tmp_path / "queries" / "b.wav", music(77, 6.0), RATE)
    answered = run(app, ["identify", str(folder), str(tmp_path / "queries" / "*.wav"), "--json"])
    a, b = map(json.loads, answered.stdout.splitlines())
    assert (a["track"], a["accepted"]) == ("album/3.flac", True)
    assert a["score"] >= a["threshold"]
    assert not b["accepted"]
    shown = run(app, ["identify", str(folder), str(tmp_path / "queries")])
    assert "not in the catalog" in shown.stdout
    assert "0:20.0" in shown.stdout
    assert answered.exit_code == shown.exit_code == 0
    several = run(app, ["identify", str(folder), str(tmp_path / "queries" / "a.wav"), "--json", "--best", "3"])
    scores = [json.loads(line)["score"] for line in several.stdout.splitlines()]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)


def test_bad_input_is_refused_in_a_sentence(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(MelprintError, match="there is no catalog"):
        Catalog.open(tmp_path / "none")
    with pytest.raises(MelprintError, match="must lie between 0 and 1, got 2"):
        list(identify(catalog, [tmp_path / "any.wav"], false_accept_rate=2))
    with pytest.raises(MelprintError, match="matcher must be one of"):
        list(identify(catalog, [tmp_path / "any.wav"], matcher="best"))
    missing = CliRunner().invoke(app, ["identify", str(catalog.folder), str(tmp_path / "none.wav")])
    assert missing.exit_code == 1
    soundfile.write(tmp_path / "good.wav", np.random.default_rng(0).standard_normal(3 * RATE) / 8, RATE)
    asked = [str(tmp_path / "*.mp3"), str(tmp_path / "good.wav")]
    nothing = CliRunner().invoke(app, ["identify", str(catalog.folder), *asked])
    assert nothing.exit_code == 1
    assert "good.wav" in nothing.stdout  # the others are answered


def test_an_empty_catalog_knows_nothing(tmp_path: Path, music: Callable[..., np.ndarray]) -> None:
    with Catalog.create(tmp_path / "empty") as empty:
        (answer,) = empty.identify(music(0, 5.0))
    assert answer.track is None
    assert not answer.accepted


def test_a_place_that_two_phases_find_is_said_once() -> None:
    places = [Place(0, 1.0, 0.9), Place(0, 1.125, 0.8), Place(1, 1.0, 0.7), Place(0, 9.0, 0.6)]
    assert _distinct(places, 3, 0.25) == [places[0], places[2], places[3]]
