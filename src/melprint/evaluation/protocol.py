"""What is asked and what is right, in two modes.  Axes: I queries · R query rows.

*strict*: candidates stay within a track, queries within theirs.  *compat*: the published protocol of
neural-audio-fp (``eval/eval_faiss.py``), to the digit: one flat space of rows, the distractors first, no
borders, query row i belongs to reference row i.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from melprint.data.queries import QUERIES, Query, read_queries
from melprint.errors import MelprintError
from melprint.evaluation.stores import TestStores
from melprint.fingerprints.rows import Rows
from melprint.fingerprints.store import Store
from melprint.matching.sequence import Borders
from melprint.randomness import rng_for

Mode = Literal["strict", "compat"]
MODES = ("strict", "compat")


@dataclass(frozen=True)
class Trial:
    """A test set over stores.

    Attributes:
        references: rows to search: distractors first, then the tracks that are asked for.
        num_distractors: how many rows are distractors; indexes are trained on these where there are any.
        borders: of the reference tracks; ``None`` in compat mode.
        queries: rows of all query segments.
        first_segment: query row at which each query begins ``(I,)``.
        num_segments: how many rows from there on belong to the query ``(I,)``.
        true_track: ``(I,)``; 0 without borders.
        true_start: row within the true track ``(I,)``.
        track_ids: of the reference tracks; empty in compat mode.
        query_ids: a name for each query.
        details: what is known of how each query was made; may be empty.
        true_start_s: where in its track the query begins, between rows too ``(I,)``.
        song_of: a number for the song of each query, for intervals that do not take queries of one song for
            independent; empty where songs are not known.
    """

    references: Rows
    num_distractors: int
    borders: Borders | None
    queries: Rows
    first_segment: NDArray[np.int64]
    num_segments: NDArray[np.int64]
    true_track: NDArray[np.int64]
    true_start: NDArray[np.int64]
    track_ids: Sequence[str]
    query_ids: Sequence[str]
    details: Sequence[Query]
    true_start_s: NDArray[np.float64]
    song_of: NDArray[np.int64]

    def thinned(self, num_queries: int) -> "Trial":
        """Some of the queries, spread evenly.

        Raises:
            MelprintError: there are not so many.
        """
        if not isinstance(num_queries, int) or not 1 <= num_queries <= len(self.first_segment):
            raise MelprintError(f"num_queries must lie between 1 and {len(self.first_segment)}, got {num_queries}")
        kept = np.linspace(0, len(self.first_segment) - 1, num_queries).round().astype(np.int64)
        return replace(
            self,
            first_segment=self.first_segment[kept],
            num_segments=self.num_segments[kept],
            true_track=self.true_track[kept],
            true_start=self.true_start[kept],
            query_ids=[self.query_ids[query] for query in kept],
            details=[self.details[query] for query in kept] if self.details else (),
            true_start_s=self.true_start_s[kept],
            song_of=self.song_of[kept] if len(self.song_of) else self.song_of,
        )

    def used_rows(self) -> NDArray[np.int64]:
        """Every query row that some query needs, once."""
        used = np.zeros(len(self.queries) + 1, np.int64)
        np.add.at(used, self.first_segment, 1)
        np.add.at(used, self.first_segment + self.num_segments, -1)
        return np.flatnonzero(np.cumsum(used[:-1]) > 0)

    def asked_at(self, length: int) -> NDArray[np.int64]:
        """The queries that count at this length.

        The published protocol also asks queries that the end of the store cuts short, with what they have.
        """
        return (
            np.flatnonzero(self.num_segments >= length)
            if self.borders is not None
            else np.arange(len(self.num_segments))
        )


def make_trial(
    mode: Mode,
    stores: TestStores,
    longest: int,
    test_ids: str | int | None = None,
    seed: int = 0,
    num_queries: int | None = None,
) -> Trial:
    """The test set of some stores.

    Args:
        mode: strict or compat.
        stores: queries, the tracks that are asked for, distractors.
        longest: the longest query length, in segments.
        test_ids: query rows at which queries begin: ``all``, a number of them (a seeded choice), or a
            ``.npy`` file; by default the beginning of each query track where their places are recorded,
            and ``all`` otherwise.
        seed: of the choice.
        num_queries: only so many of the queries, spread evenly over all.

    Raises:
        MelprintError: the stores do not fit together or the ids are of no use.
    """
    query, db = stores.query, stores.db
    if query.rows.shape[1] != db.rows.shape[1]:
        raise MelprintError(
            f"query has {query.rows.shape[1]} elements a fingerprint and db {db.rows.shape[1]}; they were made by"
            " different models: generate both again"
        )
    match mode:
        case "compat":
            trial = _compat_trial(stores, longest, test_ids, seed)
        case "strict":
            trial = _strict_trial(stores, longest, test_ids, seed)
        case _:
            raise MelprintError(f"mode must be strict or compat, got {mode!r}")
    return trial if num_queries is None else trial.thinned(num_queries)


def _compat_trial(stores: TestStores, longest: int, test_ids: str | int | None, seed: int) -> Trial:
    query, db = stores.query, stores.db
    if len(query.rows) != len(db.rows):
        raise MelprintError(
            f"compat mode needs a query row for every db row, got {len(query.rows)} and {len(db.rows)};"
            " use mode=strict, or whole-track queries (queries.duration_s=null)"
        )
    num_distractors = sum(len(store.rows) for store in stores.distractors)
    # The last rows are left out of "all" as published, although one more query would fit.
    first = _chosen(test_ids if test_ids is not None else "all", len(query.rows) - longest, len(query.rows), seed)
    hop_s = stores.segment.hop_s
    return Trial(
        references=Rows([store.rows for store in stores.searched()]),
        num_distractors=num_distractors,
        borders=None,
        queries=Rows([query.rows]),
        first_segment=first,
        num_segments=np.minimum(len(query.rows) - first, longest),
        true_track=np.zeros(len(first), np.int64),
        true_start=first + num_distractors,
        track_ids=(),
        query_ids=[str(row) for row in first],
        details=(),
        true_start_s=(first + num_distractors).astype(np.float64) * hop_s,
        song_of=np.searchsorted(db.first_rows, first, side="right") - 1 if db.tracks else np.zeros(0, np.int64),
    )


def _strict_trial(stores: TestStores, longest: int, test_ids: str | int | None, seed: int) -> Trial:
    query, db = stores.query, stores.db
    for store in stores.present():
        if not store.tracks:
            raise MelprintError(
                f"the store {store.folder / store.name} has no table of tracks, which strict mode needs;"
                " take mode=compat"
            )
    references = Rows([store.rows for store in stores.searched()])
    searched = [track for store in stores.searched() for track in store.tracks]
    num_distractors, num_distracting = int(references.first[-2]), len(searched) - len(db.tracks)
    first_rows = np.cumsum([0] + [track.num_rows for track in searched])
    query_first = query.first_rows
    details = _details(query)
    track_of_query, start_of_query = _truth_by_query(query, db, details)
    if test_ids is None and details:
        first = query_first[:-1]
    else:
        first = _chosen(test_ids if test_ids is not None else "all", len(query.rows), len(query.rows), seed)
    owner = np.searchsorted(query_first, first, side="right") - 1
    offset = first - query_first[owner]
    left = query_first[owner + 1] - first
    known = track_of_query[owner] >= 0
    if not known.any():
        raise MelprintError(f"no query of {query.folder / query.name} belongs to a track of {db.folder / db.name}")
    first, owner, offset, left = first[known], owner[known], offset[known], left[known]
    start = start_of_query[owner] + offset
    hop_s = stores.segment.hop_s
    return Trial(
        references=references,
        num_distractors=num_distractors,
        borders=Borders(first_rows),
        queries=Rows([query.rows]),
        first_segment=first,
        num_segments=np.minimum(left, longest),
        true_track=track_of_query[owner] + num_distracting,
        true_start=start,
        track_ids=[track.track_id for track in searched],
        query_ids=[
            f"{query.tracks[o].track_id}+{k}" if k else query.tracks[o].track_id
            for o, k in zip(owner, offset, strict=True)
        ],
        details=[details[o] for o in owner] if details else (),
        true_start_s=np.array([details[o].start_s for o in owner]) + offset * hop_s if details else start * hop_s,
        song_of=track_of_query[owner],
    )


def _details(query: Store) -> list[Query]:
    """The queries of ``queries.csv`` beside the store, in the order of the store's tracks."""
    path = query.folder / f"{query.name}_{QUERIES}"
    if not path.exists():
        return []
    by_id = {entry.query_id: entry for entry in read_queries(path)}
    try:
        return [by_id[Path(track.track_id).stem] for track in query.tracks]
    except KeyError as error:
        raise MelprintError(f"{path} does not list the query {error}; generate the query store again") from error


