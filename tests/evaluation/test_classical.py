import logging
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from melprint.errors import MelprintError
from melprint.evaluation import classical
from melprint.evaluation.classical import NO_ROOM, NOTHING, Answer, Audfprint, Chromaprint, ClassicalSystem, bit_errors
from tests.conftest import RATE, synthesize

START_S, QUERY_S, TRUE_TRACK = 11.37, 8.0, 1
FOREIGN = 3  # seed of music that is not enrolled


def melody(seed: int, duration_s: float = 30.0) -> NDArray[np.int16]:
    """Random notes and bursts of noise."""
    rng = np.random.default_rng([seed, 1])
    wave = 20_000 * synthesize(seed, duration_s)
    for start in rng.integers(0, len(wave) - RATE // 10, round(2 * duration_s)):
        burst = rng.uniform(500, 3_000) * np.exp(-np.arange(RATE // 10) / (RATE / 50))
        wave[start : start + RATE // 10] += burst * rng.standard_normal(RATE // 10)
    return np.rint(wave).astype(np.int16)


def excerpt(wave: NDArray[np.int16], start_s: float = START_S, duration_s: float = QUERY_S) -> NDArray[np.int16]:
    """Some seconds of a wave in a little noise."""
    cut = wave[round(start_s * RATE) :][: round(duration_s * RATE)]
    return (cut + 100 * np.random.default_rng(7).standard_normal(len(cut))).astype(np.int16)


@pytest.fixture(scope="module")
def tracks() -> list[NDArray[np.int16]]:
    return [melody(seed) for seed in range(3)]


@pytest.fixture(
    scope="module",
    params=[
        "audfprint",
        pytest.param(
            "chromaprint", marks=pytest.mark.skipif(shutil.which("fpcalc") is None, reason="fpcalc is not on the path")
        ),
    ],
)
def system(request: pytest.FixtureRequest, tracks: list[NDArray[np.int16]]) -> ClassicalSystem:
    pytest.importorskip({"audfprint": "audfprint2", "chromaprint": "acoustid"}[request.param])
    made: ClassicalSystem = {"audfprint": Audfprint, "chromaprint": Chromaprint}[request.param](RATE)
    made.enroll(iter(tracks[:2]))
    made.enroll(tracks[2:])
    return made


def test_an_excerpt_is_found_in_its_place(system: ClassicalSystem, tracks: list[NDArray[np.int16]]) -> None:
    answer = system.look_up(excerpt(tracks[TRUE_TRACK]))
    assert answer.track == TRUE_TRACK
    assert answer.start_s == pytest.approx(START_S, abs=0.25)


def test_every_track_is_found_under_its_number(system: ClassicalSystem, tracks: list[NDArray[np.int16]]) -> None:
    assert [system.look_up(excerpt(track)).track for track in tracks] == [0, 1, 2]


def test_foreign_music_scores_lower(system: ClassicalSystem, tracks: list[NDArray[np.int16]]) -> None:
    assert system.look_up(excerpt(melody(FOREIGN))).score < system.look_up(excerpt(tracks[TRUE_TRACK])).score


def test_an_empty_query_has_no_answer(system: ClassicalSystem) -> None:
    assert system.look_up(np.zeros(0, np.int16)) == NOTHING
    assert (NOTHING.track, NOTHING.score) == (-1, -np.inf)


def test_nothing_is_found_without_tracks(system: ClassicalSystem, tracks: list[NDArray[np.int16]]) -> None:
    assert type(system)(RATE).look_up(excerpt(tracks[0])) == NOTHING


def test_nothing_is_written(
    system: ClassicalSystem, tracks: list[NDArray[np.int16]], capfd: pytest.CaptureFixture[str]
) -> None:
    system.look_up(excerpt(tracks[0]))
    system.look_up(np.zeros(RATE, np.int16))
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def audfprint() -> Audfprint:
    pytest.importorskip("audfprint2")
    return Audfprint(classical.SYSTEM_RATE_HZ)


def test_audfprint_has_the_defaults_of_its_command_line(audfprint: Audfprint) -> None:
    from audfprint2 import cli

    given = cli.build_parser().parse_args(["match"])
    made = cli.setup_analyzer(20, True, 5, 3, 30, given.shifts, 11_025, False, None)
    assert made.shifts == classical.QUERY_SHIFTS
    analyzer, matcher, table = audfprint._analyzer, audfprint._matcher, audfprint._table
    assert (given.density, given.samplerate, given.fanout) == (
        analyzer.density,
        analyzer.target_sr,
        analyzer.maxpairsperpeak,
    )
    assert (given.pks_per_frame, given.freq_sd) == (analyzer.maxpksperframe, analyzer.f_sd)
    assert (given.match_win, given.search_depth, given.exact_count) == (
        matcher.window,
        matcher.search_depth,
        matcher.exact_count,
    )
    assert (given.hashbits, given.bucketsize, given.maxtime) == (table.hashbits, table.depth, 1 << table.maxtimebits)


@pytest.mark.parametrize("shifts", [1, 4])
def test_hashes_are_those_of_a_file(
    audfprint: Audfprint, shifts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audfprint2.utils import audio

    wave = melody(0, 5.0)
    soundfile.write(tmp_path / "wave.wav", wave, classical.SYSTEM_RATE_HZ, subtype="PCM_16")
    monkeypatch.setattr(audio, "HAVE_FFMPEG", False)
    audfprint._analyzer.shifts = shifts
    of_file = audfprint._analyzer.wavfile2hashes(str(tmp_path / "wave.wav"))
    assert len(of_file) > 20
    np.testing.assert_array_equal(audfprint.hashes(wave, shifts), of_file)


def test_audfprint_finds_excerpts_at_the_rate_of_the_samples(tracks: list[NDArray[np.int16]]) -> None:
    pytest.importorskip("audfprint2")
    system = Audfprint(RATE, system_rate_hz=RATE)
    system.enroll(tracks)
    answer = system.look_up(excerpt(tracks[TRUE_TRACK]))
    assert (answer.track, answer.start_s) == (TRUE_TRACK, pytest.approx(START_S, abs=0.05))


def test_audfprint_tells_a_late_place_modulo_the_largest_time(tracks: list[NDArray[np.int16]]) -> None:
    pytest.importorskip("audfprint2")
    system = Audfprint(RATE, max_time=256)  # 5.9 s
    system.enroll(tracks[:1])
    wrapped_s = 256 * 256 / classical.SYSTEM_RATE_HZ
    start_s = system.look_up(excerpt(tracks[0], 8.0, 3.0)).start_s
    assert start_s == pytest.approx(8.0 - wrapped_s, abs=0.05)


def test_audfprint_refuses_more_tracks_than_it_can_number() -> None:
    pytest.importorskip("audfprint2")
    system = Audfprint(RATE, max_time=1 << 31)
    silence = np.zeros(RATE, np.int16)
    system.enroll([silence])
    with pytest.raises(MelprintError, match="1 tracks apart"):
        system.enroll([silence])


def test_audfprint_leaves_the_state_of_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("audfprint2")
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])  # those of pytest would hide that audfprint2 adds one
    before = root.level
    for name in [name for name in sys.modules if name.startswith("audfprint2")]:
        del sys.modules[name]
    random.seed(5)
    want = random.random()
    random.seed(5)
    Audfprint(RATE).enroll([melody(0, 3.0)])
    assert random.random() == want
    assert (root.level, root.handlers) == (before, [])


@pytest.fixture
def chromaprint() -> Chromaprint:
    pytest.importorskip("acoustid")
    if shutil.which("fpcalc") is None:
        pytest.skip("fpcalc is not on the path")
    return Chromaprint(RATE)


def test_a_second_has_no_answer_in_chromaprint(chromaprint: Chromaprint, tracks: list[NDArray[np.int16]]) -> None:
    chromaprint.enroll(tracks[:1])
    assert chromaprint.look_up(excerpt(tracks[0], duration_s=1.0)) == NOTHING


@pytest.mark.parametrize(("num_samples", "num_prints"), [(21_791, 0), (21_792, 1), (130 * RATE, 1_028)])
def test_sub_fingerprints_cover_the_whole_wave(chromaprint: Chromaprint, num_samples: int, num_prints: int) -> None:
    noise = np.random.default_rng(0).normal(0, 3_000, num_samples).astype(np.int16)
    assert len(chromaprint.sub_fingerprints(noise)) == num_prints


def test_a_track_shorter_than_the_query_is_no_place(chromaprint: Chromaprint, tracks: list[NDArray[np.int16]]) -> None:
    chromaprint.enroll([tracks[0][: 4 * RATE], tracks[1][: 5 * RATE]])
    assert chromaprint.look_up(tracks[0][: 8 * RATE]) == NOTHING
    assert chromaprint.look_up(tracks[1][: 4 * RATE]) == Answer(1, 0.0, pytest.approx(1.0, abs=0.05))


@pytest.mark.parametrize("length", [1, 3, 5, 8])
def test_bit_errors_are_those_of_a_loop(length: int) -> None:
    rng = np.random.default_rng(length)
    tracks = [rng.integers(0, 2**32, count, dtype=np.uint32) for count in (5, 0, 2, 7)]
    query = rng.integers(0, 2**32, length, dtype=np.uint32)
    want = {}
    first = 0
    for track in tracks:
        for start in range(len(track) - length + 1):
            pairs = zip(query, track[start : start + length], strict=True)
            want[first + start] = sum(bin(int(a) ^ int(b)).count("1") for a, b in pairs)
        first += len(track)
    num_left = np.concatenate([np.arange(len(track), 0, -1) for track in tracks])
    got = bit_errors(query, np.concatenate(tracks), num_left)
    assert {place: count for place, count in enumerate(got.tolist()) if count != NO_ROOM} == want


def test_chromaprint_names_the_track_after_empty_ones(chromaprint: Chromaprint) -> None:
    chromaprint.enroll([np.zeros(0, np.int16), melody(0, 5.0), np.zeros(10, np.int16), melody(1, 6.0)])
    assert chromaprint.look_up(melody(1, 6.0)) == Answer(3, 0.0, 1.0)


@pytest.mark.parametrize(
    ("module", "make", "remedy"),
    [
        ("audfprint2.core", Audfprint, r"pip install 'melprint\[classical\]'"),
        ("acoustid", Chromaprint, r"pip install 'melprint\[classical\]'"),
        ("chromaprint", Chromaprint, "apt install libchromaprint-tools"),
    ],
)
def test_a_missing_library_is_named_with_its_remedy(
    module: str, make: Callable[[int], ClassicalSystem], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if module == "chromaprint":
        pytest.importorskip("acoustid")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MelprintError, match=remedy):
        make(RATE)


def test_a_missing_fpcalc_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("acoustid")
    monkeypatch.setenv("FPCALC", "no-such-fpcalc")
    with pytest.raises(MelprintError, match="apt install libchromaprint-tools"):
        Chromaprint(RATE)
