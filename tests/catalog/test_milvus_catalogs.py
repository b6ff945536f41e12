"""Catalogs whose fingerprints are in Milvus: what interrupted changes leave, and who else may be there."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from melprint.catalog.care import problems
from melprint.catalog.catalog import Catalog
from melprint.catalog.milvus import MilvusVectors
from melprint.errors import MelprintError
from tests.catalog.made import NUM_ROWS, finds, found_keys, heard, names_in, new
from tests.conftest import environment

pytest.importorskip("milvus_lite", reason="make .venv/tested installs it")
LITE: dict[str, Any] = {"uri": "rows.db"}


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog.create(tmp_path / "catalog", milvus=LITE) as made:
        made.append([new(seed) for seed in range(8)])
        made.tidy()
        yield made


def vectors_of(catalog: Catalog) -> MilvusVectors:
    vectors = catalog.vectors(catalog.view())
    assert isinstance(vectors, MilvusVectors)
    return vectors


def counted(catalog: Catalog) -> int:
    vectors = vectors_of(catalog)
    return vectors.server.count(vectors.collection)


def note(catalog: Catalog) -> dict[str, Any]:
    return json.loads((catalog.folder / "milvus.json").read_text())


def test_the_collection_follows_every_change(catalog: Catalog) -> None:
    assert note(catalog) == {"collection": f"melprint_{catalog.settings['uid']}", "synced": 8}
    assert (catalog.folder / "rows.db").is_dir()
    assert vectors_of(catalog).num_bytes() > 0
    catalog.remove(["track-1"])
    assert counted(catalog) == 7 * NUM_ROWS
    catalog.append([new(8)])
    assert vectors_of(catalog).covered(catalog.view()) == 8 * NUM_ROWS
    assert finds(catalog, [8]) == 1.0
    catalog.tidy()
    assert (note(catalog)["synced"], counted(catalog)) == (9, 8 * NUM_ROWS)
    catalog.compact()
    assert vectors_of(catalog).covered(catalog.view()) == 8 * NUM_ROWS == len(catalog.view().rows)
    assert finds(catalog, [0, 7, 8]) == 1.0
    assert problems(catalog) == []


def test_what_interrupted_changes_left_is_put_right(catalog: Catalog) -> None:
    vectors = vectors_of(catalog)
    # Inserted, and killed before it was noted: the same once more, and a track that went in between.
    vectors._write_note(5)
    assert vectors.covered(catalog.view()) == 5 * NUM_ROWS
    assert finds(catalog, [4, 5, 7]) == 1.0
    for rows in catalog.search(heard(6), 9).rows.tolist():
        assert len(set(rows)) == 9  # none twice, by the collection and by comparing
    catalog.tables.remove([8])
    assert not any("track-7" in keys for keys in found_keys(catalog, heard(7), 3))
    assert problems(catalog) == []
    catalog.tidy()
    assert (note(catalog)["synced"], counted(catalog)) == (7, 7 * NUM_ROWS)
    # Removed, and killed before Milvus heard of it.
    catalog.tables.remove([1, 2])
    assert problems(catalog) == []
    catalog.tidy()
    assert counted(catalog) == 5 * NUM_ROWS
    # Killed while it was made anew.
    (catalog.folder / "milvus.json").unlink()
    assert finds(catalog, [3, 6]) == 1.0
    catalog.reindex()
    (catalog.folder / "milvus.json").unlink()
    catalog.append([new(20)])
    catalog.tidy()
    assert counted(catalog) == 6 * NUM_ROWS
    assert finds(catalog, [3, 20]) == 1.0
    assert problems(catalog) == []


def test_what_milvus_has_lost_is_said_and_made_again(catalog: Catalog) -> None:
    vectors = vectors_of(catalog)
    vectors.server.client.delete(vectors.collection, filter="track_id == 3")
    assert problems(catalog) == [
        f"the collection {vectors.collection} lacks 1 of 8 tracks; run melprint catalog reindex"
    ]
    catalog.tidy()
    assert (problems(catalog), counted(catalog)) == ([], 8 * NUM_ROWS)
    vectors.server.client.delete(vectors.collection, filter="track_id == 3 and row > 4")
    assert "lacks 1 of 8 tracks" in problems(catalog)[0]
    catalog.reindex()
    assert (problems(catalog), counted(catalog)) == ([], 8 * NUM_ROWS)
    vectors_of(catalog).server.client.drop_collection(vectors.collection)
    assert f"has no {vectors.collection}; run melprint catalog reindex" in problems(catalog)[0]
    catalog.close()
    with pytest.raises(MelprintError, match=f"cannot open the collection {vectors.collection}; run melprint catalog"):
        catalog.search(heard(1), 1)
    catalog.tidy()
    assert finds(catalog, [0, 7]) == 1.0


@pytest.mark.slow
def test_catalogs_share_a_folder_of_milvus(catalog: Catalog, tmp_path: Path) -> None:
    where = str(tmp_path / "catalog" / "rows.db")
    with Catalog.create(tmp_path / "other", milvus={"uri": where, "kind": "ivf_flat", "metric": "l2"}) as other:
        other.append([new(seed) for seed in range(100, 104)])
        other.tidy()
        assert (counted(catalog), counted(other)) == (8 * NUM_ROWS, 4 * NUM_ROWS)
        assert finds(other, [100, 103]) == 1.0
        for keys in found_keys(catalog, heard(100), 5):
            assert all(int(key.removeprefix("track-")) < 8 for key in keys)
        assert names_in(other.folder).isdisjoint({"rows.db"})
        collection = vectors_of(other).collection
    with pytest.raises(MelprintError, match=f"has a collection {collection} already; choose another name"):
        Catalog.create(tmp_path / "third", milvus={"uri": where, "collection": collection})
    assert finds(catalog, [0, 7]) == 1.0


@pytest.mark.slow
def test_a_second_process_is_told_that_milvus_lite_is_taken(catalog: Catalog) -> None:
    finds(catalog, [1])
    code = (
        "import sys; from melprint.catalog import Catalog; from melprint.errors import MelprintError\n"
        "import numpy as np\n"
        "with Catalog.open(sys.argv[1]) as catalog:\n"
        "    try: catalog.search(np.ones((1, 128), np.float32), 1)\n"
        "    except MelprintError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(catalog.folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout
    assert said.endswith("rows.db cannot be opened; another process may have it open\n")
    catalog.close()
    assert subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout == ""


def test_many_rows_are_inserted_in_parts(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melprint.catalog.milvus.INSERT_ROWS", 25)
    monkeypatch.setattr("melprint.catalog.milvus.FLUSH_ROWS", 60)
    catalog.append([new(seed, num_rows=seed) for seed in (1 + 20, 70, 3 + 20, 25, 50)])
    synced = []
    write = MilvusVectors._write_note
    monkeypatch.setattr(MilvusVectors, "_write_note", lambda self, n: (synced.append(n), write(self, n))[1])
    catalog.tidy()
    assert synced[-1] == 13
    assert synced == sorted(synced)
    assert len(synced) > 2
    assert counted(catalog) == len(catalog.view())
    assert finds(catalog, [0, 21, 70, 23, 25, 50]) == 1.0
