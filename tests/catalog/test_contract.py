"""What every kind of search promises, whatever it is made of."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melprint.catalog import vectors
from melprint.catalog.care import describe, problems
from melprint.catalog.catalog import Catalog, NewTrack
from tests.catalog.made import NUM_ROWS, finds, found_keys, heard, names_in, new, rows_of, track_of

KINDS: dict[str, dict[str, Any]] = {
    "exact": {"index": "exact"},
    "ivf-sq8": {"index": "ivf-sq8"},
    "ivfpq": {"index": "ivfpq"},
    "hnsw": {"index": "hnsw"},
    "milvus-lite": {"milvus": {"uri": "rows.db", "params": {"M": 16, "efConstruction": 80}}},
}
# Rows that are themselves are near, whatever is lost by eight bits or by product quantisation.
LEAST = 0.97
MANY = list(range(80))  # enough for lists to be learnt


SLOW = ("ivfpq", "hnsw")


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in KINDS])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "milvus-lite":
        pytest.importorskip("milvus_lite", reason="make .venv/tested installs it")
    monkeypatch.setattr(vectors, "TAIL_ROWS", 50)
    monkeypatch.setattr(vectors, "TAIL_SHARE", 0.0)
    return request.param


@pytest.fixture
def catalog(kind: str, tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.create(tmp_path / "catalog", **KINDS[kind]) as made:
        yield made


def reopened(catalog: Catalog) -> Catalog:
    catalog.close()
    return Catalog.open(catalog.folder)


def is_used(catalog: Catalog) -> bool:
    """Whether the index covers something: a test of exact search alone would pass without any index."""
    view = catalog.view()
    return catalog.vectors(view).covered(view) > 0


def test_an_empty_catalog_finds_nothing(catalog: Catalog) -> None:
    catalog.tidy()
    assert (catalog.search(heard(0), 3).rows == -1).all()
    assert catalog.search(heard(0)[:0], 3).rows.shape == (0, 3)
    assert problems(catalog) == []


def test_what_is_added_is_found_and_what_is_removed_is_not(catalog: Catalog, kind: str) -> None:
    catalog.append([new(seed) for seed in MANY])
    assert finds(catalog, MANY[::9]) == 1.0  # before any index
    catalog.tidy()
    assert is_used(catalog) == (kind != "exact")
    assert finds(catalog, MANY[::9]) >= LEAST
    catalog.append([new(100)])
    assert finds(catalog, [100]) == 1.0  # behind the index
    catalog.append([new(seed) for seed in range(101, 110)])
    catalog.tidy()
    assert finds(catalog, list(range(100, 110))) >= LEAST

    gone = {f"track-{seed}" for seed in MANY[::3]}
    catalog.remove(sorted(gone))
    queries = np.concatenate([heard(seed)[:4] for seed in MANY[:20]])
    for keys in found_keys(catalog, queries, 12):
        assert len(keys) == 12
        assert not gone & set(keys)
    assert finds(catalog, MANY[1::3]) >= LEAST
    assert problems(catalog) == []

    assert catalog.compact() == len(gone) * NUM_ROWS
    assert finds(catalog, MANY[1::9]) >= LEAST
    assert finds(catalog, [105]) >= LEAST
    again = reopened(catalog)
    assert len(again) == len(MANY) + 10 - len(gone)
    assert finds(again, MANY[1::9]) >= LEAST
    assert problems(again) == []
    assert str(describe(again)["index"]).startswith(again.view().kind)
    assert (np.diff(again.view().track_ids) > 0).all()
    again.close()


def test_removed_neighbours_do_not_take_the_place_of_living_ones(catalog: Catalog, kind: str) -> None:
    """Many tracks with the same rows, of which one stays."""
    catalog.append([new(seed) for seed in MANY])
    same = [NewTrack(track_of(200 + number), rows_of(200)) for number in range(60)]
    catalog.append(same)
    catalog.tidy()
    catalog.remove([f"track-{200 + number}" for number in range(60) if number != 37])
    for keys in found_keys(catalog, heard(200), 5):
        assert keys[0] == "track-237"
        assert len(keys) == 5 or kind == "hnsw"  # no edge leads out of a crowd of equals


def test_a_view_does_not_change(catalog: Catalog) -> None:
    catalog.append([new(seed) for seed in MANY])
    catalog.tidy()
    view = catalog.view()
    other = Catalog.open(catalog.folder) if catalog.view().kind != "milvus" else catalog
    other.append([NewTrack(track_of(300 + number), rows_of(3)) for number in range(30)])
    other.remove([f"track-{seed}" for seed in MANY[::2]])
    other.tidy()
    hits = catalog.search(heard(3), 5, view)
    assert (hits.rows[:, 0] == np.arange(3 * NUM_ROWS, 4 * NUM_ROWS)).mean() >= LEAST
    assert hits.rows.max() < len(view.rows)
    assert (view.tracks_at(hits.rows) >= 0).all() or view.kind == "milvus"  # which has deleted what was removed
    assert [keys[0] for keys in found_keys(catalog, heard(5))] == ["track-5"] * NUM_ROWS


def test_an_index_is_made_anew(catalog: Catalog, kind: str) -> None:
    catalog.append([new(seed) for seed in MANY])
    catalog.tidy()
    catalog.remove(["track-4", "track-5"])
    view = catalog.reindex()
    assert len(view.rows) == len(view) == (len(MANY) - 2) * NUM_ROWS
    assert is_used(catalog) == (kind != "exact")
    assert finds(catalog, MANY[::9]) >= LEAST
    catalog.reindex("exact")
    assert not is_used(catalog)
    assert finds(catalog, MANY[::9]) == 1.0
    assert not {name for name in names_in(catalog.folder) if name.startswith("index-") or name == "milvus.json"}
    catalog.reindex("hnsw")
    assert is_used(catalog)
    if kind == "milvus-lite":
        catalog.reindex("milvus")
        assert is_used(catalog)
        assert finds(catalog, MANY[::9]) >= LEAST


def test_a_replaced_track_gives_its_place_and_its_key(catalog: Catalog) -> None:
    catalog.append([new(seed) for seed in MANY])
    catalog.tidy()
    (old,) = catalog.find(["track-9"])
    (track,) = catalog.append([new(500, "track-9", 30, replaces=old.id)])
    assert (track.key, track.id > old.id) == ("track-9", True)
    assert all(keys == ["track-9"] for keys in found_keys(catalog, heard(500, 30)))
    assert not any("track-9" in keys for keys in found_keys(catalog, heard(9)))
    catalog.tidy()
    assert problems(catalog) == []
