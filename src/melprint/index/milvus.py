"""A Milvus server, or milvus-lite in a local folder, as an index.  Axes: Q query segments · K neighbours · D size."""

import json
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from melprint.data.manifest import replacing
from melprint.errors import MelprintError
from melprint.fingerprints.rows import Rows
from melprint.index.base import Hits
from melprint.progress import progress_bar

METRICS = {"ip": "IP", "l2": "L2"}
# What milvus-lite 3 builds.  Asked for anything else it may say nothing and compare with every row instead.
LITE_KINDS = ("FLAT", "IVF_FLAT", "IVF_SQ8", "HNSW", "HNSW_SQ")
INSERT_ROWS = 10_000  # 5 MB of 128 elements; a server takes messages of 64 MB
SEARCH_QUERIES = 1_000  # a server takes 16,384
MOST_NEIGHBOURS = 16_384
FIELD = "vector"
POLL_S = 0.5
_USERS: Counter[str] = Counter()  # of folders of milvus-lite, in this process


class MilvusIndex:
    """A collection with one row a fingerprint; its key is the number of the row.

    Args:
        uri: ``http://HOST:19530`` of a server, or ``FOLDER/NAME.db`` for milvus-lite.
        kind: of index, as Milvus names it, e.g. ``HNSW`` or ``IVF_FLAT``.
        metric: ``ip`` or ``l2``.
        name: as it stands in tables; by default ``milvus-KIND``.
        params: of building, e.g. ``{M: 16, efConstruction: 80}``.
        search: parameters of searching, e.g. ``{ef: 64}``.
        token: ``USER:PASSWORD`` where the server asks for one.
        timeout_s: for connecting and for single calls.
        build_timeout_s: for building the index.
    """

    def __init__(
        self,
        uri: str | None,
        kind: str = "HNSW",
        metric: Literal["ip", "l2"] = "ip",
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        search: Mapping[str, Any] | None = None,
        token: str | None = None,
        timeout_s: float = 60.0,
        build_timeout_s: float = 3600.0,
    ) -> None:
        if metric not in METRICS:
            raise MelprintError(f"metric must be ip or l2, got {metric!r}")
        if not uri:
            raise MelprintError("index=milvus needs uri=http://HOST:19530, or uri=FOLDER/NAME.db for milvus-lite")
        self.uri, self.kind, self.metric = str(uri), kind.upper(), metric
        self.name = name or f"milvus-{kind.lower().replace('_', '-')}"
        self.params, self.search_parameters = dict(params or {}), dict(search or {})
        self.token, self.timeout_s, self.build_timeout_s = token, timeout_s, build_timeout_s
        self.collection: str | None = None
        self.num_rows = 0
        self._client: Any = None

    @property
    def is_local(self) -> bool:
        """Whether the address is a folder of milvus-lite."""
        return "://" not in self.uri

    @property
    def client(self) -> Any:
        """A connection, opened when it is first needed.

        Raises:
            MelprintError: nothing answers there.
        """
        if self._client is None:
            self._client = _connect(self.uri, self.token, self.timeout_s)
            if self.is_local:
                _USERS[os.path.abspath(self.uri)] += 1
        return self._client

    def version(self) -> str:
        """As the other side gives it, e.g. ``v2.5.4`` or ``milvus_lite-3.2.2``."""
        client = self.client  # before anything of pymilvus is imported: it may not be installed
        with self.explained("does not tell its version"):
            return str(client.get_server_version(timeout=self.timeout_s))

    def check(self, rows: Rows, train_rows: int | None = None) -> None:
        """Refuse an address where nothing answers, and a kind of index that milvus-lite does not have."""
        del rows, train_rows
        self.refuse()

    def refuse(self) -> None:
        """The same, without rows."""
        version = self.version()
        if version.startswith("milvus_lite") and self.kind not in LITE_KINDS:
            raise MelprintError(
                f"{version} has no {self.kind} index, only {', '.join(LITE_KINDS)}; take one of these or a server"
            )

    def build(self, rows: Rows, train_rows: int | None = None, path: Path | None = None) -> None:
        """Insert all rows in batches, build the index, and wait until the server has finished it.

        Raises:
            MelprintError: with the words of the server.
        """
        self.check(rows, train_rows)
        stem = path.stem if path is not None else uuid4().hex
        collection = re.sub(r"\W", "_", f"melprint_{stem}")
        try:
            self._insert(collection, rows)
            self.make_index(collection)
        except BaseException:
            with self.explained("cannot remove what is half built"):
                self.client.drop_collection(collection, timeout=self.timeout_s)
            raise
        self.collection, self.num_rows = collection, len(rows)

    def search(self, queries_QD: NDArray[np.float32], k: int) -> Hits:
        """The ``k`` nearest rows of each query segment."""
        if self.collection is None:
            raise MelprintError(f"index {self.name} is empty; build it first")
        if k > MOST_NEIGHBOURS:
            raise MelprintError(f"Milvus finds {MOST_NEIGHBOURS} neighbours at most, {k} are asked for")
        return self.nearest(self.collection, queries_QD, k, self.search_parameters, self.build_timeout_s)

    def nearest(
        self, collection: str, queries_QD: NDArray[np.float32], k: int, parameters: Mapping[str, Any], timeout_s: float
    ) -> Hits:
        """The keys of the ``k`` nearest rows of a collection."""
        scores = np.full((len(queries_QD), k), -np.inf if self.metric == "ip" else np.inf, np.float32)
        rows = np.full((len(queries_QD), k), -1, np.int64)
        for start in range(0, len(queries_QD), SEARCH_QUERIES):
            block = np.ascontiguousarray(queries_QD[start : start + SEARCH_QUERIES], np.float32)
            with self.explained("cannot search"):
                found = self.client.search(
                    collection,
                    data=block,
                    anns_field=FIELD,
                    limit=k,
                    output_fields=["id"],  # milvus-lite sends the vectors back otherwise
                    search_params={"metric_type": METRICS[self.metric], "params": dict(parameters)},
                    timeout=timeout_s,
                )
            for query, hits in enumerate(found, start):
                rows[query, : len(hits)], scores[query, : len(hits)] = hits.ids, hits.distances
        return Hits(scores, rows)

    def save(self, path: Path) -> None:
        """Write where the collection is; its rows are with Milvus."""
        with replacing(path) as file:
            json.dump({"uri": self.uri, "collection": self.collection, "rows": self.num_rows}, file)

    def load(self, path: Path, rows: Rows, *, mmap: bool = False) -> None:
        """Find the collection that :meth:`save` noted."""
        del mmap
        try:
            collection = json.loads(path.read_text(encoding="utf-8"))["collection"]
        except (OSError, ValueError, KeyError) as error:
            raise MelprintError(f"{path} names no collection; delete it to build one again") from error
        with self.explained(f"cannot open the collection {collection} of {path}; delete that file to build it again"):
            if not self.client.has_collection(collection, timeout=self.timeout_s):
                raise MelprintError(f"{self.uri} no longer has the collection {collection}; delete {path}")
            description = self.client.describe_collection(collection, timeout=self.timeout_s)
            dims = [f["params"].get("dim") for f in description["fields"] if f["name"] == FIELD]
            self.client.load_collection(collection, timeout=self.build_timeout_s)
            counted = self.count(collection)
        if dims != [rows.dim]:
            raise MelprintError(f"the collection {collection} has {dims} dimensions, the store {rows.dim}")
        if counted != len(rows):
            raise MelprintError(
                f"the collection {collection} holds {counted} rows, the store {len(rows)}; delete {path} to build it"
            )
        self.collection, self.num_rows = collection, counted

    def drop(self) -> None:
        """Remove the collection."""
        if self.collection is not None:
            with self.explained(f"cannot remove {self.collection}"):
                self.client.drop_collection(self.collection, timeout=self.timeout_s)
            self.collection = None

    def release(self) -> None:
        """Give the connection, and the lock of a local folder, back."""
        if self._client is not None:
            self._client.close()
            self._client = None
            if self.is_local:
                _let_go(os.path.abspath(self.uri))

    def settings(self) -> dict[str, object]:
        """Everything that changes the built index."""
        return {"kind": self.kind, "uri": self.uri, "metric": self.metric, "params": self.params}

    def bytes_per_vector(self) -> float:
        """Size of the local folder divided by its rows; a server does not tell."""
        if not self.is_local or not self.num_rows:
            return float("nan")
        return sum(path.stat().st_size for path in Path(self.uri).rglob("*") if path.is_file()) / self.num_rows

    def _insert(self, collection: str, rows: Rows) -> None:
        from pymilvus import DataType

        with self.explained("cannot create a collection"):
            if self.client.has_collection(collection, timeout=self.timeout_s):
                self.client.drop_collection(collection, timeout=self.timeout_s)
            schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", DataType.INT64, is_primary=True)
            schema.add_field(FIELD, DataType.FLOAT_VECTOR, dim=rows.dim)
            self.client.create_collection(collection, schema=schema, consistency_level="Strong", timeout=self.timeout_s)
        first = 0
        with progress_bar(f"build {self.name}", len(rows)) as advance:
            for block in rows.blocks(INSERT_ROWS):
                entries = [{"id": number, FIELD: row} for number, row in enumerate(block, first)]
                with self.explained(f"does not take rows {first} to {first + len(block) - 1}"):
                    self.client.insert(collection, entries, timeout=self.timeout_s)
                first += len(block)
                advance(len(block))
        with self.explained("cannot write its rows"):
            self.client.flush(collection, timeout=self.build_timeout_s)

    def make_index(self, collection: str) -> None:
        """Have the index built, and wait for it."""
        with self.explained(f"cannot build {self.kind} with {self.params}"):
            wanted = self.client.prepare_index_params()
            # Nested: milvus-lite ignores parameters that are not.
            wanted.add_index(
                field_name=FIELD,
                index_type=self.kind,
                metric_type=METRICS[self.metric],
                params={"params": self.params},
            )
            self.client.create_index(collection, wanted, timeout=self.build_timeout_s)
            self.client.release_collection(collection, timeout=self.timeout_s)
            self.client.load_collection(collection, timeout=self.build_timeout_s)
            self.await_index(collection)

    def await_index(self, collection: str) -> None:
        """A server answers by other means while an index is not finished, or never will be: that is not measured."""
        deadline = time.monotonic() + self.build_timeout_s
        while True:
            state = self.client.describe_index(collection, index_name=FIELD, timeout=self.timeout_s)
            if state.get("index_type") != self.kind:
                raise MelprintError(
                    f"{self.uri} was asked for {self.kind} and has {state.get('index_type')}; it is not used"
                )
            total, done = state.get("total_rows"), state.get("indexed_rows")
            if state.get("state") in (None, "Finished") and (total is None or done == total):
                return
            if time.monotonic() > deadline:
                raise MelprintError(
                    f"{self.uri} has not finished {self.kind} after {self.build_timeout_s:g} s ({done} of {total} rows)"
                )
            time.sleep(POLL_S)

    def count(self, collection: str) -> int:
        """Rows of a collection."""
        answer = self.client.query(
            collection, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout=self.timeout_s
        )
        return int(answer[0]["count(*)"])

    @contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """What Milvus refuses, in one sentence with its own words."""
        import grpc
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except (MilvusException, grpc.RpcError) as error:
            words = getattr(error, "message", "") or str(error)
            raise MelprintError(f"Milvus at {self.uri} {what}: {' '.join(words.split())}") from error


