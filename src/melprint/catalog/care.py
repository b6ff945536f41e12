"""Looking after catalogs: what is in them, whether it is intact, merging, exporting."""

import csv
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from melprint.catalog.catalog import Catalog, NewTrack
from melprint.catalog.rows import DTYPE, rows_digest
from melprint.catalog.tables import Track
from melprint.catalog.vectors import FaissVectors
from melprint.catalog.view import View
from melprint.data.manifest import replacing
from melprint.errors import MelprintError
from melprint.fingerprints.store import StoredTrack, StoreMeta, file_digest, install
from melprint.fingerprints.writer import source_commit
from melprint.progress import progress_bar
from melprint.version import __version__

MERGED_AT_ONCE = 64  # tracks: what memory holds and one transaction takes
EXPORTED = ("id", "key", "title", "artist", "album", "duration_s", "path", "sha256", "added")
STORE = "catalog"


def describe(catalog: Catalog) -> dict[str, Any]:
    """What a catalog holds and how it is searched, as plain values."""
    view, (tracks, seconds, rows) = catalog.view(), catalog.tables.count()
    vectors = catalog.vectors(view)
    covered = vectors.covered(view)
    searched = vectors.name if covered else "exact"
    if isinstance(vectors, FaissVectors) and covered:
        searched += f" ({covered} rows, {len(view.rows) - covered} compared exactly)"
    calibrated = (catalog.folder / "calibration.json").exists()
    known = "for its network" if catalog.model_name else "not measured; run melprint catalog calibrate"
    return {
        "folder": str(catalog.folder),
        "model": catalog.settings["model"],
        "model_digest": catalog.settings["model_digest"],
        "created": catalog.settings["created"],
        "tracks": tracks,
        "hours": round(seconds / 3600, 3),
        "fingerprints": rows,
        "dimensions": catalog.fingerprinter.dim,
        "removed_rows": len(view.rows) - len(view),
        "bytes": sum(path.stat().st_size for path in catalog.folder.rglob("*") if path.is_file()),
        "database": catalog.tables.shown,
        "index": f"{view.kind}, searches {searched}",
        "confidence": "calibrated on this catalog" if calibrated else f"as measured {known}",
    }


def problems(catalog: Catalog) -> list[str]:
    """What is wrong with a catalog, in sentences; reads all fingerprints once.

    Tracks whose rows are not those that were written, or overlap those of another track; an index that does not work.
    """
    view, tracks = catalog.view(), catalog.tracks()
    found: list[str] = []
    ends = view.first + view.count
    for position in (view.first[1:] < ends[:-1]).nonzero()[0].tolist():
        names = [tracks[number].key for number in view.track_ids[position : position + 2].tolist() if number in tracks]
        if len(names) == 2:
            found.append(f"the fingerprints of {names[0]} and {names[1]} overlap; remove both and add them again")
    with progress_bar("verify", len(view.first)) as advance:
        for position, number in enumerate(view.track_ids.tolist()):
            first, count = int(view.first[position]), int(view.count[position])
            if number not in tracks:
                pass  # removed between the two looks
            elif first + count > len(view.rows):
                found.append(f"the fingerprints of {tracks[number].key} are missing; remove it and add it again")
            elif rows_digest(view.rows.parts[0][first : first + count]) != tracks[number].rows_sha256:
                found.append(f"the fingerprints of {tracks[number].key} are damaged; remove it and add it again")
            advance(1)
    return found + catalog.vectors(view).check(view)


def merge(catalog: Catalog, other: Catalog) -> int:
    """Add the tracks of another catalog; files that both have count once, and keys that both use get a number.

    Interrupted, the same call goes on.

    Returns:
        How many tracks were added.

    Raises:
        MelprintError: it is the same catalog, or was made by another network.
    """
    if catalog.settings["uid"] == other.settings["uid"]:
        raise MelprintError(f"{other.folder} is the same catalog as {catalog.folder}; name another one")
    if catalog.settings["model_digest"] != other.settings["model_digest"]:
        raise MelprintError(
            f"{other.folder} was made by another network ({other.settings['model']}) than {catalog.folder}"
            f" ({catalog.settings['model']}); add its music instead"
        )
    view, tracks = other.view(), other.tracks()
    there = catalog.tables.with_values("sha256", [track.sha256 for track in tracks.values()])
    new = _new_tracks(other, view, tracks, set(there))
    added = 0
    with progress_bar("merge", len(view.first)) as advance:
        while some := list(islice(new, MERGED_AT_ONCE)):
            added += len(catalog.append(some))
            advance(len(some))
    catalog.tidy()
    return added


def _new_tracks(other: Catalog, view: View, tracks: dict[int, Track], there: set[str]) -> Iterator[NewTrack]:
    for position, number in enumerate(view.track_ids.tolist()):
        track = tracks.get(number)  # none where it was removed between the two looks
        if track is None or track.sha256 in there:
            continue
        rows = view.rows.parts[0][view.first[position] : view.first[position] + view.count[position]]
        if rows_digest(rows) != track.rows_sha256:
            raise MelprintError(f"the fingerprints of {track.key} in {other.folder} are damaged; run catalog verify")
        yield NewTrack(track.copied(), rows)


def export(catalog: Catalog, out: Path) -> None:
    """Write a table of the tracks, or a folder with a fingerprint store that ``evaluate.py`` and others read.

    Raises:
        MelprintError: the folder is in use, the suffix is none of these, or the catalog is empty.
    """
    view, tracks = catalog.view(), catalog.tracks()
    if out.suffix in (".csv", ".jsonl"):
        _write_table(list(tracks.values()), out)
        return
    if out.suffix or out.is_file():
        raise MelprintError(f"OUT must end in .csv or .jsonl, or be a folder, got {out}")
    if out.exists() and any(out.iterdir()):
        raise MelprintError(f"{out} is not empty; choose a new folder")
    if not len(view):
        raise MelprintError(f"{catalog.folder} holds no track; add some first")
    out.mkdir(parents=True, exist_ok=True)
    rows = out / ".rows"
    with rows.open("wb") as file:
        file.writelines(np.ascontiguousarray(block).data for block in view.stretches())
    firsts = np.cumsum(view.count) - view.count
    stored, named = [], []
    for number, first, count in zip(view.track_ids.tolist(), firsts.tolist(), view.count.tolist(), strict=True):
        if (track := tracks.get(number)) is None:
            raise MelprintError(f"{catalog.folder} was changed while it was read; export it once more")
        stored.append(StoredTrack(track.key, track.path, first, count, track.duration_s))
        named.append(track)
    meta = StoreMeta(
        segment=catalog.segment, model=catalog.settings["model_digest"], dtype=DTYPE.name, rows=len(view),
        dim=catalog.fingerprinter.dim, digest=file_digest(rows), made_from=f"catalog {catalog.settings['uid']}",
        version=__version__, commit=source_commit(),
    )  # fmt: skip
    install(out, STORE, rows, stored, meta)
    _write_table(named, out / "tracks.csv")


def _write_table(tracks: Sequence[Track], path: Path) -> None:
    with replacing(path) as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(track.as_json(), ensure_ascii=False) + "\n" for track in tracks)
            return
        table = csv.DictWriter(file, EXPORTED)
        table.writeheader()
        table.writerows(track.as_json() for track in tracks)
