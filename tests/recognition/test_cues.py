import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from melprint.errors import MelprintError
from melprint.recognition.cues import COLUMNS, DRIFT, Candidate, Cue, CueTracker, CueWriter, Window, gaps

WINDOW_S = 5.0


def played(*stretches: tuple[int, float, float, float], step_s: float = 1.0, end_s: float = 0.0) -> list[Window]:
    """Windows of a stream; ``(track, first, last, offset)`` is accepted in those that begin in [first, last].

    The place in the track is the time in the stream plus the offset.
    """
    last_s = max([end_s, *(last for _, _, last, _ in stretches)])
    return [
        Window(
            t,
            t + WINDOW_S,
            [Candidate(track, t + offset, 0.8, 0.99) for track, a, b, offset in stretches if a <= t <= b],
        )
        for t in np.arange(0.0, last_s + step_s / 2, step_s).tolist()
    ]


def cues_of(windows: Sequence[Window], **options: float) -> list[Cue]:
    tracker = CueTracker(**options)  # type: ignore[arg-type]
    return sorted([cue for window in windows for cue in tracker.push(window)] + tracker.finish())


def spans(cues: Sequence[Cue]) -> list[tuple[int, float, float, float]]:
    return [(cue.track, cue.start_s, cue.end_s, cue.track_start_s) for cue in cues]


def test_windows_of_a_track_are_one_cue() -> None:
    assert spans(cues_of(played((7, 10, 30, 20)))) == [(7, 10, 35, 30)]


def test_a_cue_is_given_once_the_bridge_is_over_and_not_before() -> None:
    tracker = CueTracker(bridge_s=5.0)
    given = [(window.start_s, cue) for window in played((1, 0, 10, 0), end_s=40) for cue in tracker.push(window)]
    # The last window ends at 15 s, a window at 20 s could still go on.
    assert [(now_s, cue.end_s) for now_s, cue in given] == [(21.0, 15.0)]
    assert tracker.finish() == []


def test_scores_are_averaged_and_the_surest_window_counts() -> None:
    tracker = CueTracker()
    tracker.push(Window(0, 5, [Candidate(1, 0, 0.6, 0.9)]))
    tracker.push(Window(1, 6, [Candidate(1, 1, 0.8, 0.999)]))
    assert tracker.finish() == [Cue(0, 6, 1, 0, pytest.approx(0.7), 0.999)]


def test_short_gaps_are_bridged_and_longer_ones_are_not() -> None:
    # The window at 10 s ends at 15 s.
    assert spans(cues_of(played((1, 0, 10, 0), (1, 20, 30, 0)))) == [(1, 0, 35, 0)]
    assert spans(cues_of(played((1, 0, 10, 0), (1, 21, 30, 0)))) == [(1, 0, 15, 0), (1, 21, 35, 21)]
    assert len(cues_of(played((1, 0, 10, 0), (1, 20, 30, 0)), bridge_s=4.5)) == 2


def test_a_jingle_in_between_does_not_split_a_track() -> None:
    assert spans(cues_of(played((1, 0, 10, 0), (2, 12, 16, -12), (1, 18, 40, 0)))) == [(1, 0, 45, 0), (2, 12, 21, 0)]


def test_a_track_that_is_played_twice_is_listed_twice() -> None:
    assert spans(cues_of(played((1, 0, 30, 0), (1, 31, 60, -31)))) == [(1, 0, 35, 0), (1, 31, 65, 0)]
    # So is a jingle of 6 s, of which the windows around it hear parts as well.
    assert spans(cues_of(played((1, 3, 8, -5), (1, 9, 14, -11)))) == [(1, 5, 13, 0), (1, 11, 19, 0)]


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_a_repeated_bar_does_not_split_a_track(repeats: int) -> None:
    windows = played((1, 0, 20, 0), (1, 21, 20 + repeats, -2), (1, 21 + repeats, 40, 0))
    assert spans(cues_of(windows)) == [(1, 0, 45, 0)]


def test_a_repeated_bar_that_is_found_beside_the_place_itself_is_no_second_cue() -> None:
    windows = [
        Window(t, t + 5.0, [Candidate(1, t + shift, score, 0.99) for shift, score in ((0, 0.9), (2, 0.8), (-2, 0.8))])
        for t in map(float, range(40))
    ]
    assert spans(cues_of(windows)) == [(1, 0, 44, 0)]


def test_neighbouring_places_in_one_window_are_one() -> None:
    windows = [
        Window(t, t + 5.0, [Candidate(1, t + 0.5, 0.7, 0.9), Candidate(1, t, 0.9, 0.99)]) for t in map(float, range(9))
    ]
    assert cues_of(windows) == [Cue(0, 13, 1, 0, pytest.approx(0.9), 0.99)]


