"""Tracks that share audio: the same recording, an excerpt, another encoding.

Axes: N rows of a track · M rows of another one · K neighbours · D fingerprint size.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from melprint.catalog.view import View
from melprint.errors import MelprintError
from melprint.fingerprints.embedding import embed_segments
from melprint.fingerprints.rows import Rows
from melprint.matching.extent import best_stretch
from melprint.progress import progress_bar
from melprint.recognition.search import exactly
from melprint.spec import SegmentSpec

if TYPE_CHECKING:
    from melprint.catalog.catalog import Catalog, NewTrack

# On 35 tracks of games: the same recording after MP3 at 32 kbit/s and a shift by half a hop, the worst one, has a mean
# cosine of 0.66 to 0.9 with the nearest row and 0.8 or more with what lies between two rows; of two tracks without
# common audio, the best 10 s reach 0.61 in one pair of a hundred.
LEAST_SIMILARITY = 0.75
LEAST_DURATION_S = 10.0
WHOLE = 0.9  # of a track: excerpt rather than common part
NUM_NEIGHBOURS = 20  # repeats within a track take most of them
NEAR = 0.55  # cosine of neighbours that count
FEWEST_VOTES = 4
DIAGONALS = 4  # alignments of two tracks that are looked at
ROWS_AT_ONCE = 4096
SILENT = 0.97  # cosine with the fingerprint of silence


@dataclass(frozen=True)
class Common:
    """A stretch that two tracks have in common, in seconds of each, and its mean cosine."""

    start_s: float
    end_s: float
    other_start_s: float
    other_end_s: float
    similarity: float


@dataclass(frozen=True)
class Shared:
    """What a track shares with another one.

    Attributes:
        track: number of the one, or -1 for a recording that is not in the catalog.
        other: number of the other.
        key: of the other.
        ranges: longest first.
        covered: share of the one that lies within the ranges.
        other_covered: the same of the other.
    """

    track: int
    other: int
    key: str
    ranges: tuple[Common, ...]
    covered: float
    other_covered: float

    @property
    def kind(self) -> str:
        """What they are to each other."""
        if min(self.covered, self.other_covered) >= WHOLE:
            return "same recording"
        return "excerpt" if max(self.covered, self.other_covered) >= WHOLE else "common part"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "kind": self.kind}


class _Stretches(NamedTuple):
    ranges: tuple[Common, ...]
    covered: float
    other_covered: float

    def between(self, track: int, other: int, key: str) -> Shared:
        return Shared(track, other, key, self.ranges, self.covered, self.other_covered)


def duplicates(
    catalog: "Catalog",
    *,
    min_duration_s: float = LEAST_DURATION_S,
    min_similarity: float = LEAST_SIMILARITY,
    whole_only: bool = False,
) -> list[list[Shared]]:
    """Groups of tracks that share audio, each as its pairs, by stored fingerprints alone.

    Args:
        catalog: to look through.
        min_duration_s: shortest stretch that counts; shorter tracks count where they are contained as a whole.
        min_similarity: mean cosine of a stretch.
        whole_only: leave out tracks that only have a part in common.

    Raises:
        MelprintError: an option that cannot be.
    """
    if min_duration_s <= 0 or not 0 < min_similarity <= 1:
        raise MelprintError(
            f"min_duration_s must be positive and min_similarity in (0, 1], got {min_duration_s} and {min_similarity}"
        )
    view = catalog.view()
    names, silence = {number: track.key for number, track in catalog.tracks().items()}, silence_of(catalog)
    found: dict[tuple[int, int], Shared] = {}
    with progress_bar("compare", len(view.first)) as advance:
        for positions in _groups_of_tracks(view.count):
            for position, others in _alike(catalog, view, positions):
                for other, diagonals in others.items():
                    pair = (min(position, other), max(position, other))
                    if pair in found:
                        continue
                    common = _shared(
                        _audible(view.rows_at(position), silence), view.rows_at(other), diagonals, catalog.segment,
                        min_duration_s, min_similarity,
                    )  # fmt: skip
                    ids = int(view.track_ids[position]), int(view.track_ids[other])
                    if common is not None and set(ids) <= set(names):  # neither was removed meanwhile
                        found[pair] = common.between(*ids, names[ids[1]])
            advance(len(positions))
    pairs = {pair: shared for pair, shared in found.items() if not whole_only or shared.kind != "common part"}
    if not pairs:
        return []
    edges = np.array(list(pairs))
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(view.first),) * 2)
    _, group_of = connected_components(graph, directed=False)
    groups: dict[int, list[Shared]] = {}
    for (one, _), shared in pairs.items():
        groups.setdefault(int(group_of[one]), []).append(shared)
    return sorted(groups.values(), key=lambda group: -max(shared.covered for shared in group))


def duplicate_of(catalog: "Catalog", rows_ND: NDArray[np.floating], pending: Sequence["NewTrack"]) -> Shared | None:
    """The track that holds nearly all audio of a recording, in the catalog or among those about to be added."""
    view, segment = catalog.view(), catalog.segment
    best: Shared | None = None
    silence = silence_of(catalog)
    rows = _audible(np.asarray(rows_ND, np.float32), silence)
    if len(view.first):
        for other, diagonals in _alike_rows(catalog, view, rows).items():
            common = _shared(
                rows, _audible(view.rows_at(other), silence), diagonals, segment, LEAST_DURATION_S, LEAST_SIMILARITY
            )
            if common is not None and common.covered >= WHOLE and (best is None or common.covered > best.covered):
                best = common.between(-1, int(view.track_ids[other]), "")
        if best is not None:
            track = catalog.tracks([best.other]).get(best.other)
            return replace(best, key=track.key) if track is not None else None
    for new in pending:
        other_rows = _audible(np.asarray(new.rows, np.float32), silence)
        hits = exactly(Rows([other_rows]))(rows, 1)
        row, nearest = np.arange(len(rows)), hits.rows[:, 0]
        kept = hits.scores[:, 0] >= NEAR
        common = _shared(
            rows, other_rows, _diagonals(nearest[kept] - row[kept]), segment, LEAST_DURATION_S, LEAST_SIMILARITY
        )
        if common is not None and common.covered >= WHOLE:
            return common.between(-1, -1, new.track.key)
    return None


def silence_of(catalog: "Catalog") -> NDArray[np.float32]:
    """The fingerprint ``(D,)`` that every silence has."""
    return embed_segments(catalog.fingerprinter, np.zeros((1, catalog.segment.num_samples), np.int16), 1)[0]


def _audible(rows_ND: NDArray[np.float32], silence_D: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fingerprints, zero where there is silence: that of one track is like that of every other."""
    return np.where((rows_ND @ silence_D > SILENT)[:, None], np.float32(0), rows_ND)


