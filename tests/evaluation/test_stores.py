"""Arrays that somebody else made, or damaged: one sentence each."""

from pathlib import Path

import numpy as np
import pytest

from melprint.errors import MelprintError
from melprint.evaluation.stores import TestStores
from melprint.fingerprints.store import open_foreign, open_store
from melprint.index.faiss import FaissIndex
from melprint.index.kept import build_or_reopen, keep, reopen
from tests.evaluation.conftest import DIM, unit


def write_arrays(folder: Path, rows: np.ndarray, shape: object = None) -> None:
    rows.tofile(folder / "db.mm")
    np.save(folder / "db_shape.npy", np.array(rows.shape if shape is None else shape))


@pytest.fixture
def rows(rng: np.random.Generator) -> np.ndarray:
    return unit(rng.standard_normal((40, DIM)))


def test_sizes_and_types_that_do_not_fit(tmp_path: Path, rows: np.ndarray) -> None:
    for array, shape, words in (
        (rows[:-1], rows.shape, "has 2496 bytes where"),
        (rows.astype(np.float16), None, "convert it from float16"),
        (rows.astype(np.float64), None, "convert it from float64"),
        (rows.reshape(-1)[:-1], rows.shape, "has 2556 bytes where"),
        (np.append(rows.reshape(-1), np.float32(0)), rows.shape, "has 2564 bytes where"),
        (rows, [0, DIM], "should have rows and columns"),
        (rows, [40 * DIM], "should have rows and columns"),
        (rows, [40, 0], "should have rows and columns"),
        (rows, [40, -DIM], "should have rows and columns"),
        (rows, [np.inf, DIM], "has no store db"),
        (rows, [40.5, DIM], "should hold two whole numbers"),
    ):
        write_arrays(tmp_path, array, shape)
        with pytest.raises(MelprintError, match=words):
            open_foreign(tmp_path, "db")
    (tmp_path / "db_shape.npy").write_bytes(b"")
    with pytest.raises(MelprintError, match="has no store db"):
        open_foreign(tmp_path, "db")
    # The published scripts append rows to the file and leave its shape as it was.
    write_arrays(tmp_path, rows, (30, DIM))
    assert len(open_foreign(tmp_path, "db").rows) == 30


def test_rows_that_are_no_fingerprints(tmp_path: Path, rows: np.ndarray) -> None:
    for change, words in (
        (np.nan, r"row 7 of .*db\.mm is not finite"),
        (np.inf, r"row 7 of .*db\.mm is not finite"),
        (3.0, r"row 7 of .*db\.mm has length 3"),
    ):
        wrong = rows.copy()
        wrong[7, 2] = change
        write_arrays(tmp_path, wrong)
        with pytest.raises(MelprintError, match=words):
            open_foreign(tmp_path, "db").check()
    open_foreign(tmp_path, "db").check(unit_rows=False)


def test_half_of_a_store_is_not_no_store(folder: Path) -> None:
    (folder / "dummy_db.mm").unlink()
    for mode in ("strict", "compat"):
        with pytest.raises(MelprintError, match=r"no dummy_db\.mm: the copy is not complete"):
            TestStores.open(folder, None, mode)


def test_rows_that_changed_after_the_store_was_finished(folder: Path) -> None:
    TestStores.open(folder, None, "strict").db.check()
    with (folder / "db.mm").open("r+b") as file:
        file.write(unit(np.ones((1, DIM))).tobytes())
    store = open_store(folder, "db")
    with pytest.raises(MelprintError, match="have changed since the store was finished"):
        store.check()


def test_a_kept_index_belongs_to_its_rows(tmp_path: Path, folder: Path, rng: np.random.Generator) -> None:
    from melprint.fingerprints.rows import Rows

    rows = Rows([unit(rng.standard_normal((100, DIM)))])
    index, path = FaissIndex("IVF4,SQ8", "ivf-sq8"), tmp_path / "kept.index"
    index.build(rows)
    keep(index, path, "digest", 1.5)
    again = FaissIndex("IVF4,SQ8", "ivf-sq8")
    for mapped in (False, True):
        assert reopen(again, path, rows, "digest", mmap=mapped) == 1.5
        np.testing.assert_array_equal(again.search(rows.take(np.arange(5)), 3).rows[:, 0], np.arange(5))
    with pytest.raises(MelprintError, match="built from other rows than the store has now"):
        reopen(again, path, rows, "other")
    with pytest.raises(MelprintError, match="with other settings"):
        reopen(FaissIndex("IVF2,SQ8", "ivf-sq8"), path, rows, "digest")
    narrow = Rows([unit(rng.standard_normal((100, DIM // 2)))])
    with pytest.raises(MelprintError, match="an index of 16 dimensions, the store has 8"):
        reopen(again, path, narrow, "digest")
    with path.open("ab") as file:
        file.write(b"0")
    with pytest.raises(MelprintError, match="not as long as it was"):
        reopen(again, path, rows, "digest")
    path.with_name("kept.index.json").write_text("[1]")
    with pytest.raises(MelprintError, match="has no note"):
        reopen(again, path, rows, "digest")
    path.with_name("kept.index.json").unlink()
    with pytest.raises(MelprintError, match="has no note"):
        reopen(again, path, rows, "digest")


def test_lists_on_disk_are_the_lists_in_memory(tmp_path: Path, rng: np.random.Generator, monkeypatch) -> None:
    from melprint.fingerprints.rows import Rows

    monkeypatch.setattr("melprint.index.faiss.SHARD_ROWS", 300)
    monkeypatch.setattr("melprint.index.faiss.ADD_ROWS", 128)
    rows = Rows([unit(rng.standard_normal((n, DIM))) for n in (700, 400)])
    found = []
    for on_disk in (False, True, True):  # built in memory, built on disk, opened again
        index = FaissIndex("IVF4,PQ8x4", "ivfpq", search={"nprobe": 2}, on_disk=on_disk)
        build_or_reopen(index, rows, tmp_path, "digest", None)
        found.append([index.search(rows.take(np.arange(n)), 5).rows for n in (3, 300)])
        assert index.index.ntotal == 1_100
        index.release()
    for few, many in found[1:]:
        np.testing.assert_array_equal(few, found[0][0])
        np.testing.assert_array_equal(many, found[0][1])
    (lists,) = tmp_path.glob("*.lists")
    assert lists.stat().st_size >= 1_100 * (4 + 8)
    assert not list(tmp_path.glob(".lists-*"))
