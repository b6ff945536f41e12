"""Ranges that were planted in random rows, an exhaustive twin for tiny inputs, and cases worked out by hand."""

import math

import numpy as np
import pytest

from melprint.errors import MelprintError
from melprint.matching import temporal
from melprint.matching.temporal import (
    RowRange,
    aligned_ranges,
    chance_weight,
    distinct_ranges,
    in_seconds,
    refine,
    similarity,
)
from melprint.spec import SegmentSpec

DIM = 128


def unit(rng: np.random.Generator, count: int, dim: int = DIM) -> np.ndarray:
    rows = rng.standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def noisy(rng: np.random.Generator, rows: np.ndarray, cosine: float) -> np.ndarray:
    """Unit rows at about this cosine to the given ones."""
    mixed = cosine * rows + math.sqrt(1 - cosine**2) * unit(rng, len(rows))
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def corners(ranges: list[RowRange]) -> set[tuple[int, int, int, int]]:
    return {(one.query_first, one.reference_first, one.query_last, one.reference_last) for one in ranges}


@pytest.mark.parametrize("cosine", [1.0, 0.8, 0.6])
def test_a_planted_range_is_found_to_the_row(rng: np.random.Generator, cosine: float) -> None:
    query, reference = unit(rng, 60), unit(rng, 200)
    query[13:40] = noisy(rng, reference[101:128], cosine)
    (found,) = aligned_ranges(query, reference)
    assert corners([found]) == {(13, 101, 39, 127)}
    assert found.score == pytest.approx(cosine, abs=0.05)
    assert found.score <= 1


def test_it_reaches_to_the_first_and_last_rows_of_both(rng: np.random.Generator) -> None:
    rows = unit(rng, 12)
    (found,) = aligned_ranges(rows, rows)
    assert corners([found]) == {(0, 0, 11, 11)}
    assert found.score == 1.0


def test_repeats_in_the_reference_are_ranges_of_their_own(rng: np.random.Generator) -> None:
    query, reference = unit(rng, 20), unit(rng, 150)
    for start in (10, 50, 100):
        reference[start : start + 20] = query
    assert corners(aligned_ranges(query, reference)) == {(0, start, 19, start + 19) for start in (10, 50, 100)}


def test_repeats_in_the_query_are_ranges_of_their_own(rng: np.random.Generator) -> None:
    query, reference = unit(rng, 150), unit(rng, 40)
    for start in (0, 25, 100):
        query[start : start + 20] = reference[5:25]
    assert corners(aligned_ranges(query, reference)) == {(start, 5, start + 19, 24) for start in (0, 25, 100)}


def test_a_verse_that_comes_twice_on_both_sides_is_three_ranges(rng: np.random.Generator) -> None:
    verse = unit(rng, 20)
    both = np.concatenate([verse, verse])
    found = aligned_ranges(both, both)
    assert corners(found) == {(0, 0, 39, 39), (0, 20, 19, 39), (20, 0, 39, 19)}
    assert found[0].query_last == 39


def test_a_short_gap_is_bridged_and_counts_in_the_score_and_a_long_one_makes_two(rng: np.random.Generator) -> None:
    reference = unit(rng, 80)
    for gap, number in ((4, 1), (15, 2)):
        query = reference[10:60].copy()
        query[20 : 20 + gap] = unit(rng, gap)
        found = aligned_ranges(query, reference)
        assert len(found) == number
        if number == 1:
            assert corners(found) == {(0, 10, 49, 59)}
            assert found[0].score == pytest.approx(46 / 50, abs=0.03)
        else:
            assert corners(found) == {(0, 10, 19, 29), (35, 45, 49, 59)}


def test_two_songs_joined_are_two_ranges(rng: np.random.Generator) -> None:
    reference = unit(rng, 300)
    query = np.concatenate([reference[200:230], reference[20:45]])
    assert corners(aligned_ranges(query, reference)) == {(0, 200, 29, 229), (30, 20, 54, 44)}


def test_audio_that_is_a_few_per_cent_faster_is_one_range(rng: np.random.Generator) -> None:
    reference = unit(rng, 200)
    beside = np.rint(np.arange(100) * 1.03).astype(int) + 30
    (found,) = aligned_ranges(reference[beside], reference)
    assert corners([found]) == {(0, 30, 99, int(beside[-1]))}
    assert found.score > 0.95


@pytest.mark.parametrize(("num_query", "num_reference"), [(3, 4), (20, 300), (300, 20), (400, 2000)])
def test_unrelated_rows_give_nothing(rng: np.random.Generator, num_query: int, num_reference: int) -> None:
    assert aligned_ranges(unit(rng, num_query), unit(rng, num_reference)) == []


def test_one_node_silence_and_nothing_at_all_give_nothing(rng: np.random.Generator) -> None:
    query, reference = unit(rng, 20), unit(rng, 50)
    query[7] = reference[30]
    assert aligned_ranges(query, reference) == []
    assert aligned_ranges(query[:0], reference) == aligned_ranges(query, reference[:0]) == []
    assert aligned_ranges(np.zeros((9, DIM), np.float32), reference) == []


def test_a_score_is_never_above_one(rng: np.random.Generator) -> None:
    rows = unit(rng, 50)
    rows *= 1 + 1e-6
    assert max(one.score for one in aligned_ranges(rows, rows)) == 1.0
    same = np.tile(rows[:1], (40, 1))
    assert all(one.score <= 1 for one in aligned_ranges(same, same))


