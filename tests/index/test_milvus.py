"""Milvus-lite in a local folder and, slowly, a real server; exact search is the oracle."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from melprint.errors import MelprintError
from melprint.fingerprints.rows import Rows
from melprint.index.exact import ExactIndex
from melprint.index.kept import build_or_reopen
from melprint.index.milvus import MilvusIndex

DIM = 32
KINDS = {
    "FLAT": ({}, {}),
    "IVF_FLAT": ({"nlist": 8}, {"nprobe": 8}),
    "HNSW": ({"M": 16, "efConstruction": 100}, {"ef": 200}),
}


@pytest.fixture
def rows(rng: np.random.Generator) -> Rows:
    parts = [rng.standard_normal((n, DIM), dtype=np.float32) for n in (700, 500)]
    return Rows([part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts])


def agrees_with_exact(index: MilvusIndex, rows: Rows, least: float) -> None:
    exact = ExactIndex(index.metric)
    exact.build(rows)
    queries = rows.take(np.arange(0, 1_200, 40)) + 0.05
    expected, found = exact.search(queries, 5), index.search(queries, 5)
    recall = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(expected.rows, found.rows, strict=True)])
    assert recall >= least
    np.testing.assert_allclose(found.scores[:, 0], expected.scores[:, 0], atol=1e-2)


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("kind", KINDS)
def test_lite_agrees_with_exact_search_and_is_found_again(
    kind: str, metric: str, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, (params, search) = str(tmp_path / "a.db"), KINDS[kind]
    index = MilvusIndex(uri, kind, metric, params=params, search=search)
    build_or_reopen(index, rows, tmp_path / "kept", "digest", None)
    agrees_with_exact(index, rows, 0.97)
    assert index.bytes_per_vector() > 4 * DIM
    index.release()
    again = MilvusIndex(uri, kind, metric, params=params, search=search)
    monkeypatch.setattr(MilvusIndex, "build", None)
    build_or_reopen(again, rows, tmp_path / "kept", "digest", None)
    agrees_with_exact(again, rows, 0.97)
    (pointer,) = (tmp_path / "kept").glob("*.index")
    with pytest.raises(MelprintError, match=r"holds 1200 rows, the store 700"):
        again.load(pointer, Rows(rows.parts[:1]))
    again.drop()
    with pytest.raises(MelprintError, match="no longer has the collection"):
        again.load(pointer, rows)
    again.release()


def test_few_lists_find_less(rows: Rows, tmp_path: Path) -> None:
    """The parameters reach milvus-lite: it ignores those that are not nested, and would find everything."""
    index = MilvusIndex(str(tmp_path / "a.db"), "IVF_FLAT", params={"nlist": 64}, search={"nprobe": 1})
    index.build(rows)
    with pytest.raises(AssertionError):
        agrees_with_exact(index, rows, 0.9)
    index.release()


def test_what_cannot_be_had_is_refused_by_name(rows: Rows, tmp_path: Path) -> None:
    local = str(tmp_path / "a.db")
    index = MilvusIndex(local, "IVF_PQ")
    with pytest.raises(MelprintError, match=r"milvus_lite-3\S* has no IVF_PQ index, only FLAT, IVF_FLAT"):
        index.build(rows)
    with pytest.raises(MelprintError, match="another process may have it open"):
        subprocess_opens(local)
    index.release()
    for uri, words in (
        (None, "index=milvus needs uri="),
        ("http://127.0.0.1:9", "no Milvus server answers at http://127.0.0.1:9"),
        (str(tmp_path / "folder"), "a local folder that ends with .db"),
    ):
        with pytest.raises(MelprintError, match=words):
            MilvusIndex(uri).check(rows)
    (tmp_path / "old.db").write_text("sqlite")
    with pytest.raises(MelprintError, match="an older milvus-lite"):
        MilvusIndex(str(tmp_path / "old.db")).check(rows)
    with pytest.raises(MelprintError, match="is empty"):
        MilvusIndex(local).search(np.zeros((1, DIM), np.float32), 1)


def subprocess_opens(uri: str) -> None:
    """What a second process hears, raised here."""
    code = (
        "from melprint.index.milvus import MilvusIndex\n"
        "from melprint.errors import MelprintError\n"
        f"try: MilvusIndex({uri!r}).version()\n"
        "except MelprintError as error: print(error)"
    )
    done = subprocess.run(["python", "-c", code], capture_output=True, text=True, check=True, env=environment())
    raise MelprintError(done.stdout.strip())


def environment() -> dict[str, str]:
    import sys

    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Milvus 2.3 server in a folder of its own."""
    program = shutil.which("milvus-server", path=environment()["PATH"])
    assert program is not None, "make .venv/tested installs it"
    folder = tmp_path_factory.mktemp("milvus")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--data", str(folder), "--proxy-port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment())
    uri = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                MilvusIndex(uri, timeout_s=5).version()
                break
            except MelprintError:
                assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                time.sleep(1)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_server_builds_what_it_has_and_its_refusals_are_passed_on(server: str, rows: Rows, tmp_path: Path) -> None:
    for kind, (params, search) in {**KINDS, "IVF_SQ8": ({"nlist": 8}, {"nprobe": 8})}.items():
        index = MilvusIndex(server, kind, params=params, search=search)
        build_or_reopen(index, rows, tmp_path / "kept", "digest", None)
        agrees_with_exact(index, rows, 0.9)
        again = MilvusIndex(server, kind, params=params, search=search)
        build_or_reopen(again, rows, tmp_path / "kept", "digest", None)
        assert again.collection == index.collection
        index.drop()
    with pytest.raises(MelprintError, match=r"cannot build HNSW_SQ .*invalid index type: HNSW_SQ"):
        MilvusIndex(server, "HNSW_SQ").build(rows)
    with pytest.raises(MelprintError, match=r"(cannot build|has not finished) DISKANN"):
        MilvusIndex(server, "DISKANN", build_timeout_s=8).build(rows)
