"""The stores of a corpus: distractors, test tracks, and degraded queries."""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

from melprint.data.corpora.corpus import Corpus
from melprint.data.manifest import Track, read_manifest, replacing
from melprint.data.queries import QUERIES, QueryRenderer, QuerySpec, write_queries
from melprint.errors import MelprintError
from melprint.fingerprints.extractor import Extraction, Shard, extract, sources_of_tracks
from melprint.fingerprints.store import Store, names, open_store
from melprint.models.fingerprinter import Fingerprinter


def extract_corpus(
    fingerprinter: Fingerprinter,
    corpus: Corpus,
    folder: Path,
    queries: QuerySpec,
    *,
    sets: Sequence[str] = ("dummy_db", "db", "query"),
    dtype: str = "float32",
    batch_size: int = 256,
    shard: Shard | None = None,
) -> list[Extraction]:
    """Write the stores of a corpus, named as neural-audio-fp names them.

    ``query`` holds the queries that the corpus brings, or rendered ones, whose true places then stand in
    ``query_queries.csv``.

    Raises:
        MelprintError: an unknown set, a corpus of another sample rate, or what :func:`extract` refuses.
    """
    if corpus.sample_rate_hz != fingerprinter.segment.sample_rate_hz:
        raise MelprintError(
            f"the model takes {fingerprinter.segment.sample_rate_hz} Hz, the corpus has {corpus.sample_rate_hz} Hz"
        )
    tracks_of = {name: _tracks(name, corpus, folder, queries) for name in sets}
    if shard is not None and (fewest := min(map(len, tracks_of.values()))) < shard.count:
        raise MelprintError(f"{shard.count} shards are more than the {fewest} recordings of a set; take fewer")
    return [
        extract(
            fingerprinter,
            sources_of_tracks(tracks, corpus.sample_rate_hz),
            folder,
            name,
            dtype=dtype,
            batch_size=batch_size,
            shard=shard,
        )
        for name, tracks in tracks_of.items()
    ]


def _tracks(name: str, corpus: Corpus, folder: Path, queries: QuerySpec) -> list[Track]:
    match name:
        case "dummy_db":
            return corpus.distractors()
        case "db":
            return corpus.music_of("test")
        case "query":
            return _query_tracks(corpus, folder, queries)
    raise MelprintError(f"sets are dummy_db, db and query, got {name!r}")


def _query_tracks(corpus: Corpus, folder: Path, queries: QuerySpec) -> list[Track]:
    truth = folder / f"query_{QUERIES}"
    if corpus.queries:
        _replace_truth(truth, None)
        return corpus.queries
    rendered = corpus.root / ("queries-whole" if queries.duration_s is None else "queries")
    write_queries(QueryRenderer(queries, corpus.music_of("test"), corpus.surroundings("test")), rendered)
    _replace_truth(truth, (rendered / QUERIES).read_text(encoding="utf-8"))
    return read_manifest(rendered)


def _replace_truth(truth: Path, text: str | None) -> None:
    """Another truth belongs to other queries: the old query store must not open with it."""
    if (truth.read_text(encoding="utf-8") if truth.exists() else None) == text:
        return
    names(truth.parent, "query")[3].unlink(missing_ok=True)
    if text is None:
        truth.unlink(missing_ok=True)
    else:
        with replacing(truth) as file:
            file.write(text)


def extract_phases(
    fingerprinter: Fingerprinter,
    corpus: Corpus,
    folder: Path,
    queries: QuerySpec,
    count: int,
    *,
    dtype: str = "float32",
    batch_size: int = 256,
) -> Store:
    """The queries once more, ``count`` segments a hop, as the store ``query_xCOUNT``.

    Raises:
        MelprintError: the hop cannot be divided into whole samples, or what :func:`extract` refuses.
    """
    fine = copy(fingerprinter)
    fine.segment = replace(fingerprinter.segment, hop_s=fingerprinter.segment.hop_s / count)
    name = f"query_x{count}"
    tracks = _query_tracks(corpus, folder, queries)
    extract(fine, sources_of_tracks(tracks, corpus.sample_rate_hz), folder, name, dtype=dtype, batch_size=batch_size)
    return open_store(folder, name)
