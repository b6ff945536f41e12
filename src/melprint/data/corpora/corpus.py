"""What a run works on: music, noise and rooms with their splits, from packages, a folder, or a published set."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

from melprint.audio.files import find_recordings, map_pcm
from melprint.augment.banks import Surroundings
from melprint.data.corpora.noise import FolderNoise, PackageNoise, PinkNoise, train_and_test_files
from melprint.data.corpora.packages import fetch_packages, licence_of
from melprint.data.corpora.rooms import measured_rooms, simulate_rooms
from melprint.data.manifest import MANIFEST, Track, alone, of_split, read_manifest, write_manifest
from melprint.data.prepare import Preparation, Recording, prepare, recordings_of
from melprint.errors import MelprintError
from melprint.progress import console, progress_bar

SETTINGS = ".settings.sha256"
MIN_NOISE_S = 0.25
AMBIENCE = "ambience"  # the split of what is no music
PACKAGES = "packages"  # unpacked here until all is prepared


@dataclass(frozen=True)
class Corpus:
    """Prepared audio of one corpus.

    Attributes:
        root: where derived data of this corpus may be kept.
        music: tracks with the splits ``train``, ``val``, ``test`` and ``dummy``.
        noise: tracks with the splits ``train``, ``val`` and ``test``; the part of a track id before the
            first slash is the kind of noise, and kinds are drawn equally often.
        rooms: impulse responses, with the same three splits.
        queries: degraded versions of the test tracks, one for one, where the corpus brings them.
        sample_rate_hz: of everything.
    """

    root: Path
    music: list[Track]
    noise: list[Track]
    rooms: list[Track]
    queries: list[Track] = field(default_factory=list)
    sample_rate_hz: int = 8_000

    def music_of(self, split: str) -> list[Track]:
        """The music of one split.

        Raises:
            MelprintError: there is none.
        """
        if not (tracks := of_split(self.music, split)):
            raise MelprintError(f"{self.root} has no {split} music; give it more albums or another division")
        return tracks

    def surroundings(self, split: str) -> Surroundings:
        """The noise and rooms of one split."""
        return Surroundings(
            of_split(self.noise, split), of_split(self.rooms, split), self.sample_rate_hz, of_split(self.music, split)
        )

    def distractors(self) -> list[Track]:
        """Tracks that are in the store but never asked for."""
        return of_split(self.music, "dummy") or of_split(self.music, "train", "val", AMBIENCE)


class NoiseSource(Protocol):
    """Anything that can provide noise with splits."""

    def recordings(self, cache: Path, folder: Path, sample_rate_hz: int) -> list[Recording]:
        """Recordings to prepare; files that have to be made go to ``folder``."""


@dataclass(frozen=True)
class Rooms:
    """Rooms of a corpus.

    Attributes:
        simulated: how many to simulate for each split.
        measured: package -> glob -> split.
        folder: the user's own, with ``train`` and ``test`` inside; takes the place of the others.
    """

    simulated: Mapping[str, int] = field(default_factory=dict)
    measured: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    folder: str | None = None

    def recordings(self, cache: Path, folder: Path, sample_rate_hz: int) -> list[Recording]:
        """Recordings to prepare; files that have to be made go to ``folder``."""
        if self.folder is not None:
            return train_and_test_files(Path(self.folder))
        made = simulate_rooms(folder, self.simulated, sample_rate_hz=sample_rate_hz)
        return made + (
            measured_rooms(self.measured, cache, folder, sample_rate_hz=sample_rate_hz) if self.measured else []
        )


@dataclass(frozen=True)
class PackageCorpus:
    """Soundtracks of free games, from Debian and Ubuntu packages.

    Attributes:
        root: folder of the prepared corpus.
        packages: the packages of each split.
        noise: where noise comes from.
        rooms: where rooms come from.
        min_duration_s: shorter recordings are effects and not music.
        not_music: track ids with wildcards: recordings of rain or wind, which are distractors and nothing else.
        sample_rate_hz: of the prepared audio.
    """

    root: str
    packages: Mapping[str, Sequence[str]]
    noise: PackageNoise
    rooms: Rooms
    min_duration_s: float = 30.0
    not_music: Sequence[str] = ()
    sample_rate_hz: int = 8_000

    def prepare(self) -> Corpus:
        """Fetch and prepare what is not there yet."""
        root = Path(self.root)
        with alone(root):
            settings = repr((self.packages, self.min_duration_s, self.sample_rate_hz))
            prepared = _once(root / "music", settings, self._prepare_music)
            music = [
                replace(track, split=AMBIENCE)
                if any(fnmatch(track.track_id, name) for name in self.not_music)
                else track
                for track in prepared
            ]
            return _with_noise_and_rooms(root, music, self.noise, self.rooms, self.sample_rate_hz)

    def _prepare_music(self, out: Path) -> Preparation:
        split_of = {name: split for split, names in self.packages.items() for name in names}
        recordings = []
        for name, folder in fetch_packages(list(split_of), Path(self.root) / PACKAGES).items():
            for path in find_recordings(folder):
                track_id = f"{name}/{path.relative_to(folder).as_posix()}"
                recordings.append(Recording(path, track_id, split_of[name], f"debian:{name}", licence_of(name)))
        # Unpacked packages are removed afterwards: nothing can be used in place.
        return prepare(
            recordings,
            out,
            sample_rate_hz=self.sample_rate_hz,
            min_duration_s=self.min_duration_s,
            in_place=False,
        )


@dataclass(frozen=True)
class FolderCorpus:
    """The user's own music, split by album.

    Attributes:
        music: any folder of recordings, or one that ``melprint prepare`` has made.
        root: folder of the prepared corpus; by default one below ``data`` that is named after the music.
        noise: where noise comes from.
        rooms: where rooms come from.
        val: share of the tracks for validation.
        test: share of the tracks for test.
        min_duration_s: shorter recordings are left out.
        sample_rate_hz: of the prepared audio.
    """

    music: str
    root: str | None = None
    noise: NoiseSource = field(default_factory=PinkNoise)
    rooms: Rooms = field(default_factory=Rooms)
    val: float = 0.1
    test: float = 0.2
    min_duration_s: float = 15.0
    sample_rate_hz: int = 8_000

    def prepare(self) -> Corpus:
        """Prepare what is not there yet."""
        source = Path(self.music).expanduser()
        if not source.is_dir():
            raise MelprintError(f"{source} is not a folder; give the one that holds your music as data.corpus.music")
        key = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:8]
        root = Path(self.root or f"data/folder-{source.resolve().name}-{key}")
        with alone(root):
            if (source / MANIFEST).exists():
                music = read_manifest(source)
            else:
                settings = repr((_listed(source), self.val, self.test, self.min_duration_s, self.sample_rate_hz))
                music = _once(root / "music", settings, self._prepare_music)
            return _with_noise_and_rooms(root, music, self.noise, self.rooms, self.sample_rate_hz)

    def _prepare_music(self, out: Path) -> Preparation:
        recordings = recordings_of(Path(self.music).expanduser(), val=self.val, test=self.test)
        return prepare(recordings, out, sample_rate_hz=self.sample_rate_hz, min_duration_s=self.min_duration_s)


@dataclass(frozen=True)
class NafpCorpus:
    """The dataset that Chang et al. 2021 published, used in place and never written to.

    Attributes:
        path: the folder that holds ``music`` and ``aug``.
        root: where manifests of it are kept.
        sample_rate_hz: of its wavs.
    """

    path: str
    root: str
    sample_rate_hz: int = 8_000

    def prepare(self) -> Corpus:
        """List the files; only headers are read."""
        base, music = Path(self.path), Path(self.path) / "music"
        val = music / "val-query-db-500-30s"
        folders = {
            "train": music / "train-10k-30s",
            "val": val / "db" if (val / "db").is_dir() else val,
            "test": music / "test-query-db-500-30s" / "db",
            "dummy": music / "test-dummy-db-100k-full",
        }
        tracks = [
            track
            for split, folder in folders.items()
            for track in self._list(
                [Recording(path, path.relative_to(base).as_posix(), split) for path in find_recordings(folder)]
            )
        ]
        queries = self._list(
            [
                Recording(path, path.relative_to(base).as_posix(), "test")
                for path in find_recordings(folders["test"].parent / "query")
            ]
        )
        if [q.path.name for q in queries] != [track.path.name for track in tracks if track.split == "test"]:
            raise MelprintError(f"{folders['test'].parent}: query and db must hold files of the same names")
        noise = self._list(train_and_test_files(base / "aug" / "bg"))
        rooms = self._list(train_and_test_files(base / "aug" / "ir"))
        root = Path(self.root)
        root.mkdir(parents=True, exist_ok=True)
        write_manifest(root, tracks)
        return Corpus(root, tracks, noise, rooms, queries, self.sample_rate_hz)

    def _list(self, recordings: Sequence[Recording]) -> list[Track]:
        tracks = []
        with progress_bar("list wavs", len(recordings)) as advance:
            for recording in recordings:
                length = len(map_pcm(recording.path, self.sample_rate_hz))
                tracks.append(
                    Track(recording.track_id, recording.path.resolve(), length, recording.split, "", "nafp", "")
                )
                advance(1)
        return tracks


def _with_noise_and_rooms(
    root: Path, music: list[Track], noise: NoiseSource, rooms: Rooms, sample_rate_hz: int
) -> Corpus:
    packages = root / PACKAGES

    def prepare_noise(out: Path) -> Preparation:
        recordings = noise.recordings(packages, out / "made", sample_rate_hz)
        return prepare(recordings, out, sample_rate_hz=sample_rate_hz, min_duration_s=MIN_NOISE_S)

    def prepare_rooms(out: Path) -> Preparation:
        recordings = rooms.recordings(packages, out / "made", sample_rate_hz)
        return prepare(recordings, out, sample_rate_hz=sample_rate_hz, min_duration_s=0.0)

    own_noise = _listed(Path(noise.path)) if isinstance(noise, FolderNoise) else []
    own_rooms = _listed(Path(rooms.folder)) if rooms.folder is not None else []
    noise_tracks = _once(root / "noise", repr((noise, own_noise, sample_rate_hz)), prepare_noise)
    room_tracks = _once(root / "rooms", repr((rooms, own_rooms, sample_rate_hz)), prepare_rooms)
    shutil.rmtree(packages, ignore_errors=True)
    return Corpus(root, music, noise_tracks, room_tracks, sample_rate_hz=sample_rate_hz)


def _listed(folder: Path) -> list[tuple[str, int]]:
    """What tells whether the user's files are still the same; a file that cannot be opened counts as such."""
    paths = find_recordings(folder)
    return [(str(path), path.stat().st_mtime_ns if path.exists() else 0) for path in paths]


def _once(folder: Path, settings: str, make: "_Maker") -> list[Track]:
    """The manifest of ``folder``, made again only where it was made with other settings."""
    digest = hashlib.sha256(settings.encode()).hexdigest()
    stamp = folder / SETTINGS
    if not ((folder / MANIFEST).exists() and stamp.exists() and stamp.read_text() == digest):
        stamp.unlink(missing_ok=True)
        preparation = make(folder)
        if preparation.rejected:
            console.print(f"{folder.name}: {len(preparation.rejected)} files left out, see {folder / 'rejected.csv'}")
        stamp.write_text(digest)
    return read_manifest(folder)


class _Maker(Protocol):
    def __call__(self, out: Path) -> Preparation: ...
