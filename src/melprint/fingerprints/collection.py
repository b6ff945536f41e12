"""The stores of a corpus: distractors, test tracks, and degraded queries."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from melprint.data.corpora.corpus import Corpus
from melprint.data.manifest import Track, read_manifest
from melprint.data.queries import QUERIES, QueryRenderer, QuerySpec, write_queries
from melprint.errors import MelprintError
from melprint.fingerprints.extractor import Extraction, Shard, extract, sources_of_tracks
from melprint.models.fingerprinter import Fingerprinter

SetName = Literal["dummy_db", "db", "query"]


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
    done = []
    for name in sets:
        match name:
            case "dummy_db":
                tracks = corpus.distractors()
            case "db":
                tracks = corpus.music_of("test")
            case "query":
                tracks = _query_tracks(corpus, folder, queries)
            case _:
                raise MelprintError(f"sets are dummy_db, db and query, got {name!r}")
        sources = sources_of_tracks(tracks, corpus.sample_rate_hz)
        done.append(extract(fingerprinter, sources, folder, name, dtype=dtype, batch_size=batch_size, shard=shard))
    return done


def _query_tracks(corpus: Corpus, folder: Path, queries: QuerySpec) -> list[Track]:
    truth = folder / f"query_{QUERIES}"
    if corpus.queries:
        truth.unlink(missing_ok=True)
        return corpus.queries
    rendered = corpus.root / ("queries-whole" if queries.duration_s is None else "queries")
    write_queries(QueryRenderer(queries, corpus.music_of("test"), corpus.surroundings("test")), rendered)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(rendered / QUERIES, truth)
    return read_manifest(rendered)