def _groups_of_tracks(count: NDArray[np.int64]) -> list[list[int]]:
    """Neighbouring tracks with about :data:`ROWS_AT_ONCE` rows together."""
    bin_of = np.cumsum(count) // ROWS_AT_ONCE
    return [group.tolist() for group in np.split(np.arange(len(count)), 1 + np.flatnonzero(np.diff(bin_of)))]


def _alike(catalog: "Catalog", view: View, positions: Sequence[int]) -> list[tuple[int, dict[int, NDArray[np.int64]]]]:
    """For some tracks, the others that they may share audio with, and by which alignments."""
    silence = silence_of(catalog)
    parts = [_audible(view.rows_at(position), silence) for position in positions]
    hits = catalog.search(np.concatenate(parts), NUM_NEIGHBOURS, view)
    first, found = 0, []
    for position, part in zip(positions, parts, strict=True):
        own = slice(first, first + len(part))
        found.append((position, _votes(view, hits.rows[own], hits.scores[own], position)))
        first += len(part)
    return found


def _alike_rows(catalog: "Catalog", view: View, rows: NDArray[np.float32]) -> dict[int, NDArray[np.int64]]:
    hits = catalog.search(rows, 5, view)
    return _votes(view, hits.rows, hits.scores, -2)


def _votes(
    view: View, rows_NK: NDArray[np.int64], scores_NK: NDArray[np.float32], own: int
) -> dict[int, NDArray[np.int64]]:
    """Other tracks with enough near neighbours at one offset, and these offsets."""
    track = view.tracks_at(rows_NK)
    row, neighbour = np.nonzero((track >= 0) & (track != own) & (scores_NK >= NEAR))
    other = track[row, neighbour]
    offset = rows_NK[row, neighbour] - view.first[other] - row
    return {
        int(number): diagonals for number in np.unique(other) if len(diagonals := _diagonals(offset[other == number]))
    }


def _diagonals(offset: NDArray[np.int64]) -> NDArray[np.int64]:
    """The offsets that most neighbours agree on; a true one between two rows gives votes to both."""
    values, votes = np.unique(offset, return_counts=True)
    enough = np.flatnonzero(votes >= FEWEST_VOTES)
    return values[enough[np.argsort(-votes[enough], kind="stable")[:DIAGONALS]]]


def _shared(
    rows_ND: NDArray[np.float32],
    other_MD: NDArray[np.float32],
    diagonals: NDArray[np.int64],
    segment: SegmentSpec,
    min_duration_s: float,
    min_similarity: float,
) -> _Stretches | None:
    """Common stretches along some alignments, and the shares of both tracks that they cover."""
    ranges: list[Common] = []
    covered, other_covered = np.zeros(len(rows_ND), bool), np.zeros(len(other_MD), bool)
    for diagonal in diagonals.tolist():
        low, high = max(0, -diagonal), min(len(rows_ND), len(other_MD) - diagonal)
        if high <= low:
            continue
        cosines = _along(rows_ND[low:high], other_MD, low + diagonal)
        cosines = np.where(covered[low:high], 0, cosines)
        first, last, similarity = best_stretch(cosines, min_similarity - 0.2)
        duration_s = segment.query_seconds(last - first)
        whole = last - first >= WHOLE * min(len(rows_ND), len(other_MD))
        if last == first or similarity < min_similarity or not (duration_s >= min_duration_s or whole):
            continue
        first, last = first + low, last + low
        covered[first:last] = other_covered[first + diagonal : last + diagonal] = True
        start_s, other_start_s = first * segment.hop_s, (first + diagonal) * segment.hop_s
        ranges.append(
            Common(start_s, start_s + duration_s, other_start_s, other_start_s + duration_s, round(similarity, 4))
        )
    if not ranges:
        return None
    ranges.sort(key=lambda common: common.start_s - common.end_s)
    return _Stretches(tuple(ranges), float(covered.mean()), float(other_covered.mean()))


def _along(rows_ND: NDArray[np.float32], other_MD: NDArray[np.float32], first: int) -> NDArray[np.float32]:
    """Cosines with the rows of the other track from ``first`` on, or with what lies half a hop beside them.

    What lies between two rows is near their mean; whichever of the three alignments fits best as a whole is taken.
    """
    count, last = len(rows_ND), len(other_MD) - 1
    index = np.arange(first, first + count)
    at = other_MD[index]
    candidates = [at]
    for step in (-1, 1):
        between = at + other_MD[np.clip(index + step, 0, last)]
        candidates.append(between / np.maximum(np.linalg.norm(between, axis=1, keepdims=True), 1e-6))
    cosines = [np.einsum("nd,nd->n", rows_ND, candidate) for candidate in candidates]
    return max(cosines, key=lambda values: float(values.mean()))