def test_two_tracks_at_once_and_a_crossfade_overlap() -> None:
    assert spans(cues_of(played((1, 0, 30, 0), (2, 26, 60, -26)))) == [(1, 0, 35, 0), (2, 26, 65, 0)]
    assert spans(cues_of(played((1, 0, 30, 0), (2, 0, 30, 100)))) == [(1, 0, 35, 0), (2, 0, 35, 100)]


def test_windows_that_stand_alone_are_left_out() -> None:
    assert cues_of(played((1, 5, 5, 0), end_s=30)) == []
    assert spans(cues_of(played((1, 5, 5, 0), end_s=30), min_windows=1)) == [(1, 5, 10, 5)]
    # Two of one track that contradict each other stand alone as well.
    assert cues_of(played((1, 5, 5, 0), (1, 6, 6, 70), end_s=30)) == []
    assert cues_of(played((1, 5, 7, 0), end_s=30), min_windows=4) == []


@pytest.mark.parametrize("tempo", [1 - DRIFT, 1 + DRIFT])
def test_music_that_is_played_faster_or_slower_is_one_cue(tempo: float) -> None:
    for hop_s in (0.01, 0.5):  # places are known to a hop
        windows = [
            Window(t, t + 5.0, [Candidate(1, round(10 + tempo * t / 1.0 / hop_s) * hop_s, 0.8, 0.99)])
            for t in map(float, range(300))
            if t % 60 < 56  # with gaps that are bridged
        ]
        assert len(cues_of(windows)) == 1


def test_a_window_that_begins_before_the_track_does_not_make_it_longer() -> None:
    assert spans(cues_of(played((1, 7, 20, -10)))) == [(1, 10, 25, 0)]


def test_what_is_open_is_known() -> None:
    tracker = CueTracker()
    assert tracker.open_since() is None
    for window in played((1, 4, 30, 0), (2, 10, 12, 0), end_s=30):
        tracker.push(window)
        assert tracker.open_since() == (None if window.start_s < 4 else 4)
    tracker.finish()
    assert tracker.open_since() is None


def test_windows_out_of_order_and_impossible_options_are_refused() -> None:
    tracker = CueTracker()
    tracker.push(Window(5, 10))
    with pytest.raises(ValueError, match="order of time"):
        tracker.push(Window(4, 9))
    for options in ({"bridge_s": -1.0}, {"min_windows": 0}, {"tolerance_s": 0.0}):
        with pytest.raises(MelprintError, match="cues need"):
            CueTracker(**options)  # type: ignore[arg-type]


def slow_twin(windows: Sequence[Window], bridge_s: float) -> list[tuple[int, float, float, float]]:
    """Of streams in which no place is ambiguous: connected components of all accepted windows, compared in pairs."""
    nodes = [(window, candidate) for window in windows for candidate in window.candidates]
    groups = list(range(len(nodes)))
    for j, (late, after) in enumerate(nodes):
        for i, (early, before) in enumerate(nodes[:j]):
            gap_s, passed_s = late.start_s - early.end_s, late.start_s - early.start_s
            error_s = abs(after.track_start_s - before.track_start_s - passed_s)
            if before.track == after.track and gap_s <= bridge_s and error_s <= 0.75 + DRIFT * passed_s:
                groups = [groups[j] if group == groups[i] else group for group in groups]
    out = []
    for group in set(groups):
        its = [node for node, its_group in zip(nodes, groups, strict=True) if its_group == group]
        if len(its) >= 2:
            window, candidate = its[0]
            out.append((candidate.track, window.start_s, max(other.end_s for other, _ in its), candidate.track_start_s))
    return sorted(out, key=lambda span: (span[1], span[2], span[0]))


@pytest.mark.parametrize("seed", range(20))
def test_cues_are_the_connected_windows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    stretches, now_s = [], 0.0
    for _ in range(8):
        first_s = now_s + rng.integers(0, 15)
        now_s = first_s + rng.integers(0, 25)
        # Offsets of repeated tracks lie far apart, so that it is plain which windows belong together.
        stretches.append((int(rng.integers(4)), float(first_s), float(now_s), 1_000.0 * len(stretches)))
    windows = [
        Window(w.start_s, w.end_s, [
            Candidate(c.track, c.track_start_s + rng.choice([-0.25, 0.0, 0.25]), rng.uniform(0.5, 1), 0.9)
            for c in w.candidates if rng.random() < 0.6
        ])
        for w in played(*stretches)
    ]  # fmt: skip
    expected = slow_twin(windows, 5.0)
    assert sorted(spans(cues_of(windows)), key=lambda span: (span[1], span[2], span[0])) == expected


