"""A Milvus server, or milvus-lite, as the index of a catalog.  Axes: Q query segments · K neighbours · D size.

Entries carry the number of their track and the row within it, which compaction does not change.
"""

import json
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melprint.catalog.view import View
from melprint.data.manifest import replacing
from melprint.errors import MelprintError
from melprint.index.milvus import FIELD, INSERT_ROWS, MOST_NEIGHBOURS, MilvusIndex
from melprint.progress import progress_bar

NOTE = "milvus.json"
ROW_BITS = 24  # of a key, below the number of the track: 97 days in half seconds
# A flush takes a server seconds and is rationed; what it has acknowledged is in its log already.
FLUSH_ROWS = 500_000
FLUSHED_AT_END = 10_000
AT_ONCE = 500  # tracks in one condition
ANSWER_S = 30.0  # how long a search waits for a server that is gone
# Of building and of searching, where nothing else is said; old servers have no values of their own.
PARAMETERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "HNSW": ({"M": 16, "efConstruction": 80}, {"ef": 64}),
    "IVF_PQ": ({"nlist": 1024, "m": 64, "nbits": 8}, {"nprobe": 32}),
    "IVF": ({"nlist": 1024}, {"nprobe": 24}),
}
CHECKED_ROWS = 64


class MilvusVectors:
    """A collection with one entry a fingerprint.

    The file ``milvus.json`` notes up to which track the collection is filled.  It is written after the entries, and
    inserting the same ones again changes nothing, so an interrupted process is caught up with by the next one.

    Args:
        folder: of the catalog.
        uri: ``http://HOST:19530`` of a server, or ``NAME.db`` for milvus-lite, which one process at a time can open;
            a relative path lies in the folder of the catalog.
        kind: of index, as Milvus names it, e.g. ``HNSW`` or ``IVF_FLAT``.
        metric: ``ip`` or ``l2``.
        params: of building, e.g. ``{M: 16, efConstruction: 80}``.
        search: parameters of searching, e.g. ``{ef: 64}``.
        token: ``USER:PASSWORD`` where the server asks for one.
        collection: its name; catalogs on one server need different ones.
    """

    name = "milvus"

    def __init__(
        self,
        folder: Path,
        uri: str,
        kind: str = "HNSW",
        metric: str = "ip",
        params: Mapping[str, Any] | None = None,
        search: Mapping[str, Any] | None = None,
        token: str | None = None,
        collection: str | None = None,
    ) -> None:
        if metric not in ("ip", "l2"):
            raise MelprintError(f"metric must be ip or l2, got {metric!r}")
        address = uri if "://" in uri else str(folder / uri)
        usual = next((both for name, both in PARAMETERS.items() if kind.upper().startswith(name)), ({}, {}))
        building = {**usual[0], **(params or {})}
        self.server = MilvusIndex(address, kind, metric, params=building, token=token)  # type: ignore[arg-type]  # it checks
        self.parameters = {**usual[1], **(search or {})}
        self.collection = collection or "melprint"
        self.note = folder / NOTE
        self._loaded = False

    def refuse(self, dim: int) -> None:
        """Nothing that answers, an index that it does not have, or a collection that somebody else has."""
        if not re.fullmatch(r"[A-Za-z_]\w{0,254}", self.collection, re.ASCII):
            raise MelprintError(f"a collection of Milvus is named with letters, digits and _, got {self.collection!r}")
        self.server.refuse()
        if self._exists():
            raise MelprintError(
                f"Milvus at {self.server.uri} has a collection {self.collection} already; choose another name"
            )
        try:
            self._begin(dim)  # empty, to hear what it says to the parameters
        finally:
            with self.server.explained(f"cannot remove the collection {self.collection}"):
                self.server.client.drop_collection(self.collection, timeout=self.server.timeout_s)
            self._loaded = False

    def covered(self, view: View) -> int:
        """Rows of the tracks up to the noted one."""
        synced = self._synced()
        if synced is None:
            return 0
        later = view.track_ids > synced
        return int(view.first[later].min()) if later.any() else len(view.rows)

    def search(self, view: View, queries_QD: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """By one call to Milvus."""
        k = min(k, MOST_NEIGHBOURS)
        if not len(view):
            return np.full((len(queries_QD), k), -1, np.int64)
        self._load()
        parameters = dict(self.parameters)
        if "ef" in parameters:
            parameters["ef"] = max(parameters["ef"], k)  # a server refuses less
        keys = self.server.nearest(self.collection, queries_QD, k, parameters, ANSWER_S).rows
        position, row = view.positions_of(keys >> ROW_BITS), keys & ((1 << ROW_BITS) - 1)
        there = (position >= 0) & (row < view.count[position])
        return np.where(keys < 0, -1, np.where(there, view.first[position] + row, len(view.rows)))

    def follow(self, view: View, *, anew: bool = False) -> None:
        """Insert the tracks that are missing, and put right what interrupted changes have left."""
        synced = None if anew else self._synced()
        if synced is not None and not self._exists():
            synced = None
        if synced is None:
            if not anew and not len(view):
                return
            self._begin(view.rows.dim)
            synced = 0
        new = np.flatnonzero(view.track_ids > synced)
        self._insert(view, new[np.argsort(view.track_ids[new])])
        self._set_right(view)
        if self._synced() is None:
            self._write_note(synced)
        if anew:
            with self.server.explained(f"cannot build {self.server.kind}"):
                self.server.await_index(self.collection)

    def forget(self, track_ids: Iterable[int]) -> None:
        """Delete the entries of removed tracks."""
        if self._synced() is None:
            return
        self._load()
        numbers = iter(sorted(int(number) for number in track_ids))
        with self.server.explained("cannot delete tracks; they are not found any more, and the next change clears up"):
            while some := list(islice(numbers, AT_ONCE)):
                self.server.client.delete(self.collection, filter=f"track_id in {some}", timeout=self.server.timeout_s)

    def drop(self) -> None:
        """Remove the collection."""
        if self._synced() is None:
            return
        self.note.unlink(missing_ok=True)
        with self.server.explained(f"cannot remove the collection {self.collection}"):
            self.server.client.drop_collection(self.collection, timeout=self.server.timeout_s)
        self._loaded = False

    def check(self, view: View) -> list[str]:
        """Whether all tracks up to the noted one are in the collection, and are found in it."""
        synced = self._synced()
        if synced is None or not len(view):
            return []
        noted = view.track_ids <= synced
        try:
            if not self._exists():
                return [f"Milvus at {self.server.uri} has no {self.collection}; run melprint catalog reindex"]
            self._load()
            with self.server.explained("cannot be read"):
                expected, counted = int(view.count[noted].sum()), self.server.count(self.collection)
                # More than expected are those of removed tracks, which the next change clears up.
                missing = set(view.track_ids[noted].tolist()) if counted != expected else set()
                missing -= set(self._tracks().tolist()) if missing else set()
            living = np.flatnonzero(view.tracks_at(np.arange(self.covered(view))) >= 0)
            rows = living[np.linspace(0, len(living) - 1, min(CHECKED_ROWS, len(living))).astype(np.int64)]
            found = self.search(view, view.rows.take(rows), 10) if len(rows) else np.empty((0, 1), np.int64)
        except MelprintError as error:
            return [f"{error}; run melprint catalog reindex once it is there"]
        if missing or counted < expected:
            return [
                f"the collection {self.collection} lacks {max(len(missing), 1)} of {noted.sum()} tracks;"
                " run melprint catalog reindex"
            ]
        share = float((found == rows[:, None]).any(axis=1).mean()) if len(rows) else 1.0
        return [] if share > 0.5 else [f"{self.collection} finds {share:.0%} of its rows; run melprint catalog reindex"]

    def num_bytes(self) -> int:
        """The folder of milvus-lite; a server keeps its own."""
        if not self.server.is_local:
            return 0
        return sum(path.stat().st_size for path in Path(self.server.uri).rglob("*") if path.is_file())

    def close(self) -> None:
        """Give the connection, and the lock of milvus-lite, back."""
        self.server.release()
        self._loaded = False

    def _synced(self) -> int | None:
        """Number of the track up to which the collection is filled; ``None`` without a collection."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return int(note["synced"]) if note["collection"] == self.collection else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # then all is compared exactly, until it is inserted anew
        except OSError as error:
            raise MelprintError(f"{self.note} cannot be read ({error.strerror}); give yourself the right to") from error

    def _write_note(self, synced: int) -> None:
        with replacing(self.note) as file:
            json.dump({"collection": self.collection, "synced": synced}, file)

    def _exists(self) -> bool:
        client = self.server.client
        with self.server.explained("does not tell its collections"):
            return bool(client.has_collection(self.collection, timeout=self.server.timeout_s))

    def _load(self) -> None:
        if not self._loaded:
            client = self.server.client
            with self.server.explained(f"cannot open the collection {self.collection}; run melprint catalog reindex"):
                client.load_collection(self.collection, timeout=self.server.timeout_s)
            self._loaded = True

    def _begin(self, dim: int) -> None:
        """An empty collection; readers compare exactly from here on."""
        self.note.unlink(missing_ok=True)
        self.server.refuse()
        exists = self._exists()
        from pymilvus import DataType

        client, timeout_s = self.server.client, self.server.timeout_s
        with self.server.explained("cannot create a collection"):
            if exists:
                client.drop_collection(self.collection, timeout=timeout_s)
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", DataType.INT64, is_primary=True)
            schema.add_field("track_id", DataType.INT64)
            schema.add_field("row", DataType.INT64)
            schema.add_field(FIELD, DataType.FLOAT_VECTOR, dim=dim)
            # Strong: what one process has inserted, another one finds.
            client.create_collection(self.collection, schema=schema, consistency_level="Strong", timeout=timeout_s)
        self.server.make_index(self.collection)
        self._loaded = True

    def _insert(self, view: View, positions: NDArray[np.int64]) -> None:
        """Tracks at these positions, in the order of their numbers; a note every so often."""
        if not len(positions):
            return
        self._load()
        counts = view.count[positions]
        parts = np.flatnonzero(np.diff(np.cumsum(counts) // INSERT_ROWS)) + 1
        total, unflushed = int(counts.sum()), 0
        with progress_bar("to Milvus", total) as advance:
            for part in np.split(positions, parts):
                num_rows = self._insert_part(view, part)
                advance(num_rows)
                unflushed += num_rows
                if unflushed >= FLUSH_ROWS:
                    self._flush()
                    self._write_note(int(view.track_ids[part[-1]]))
                    unflushed = 0
        if unflushed and (self.server.is_local or total > FLUSHED_AT_END):
            self._flush()
        self._write_note(int(view.track_ids[positions[-1]]))

    def _insert_part(self, view: View, positions: NDArray[np.int64]) -> int:
        """About ``INSERT_ROWS`` rows."""
        counts = view.count[positions]
        if counts.max() > 1 << ROW_BITS:
            raise MelprintError(f"a track has {counts.max()} fingerprints, Milvus takes {1 << ROW_BITS}; take ivf-sq8")
        track = np.repeat(view.track_ids[positions], counts)
        row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        place = np.repeat(view.first[positions], counts) + row
        for start in range(0, len(row), INSERT_ROWS):
            some = slice(start, start + INSERT_ROWS)
            entries = [
                {"id": number << ROW_BITS | at, "track_id": number, "row": at, FIELD: vector}
                for number, at, vector in zip(
                    track[some].tolist(), row[some].tolist(), view.rows.take(place[some]), strict=True
                )
            ]
            with self.server.explained("does not take fingerprints; they are searched without it until it does"):
                self.server.client.upsert(self.collection, entries, timeout=self.server.timeout_s)
        return len(row)

    def _flush(self) -> None:
        with self.server.explained("cannot write its rows"):
            self.server.client.flush(self.collection, timeout=self.server.build_timeout_s)

    def _set_right(self, view: View) -> None:
        """Delete tracks that are gone and insert those that are missing, where the numbers of rows differ."""
        with self.server.explained("cannot be read"):
            if self.server.count(self.collection) == len(view):
                return
            there = self._tracks()
        self.forget(np.setdiff1d(there, view.track_ids).tolist())
        missing = np.setdiff1d(view.track_ids, there)
        for part in np.array_split(view.positions_of(missing), range(AT_ONCE, len(missing), AT_ONCE)):
            if len(part):
                self._insert_part(view, part)
        with self.server.explained("cannot be read"):
            counted = self.server.count(self.collection)
        if counted < len(view):
            self.note.unlink(missing_ok=True)
            raise MelprintError(
                f"Milvus at {self.server.uri} holds {counted} of {len(view)} rows of {self.collection};"
                " run melprint catalog reindex"
            )

    def _tracks(self) -> NDArray[np.int64]:
        """Numbers of the tracks whose first entry is there."""
        found: list[int] = []
        entries = self.server.client.query_iterator(
            self.collection, batch_size=1_000, filter="row == 0", output_fields=["track_id"]
        )
        while batch := entries.next():
            found += [entry["track_id"] for entry in batch]
        entries.close()
        return np.array(found, np.int64)
