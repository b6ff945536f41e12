from pathlib import Path

import numpy as np
import pytest

from melprint.audio.files import write_wav
from melprint.augment.banks import Surroundings
from melprint.data.manifest import Track, read_manifest
from melprint.data.queries import QueryRenderer, QuerySpec, read_queries, write_queries
from melprint.errors import MelprintError

RATE = 8_000


@pytest.fixture
def tracks(tmp_path: Path, music) -> list[Track]:
    tracks = []
    for number in range(3):
        pcm = (music(number, 15.0) * 20_000).astype(np.int16)
        write_wav(tmp_path / f"{number}.wav", pcm, RATE)
        tracks.append(Track(f"track {number}", tmp_path / f"{number}.wav", len(pcm), "test", "", "", ""))
    return tracks


@pytest.fixture
def around(tmp_path: Path, rng: np.random.Generator) -> Surroundings:
    write_wav(tmp_path / "noise.wav", rng.integers(-5_000, 5_000, 90_000, dtype=np.int16), RATE)
    response = np.zeros(4_000, np.int16)
    response[[0, 1_500, 3_000]] = 30_000, 9_000, 4_000
    write_wav(tmp_path / "room.wav", response, RATE)
    noise = Track("pink/noise", tmp_path / "noise.wav", 90_000, "test", "", "", "")
    room = Track("room", tmp_path / "room.wav", 4_000, "test", "", "", "")
    return Surroundings([noise], [room], RATE)


def test_the_recorded_place_is_the_true_place(tracks: list[Track], around: Surroundings) -> None:
    """At a high ratio and without a room, a query is its excerpt."""
    spec = QuerySpec(num_queries=9, duration_s=4.0, snr_db=(60.0, 60.0), room_probability=0.0)
    for query, wave in QueryRenderer(spec, tracks, around):
        track = next(track for track in tracks if track.track_id == query.track_id)
        start = round(query.start_s * RATE)
        excerpt = np.array(track.samples(RATE)[start : start + 4 * RATE], float)
        assert len(wave) == 4 * RATE
        assert excerpt @ wave / np.linalg.norm(excerpt) / np.linalg.norm(wave.astype(float)) > 0.999


def test_the_recorded_ratio_and_room_are_what_is_heard(tracks: list[Track], around: Surroundings) -> None:
    """The reverberated music, computed by definition from the recorded place, leaves noise of the recorded level."""
    spec = QuerySpec(num_queries=6, duration_s=5.0, snr_db=(0.0, 10.0), room_probability=1.0)
    response = around.rooms.responses[0].numpy()
    for query, wave in QueryRenderer(spec, tracks, around):
        assert (query.room, query.noise) == ("room", "pink/noise")
        track = next(track for track in tracks if track.track_id == query.track_id)
        start = round(query.start_s * RATE)
        whole = np.convolve(np.array(track.samples(RATE), float) / 32_768, response)
        clean = whole[start : start + 5 * RATE]
        noisy = wave / 32_768
        gain = clean @ noisy / (clean @ clean)  # a query that would clip is scaled down
        residue = noisy / gain - clean
        measured = 10 * np.log10((clean @ clean) / (residue @ residue))
        assert measured == pytest.approx(query.snr_db, abs=0.3)


def test_queries_are_made_once_and_spread_over_the_tracks(
    tracks: list[Track], around: Surroundings, tmp_path: Path
) -> None:
    spec = QuerySpec(num_queries=7, duration_s=3.0)
    write_queries(QueryRenderer(spec, tracks, around), tmp_path / "queries")
    queries = read_queries(tmp_path / "queries" / "queries.csv")
    assert [query.track_id for query in queries] == [f"track {number % 3}" for number in range(7)]
    assert len({query.start_s for query in queries}) == 7
    made = [track.path.stat().st_mtime_ns for track in read_manifest(tmp_path / "queries")]
    write_queries(QueryRenderer(spec, tracks, around), tmp_path / "queries")
    assert [track.path.stat().st_mtime_ns for track in read_manifest(tmp_path / "queries")] == made
    write_queries(QueryRenderer(QuerySpec(num_queries=7, duration_s=3.0, seed=1), tracks, around), tmp_path / "queries")
    assert read_queries(tmp_path / "queries" / "queries.csv") != queries


def test_a_query_does_not_depend_on_how_many_there_are(tracks: list[Track], around: Surroundings) -> None:
    few = list(QueryRenderer(QuerySpec(num_queries=3, duration_s=3.0), tracks, around))
    many = list(QueryRenderer(QuerySpec(num_queries=40, duration_s=3.0), tracks, around))
    for (query, wave), (same, other) in zip(few, many, strict=False):
        assert query == same
        assert np.abs(wave.astype(int) - other).max() <= 1


def test_whole_tracks_match_their_references_sample_by_sample(tracks: list[Track], around: Surroundings) -> None:
    rendered = list(QueryRenderer(QuerySpec(duration_s=None), tracks, around))
    assert [query.track_id for query, _ in rendered] == [track.track_id for track in tracks]
    assert [len(wave) for _, wave in rendered] == [track.num_samples for track in tracks]
    assert {query.start_s for query, _ in rendered} == {0.0}


def test_a_pause_is_not_asked_for(tmp_path: Path, around: Surroundings, music) -> None:
    pcm = np.concatenate([np.zeros(30 * RATE, np.int16), (music(0, 10.0) * 20_000).astype(np.int16)])
    write_wav(tmp_path / "late.wav", pcm, RATE)
    late = Track("late", tmp_path / "late.wav", len(pcm), "test", "", "", "")
    spec = QuerySpec(num_queries=20, duration_s=3.0)
    starts = [query.start_s for query, _ in QueryRenderer(spec, [late], around)]
    assert np.mean([start > 26.9 for start in starts]) > 0.8


def test_queries_longer_than_every_track_are_refused(tracks: list[Track], around: Surroundings) -> None:
    with pytest.raises(MelprintError, match=r"no track lasts 20\.0 s"):
        QueryRenderer(QuerySpec(duration_s=20.0), tracks, around)