def heaviest_path(sims: np.ndarray, top_k: int, max_step: int) -> float:
    """The weight of the heaviest path, by trying all of them."""
    nodes = [
        (q, int(r))
        for q in range(len(sims))
        for r in np.argsort(-sims[q], kind="stable")[:top_k]
        if sims[q, r] > temporal.FLOOR
    ]

    def heaviest_from(q: int, r: int) -> float:
        best = 0.0
        for q2, r2 in nodes:
            dq, dr = q2 - q, r2 - r
            if 0 < dq < max_step and 0 < dr < max_step and abs(dq - dr) <= temporal.MOST_DRIFT:
                cost = temporal.GAP_COST * (max(dq, dr) - 1) + temporal.DRIFT_COST * abs(dq - dr)
                best = max(best, heaviest_from(q2, r2) - cost)
        return float(sims[q, r]) - temporal.FLOOR + best

    return max((heaviest_from(*node) for node in nodes), default=0.0)


@pytest.mark.parametrize("seed", range(15))
def test_the_heaviest_range_is_the_heaviest_of_all_paths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    query, reference = unit(rng, 9, 4), unit(rng, 8, 4)  # few dimensions: chance gives many nodes
    found = aligned_ranges(query, reference, top_k=3, max_step=4, min_segments=2, min_score=-1, min_weight=-1)
    want = heaviest_path(query @ reference.T, 3, 4)
    assert max(one.weight for one in found) == pytest.approx(want, rel=1e-5)


def test_the_score_is_the_mean_along_the_path(rng: np.random.Generator) -> None:
    query, reference = unit(rng, 30), unit(rng, 60)
    query[5:25] = noisy(rng, reference[20:40], 0.7)
    (found,) = aligned_ranges(query, reference)
    pairs = [float(query[found.query_first + n] @ reference[r]) for n, r in enumerate(found.reference_rows)]
    assert found.score == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)


def test_a_range_beside_a_heavier_one_is_the_same_once_more() -> None:
    def on_diagonal(query: int, reference: int, length: int) -> RowRange:
        return RowRange(query, np.arange(reference, reference + length), 0.9, float(length))

    long = on_diagonal(0, 10, 60)
    fragment, repeat = on_diagonal(20, 31, 8), on_diagonal(20, 40, 8)
    assert distinct_ranges([long, fragment, repeat]) == [long, repeat]
    assert distinct_ranges([long, repeat], max_ranges=1) == [long]
    overlapping = on_diagonal(0, 14, 40)  # of 40 x 40 cells, 40 x 40 lie in 60 x 60
    assert distinct_ranges([long, overlapping]) == [long]
    assert distinct_ranges([long, overlapping], max_overlap=0.5) == [long, overlapping]


def test_seconds_by_hand() -> None:
    """Rows 2..5 of the query begin at 1.0 s and end with the segment from 2.5 s to 3.5 s."""
    rows = RowRange(2, np.arange(0, 4), 0.8, 2.0)
    found = in_seconds(rows, SegmentSpec(), query_shift_s=0.125)
    assert (found.query_start_s, found.query_end_s) == (1.125, 3.625)
    assert (found.reference_start_s, found.reference_end_s) == (0.0, 2.5)
    early = in_seconds(rows, SegmentSpec(), offset_rows=-0.5)  # a quarter of a second before the reference begins
    assert (early.query_start_s, early.reference_start_s, early.reference_end_s) == (1.25, 0.0, 2.25)


def smooth_rows(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and phases of a random curve on the sphere."""
    return rng.uniform(0, 0.6, DIM // 2), rng.uniform(0, 2 * np.pi, DIM // 2)


@pytest.mark.parametrize("late", [-0.9, -0.4, -0.25, -0.1, 0.0, 0.07, 0.5, 0.95])
@pytest.mark.parametrize("phase", [0, 3])
def test_refining_finds_the_fraction_of_a_hop(rng: np.random.Generator, late: float, phase: int) -> None:
    """Fingerprints move along a smooth curve, as those of audio do; the reference is `late` hops later than row 20."""
    frequency, angle = smooth_rows(rng)

    def curve(time: np.ndarray) -> np.ndarray:
        turned = 2 * np.pi * frequency * time[:, None] + angle
        return (np.concatenate([np.cos(turned), np.sin(turned)], axis=1) / math.sqrt(DIM / 2)).astype(np.float32)

    reference = curve(np.arange(80.0))
    # Query time t is reference time t + offset; row 0 of this phase is at t = phase / 4 and belongs to 20 + late.
    offset = 20 + late - phase / 4
    phases = [curve(np.arange(30) + p / 4 + offset) for p in range(4)]
    rows = RowRange(5, np.arange(25, 45), 0.9, 5.0, phase)
    assert refine(phases, reference, rows) == pytest.approx(late, abs=0.02)


def test_similarity_is_the_matrix_and_has_a_limit(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    query, reference = unit(rng, 4), unit(rng, 5).astype(np.float16)
    products = similarity(query, reference)
    assert products.dtype == np.float32
    np.testing.assert_allclose(products, query @ reference.astype(np.float32).T, rtol=1e-5)
    monkeypatch.setattr(temporal, "MOST_CELLS", 19)
    with pytest.raises(MelprintError, match="4 by 5"):
        similarity(query, reference)


def test_the_chance_grows_with_what_is_compared() -> None:
    assert chance_weight(10, 100) == pytest.approx(0.8)
    assert chance_weight(7_200, 20_000) > chance_weight(60, 240)


@pytest.mark.parametrize(("name", "value"), [("top_k", 0), ("max_step", 1), ("min_segments", 1)])
def test_parameters_without_meaning_are_refused(rng: np.random.Generator, name: str, value: int) -> None:
    rows = unit(rng, 5)
    with pytest.raises(MelprintError, match=f"{name} must be at least"):
        aligned_ranges(rows, rows, **{name: value})


def test_rows_of_two_networks_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(MelprintError, match="same network"):
        aligned_ranges(unit(rng, 5, 64), unit(rng, 5, 128))
