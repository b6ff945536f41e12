"""Locating on synthesised music with the shipped network."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import melprint
from melprint.audio.files import to_int16
from melprint.errors import MelprintError
from melprint.matching.temporal import Range, similarity
from melprint.models.fingerprinter import Fingerprinter
from melprint.recognition.locate import fingerprints_of_file, locate_files, locate_in, plot_ranges

RATE = 8_000


@pytest.fixture(scope="module")
def network() -> Fingerprinter:
    return melprint.load("compact")


@pytest.fixture(scope="module")
def track() -> np.ndarray:
    from tests.conftest import synthesize

    return synthesize(2, 40.0)


@pytest.fixture(scope="module")
def track_path(track: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("locate") / "track.wav"
    soundfile.write(path, track, RATE)
    return path


@pytest.fixture(scope="module")
def track_rows(network: Fingerprinter, track_path: Path) -> np.ndarray:
    return fingerprints_of_file(network, track_path)


def excerpt(wave: np.ndarray, start_s: float, duration_s: float) -> np.ndarray:
    cut = wave[round(start_s * RATE) : round((start_s + duration_s) * RATE)]
    return cut + 0.02 * np.random.default_rng(0).standard_normal(len(cut))


def offset_s(one: Range) -> float:
    return one.reference_start_s - one.query_start_s


@pytest.mark.parametrize("start_s", [12.0, 12.25, 12.34, 7.9])
def test_a_noisy_excerpt_is_placed_to_a_fraction_of_the_hop(
    start_s: float, network: Fingerprinter, track: np.ndarray, track_rows: np.ndarray
) -> None:
    found = locate_in(network, to_int16(excerpt(track, start_s, 8.0)), track_rows)
    assert offset_s(found[0]) == pytest.approx(start_s, abs=0.05)
    assert found[0].query_start_s <= 0.5
    assert found[0].query_end_s >= 7.0
    assert 0.6 < found[0].score <= 1


def test_a_medley_between_other_music_is_two_ranges(
    network: Fingerprinter, track: np.ndarray, track_path: Path, tmp_path: Path, music: Callable[..., np.ndarray]
) -> None:
    """Eight seconds of other music, six from 20.1 s, twelve of other music, six from 5.3 s, in another format."""
    parts = [music(77, 8.0), excerpt(track, 20.1, 6.0), music(78, 12.0), excerpt(track, 5.3, 6.0)]
    soundfile.write(tmp_path / "medley.flac", np.repeat(np.concatenate(parts), 2), 2 * RATE)
    found = sorted(locate_files(network, tmp_path / "medley.flac", track_path), key=lambda one: one.query_start_s)
    assert len(found) == 2
    for one, (query_s, reference_s) in zip(found, [(8.0, 20.1), (26.0, 5.3)], strict=True):
        assert offset_s(one) == pytest.approx(reference_s - query_s, abs=0.06)
        # A segment that reaches into the music counts where it is like it: less than its whole second too many.
        assert one.query_start_s == pytest.approx(query_s, abs=0.99)
        assert one.query_end_s == pytest.approx(query_s + 6.0, abs=0.99)


def test_other_music_silence_and_a_click_are_nowhere(
    network: Fingerprinter, track_rows: np.ndarray, music: Callable[..., np.ndarray]
) -> None:
    for wave in (music(99, 10.0), np.zeros(10 * RATE), np.full(80, 0.5)):
        assert locate_in(network, to_int16(np.asarray(wave)), track_rows) == []


def test_silence_is_not_like_silence(network: Fingerprinter, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(10 * RATE), RATE)
    assert locate_files(network, tmp_path / "silence.wav", tmp_path / "silence.wav") == []


def test_a_picture_has_a_line_for_each_range(
    network: Fingerprinter, track: np.ndarray, track_rows: np.ndarray, tmp_path: Path
) -> None:
    from matplotlib.image import imread

    with_lines, without = tmp_path / "with.png", tmp_path / "without.png"
    matrix = similarity(track_rows[10:30], track_rows)
    plot_ranges(with_lines, matrix, [Range(0.0, 10.5, 5.0, 15.5, 0.9)], network.segment)
    plot_ranges(without, matrix, [], network.segment)
    colourful = [(np.ptp(imread(path)[..., :3], axis=2) > 0.2).sum() for path in (with_lines, without)]
    assert colourful[0] > 200
    assert colourful[1] == 0


def test_bad_input_is_refused_in_a_sentence(network: Fingerprinter, track_path: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    with pytest.raises(MelprintError, match="holds no audio"):
        locate_files(network, tmp_path / "empty.wav", track_path)
    with pytest.raises(MelprintError, match="no samples"):
        locate_in(network, np.zeros(0, np.int16), np.eye(3, 128))
    with pytest.raises(MelprintError, match="same network"):
        locate_in(network, np.zeros(RATE, np.int16), np.eye(3, 64))