def _truth_by_query(query: Store, db: Store, details: Sequence[Query]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each query track the db track (-1: none) and the row in it at which the query begins."""
    if not details:  # whole degraded tracks in the order of the clean ones, as in the published dataset
        if [t.num_rows for t in query.tracks] != [t.num_rows for t in db.tracks]:
            raise MelprintError(
                f"{query.folder / query.name} has no {query.name}_{QUERIES} that says where its queries come from,"
                f" and its tracks do not match those of {db.name} one for one"
            )
        return np.arange(len(query.tracks)), np.zeros(len(query.tracks), np.int64)
    number = {track.track_id: position for position, track in enumerate(db.tracks)}
    hop_s = db.meta.segment.hop_s if db.meta is not None else 0.5
    return (
        np.array([number.get(entry.track_id, -1) for entry in details], np.int64),
        np.array([round(entry.start_s / hop_s) for entry in details], np.int64),
    )


def _chosen(test_ids: str | int, choice: int, num_rows: int, seed: int) -> NDArray[np.int64]:
    text = str(test_ids)
    if text == "all" or text.isdigit():
        if choice < 1:
            raise MelprintError(f"{num_rows} query rows are too few for the longest query; ask for shorter queries")
        if text == "all":
            return np.arange(choice)
        if not 1 <= int(text) <= choice:
            raise MelprintError(f"test_ids={text} cannot be chosen among {choice} query rows; take fewer, or all")
        return rng_for(seed).permutation(choice)[: int(text)]
    try:
        loaded = np.asarray(np.load(text)).reshape(-1)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise MelprintError(f"test_ids must be all, a number or a .npy file, got {text!r} ({error})") from error
    if len(loaded) == 0:
        raise MelprintError(f"{text} holds no test id")
    if loaded.dtype.kind not in "iu":
        raise MelprintError(
            f"{text} holds {loaded.dtype}, and ids are whole numbers; a mask is turned by np.flatnonzero"
        )
    ids = loaded.astype(np.int64)
    if ids.min() < 0 or ids.max() >= num_rows:
        raise MelprintError(f"{text} holds ids {ids.min()} to {ids.max()}, the query rows go from 0 to {num_rows - 1}")
    return ids
