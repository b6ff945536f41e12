"""Which scores unknown recordings reach in a catalog, measured on its own music.  Axes: U unknown recordings."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melprint.audio.files import read_mono, to_int16, write_wav
from melprint.catalog.catalog import CALIBRATION, Catalog
from melprint.catalog.tables import Track as CatalogTrack
from melprint.catalog.tables import now
from melprint.catalog.view import View
from melprint.data.hearing import surroundings_for_hearing
from melprint.data.manifest import Track, replacing
from melprint.data.queries import QueryRenderer, QuerySpec
from melprint.errors import MelprintError
from melprint.progress import progress_bar
from melprint.randomness import rng_for
from melprint.recognition.search import NUM_NEIGHBOURS, Place, Searched, search

SECONDS = (1, 2, 3, 5, 6, 10)
FEWEST_TRACKS = 20
MOST_TRACKS = 200  # that are decoded
MOST_TRACK_S = 300
NEIGHBOURS = 5 * NUM_NEIGHBOURS  # enough once the track itself, or three quarters of the catalog, are left out
SMALLER = 4  # the catalog is also measured at a quarter of its tracks
NOT_FOUND = -1.0
SEARCHED_AT_ONCE = 32


def calibrate(catalog: Catalog, num_queries: int = 400, seed: int = 0) -> dict[str, Any]:
    """Measure thresholds for this catalog and keep them in it.

    Excerpts of the added files, clean and with pink noise in simulated rooms, are looked up as if their track were
    not there.  Tracks that are there twice make everything unknown look known: ``melprint dedup`` finds them.

    Args:
        catalog: whose files are still where they were added from.
        num_queries: degraded excerpts, and as many clean ones.
        seed: of their choice.

    Returns:
        What was measured, as it is kept.

    Raises:
        MelprintError: too few files can be read.
    """
    view = catalog.view()
    scores: dict[int, dict[str, list[float]]] = {s: {"unknown": [], "fewer": [], "right": []} for s in SECONDS}
    rng = rng_for(seed)
    kept = rng.permutation(len(view.first)) < max(1, len(view.first) // SMALLER)
    with _excerpts(catalog, view, num_queries, seed) as parts, progress_bar("calibrate", 2 * num_queries) as advance:
        for degraded, waves, positions in parts:
            searched = search(
                catalog.fingerprinter, partial(catalog.search, view=view), waves, num_neighbours=NEIGHBOURS
            )
            _score(scores, searched, view, positions, kept, degraded=degraded)
            advance(len(waves))
    rows, fewer_rows = len(view), int(view.count[kept].sum())
    measured: dict[str, Any] = {
        "num_segments": [catalog.segment.num_segments(catalog.segment.to_samples(seconds)) for seconds in SECONDS],
        "rows": rows,
        "num_queries": num_queries,
        "false_accept_rates": _thresholds(scores, np.log10(rows / fewer_rows)),
        "measured": now(),
    }
    usual = measured["false_accept_rates"]["0.01"]["threshold"]
    measured["accepted_right"] = float(np.mean(np.array(scores[10]["right"]) >= usual[-1]))
    with catalog.writing(), replacing(catalog.folder / CALIBRATION) as file:
        json.dump(measured, file, indent=1)
    return measured


def _score(
    scores: dict[int, dict[str, list[float]]],
    searched: Searched,
    view: View,
    positions: NDArray[np.int64],
    kept: NDArray[np.bool_],
    *,
    degraded: bool,
) -> None:
    stretch_of = np.full(len(view.first), -1)
    owners = view.track_of_stretch
    stretch_of[owners[owners >= 0]] = np.flatnonzero(owners >= 0)
    own = stretch_of[positions]
    unknown = searched.without(own, view.borders, NEIGHBOURS)
    tracks = view.tracks_at(unknown.neighbours)
    fewer = unknown._replace(neighbours=np.where((tracks >= 0) & kept[tracks], unknown.neighbours, -1))
    rate_hz = searched.segment.sample_rate_hz
    for seconds in SECONDS:
        for name, part in (("unknown", unknown), ("fewer", fewer)):
            places = part.best_places(view.rows, view.borders, 1, seconds * rate_hz)
            scores[seconds][name] += [_best(its) for its in places]
        if degraded:
            places = searched.best_places(view.rows, view.borders, 1, seconds * rate_hz)
            scores[seconds]["right"] += [
                _best(its) if its and its[0].track == track else NOT_FOUND
                for its, track in zip(places, own.tolist(), strict=True)
            ]


def _best(places: Sequence[Place]) -> float:
    return places[0].score if places else NOT_FOUND


def _thresholds(scores: dict[int, dict[str, list[float]]], decades: float) -> dict[str, dict[str, list[float]]]:
    """By rate: one in a hundred as it was seen, one in a thousand as far beyond as one in ten lies below.

    So few recordings do not show what one in a thousand reaches; the tail is taken to be exponential.
    """
    rates: dict[str, dict[str, list[float]]] = {
        rate: {"threshold": [], "slope": []} for rate in ("0.01", "0.001")
    }  # fmt: skip
    for seconds in SECONDS:
        usual, often = np.quantile(scores[seconds]["unknown"], (0.99, 0.9))
        slope = max(0.0, (usual - np.quantile(scores[seconds]["fewer"], 0.99)) / decades) if decades > 0 else 0.0
        for rate, threshold in (("0.01", usual), ("0.001", min(0.98, 2 * usual - often))):
            rates[rate]["threshold"].append(round(float(threshold), 4))
            rates[rate]["slope"].append(round(float(slope), 4))
    return rates


@contextmanager
def _excerpts(
    catalog: Catalog, view: View, num_queries: int, seed: int
) -> Iterator[Iterator[tuple[bool, list[NDArray[np.int16]], NDArray[np.int64]]]]:
    """Groups of excerpts: whether they are degraded, their waves, and the positions of their tracks."""
    rate_hz = catalog.segment.sample_rate_hz
    there = [track for track in catalog.tracks().values() if track.duration_s >= SECONDS[-1] and _is_file(track.path)]
    if len(there) < FEWEST_TRACKS:
        raise MelprintError(
            f"{len(there)} files of {catalog.folder} of {SECONDS[-1]} s or more are where they were added from,"
            f" {FEWEST_TRACKS} are needed; put the music back, or add it again from where it is now"
        )
    rng = rng_for(seed, 1)
    chosen = [there[number] for number in rng.permutation(len(there))[:MOST_TRACKS]]
    with TemporaryDirectory(prefix="melprint-calibrate-") as folder:
        tracks = _prepared(chosen, Path(folder), rate_hz)
        around = surroundings_for_hearing(None, None, rate_hz, Path(folder))
        position_of = {str(number): view.position_of(number) for number in (track.id for track in chosen)}

        def groups() -> Iterator[tuple[bool, list[NDArray[np.int16]], NDArray[np.int64]]]:
            for degraded in (True, False):
                snr_db, room = ((0.0, 10.0), 0.8) if degraded else ((60.0, 60.0), 0.0)
                spec = QuerySpec(num_queries, float(SECONDS[-1]), snr_db, room, 1.0, seed)
                waves: list[NDArray[np.int16]] = []
                positions: list[int] = []
                for query, wave in QueryRenderer(spec, tracks, around):
                    waves.append(wave)
                    positions.append(position_of[query.track_id])
                    if len(waves) == SEARCHED_AT_ONCE:
                        yield degraded, waves, np.array(positions)
                        waves, positions = [], []
                if waves:
                    yield degraded, waves, np.array(positions)

        yield groups()


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def _prepared(chosen: Sequence[CatalogTrack], folder: Path, rate_hz: int) -> list[Track]:
    """Waves as the renderer reads them."""
    tracks = []
    with progress_bar("read", len(chosen)) as advance:
        for track in chosen:
            advance(1)
            try:
                wave = to_int16(read_mono(Path(track.path), rate_hz)[: MOST_TRACK_S * rate_hz])
            except MelprintError:
                continue  # changed since it was added; enough others are asked for
            path = folder / f"{track.id}.wav"
            write_wav(path, wave, rate_hz)
            tracks.append(Track(str(track.id), path, len(wave), "train", "", "", ""))
    if len(tracks) < FEWEST_TRACKS:
        raise MelprintError(f"{len(tracks)} files can be read where they were added from, {FEWEST_TRACKS} are needed")
    return tracks
