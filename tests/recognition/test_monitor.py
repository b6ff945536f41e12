"""Following long recordings and streams, and listening, with the shipped network."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from melprint.catalog import Catalog
from melprint.catalog.adding import add
from melprint.cli import app
from melprint.errors import MelprintError
from melprint.recognition.listen import Listener, listen
from melprint.recognition.monitor import Follower, monitor
from tests.conftest import synthesize

RATE = 8_000


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    folder = tmp_path_factory.mktemp("monitored")
    for number in range(4):
        soundfile.write(folder / f"{number}.flac", synthesize(number, 40.0), RATE)
    with Catalog.create(folder / "c") as made:
        add(made, sorted(folder.glob("*.flac")))
        yield made


@pytest.fixture(scope="module")
def programme() -> tuple[np.ndarray, list[tuple[str, float, float, float]]]:
    """Known tracks, unknown music and silence, all with noise; and key, start, end, start in the track of each."""
    parts = [
        ("", synthesize(60, 20.0)),
        ("1.flac", synthesize(1, 40.0)[5 * RATE : 35 * RATE], 5.0),
        ("2.flac", synthesize(2, 40.0)[: 20 * RATE], 0.0),
        ("", np.zeros(12 * RATE, np.float32)),
        ("1.flac", synthesize(1, 40.0)[10 * RATE : 30 * RATE], 10.0),
        ("", synthesize(61, 15.0)),
        ("3.flac", synthesize(3, 40.0)[7 * RATE : 27 * RATE], 7.0),
    ]
    cues, time_s = [], 0.0
    for key, wave, *start_s in parts:
        if key:
            cues.append((key, time_s, time_s + len(wave) / RATE, start_s[0]))
        time_s += len(wave) / RATE
    wave = np.concatenate([part[1] for part in parts])
    return wave + 0.01 * np.random.default_rng(0).standard_normal(len(wave)), cues


@pytest.fixture(scope="module")
def recording(programme: tuple[np.ndarray, list], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programme") / "programme.flac"
    soundfile.write(path, np.repeat(programme[0], 2), 2 * RATE)
    return path


def assert_cues(rows: list[dict], cues: list[tuple[str, float, float, float]]) -> None:
    known = [row for row in rows if row["key"]]
    assert [row["key"] for row in known] == [cue[0] for cue in cues]
    for row, (_, start_s, end_s, track_start_s) in zip(known, cues, strict=True):
        assert float(row["start_s"]) == pytest.approx(start_s, abs=1.0)
        assert float(row["end_s"]) == pytest.approx(end_s, abs=1.0)
        assert float(row["track_start_s"]) == pytest.approx(track_start_s, abs=1.0)
        assert float(row["confidence"]) > 0.99


def test_a_programme_becomes_a_cue_list_with_gaps(
    catalog: Catalog, recording: Path, programme: tuple[np.ndarray, list], tmp_path: Path
) -> None:
    rows = [row.as_json() for row in monitor(catalog, recording, out=tmp_path / "cues.csv")]
    assert_cues(rows, programme[1])
    gaps = [(row["start_s"], row["end_s"]) for row in rows if not row["key"]]
    assert np.allclose(gaps, [(0, 20), (70, 82), (102, 117)], atol=1.0)
    with (tmp_path / "cues.csv").open(newline="", encoding="utf-8") as file:
        assert_cues(list(csv.DictReader(file)), programme[1])
    assert [path.name for path in tmp_path.iterdir()] == ["cues.csv"]


@pytest.mark.parametrize("block_s", [0.1, 1.7, 60.0])
def test_blocks_of_any_length_give_the_same_cues(
    block_s: float, catalog: Catalog, programme: tuple[np.ndarray, list]
) -> None:
    wave = (programme[0] * 32_767).astype(np.int16)
    follower, cues = Follower(catalog), []
    size = round(block_s * RATE)
    for start in range(0, len(wave), size):
        cues += follower.feed(wave[start : start + size])
    cues += follower.finish()
    names = {number: track.key for number, track in catalog.tracks().items()}
    found = sorted(
        ({**cue._asdict(), "key": names[cue.track]} for cue in cues), key=lambda row: float(row["start_s"])
    )  # fmt: skip
    assert_cues(found, programme[1])


def test_raw_samples_on_standard_input(catalog: Catalog, programme: tuple[np.ndarray, list], recording: Path) -> None:
    command = [sys.executable, "-m", "melprint.cli", "monitor", str(catalog.folder), "-", "--json"]
    stereo = np.repeat((programme[0] * 32_767).astype("<i2"), 2).tobytes()
    rate = ["--sample-rate-hz", str(RATE), "--channels", "2"]
    for options, data in ((rate, stereo), ([], recording.read_bytes())):
        done = subprocess.run([*command, *options], input=data, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert_cues([json.loads(line) for line in done.stdout.splitlines()], programme[1])


def test_an_interrupted_run_goes_on_and_the_list_is_that_of_a_whole_one(
    catalog: Catalog, recording: Path, programme: tuple[np.ndarray, list], tmp_path: Path
) -> None:
    whole = tmp_path / "whole.jsonl"
    list(monitor(catalog, recording, out=whole))
    for stop_after in (1, 3, 5):
        out = tmp_path / f"{stop_after}.jsonl"
        rows = monitor(catalog, recording, out=out)
        for _ in range(stop_after):
            next(rows)
        rows.close()
        list(monitor(catalog, recording, out=out, resume=True))
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert_cues(lines, programme[1])
        assert len(lines) == len(whole.read_text().splitlines())
    with pytest.raises(MelprintError, match="was not interrupted"):
        list(monitor(catalog, recording, out=whole, resume=True))


def test_a_recording_that_breaks_off_keeps_what_was_found(
    catalog: Catalog, recording: Path, programme: tuple[np.ndarray, list], tmp_path: Path
) -> None:
    cut = tmp_path / "cut.flac"
    data = recording.read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(MelprintError, match=r"cut\.flac"):
        list(monitor(catalog, cut, out=tmp_path / "cut.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "cut.jsonl").read_text().splitlines()]
    # What was being played when it broke off is listed too.
    known = [row["key"] for row in rows if row["key"]]
    assert known[:2] == ["1.flac", "2.flac"]
    assert rows[-1]["end_s"] > programme[1][1][2]


def test_listening_gives_an_answer_once_it_is_sure_and_follows_a_change(
    catalog: Catalog, programme: tuple[np.ndarray, list], recording: Path
) -> None:
    heard = list(listen(catalog, recording, realtime=False))
    assert [round(answer.time_s) for answer in heard] == list(range(1, len(heard) + 1))
    announced = [answer for answer in heard if answer.new]
    assert [answer.key for answer in announced] == [cue[0] for cue in programme[1]]
    for answer, (_, start_s, _, track_start_s) in zip(announced, programme[1], strict=True):
        assert start_s <= answer.time_s <= start_s + 8.0
        assert answer.track_s == pytest.approx(track_start_s + answer.time_s - start_s, abs=0.8)
    for answer in heard:
        assert not (answer.sure and answer.time_s < 20)


def test_blocks_of_any_length_are_answered_alike(catalog: Catalog, programme: tuple[np.ndarray, list]) -> None:
    wave = (programme[0][: 40 * RATE] * 32_767).astype(np.int16)
    answers = []
    for size in (1_000, 8_000, 50_001):
        listener = Listener(catalog)
        answers.append(
            [answer.key for start in range(0, len(wave), size) for answer in listener.feed(wave[start : start + size])]
        )
    assert answers[0] == answers[1] == answers[2][: len(answers[0])]


def test_the_command_that_listens_takes_a_file_for_the_microphone(catalog: Catalog, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "room.wav", synthesize(2, 40.0)[4 * RATE : 9 * RATE], RATE)
    said = CliRunner().invoke(
        app, ["listen", str(catalog.folder), "--device", str(tmp_path / "room.wav"), "--duration-s", "4"]
    )
    assert said.exit_code == 0, said.output
    assert "2.flac" in said.stdout


def test_a_catalog_may_change_while_it_is_listened_with(programme: tuple[np.ndarray, list], tmp_path: Path) -> None:
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.flac", synthesize(number, 40.0), RATE)
    with Catalog.create(tmp_path / "c") as catalog:
        add(catalog, sorted(tmp_path.glob("*.flac")))
        wave = (synthesize(1, 40.0) * 32_767).astype(np.int16)
        listener, follower = Listener(catalog), Follower(catalog)
        before = listener.feed(wave[: 10 * RATE])
        follower.feed(wave[: 10 * RATE])
        assert (before[-1].key, before[-1].sure) == ("1.flac", True)
        catalog.remove(["0.flac"])
        catalog.compact()  # rows have other numbers from here on
        during = listener.feed(wave[10 * RATE : 14 * RATE])
        follower.feed(wave[10 * RATE : 14 * RATE])
        assert {(answer.key, answer.sure) for answer in during} == {("1.flac", True)}
        catalog.remove(["1.flac"])
        after = listener.feed(wave[14 * RATE :])
        follower.feed(wave[14 * RATE :])
        follower.finish()
        assert not any(answer.sure for answer in after)


@pytest.mark.parametrize("speed", [1.01, 0.98])
def test_music_that_runs_a_bit_too_fast_or_too_slow_is_one_cue(speed: float, catalog: Catalog) -> None:
    track = synthesize(1, 40.0)
    played = np.interp(np.arange(0, len(track) - 1, speed), np.arange(len(track)), track)
    follower = Follower(catalog)
    cues = follower.feed((played * 32_767).astype(np.int16)) + follower.finish()
    assert len(cues) == 1
    assert cues[0].start_s == pytest.approx(0.0, abs=1.0)
    assert cues[0].end_s == pytest.approx(40.0 / speed, abs=3.0)


def test_an_earlier_list_is_not_lost_by_a_mistake(catalog: Catalog, recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "list.csv"
    list(monitor(catalog, recording, out=out))
    before = out.read_bytes()
    with pytest.raises(MelprintError, match="typo"):
        list(monitor(catalog, tmp_path / "typo.wav", out=out))
    assert out.read_bytes() == before
    rows = monitor(catalog, recording, out=out)
    next(rows)
    rows.close()
    begun = out.read_bytes()
    with pytest.raises(MelprintError, match="--resume"):
        list(monitor(catalog, recording, out=out))
    assert out.read_bytes() == begun
