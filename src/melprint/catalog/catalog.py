"""A catalog: a folder with a network, the fingerprints of tracks, an index of them, and what is known of each track.

The order of every change makes it safe to stop at any moment: fingerprints go to the end of their file and are on
disk before the database names them; the index follows the database and is never ahead of it.  One process at a time
writes; the others wait, and readers see the catalog as it was before or as it is after.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from melprint.catalog.rows import DTYPE, RowFile, rows_digest
from melprint.catalog.tables import EDITABLE, MOST_TRACKS, TEXT, Tables, Track, is_text, now
from melprint.catalog.vectors import AUTO, MILVUS, Vectors, nearest, vectors_for
from melprint.catalog.view import View
from melprint.data.manifest import replacing
from melprint.errors import MelprintError
from melprint.index.base import Hits
from melprint.matching.confidence import Confidence
from melprint.models.checkpoint import load, model_digest, save_weights
from melprint.models.fingerprinter import Fingerprinter
from melprint.spec import SegmentSpec
from melprint.version import __version__
from melprint.weights.shipped import DEFAULT, NAMES, card_of

if TYPE_CHECKING:
    from melprint.recognition.identify import Answer

FORMAT = 1
SETTINGS = "catalog.json"
NEEDED = ("uid", "model", "model_digest", "dim", "sql", "milvus")
MODEL = "model.safetensors"
CALIBRATION = "calibration.json"
LOCK = ".writer.lock"
CLAIM = ".creating"
WAIT_S = 60.0  # for another process that writes
DEAD_SHARE = 0.3  # of the file's rows, from which on it is written anew without them
FEWEST_DEAD = 10_000
COPY_ROWS = 1 << 16


@dataclass(frozen=True)
class NewTrack:
    """A fingerprinted recording that is to be added.

    Attributes:
        track: its line in the database; number and place are filled in.
        rows: its fingerprints ``(N, D)``.
        replaces: number of the track that goes when this one comes, e.g. an older state of the same file.
    """

    track: Track
    rows: NDArray[np.floating]
    replaces: int | None = None


class Catalog:
    """An open catalog; see :meth:`open` and :meth:`create`.

    >>> import tempfile, soundfile
    >>> from melprint.catalog.adding import add
    >>> folder = Path(tempfile.mkdtemp())
    >>> noise = np.random.default_rng(0).standard_normal(20 * 8000) / 8
    >>> soundfile.write(folder / "noise.wav", noise, 8000)
    >>> catalog = Catalog.create(folder / "catalog")
    >>> [track.key for track in add(catalog, [folder / "noise.wav"]).tracks]
    ['noise.wav']
    >>> answer = catalog.identify(noise[5 * 8000 : 11 * 8000], 8000)[0]
    >>> answer.track, answer.reference_start_s, answer.accepted
    ('noise.wav', 5.0, True)
    >>> [track.key for track in catalog.remove(["noise.wav"])], len(catalog)
    (['noise.wav'], 0)
    >>> catalog.identify(noise[5 * 8000 : 11 * 8000], 8000)[0].accepted
    False

    Attributes:
        folder: where it is.
        fingerprinter: its network.
        wait_s: how long a change waits for another process that writes.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], device: str = "cpu") -> None:
        self.folder, self.settings, self.wait_s = folder, dict(settings), WAIT_S
        self.fingerprinter: Fingerprinter = load(folder / MODEL, device)
        if model_digest(self.fingerprinter) != settings["model_digest"]:
            raise MelprintError(f"{folder / MODEL} is not the network that made this catalog; restore it from a copy")
        url = settings.get("sql")
        self.tables = Tables(url) if url else Tables.in_folder(folder)
        self._lock = FileLock(folder / LOCK)
        self._view: View | None = None
        self._vectors: tuple[str, Vectors] | None = None
        self._confidence: tuple[int, Confidence | None] | None = None

    @classmethod
    def create(
        cls,
        folder: str | Path,
        model: str | Path = DEFAULT,
        *,
        index: str = AUTO,
        sql: str | None = None,
        milvus: Mapping[str, Any] | None = None,
        device: str = "cpu",
    ) -> "Catalog":
        """Make an empty catalog.

        Args:
            folder: that does not exist yet, or is empty.
            model: ``compact``, ``base``, a checkpoint or ``.safetensors``; a copy is kept in the catalog, as float16.
            index: ``auto`` (exact search, and a faiss index once there are many tracks), ``exact``, ``ivf-sq8``,
                ``ivfpq``, ``hnsw`` or ``milvus``.
            sql: address of the database; by default a SQLite file in the folder.
            milvus: ``uri`` and, as they are needed, ``collection``, ``kind``, ``metric``, ``params``, ``search`` and
                ``token``.
            device: of the network.

        Raises:
            MelprintError: the folder is in use, or the database or Milvus cannot be had.
        """
        folder = Path(folder)
        is_new = not folder.exists()
        if not is_new and not _is_free(folder):
            _refuse(folder)
        made = False  # by this call, which may then take it away again
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / LOCK, timeout=WAIT_S):
                if not _is_free(folder):  # another process was faster
                    _refuse(folder)
                made = is_new
                try:
                    cls._fill(folder, model, index, sql, milvus)
                except BaseException:
                    for path in folder.iterdir():  # it was empty, and nobody else makes a catalog here now
                        if path.name != LOCK:
                            shutil.rmtree(path) if path.is_dir() else path.unlink()
                    raise
        except BaseException as error:
            if made:
                shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise MelprintError(f"{folder} cannot be made ({error.strerror or error})") from error
            raise
        return cls.open(folder, device)

    @classmethod
    def _fill(
        cls, folder: Path, model: str | Path, index: str, sql: str | None, milvus: Mapping[str, Any] | None
    ) -> None:
        # A creation that was killed goes on under the same number: its database may be claimed already.
        claim = folder / CLAIM
        uid = claim.read_text() if claim.exists() else uuid4().hex
        claim.write_text(uid)
        if milvus:
            index = MILVUS if index == AUTO else index
            milvus = {**milvus, "collection": milvus.get("collection") or f"melprint_{uid}"}
        fingerprinter = save_weights(model, folder / MODEL)
        with closing(vectors_for(folder, index, 0, milvus)) as vectors:
            vectors.refuse(fingerprinter.dim)
        settings = {
            "format": FORMAT,
            "uid": uid,
            "version": __version__,
            "created": now(),
            "model": str(model),
            "model_digest": model_digest(fingerprinter),
            "dim": fingerprinter.dim,
            "dtype": DTYPE.name,
            "sql": sql,
            "milvus": dict(milvus) if milvus else None,
        }
        with closing(Tables(sql) if sql else Tables.in_folder(folder)) as tables:
            tables.create(uid, index)
        with replacing(folder / SETTINGS) as file:  # last: without it there is no catalog
            os.chmod(file.fileno(), 0o600)  # addresses may hold passwords
            json.dump(settings, file, indent=1)
        claim.unlink()

    @classmethod
    def open(cls, folder: str | Path, device: str = "cpu") -> "Catalog":
        """Open a catalog that :meth:`create` made.

        Raises:
            MelprintError: there is none, it is damaged, or of a later version.
        """
        folder = Path(folder)
        try:
            settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
            known = settings["format"] <= FORMAT
            if known and (missing := [name for name in NEEDED if name not in settings]):
                raise ValueError(f"no {', '.join(missing)}")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MelprintError(f"there is no catalog {folder}; make one with melprint catalog create") from error
        except PermissionError as error:
            raise MelprintError(f"{folder} cannot be read; give yourself the right to") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MelprintError(f"{folder / SETTINGS} is damaged ({error}); restore it from a copy") from error
        if not known:
            raise MelprintError(f"{folder} was made by a later melprint ({settings.get('version')}); update this one")
        catalog = cls(folder, settings, device)
        state = catalog.tables.state()
        if state.uid != settings["uid"]:
            raise MelprintError(f"{catalog.tables.shown} holds the tracks of another catalog than {folder}")
        return catalog

    def __enter__(self) -> "Catalog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the database, the index and Milvus back."""
        self.tables.close()
        if self._vectors is not None:
            self._vectors[1].close()
            self._vectors = None

    def __len__(self) -> int:
        """Tracks."""
        return len(self.view().first)

    @property
    def segment(self) -> SegmentSpec:
        """How audio is cut."""
        return self.fingerprinter.segment

    @property
    def model_name(self) -> str | None:
        """The name of its network, where that is a shipped one."""
        return next((name for name in NAMES if card_of(name)["digest"] == self.settings["model_digest"]), None)

    # Reading

    def view(self) -> View:
        """The catalog as it is now; the same object as long as nothing changes."""
        for _ in range(10):
            state = self.tables.state()
            if self._view is not None and self._view.version == state.version:
                return self._view
            state, spans = self.tables.spans()
            try:
                rows = self._file(state.generation).view(state.num_rows)
            except MelprintError:
                if self.tables.state().generation != state.generation:
                    continue  # compacted between the two looks
                raise
            self._view = View.of(state, rows, spans)
            return self._view
        raise MelprintError(f"{self.folder} is being compacted again and again; try once more")

    def vectors(self, view: View) -> Vectors:
        """The search of a state of the catalog."""
        made = vectors_for(self.folder, view.kind, len(view.rows), self.settings["milvus"])
        if self._vectors is None or self._vectors[0] != made.name:
            if self._vectors is not None:
                self._vectors[1].close()
            self._vectors = (made.name, made)
        return self._vectors[1]

    def search(self, queries_QD: NDArray[np.float32], k: int, view: View | None = None) -> Hits:
        """The ``k`` nearest fingerprints of tracks, with their cosines."""
        view = view or self.view()
        return nearest(self.vectors(view), view, queries_QD, k)

    def tracks(self, ids: Iterable[int] | None = None) -> dict[int, Track]:
        """All tracks, or those with these numbers, by number."""
        return self.tables.tracks(ids)

    def find(self, names: Sequence[str]) -> list[Track]:
        """Tracks by key, or by number where no key is like that.

        Raises:
            MelprintError: one of them is not there.
        """
        by_key = self.tables.with_values("key", names)
        numbers = {name: int(name) for name in names if name not in by_key and name.isdecimal() and len(name) <= 10}
        by_id = self.tables.tracks(number for number in numbers.values() if number <= MOST_TRACKS) if numbers else {}
        found = []
        for name in names:
            track = by_key.get(name) or by_id.get(numbers.get(name, -1))
            if track is None:
                raise MelprintError(f"{self.folder} has no track {name!r}; see melprint catalog list")
            found.append(track)
        return found

    @property
    def confidence(self) -> Confidence:
        """From scores to confidence: as calibrated on this catalog, or as measured for its network.

        Raises:
            MelprintError: neither is there.
        """
        path = self.folder / CALIBRATION
        stamp = path.stat().st_mtime_ns if path.exists() else 0
        if self._confidence is None or self._confidence[0] != stamp:
            self._confidence = (stamp, self._read_confidence(path))
        if self._confidence[1] is None:
            raise MelprintError(
                f"{self.folder} has a network without measured thresholds; run melprint catalog calibrate, or give a"
                " --threshold"
            )
        return self._confidence[1]

    def _read_confidence(self, path: Path) -> Confidence | None:
        if path.exists():
            try:
                return Confidence.from_measured(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, KeyError, TypeError) as error:
                raise MelprintError(f"{path} is damaged ({error}); run melprint catalog calibrate again") from error
        name = self.model_name
        return Confidence.from_measured(card_of(name)["thresholds"]) if name else None

    def identify(self, recording: Any, sample_rate_hz: int | None = None, **options: Any) -> "list[Answer]":
        """The best matches of one recording, best first; see :func:`melprint.recognition.identify.identify`.

        Args:
            recording: a file, or samples ``(T,)`` or ``(T, channels)``, floating in [-1, 1] or int16.
            sample_rate_hz: of samples; by default that of the network.
            **options: ``num_best``, ``threshold``, ``false_accept_rate``.

        Raises:
            MelprintError: it cannot be read.
        """
        from melprint.recognition.identify import identify_one

        return identify_one(self, recording, sample_rate_hz, **options)

    # Writing

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Alone, as far as writers are concerned.

        Raises:
            MelprintError: another process writes for longer than ``wait_s``.
        """
        try:
            self._lock.acquire(timeout=self.wait_s)
        except Timeout as error:
            raise MelprintError(
                f"another process has been writing to {self.folder} for {self.wait_s:g} s; try again when it is done"
            ) from error
        except OSError as error:
            raise MelprintError(
                f"{self.folder} cannot be written ({error.strerror or error}); give yourself the right to"
            ) from error
        try:
            yield
        finally:
            self._lock.release()

    def append(self, new: Sequence[NewTrack]) -> list[Track]:
        """Add fingerprinted recordings, all of them or none; files that are there already are left out.

        Keys that other tracks have get a number behind them.

        Returns:
            What was added.

        Raises:
            MelprintError: one has no fingerprints, or such of another network.
        """
        for each in new:
            if each.rows.ndim != 2 or not len(each.rows) or each.rows.shape[1] != self.settings["dim"]:
                raise MelprintError(
                    f"{each.track.key} has fingerprints of shape {each.rows.shape}, {self.folder} takes at least one of"
                    f" {self.settings['dim']} numbers; fingerprint it with the catalog's network"
                )
        with self.writing():
            there = self.tables.with_values("sha256", [each.track.sha256 for each in new])
            going = {each.replaces for each in new}
            added: dict[str, NewTrack] = {}
            for each in new:
                if each.track.sha256 not in there or there[each.track.sha256].id in going:
                    added.setdefault(each.track.sha256, each)
            if not added:
                return []
            state = self.tables.state()
            replaced = [each.replaces for each in added.values() if each.replaces is not None]
            tracks, row = [], state.num_rows
            for each, key in zip(added.values(), self._free_keys(list(added.values()), replaced), strict=True):
                track = each.track
                track.key, track.first_row, track.num_rows = key, row, len(each.rows)
                track.rows_sha256, track.added = rows_digest(each.rows), now()
                tracks.append(track)
                row += len(each.rows)
            file = self._file(state.generation)
            end = file.append(state.num_rows, (each.rows for each in added.values()))
            self.tables.append(tracks, end, replaced)
            if replaced:
                self._forget(replaced)
            return tracks

    def _free_keys(self, new: Sequence[NewTrack], replaced: Sequence[int]) -> list[str]:
        # Blanks at the end count in some databases and not in others.
        wanted = [each.track.key[: TEXT - 8].rstrip() for each in new]
        taken = {key for key, track in self.tables.with_values("key", wanted).items() if track.id not in replaced}
        keys = []
        for key in wanted:
            free, number = key, 2
            while free in taken or (number > 2 and self.tables.with_values("key", [free])):
                free, number = f"{key} ({number})", number + 1
            taken.add(free)
            keys.append(free)
        return keys

    def remove(self, names: Sequence[str]) -> list[Track]:
        """Remove tracks by key or number; the next query does not find them any more.

        Raises:
            MelprintError: one of them is not there; then all stay.
        """
        with self.writing():
            tracks = self.find(names)
            self.tables.remove([track.id for track in tracks])
            self._forget([track.id for track in tracks])
        self.tidy()
        return tracks

    def _forget(self, ids: Sequence[int]) -> None:
        view = self.view()
        self.vectors(view).forget(ids)

    def update(self, name: str, **values: str) -> Track:
        """Change key, title, artist or album of a track.

        Raises:
            MelprintError: there is no such track or column, or the key is taken or empty.
        """
        for column, value in values.items():
            if column not in EDITABLE:
                raise MelprintError(f"{column} cannot be edited; {', '.join(EDITABLE)} can")
            if len(value) > TEXT:
                raise MelprintError(f"{column} is {len(value)} characters long, {TEXT} are possible")
            if not is_text(value):
                raise MelprintError(f"{column} has characters that are no text: {value!r}; leave them out")
        if "key" in values:
            values["key"] = values["key"].rstrip()
            if not values["key"]:
                raise MelprintError("a key must not be empty")
        with self.writing():
            (track,) = self.find([name])
            if values:
                self.tables.edit(track.id, values)
        return self.tables.tracks([track.id])[track.id]

    def tidy(self) -> None:
        """Let the index follow, and write the fingerprints anew once many of them belong to no track."""
        with self.writing():
            view = self.view()
            dead = len(view.rows) - len(view)
            if dead > max(FEWEST_DEAD, DEAD_SHARE * len(view.rows)):
                self._compact(view)
                view = self.view()
            self._sweep(view.generation)  # what an interrupted compaction has left
            self.vectors(view).follow(view)

    def compact(self) -> int:
        """Write the fingerprints anew without those of removed tracks.

        Returns:
            How many rows went.
        """
        with self.writing():
            view = self.view()
            dead = len(view.rows) - len(view)
            if dead:
                self._compact(view)
                view = self.view()
                self.vectors(view).follow(view)
            return dead

    def _compact(self, view: View) -> None:
        file = self._file(view.generation + 1)
        file.path.unlink(missing_ok=True)
        try:
            total = file.append(0, view.stretches(COPY_ROWS))
        except MelprintError:
            file.path.unlink(missing_ok=True)
            raise
        first = np.cumsum(view.count) - view.count
        self.tables.renumber(
            dict(zip(view.track_ids.tolist(), first.tolist(), strict=True)), view.generation + 1, total
        )
        self._sweep(view.generation + 1)

    def reindex(self, kind: str | None = None) -> View:
        """Make the index anew, as the same kind or another; nothing is fingerprinted again.

        Raises:
            MelprintError: there is no such kind, or it cannot be had here.
        """
        with self.writing():
            view = self.view()
            kind, old = kind or view.kind, self.vectors(view)
            old.close()
            self._vectors = None
            with closing(vectors_for(self.folder, kind, len(view), self.settings["milvus"])) as vectors:
                if len(view.rows) > len(view):
                    self._compact(view)
                    view = self.view()
                vectors.follow(view, anew=True)
            if kind != view.kind:
                self.tables.set_index(kind)
            if old.name != vectors.name:
                with closing(old), suppress(MelprintError):  # a server that is gone may be the reason
                    old.drop()
            return self.view()

    def _sweep(self, generation: int) -> None:
        """Remove fingerprints of other generations, and indexes of them; whoever has them mapped keeps them."""
        for path in self.folder.glob("fingerprints-*.mm"):
            if path != self._file(generation).path:
                path.unlink(missing_ok=True)
        for path in self.folder.glob("index-*.faiss"):
            if f"-{generation}-" not in path.name:
                path.unlink(missing_ok=True)
        for path in self.folder.glob("index-*.faiss.partial"):
            path.unlink(missing_ok=True)

    def _file(self, generation: int) -> RowFile:
        return RowFile(self.folder, generation, self.settings["dim"])


def _is_free(folder: Path) -> bool:
    """Whether a catalog can be made there: an empty folder, or what a killed creation has left."""
    if not folder.is_dir():
        return False
    try:
        names = {path.name for path in folder.iterdir()} - {LOCK}
    except OSError as error:
        raise MelprintError(f"{folder} cannot be used ({error.strerror})") from error
    return not names or (CLAIM in names and SETTINGS not in names)


def _refuse(folder: Path) -> None:
    if (folder / SETTINGS).exists():
        raise MelprintError(f"{folder} is a catalog already; add to it, or choose another folder")
    raise MelprintError(f"{folder} is not empty; choose a new folder for the catalog")


def is_catalog(path: Path) -> bool:
    """Whether a folder is a catalog."""
    return (path / SETTINGS).is_file()
