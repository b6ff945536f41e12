from pathlib import Path

import numpy as np
import pytest

from melprint.audio.files import write_wav
from melprint.data.corpora.corpus import Corpus
from melprint.data.manifest import Track
from melprint.data.queries import QuerySpec
from melprint.errors import MelprintError
from melprint.fingerprints import collection
from melprint.fingerprints.collection import extract_corpus
from melprint.fingerprints.extractor import Shard
from melprint.fingerprints.store import is_complete, open_store
from melprint.models import Fingerprinter

RATE = 8_000


@pytest.fixture
def corpus(tmp_path: Path, rng: np.random.Generator, music) -> Corpus:
    def track(name: str, split: str, pcm: np.ndarray) -> Track:
        write_wav(tmp_path / f"{name}.wav", pcm.astype(np.int16), RATE)
        return Track(name, tmp_path / f"{name}.wav", len(pcm), split, "", "", "")

    splits = ["train", "train", "val", "test", "test"]
    tracks = [track(f"m{n}", split, music(n, 8.0) * 20_000) for n, split in enumerate(splits)]
    noise = [track("noise", "test", rng.integers(-9_000, 9_000, 90_000))]
    rooms = [track("room", "test", np.array([30_000, 0, 9_000]))]
    return Corpus(tmp_path / "corpus", tracks, noise, rooms)


def test_a_corpus_becomes_three_stores(corpus: Corpus, model: Fingerprinter, tmp_path: Path) -> None:
    done = extract_corpus(model, corpus, tmp_path / "out", QuerySpec(num_queries=4, duration_s=3.0))
    assert [(store.name, store.num_tracks) for store in done] == [("dummy_db", 3), ("db", 2), ("query", 4)]
    again = extract_corpus(model, corpus, tmp_path / "out", QuerySpec(num_queries=4, duration_s=3.0))
    assert all(store.was_there for store in again)


def test_whole_track_queries_match_their_references_row_by_row(
    corpus: Corpus, model: Fingerprinter, tmp_path: Path
) -> None:
    extract_corpus(model, corpus, tmp_path / "out", QuerySpec(duration_s=None))
    rows = [[track.num_rows for track in open_store(tmp_path / "out", name).tracks] for name in ("db", "query")]
    assert rows[0] == rows[1]


def test_old_queries_never_open_with_the_places_of_new_ones(
    corpus: Corpus, model: Fingerprinter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract_corpus(model, corpus, tmp_path / "out", QuerySpec(num_queries=4, duration_s=3.0))

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(collection, "extract", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract_corpus(model, corpus, tmp_path / "out", QuerySpec(num_queries=4, duration_s=3.0, seed=1))
    assert not is_complete(tmp_path / "out", "query")
    assert is_complete(tmp_path / "out", "db")


def test_more_shards_than_recordings_are_refused_before_any_work(
    corpus: Corpus, model: Fingerprinter, tmp_path: Path
) -> None:
    with pytest.raises(MelprintError, match="3 shards are more than the 2 recordings"):
        extract_corpus(model, corpus, tmp_path / "out", QuerySpec(num_queries=4, duration_s=3.0), shard=Shard(1, 3))
    assert not list((tmp_path / "out").glob("*.mm"))