def test_cues_leave_gaps() -> None:
    cues = [Cue(10, 20, 1, 0, 1, 1), Cue(18, 30, 2, 0, 1, 1), Cue(33, 40, 1, 0, 1, 1)]
    assert list(gaps(cues, 60, 5)) == [(0, 10), (40, 60)]
    assert list(gaps(cues, 60, 3)) == [(0, 10), (30, 33), (40, 60)]
    assert list(gaps(cues, 35, 3, start_s=8)) == [(30, 33)]
    assert list(gaps([], 60, 5)) == [(0, 60)]
    assert list(gaps([], 0, 0)) == []


ROWS = [
    {"start_s": 0.0, "end_s": 61.48, "key": "a", "title": 'The "Song", part 1', "artist": "Ünïcode",
     "track_start_s": 2.0, "confidence": 0.99, "score": 0.8},
    {"start_s": 61.48, "end_s": 70.02, "key": ""},
    {"start_s": 70.02, "end_s": 7_000.0, "key": "b", "title": "", "artist": None, "track_start_s": 0.0,
     "confidence": 1.0, "score": 0.9},
    {"start_s": 6_000.52, "end_s": 7_000.0, "key": "c", "title": "Two\nlines\rand", "artist": "C", "track_start_s": 0.0,
     "confidence": 1.0, "score": 0.9},
]  # fmt: skip

CUE_SHEET = """\
FILE "show.flac" WAVE
  TRACK 01 AUDIO
    TITLE "The 'Song', part 1"
    PERFORMER "Ünïcode"
    INDEX 01 00:00:00
  TRACK 02 AUDIO
    TITLE "unknown"
    INDEX 01 01:01:36
  TRACK 03 AUDIO
    TITLE "b"
    INDEX 01 01:10:02
  TRACK 04 AUDIO
    TITLE "Two lines and"
    PERFORMER "C"
    INDEX 01 100:00:39
"""


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "cue"])
def test_lists_are_written_as_they_grow(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"list.{suffix}"
    with CueWriter(path, source="show.flac") as writer:
        for row in ROWS:
            writer.write(row)
            assert path.stat().st_size == writer.position()  # what was written is on disk
    if suffix == "cue":
        assert path.read_text(encoding="utf-8") == CUE_SHEET
        return
    if suffix == "csv":
        with path.open(newline="", encoding="utf-8") as file:
            read = list(csv.DictReader(file))
        assert list(read[0]) == list(COLUMNS)
        expected = [{name: "" if row.get(name) is None else str(row[name]) for name in COLUMNS} for row in ROWS]
    else:
        read = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        expected = [{name: row.get(name) for name in COLUMNS} for row in ROWS]
    assert read == expected


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "cue"])
@pytest.mark.parametrize("kept", range(len(ROWS)))
def test_an_interrupted_list_goes_on_as_if_nothing_had_happened(tmp_path: Path, suffix: str, kept: int) -> None:
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"list.{suffix}"
    with CueWriter(whole, source="a") as writer:
        for row in ROWS:
            writer.write(row)
    with CueWriter(path, source="a") as writer:
        position = writer.position()
        for number, row in enumerate(ROWS):
            writer.write(row)
            position = writer.position() if number < kept else position
    with path.open("ab") as file:
        file.write(b"half a li")
    with CueWriter(path, position=position, source="a") as writer:
        assert writer.position() == position
        for row in ROWS[kept:]:
            writer.write(row)
    assert path.read_bytes() == whole.read_bytes()


def test_tracks_of_a_cue_sheet_never_go_back(tmp_path: Path) -> None:
    with CueWriter(tmp_path / "a.cue") as writer:
        for start_s in (10.0, 9.0, 12.0):
            writer.write({"start_s": start_s, "end_s": 20.0, "key": "a", "title": "A"})
    lines = (tmp_path / "a.cue").read_text().splitlines()
    assert [line.split()[-1] for line in lines if "INDEX" in line] == ["00:10:00", "00:10:00", "00:12:00"]


def test_lists_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MelprintError, match=r"\.csv, \.jsonl or \.cue"):
        CueWriter(tmp_path / "a.txt")
    with pytest.raises(MelprintError, match="cannot be written"):
        CueWriter(tmp_path / "missing" / "a.csv")
    (tmp_path / "a.csv").write_text("short")
    with pytest.raises(MelprintError, match="holds 5 bytes, not the 90"):
        CueWriter(tmp_path / "a.csv", position=90)
    assert (tmp_path / "a.csv").read_text() == "short"