def _let_go(path: str) -> None:
    """Unlock a folder of milvus-lite that nobody in this process uses any more; pymilvus would at the exit."""
    _USERS[path] -= 1
    if not _USERS[path]:
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(path)


def _connect(uri: str, token: str | None, timeout_s: float) -> Any:
    try:
        from pymilvus import MilvusClient
        from pymilvus.exceptions import MilvusException
    except ImportError as error:
        raise MelprintError(
            'index=milvus needs pymilvus; install one of the extras: pip install "melprint[milvus]" for a server or'
            ' "melprint[milvus-lite]" for a local folder'
        ) from error
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)  # it logs a traceback for every error
    if "://" not in uri:
        if not uri.endswith(".db"):
            raise MelprintError(f"uri must be http://HOST:PORT, or a local folder that ends with .db, got {uri}")
        if find_spec("milvus_lite") is None:
            raise MelprintError(
                f'{uri} is a folder for milvus-lite, which is not installed: pip install "melprint[milvus-lite]"'
            )
        Path(uri).parent.mkdir(parents=True, exist_ok=True)
        if Path(uri).is_file():
            raise MelprintError(f"{uri} is a file of an older milvus-lite or none of Milvus; name another one")
    try:
        return MilvusClient(uri=uri, token=token or "", timeout=min(timeout_s, 10.0))
    except (MilvusException, ValueError) as error:
        if "://" not in uri:
            raise MelprintError(f"{uri} cannot be opened; another process may have it open") from error
        words = getattr(error, "message", "") or str(error)
        raise MelprintError(f"no Milvus server answers at {uri}: {' '.join(words.split())}") from error
