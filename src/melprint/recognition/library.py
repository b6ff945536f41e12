"""A folder of fingerprints that recordings are looked up in.  Axes: N rows · D fingerprint size."""

from dataclasses import dataclass
from pathlib import Path

from melprint.errors import MelprintError
from melprint.fingerprints.extractor import Extraction, extract, sources_of_folder
from melprint.fingerprints.store import Store, is_complete, open_store
from melprint.models.checkpoint import load, model_digest
from melprint.models.fingerprinter import Fingerprinter
from melprint.weights.shipped import DEFAULT, NAMES, card_of

STORE = "library"


@dataclass(frozen=True)
class Library:
    """An open library.

    Attributes:
        store: the fingerprints of its tracks.
        fingerprinter: the network that made them.
    """

    store: Store
    fingerprinter: Fingerprinter

    @classmethod
    def open(cls, folder: Path, model: str | None = None, device: str = "cpu") -> "Library":
        """Open the library and the network that made it.

        Args:
            folder: that ``melprint fingerprint`` wrote.
            model: the network; by default the shipped one whose digest the library names.
            device: of the network.

        Raises:
            MelprintError: there is no library, or the network is another.
        """
        if not folder.is_dir():
            raise MelprintError(f"there is no library {folder}; make one with melprint fingerprint MUSIC {folder}")
        if not is_complete(folder, STORE):
            raise MelprintError(f"{folder} holds no finished library; run melprint fingerprint MUSIC {folder}")
        store = open_store(folder, STORE)
        assert store.meta is not None  # open_store refuses stores of unknown origin
        name = model or _shipped_with_digest(store.meta.model)
        if name is None:
            raise MelprintError(f"{folder} was made by a network that is not shipped; name it with --model FILE")
        fingerprinter = load(name, device)
        if model_digest(fingerprinter) != store.meta.model:
            raise MelprintError(
                f"{folder} was not made by {name}; name the network that made it, or fingerprint the music again"
            )
        return cls(store, fingerprinter)

    @property
    def model(self) -> str | None:
        """The name of its network, where it is a shipped one."""
        assert self.store.meta is not None
        return _shipped_with_digest(self.store.meta.model)


def make_library(
    music: Path,
    folder: Path,
    model: str = DEFAULT,
    *,
    dtype: str = "float16",
    device: str = "cpu",
    overwrite: bool = False,
) -> Extraction:
    """Fingerprint all recordings below ``music``; goes on where an interrupted run stopped.

    Files that cannot be read are listed in ``library_rejected.csv`` and left out.  Music that has changed since is
    fingerprinted anew.

    Raises:
        MelprintError: no recordings, or the folder cannot be written; it holds a library of another network or of
            tracks that are not there any more, and ``overwrite`` is not given.
    """
    fingerprinter = load(model, device)
    sources = sources_of_folder(music, fingerprinter.segment.sample_rate_hz)
    if is_complete(folder, STORE) and not overwrite:
        store = open_store(folder, STORE)
        gone = {track.track_id for track in store.tracks} - {source.track_id for source in sources}
        if gone:
            raise MelprintError(
                f"{folder} is a library of other music: {len(gone)} of its {len(store.tracks)} tracks are not below"
                f" {music}, {min(gone)} among them; choose another folder, or drop it with --overwrite"
            )
        if store.meta is not None and store.meta.model != model_digest(fingerprinter):
            raise MelprintError(
                f"{folder} was made by another network than {model}; choose another folder, or drop it with --overwrite"
            )
    return extract(fingerprinter, sources, folder, STORE, dtype=dtype, skip_unreadable=True)


def _shipped_with_digest(digest: str) -> str | None:
    return next((name for name in NAMES if card_of(name)["digest"] == digest), None)
