"""Turning any folder of recordings into prepared audio: parallel, resumable, with a list of what was left out."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melprint.audio.files import find_recordings, is_prepared, map_pcm, read_mono, to_int16, write_wav
from melprint.data.manifest import Track, write_manifest, write_rows
from melprint.data.splits import split_by_group
from melprint.errors import MelprintError
from melprint.progress import progress_bar

JOURNAL = ".prepare.jsonl"
REJECTED = "rejected.csv"
SILENCE_DB = -80.0  # RMS re full scale; quieter files hold no music that 16 bits could carry


@dataclass(frozen=True)
class Recording:
    """One file to prepare, with what the manifest is to say of it."""

    path: Path
    track_id: str
    split: str
    source: str = ""
    licence: str = ""


@dataclass
class Preparation:
    """What became of the files of one folder."""

    tracks: list[Track] = field(default_factory=list)
    rejected: list[tuple[Path, str]] = field(default_factory=list)


def recordings_of(folder: Path, *, val: float = 0.1, test: float = 0.2, seed: int = 0) -> list[Recording]:
    """The recordings below a folder, split by album.

    The album of a file is the folder that holds it; files directly in ``folder`` are albums of their own.
    """
    paths = find_recordings(folder)
    relative = [path.relative_to(folder) for path in paths]
    albums = [str(path.parent) if path.parent != Path() else str(path) for path in relative]
    splits = split_by_group(albums, val=val, test=test, seed=seed)
    return [
        Recording(path, name.as_posix(), split, source=str(path))
        for path, name, split in zip(paths, relative, splits, strict=True)
    ]


def prepare(
    recordings: Sequence[Recording],
    out: Path,
    *,
    sample_rate_hz: int = 8_000,
    min_duration_s: float = 1.0,
    workers: int | None = None,
    in_place: bool = True,
) -> Preparation:
    """Write the prepared form of ``recordings`` to ``out`` with ``manifest.csv`` and ``rejected.csv``.

    A wav that already conforms is used in place, unless ``in_place`` is false. Unreadable, silent and too
    short files, and those whose samples equal an earlier file's, are left out and listed. A journal in
    ``out`` lets an interrupted run continue; the manifest appears when all is done.

    Raises:
        MelprintError: no file is usable, or ``out`` cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    journal = _Journal(out / JOURNAL, {"sample_rate_hz": sample_rate_hz, "min_duration_s": min_duration_s})
    outcomes = {recording.path: journal.recall(recording.path) for recording in recordings}
    todo = [recording for recording in recordings if outcomes[recording.path] is None]
    with journal, progress_bar(f"prepare {out.name}", len(recordings)) as advance:
        advance(len(recordings) - len(todo))
        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            futures = {
                pool.submit(_prepare_one, recording, out, sample_rate_hz, min_duration_s, in_place): recording
                for recording in todo
            }
            try:
                for future in as_completed(futures):
                    path = futures[future].path
                    outcomes[path] = outcome = future.result()
                    journal.note(path, outcome)
                    advance(1)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    return _conclude(recordings, outcomes, out)


@dataclass(frozen=True)
class _Outcome:
    path: str = ""
    num_samples: int = 0
    sha256: str = ""
    reason: str = ""
    written_ns: int = 0


def _prepare_one(
    recording: Recording, out: Path, sample_rate_hz: int, min_duration_s: float, in_place: bool
) -> _Outcome:
    try:
        in_place = in_place and is_prepared(recording.path, sample_rate_hz)
        if in_place:
            pcm: NDArray[np.int16] = map_pcm(recording.path, sample_rate_hz)
        else:
            pcm = to_int16(read_mono(recording.path, sample_rate_hz))
    except MelprintError as error:
        return _Outcome(reason=str(error).removeprefix(f"{recording.path}: "))
    except Exception as error:  # libsndfile's info() on a damaged file
        return _Outcome(reason=f"unreadable ({str(error).splitlines()[0]})")
    if len(pcm) < min_duration_s * sample_rate_hz:
        return _Outcome(reason=f"too short: {len(pcm) / sample_rate_hz:.2f} s of {min_duration_s:g} s")
    power = np.square(pcm, dtype=np.float32).mean(dtype=np.float64) / 2**30
    if power <= 10 ** (SILENCE_DB / 10):
        return _Outcome(reason=f"silent: below {SILENCE_DB:g} dB")
    path = recording.path
    if not in_place:
        path = out / "wav" / f"{recording.track_id}.wav"
        write_wav(path, pcm, sample_rate_hz)
    digest = hashlib.sha256(np.ascontiguousarray(pcm, "<i2").data).hexdigest()
    return _Outcome(str(path.resolve()), len(pcm), digest, written_ns=path.stat().st_mtime_ns)


def _conclude(recordings: Iterable[Recording], outcomes: dict[Path, Any], out: Path) -> Preparation:
    result = Preparation()
    first_with: dict[str, Recording] = {}
    for recording in recordings:
        outcome = outcomes[recording.path]
        if outcome.reason:
            result.rejected.append((recording.path, outcome.reason))
            continue
        twin = first_with.setdefault(outcome.sha256, recording)
        if twin is not recording:
            result.rejected.append((recording.path, f"same audio as {twin.path}"))
            continue
        result.tracks.append(
            Track(
                recording.track_id,
                Path(outcome.path),
                outcome.num_samples,
                recording.split,
                outcome.sha256,
                recording.source,
                recording.licence,
            )
        )
    write_rows(out / REJECTED, ["path", "reason"], result.rejected)
    if not result.tracks:
        raise MelprintError(f"none of {len(result.rejected)} files can be used; {out / REJECTED} says why")
    write_manifest(out, result.tracks)
    return result


class _Journal:
    """One line for each file that is done, so that an interrupted preparation can go on."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        self._known: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue  # the line that an interruption cut short
                self._known[entry["file"]] = entry

    def _identity(self, path: Path) -> dict[str, Any]:
        status = path.stat()
        return {"file": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns, **self.settings}

    def recall(self, path: Path) -> _Outcome | None:
        entry = self._known.get(str(path))
        try:
            if entry is None or not self._identity(path).items() <= entry.items():
                return None
            outcome = _Outcome(**entry["outcome"])
            unchanged = outcome.reason or Path(outcome.path).stat().st_mtime_ns == outcome.written_ns
        except OSError:
            return None
        return outcome if unchanged else None

    def note(self, path: Path, outcome: _Outcome) -> None:
        if not path.exists():
            return  # a link to nothing: found unreadable again next time
        self._file.write(json.dumps({**self._identity(path), "outcome": asdict(outcome)}) + "\n")
        self._file.flush()

    def __enter__(self) -> "_Journal":
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
