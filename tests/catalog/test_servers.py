"""Catalogs whose tracks are in MariaDB or PostgreSQL, and whose fingerprints are in a server of Milvus."""

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from melprint.catalog.care import merge, problems
from melprint.catalog.catalog import Catalog
from melprint.errors import MelprintError
from tests.catalog.made import NUM_ROWS, finds, found_keys, heard, names_in, new
from tests.conftest import environment

pytestmark = pytest.mark.slow
# Where distributions put what is meant for a server's own account.
PLACES = os.pathsep.join(
    [os.environ["PATH"], "/usr/sbin", "/usr/local/sbin", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
)
START_S = 60
MILVUS_HNSW = {"kind": "HNSW", "params": {"M": 16, "efConstruction": 80}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def program(name: str) -> str:
    found = shutil.which(name, path=PLACES)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


class MariaDB:
    """A server in a folder of its own; it listens on this machine only."""

    scheme, admin = "mariadb", "mysql"

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("pymysql", reason="pip install pymysql")
        self.server, install = program("mariadbd"), program("mariadb-install-db")
        self.folder, self.port = folder, free_port()
        self.user = pwd.getpwuid(os.getuid()).pw_name
        subprocess.run(
            [install, f"--user={self.user}", f"--datadir={folder / 'data'}", "--auth-root-authentication-method=normal",
             "--skip-test-db"], check=True, capture_output=True,
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        # latin1 and its rules of comparison are what old servers are set up with.
        command = [
            self.server, "--no-defaults", f"--user={self.user}", f"--datadir={self.folder / 'data'}",
            f"--socket={self.folder / 'socket'}", f"--port={self.port}", "--bind-address=127.0.0.1",
            "--skip-name-resolve", "--character-set-server=latin1",
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def execute(self, statement: str) -> None:
        import pymysql

        with pymysql.connect(host="127.0.0.1", port=self.port, user="root", autocommit=True) as connection:
            connection.cursor().execute(statement)

    def make(self, name: str) -> str:
        self.execute(f"CREATE DATABASE {name}")
        self.execute(f"CREATE USER {name}@'127.0.0.1' IDENTIFIED BY 'a:b/c'")
        self.execute(f"GRANT ALL ON {name}.* TO {name}@'127.0.0.1'")
        return f"{self.scheme}://{name}:a%3Ab%2Fc@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    clear = stop


class MySQLAddress(MariaDB):
    """The same server under the other name that people write."""

    scheme = "mysql"


class PostgreSQL:
    """A server in a folder of its own; it refuses to run as root, so that root runs it as postgres."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("psycopg", reason='pip install "psycopg[binary]"')
        self.control, initdb = program("pg_ctl"), program("initdb")
        # Folders of tests are closed to other accounts.
        self.folder, self.port = Path(tempfile.mkdtemp(prefix="melprint-postgresql-")), free_port()
        if os.getuid() == 0:
            try:
                shutil.chown(self.folder, "postgres")
            except LookupError:
                self.folder.rmdir()
                pytest.skip("PostgreSQL refuses root, and there is no account postgres")
        self.run(f"{initdb} -D {self.folder}/data -U root --auth=trust --encoding=UTF8 --locale=C")
        self.start()

    def clear(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def run(self, command: str) -> None:
        whole = ["su", "postgres", "-c", command] if os.getuid() == 0 else ["sh", "-c", command]
        done = subprocess.run(whole, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self.run(f"{self.control} -D {self.folder}/data -l {self.folder}/log -o '{options}' -w start")

    def execute(self, statement: str) -> None:
        import psycopg

        address = f"host=127.0.0.1 port={self.port} user=root dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement)

    def make(self, name: str) -> str:
        self.execute(f"CREATE ROLE {name} LOGIN")
        self.execute(f"CREATE DATABASE {name} OWNER {name}")
        return f"postgresql://{name}:unused@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        self.run(f"{self.control} -D {self.folder}/data -m immediate stop")


@pytest.fixture(scope="module", params=[MariaDB, MySQLAddress, PostgreSQL])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    server = request.param(tmp_path_factory.mktemp("database"))
    try:
        answers(server)
        yield server
    finally:
        server.clear()


def answers(server: Any) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            server.execute("SELECT 1")
            return
        except Exception:
            assert time.monotonic() < deadline, (server.folder / "log").read_text()[-2000:]
            time.sleep(0.2)


@pytest.fixture
def address(database: Any, request: pytest.FixtureRequest) -> Callable[[], str]:
    stem = f"t{abs(hash(request.node.nodeid)) % 10**8}"
    numbers = itertools.count()
    return lambda: database.make(f"{stem}_{next(numbers)}")


@pytest.mark.parametrize("options", [{}, {"index": "ivf-sq8"}, {"milvus": {"uri": "rows.db"}}], ids=str)
def test_a_catalog_with_a_database_of_its_own(options: dict, address: Callable[[], str], tmp_path: Path) -> None:
    sql = address()
    with Catalog.create(tmp_path / "catalog", sql=sql, **options) as catalog:
        assert "tracks.sqlite" not in names_in(catalog.folder)
        catalog.append([new(seed) for seed in range(700)])  # more than one condition takes
        catalog.tidy()
        assert finds(catalog, [0, 350, 699]) > 0.97
        assert len(catalog.find([f"track-{seed}" for seed in range(700)])) == 700
        catalog.remove([f"track-{seed}" for seed in range(0, 700, 2)])
        assert not any(set(keys) & {"track-0", "track-2"} for keys in found_keys(catalog, heard(0), 5))
        assert catalog.compact() == 350 * NUM_ROWS
        (added,) = catalog.append([new(1000, replaces=catalog.find(["track-1"])[0].id)])
        assert added.id > max(number for number in catalog.tracks() if number != added.id)
        assert len(catalog.reindex()) == 350 * NUM_ROWS
        catalog.reindex("exact")
    with Catalog.open(tmp_path / "catalog") as again:
        assert len(again) == 350
        assert finds(again, [3, 699, 1000]) == 1.0
        assert problems(again) == []
        assert again.tables.count() == (350, 350 * NUM_ROWS / 2, 350 * NUM_ROWS)


def test_keys_differ_in_every_sign_and_titles_are_of_every_script(address: Callable[[], str], tmp_path: Path) -> None:
    with Catalog.create(tmp_path / "catalog", sql=address()) as catalog:
        keys = [
            "a",
            "A",
            "á",
            "ａ",
            "ss",
            "ß",
            "夜曲/ノクターン.flac",
            "Ноктюрн",
            "🎹",
            "🎻",
            "ال موسيقى",
            "a ",
            "'; --",
            "%_\\",
        ]
        catalog.append([new(number, key) for number, key in enumerate(keys)])
        expected = [*keys[:11], "a (2)", *keys[12:]]
        assert [track.key for track in catalog.tracks().values()] == expected
        assert [track.key for track in catalog.find(expected)] == expected
        for name in ("Á", "AA", "SS", "%", "", "\udcff", "a\0b", "9" * 30, "2147483648"):
            with pytest.raises(MelprintError, match="has no track"):
                catalog.find([name])
        long = "長" * 300
        first, second = catalog.append([new(100, long), new(101, long)])
        assert (first.key, second.key) == (long[:247], f"{long[:247]} (2)")
        longest = "🎹" * 255
        catalog.update("夜曲/ノクターン.flac", title=longest, key=longest)
        assert catalog.find([longest])[0].title == longest
        with pytest.raises(MelprintError, match="another track has the key 'A'"):
            catalog.update("a", key="A")


def test_databases_have_one_catalog_each_and_hide_their_passwords(address: Callable[[], str], tmp_path: Path) -> None:
    first, second = address(), address()
    with (
        Catalog.create(tmp_path / "one", sql=first) as one,
        Catalog.create(tmp_path / "two", sql=second) as two,
    ):
        with pytest.raises(MelprintError, match="already holds the tracks of another catalog") as caught:
            Catalog.create(tmp_path / "three", sql=first)
        assert "a:b" not in str(caught.value)
        assert "unused" not in str(caught.value)
        one.append([new(1), new(2, "a")])
        two.append([new(2, "b"), new(3, "a")])
        assert merge(one, two) == 1
        assert sorted(track.key for track in one.tracks().values()) == ["a", "a (2)", "track-1"]
    assert names_in(tmp_path) == {"one", "two"}


def test_another_process_sees_changes_and_a_lost_server_is_named(
    database: Any, address: Callable[[], str], tmp_path: Path
) -> None:
    with Catalog.create(tmp_path / "catalog", sql=address()) as catalog:
        catalog.append([new(1)])
        script = (
            "import sys; from melprint.catalog import Catalog\n"
            "from tests.catalog.made import new\n"
            "with Catalog.open(sys.argv[1]) as catalog: catalog.append([new(2)]); catalog.remove(['track-1'])"
        )
        command = [sys.executable, "-c", script, str(catalog.folder)]
        subprocess.run(command, check=True, env=environment(), cwd=Path(__file__).parents[2])
        assert [keys[0] for keys in found_keys(catalog, heard(2))] == ["track-2"] * NUM_ROWS
        database.stop()
        try:
            for look in (catalog.view, lambda: catalog.append([new(3)]), lambda: Catalog.open(catalog.folder)):
                with pytest.raises(MelprintError, match=r"the database .*\*\*\*@127.0.0.1.* does not") as caught:
                    look()
                assert "\n" not in str(caught.value)
        finally:
            database.start()
            answers(database)
        assert catalog.append([new(3)])  # over a new connection
        assert finds(catalog, [2, 3]) == 1.0
        assert problems(catalog) == []


def test_a_server_of_milvus(milvus_server: str, tmp_path: Path) -> None:
    with (
        Catalog.create(tmp_path / "one", milvus={"uri": milvus_server, **MILVUS_HNSW}) as one,
        Catalog.create(tmp_path / "two", milvus={"uri": milvus_server, "kind": "IVF_FLAT", "metric": "l2"}) as two,
    ):
        one.append([new(seed) for seed in range(600)])
        two.append([new(seed) for seed in range(600, 640)])
        for catalog in (one, two):
            catalog.tidy()
            view = catalog.view()
            assert catalog.vectors(view).covered(view) == len(view.rows)
            assert problems(catalog) == []
        assert finds(one, [0, 300, 599]) > 0.97
        assert finds(two, [600, 639]) > 0.97
        one.remove([f"track-{seed}" for seed in range(0, 600, 2)])
        for keys in found_keys(one, heard(2), 100):  # more neighbours than ef says
            assert len(keys) == 100
            assert all(int(key.removeprefix("track-")) % 2 for key in keys)
        one.append([new(1000)])
        one.tidy()
        with Catalog.open(one.folder) as other:  # several at once, unlike milvus-lite
            assert finds(other, [1, 599, 1000]) > 0.97
        one.compact()
        one.reindex()
        assert finds(one, [1, 599, 1000]) > 0.97
        assert problems(one) == []
        with pytest.raises(MelprintError, match=r"cannot build HNSW with .*M"):
            Catalog.create(tmp_path / "x", milvus={"uri": milvus_server, "params": {"M": -1}})
        assert "x" not in names_in(tmp_path)
        with pytest.raises(MelprintError, match=r"has a collection melprint_\w+ already"):
            Catalog.create(
                tmp_path / "x", milvus={"uri": milvus_server, "collection": f"melprint_{one.settings['uid']}"}
            )
        two.reindex("exact")
        names = two.settings["milvus"]["collection"]
        vectors = one.vectors(one.view())
        assert not vectors.server.client.has_collection(names)  # type: ignore[attr-defined]


def test_a_lost_server_of_milvus_is_named(milvus_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a line that is cut: other tests use the server after this one."""
    monkeypatch.setattr("melprint.catalog.milvus.ANSWER_S", 3.0)
    port = int(milvus_server.rpartition(":")[2])
    passed_on = free_port()
    address = {"uri": f"http://127.0.0.1:{passed_on}", **MILVUS_HNSW}
    with Relay(passed_on, port) as relay, Catalog.create(tmp_path / "catalog", milvus=address) as catalog:
        catalog.append([new(seed) for seed in range(10)])
        catalog.tidy()
        assert finds(catalog, [1]) == 1.0
        relay.cut()
        began = time.monotonic()
        for change, words in (
            (lambda: catalog.search(heard(1), 1), "cannot search"),
            (lambda: catalog.remove(["track-2"]), "cannot delete tracks; they are not found any more"),
        ):
            with pytest.raises(MelprintError, match=r"Milvus at http://127.0.0.1:\d+ " + words) as caught:
                change()
            assert len(str(caught.value)) < 300
            assert "\n" not in str(caught.value)
        assert time.monotonic() - began < 100
        assert [track.key for track in catalog.tracks().values()].count("track-2") == 0
        catalog.reindex("exact")  # a way out
        assert finds(catalog, [1]) == 1.0


class Relay:
    """Passes a port on, until the line is cut."""

    def __init__(self, port: int, to: int) -> None:
        code = (
            "import asyncio, sys\n"
            "async def pump(reader, writer):\n"
            "    while data := await reader.read(65536): writer.write(data); await writer.drain()\n"
            "async def serve(reader, writer):\n"
            f"    up = await asyncio.open_connection('127.0.0.1', {to})\n"
            "    await asyncio.gather(pump(reader, up[1]), pump(up[0], writer))\n"
            "async def main():\n"
            f"    async with await asyncio.start_server(serve, '127.0.0.1', {port}) as server:\n"
            "        print('ready', flush=True); await server.serve_forever()\n"
            "asyncio.run(main())\n"
        )
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def cut(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
