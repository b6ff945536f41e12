"""Synthetic distractors: sequences of fingerprints that no recording has, drawn from a model of real ones.

Axes: N rows · D fingerprint size · K components.

Rows drawn independently are far too easy: neighbouring segments of music overlap and resemble each other, and a
wrong candidate that fits one segment of a query fits the next ones better than chance.  The model therefore has
two levels.  The rows of the real tracks are clustered into K components with a covariance each; a real track is
then a path through components.  A synthetic track takes the path of a random real one, forwards or backwards, and
puts at every step the component's centroid plus a deviation in the shape of its covariance.  Deviations are a
first-order autoregression along the track plus a constant of the track.  How realistic this is must be measured
(see :func:`realism`).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melprint.errors import MelprintError
from melprint.fingerprints.rows import Rows
from melprint.fingerprints.store import Store, is_complete, open_store
from melprint.fingerprints.writer import StoreWriter
from melprint.index.exact import ExactIndex
from melprint.index.faiss import centroids_of
from melprint.matching.sequence import Borders, match_sequences
from melprint.progress import progress_bar
from melprint.randomness import rng_for

ROWS_PER_COMPONENT = 100
MOST_COMPONENTS = 2_048
FEWEST_ROWS = 2_000
MOST_FITTED_ROWS = 500_000
# A covariance of few rows is drawn towards the one of all components: as if by so many rows more.
PRIOR_ROWS = 64
LAG_CORRELATION = 0.75
TRACK_SHARE = 0.1  # of the variance around a centroid that is constant along a track
TRACKS_AT_ONCE = 200
NAME = "synthetic_db"


@dataclass(frozen=True)
class DistractorModel:
    """A mixture of Gaussians on the sphere, and the paths of real tracks through it.

    Attributes:
        centroids: ``(K, D)``.
        factors: ``(K, D, D)``: a factor times its transpose is the covariance of a component.
        paths: components of each real track, in the order of its segments.
    """

    centroids: NDArray[np.float32]
    factors: NDArray[np.float32]
    paths: Sequence[NDArray[np.int64]]

    @classmethod
    def fit(cls, store: Store, seed: int = 0) -> "DistractorModel":
        """Learn from the rows of a store.

        Raises:
            MelprintError: it has too few rows or no table of tracks.
        """
        if len(store.rows) < FEWEST_ROWS or not store.tracks:
            raise MelprintError(
                f"synthetic distractors are drawn from a model of real ones: {store.folder / store.name} has"
                f" {len(store.rows)} rows in {len(store.tracks)} tracks, and {FEWEST_ROWS} rows in tracks are needed"
            )
        chosen = [store.tracks[number] for number in rng_for(seed).permutation(len(store.tracks))]
        fitted = np.cumsum([track.num_rows for track in chosen])
        chosen = chosen[: 1 + int(np.searchsorted(fitted, MOST_FITTED_ROWS))]
        tracks = [np.array(store.rows[t.first_row : t.first_row + t.num_rows], np.float32) for t in chosen]
        rows = np.concatenate(tracks)
        num_components = min(MOST_COMPONENTS, len(rows) // ROWS_PER_COMPONENT)
        centroids, component = centroids_of(rows, num_components, seed)
        deviations = rows - centroids[component]
        pooled = deviations.T @ deviations / len(rows)
        factors = np.empty((num_components, *pooled.shape), np.float32)
        for number in range(num_components):
            own = deviations[component == number]
            covariance = own.T @ own / max(1, len(own))
            weight = PRIOR_ROWS / (PRIOR_ROWS + len(own))
            size = np.trace(covariance) / np.trace(pooled) if len(own) > 3 else 1.0
            values, axes = np.linalg.eigh((1 - weight) * covariance + weight * size * pooled)
            factors[number] = axes * np.sqrt(values.clip(0))
        ends = np.cumsum([len(track) for track in tracks])[:-1]
        return cls(centroids, factors, np.split(component, ends))

    def tracks(self, numbers: range, seed: int) -> list[NDArray[np.float32]]:
        """Some of the endless sequence of synthetic tracks; each depends on its number and the seed alone."""
        paths, noise = zip(*(self._path(number, seed) for number in numbers), strict=True)
        component, deviation = np.concatenate(paths), np.concatenate(noise)
        rows = self.centroids[component]
        order = np.argsort(component, kind="stable")
        ends = np.searchsorted(component[order], np.arange(len(self.centroids) + 1))
        for number in np.unique(component):
            own = order[ends[number] : ends[number + 1]]
            rows[own] += deviation[own] @ self.factors[number].T
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return np.split(rows, np.cumsum([len(path) for path in paths])[:-1])

    def _path(self, number: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        from scipy.signal import lfilter  # takes two seconds to import

        rng = rng_for(seed, number)
        path = self.paths[int(rng.integers(len(self.paths)))][:: rng.choice((-1, 1))]
        dim = self.centroids.shape[1]
        drive = rng.standard_normal((len(path), dim), dtype=np.float32)
        drive[1:] *= math.sqrt(1 - LAG_CORRELATION**2)
        wander = lfilter([1.0], [1.0, -LAG_CORRELATION], drive, axis=0).astype(np.float32)
        constant = rng.standard_normal(dim, dtype=np.float32)
        return path, math.sqrt(1 - TRACK_SHARE) * wander + math.sqrt(TRACK_SHARE) * constant


def synthetic_store(real: Store, folder: Path, num_rows: int, seed: int = 0) -> Store:
    """At least ``num_rows`` synthetic rows as a store of half precision; made once, and grown when more are asked for.

    A larger store begins with the rows of a smaller one.

    Args:
        real: the model is fitted to its rows.
        folder: receives the store ``synthetic_db``.
        num_rows: how many are needed.
        seed: of the model and of the draws.
    """
    made_from = json.dumps(["distractors", real.digest(), seed, num_rows])
    if is_complete(folder, NAME):
        store = open_store(folder, NAME)
        known = json.loads(store.meta.made_from) if store.meta is not None else []
        if known[:3] == json.loads(made_from)[:3] and len(store.rows) >= num_rows:
            return store
    model = DistractorModel.fit(real, seed)
    segment = real.meta.segment if real.meta is not None else None
    assert segment is not None  # stores with tracks have their geometry
    with (
        StoreWriter(folder, NAME, real.rows.shape[1], "float16", made_from) as writer,
        progress_bar("draw synthetic distractors", num_rows) as advance,
    ):
        first = sum(track.num_rows for track in writer.tracks)
        advance(first)
        while first < num_rows:
            done = len(writer.tracks)
            tracks = model.tracks(range(done, done + TRACKS_AT_ONCE), seed)
            for number, track in enumerate(tracks, done):
                name = f"synthetic/{number:07d}"
                writer.expect(name, name, len(track), segment.query_seconds(len(track)))
            block = np.concatenate(tracks)
            writer.put(block)
            first += len(block)
            advance(len(block))
        return writer.finish(segment, real.meta.model if real.meta is not None else "")


@dataclass(frozen=True)
class Realism:
    """Best wrong scores that queries reach among real distractors and among as many synthetic ones.

    Attributes:
        num_rows: of each of the two sets.
        lengths: in segments.
        real: ``(lengths, queries)`` best scores among real tracks that the model was not fitted to.
        synthetic: the same among synthetic tracks.
    """

    num_rows: int
    lengths: Sequence[int]
    real: NDArray[np.float32]
    synthetic: NDArray[np.float32]

    def divergence(self) -> list[float]:
        """Jensen-Shannon divergence of the two distributions at each length, in bits: 0 equal, 1 disjoint."""
        return [_jensen_shannon(real, drawn) for real, drawn in zip(self.real, self.synthetic, strict=True)]


def realism(real: Store, query: Store, lengths: Sequence[int], seed: int = 0) -> Realism:
    """Fit the model to half of the tracks and compare draws with the other half.

    Args:
        real: distractors that no query belongs to.
        query: degraded queries; each begins where a track of this store begins.
        lengths: in segments.
        seed: of the division and the draws.
    """
    order = rng_for(seed, 1).permutation(len(real.tracks))
    halves = [_subset(real, sorted(order[number::2].tolist())) for number in (0, 1)]
    num_rows = len(halves[1].rows)
    model = DistractorModel.fit(halves[0], seed)
    drawn: list[NDArray[np.float32]] = []
    while sum(len(track) for track in drawn) < num_rows:
        drawn += model.tracks(range(len(drawn), len(drawn) + TRACKS_AT_ONCE), seed)
    first = np.cumsum([0] + [len(track) for track in drawn])
    first = np.append(first[first < num_rows], num_rows)
    scores = [
        _best_scores(Rows([rows]), borders, query, lengths)
        for rows, borders in (
            (halves[1].rows, Borders(halves[1].first_rows)),
            (np.concatenate(drawn)[:num_rows], Borders(first)),
        )
    ]
    return Realism(num_rows, lengths, *scores)


def _subset(store: Store, numbers: Sequence[int]) -> Store:

    first, tracks, rows = 0, [], []
    for number in numbers:
        track = store.tracks[number]
        rows.append(np.array(store.rows[track.first_row : track.first_row + track.num_rows], np.float32))
        tracks.append(replace(track, first_row=first))
        first += track.num_rows
    return replace(store, rows=np.concatenate(rows), tracks=tracks)


def _best_scores(rows: Rows, borders: Borders, query: Store, lengths: Sequence[int]) -> NDArray[np.float32]:
    index = ExactIndex("ip")
    index.build(rows)
    queries = Rows([query.rows])
    hits = index.search(queries.take(np.arange(len(queries))), 20)
    num_segments = np.array([track.num_rows for track in query.tracks])
    matches = match_sequences(
        queries, hits.rows, query.first_rows[:-1], num_segments, lengths, rows, borders, num_best=1
    )
    return np.stack([matches[length].score[:, 0] for length in lengths])


def _jensen_shannon(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    both = np.concatenate([first, second])
    edges = np.linspace(both.min(), both.max(), 1 + max(10, round(math.sqrt(len(first)))))
    p, q = (np.histogram(part, edges)[0] / len(part) for part in (first, second))
    middle = (p + q) / 2

    def relative_entropy(part: NDArray[np.float64]) -> float:
        there = part > 0
        return float((part[there] * np.log2(part[there] / middle[there])).sum())

    return (relative_entropy(p) + relative_entropy(q)) / 2
