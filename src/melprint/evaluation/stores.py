"""The stores that an evaluation reads."""

from dataclasses import dataclass
from pathlib import Path

from melprint.errors import MelprintError
from melprint.fingerprints.store import Store, names, open_foreign, open_store
from melprint.progress import console
from melprint.spec import SegmentSpec


@dataclass(frozen=True)
class TestStores:
    """Queries, the tracks that are asked for, and distractors where there are any."""

    __test__ = False  # pytest: not a test case

    query: Store
    db: Store
    dummy: Store | None

    @classmethod
    def open(cls, folder: Path, dummy_folder: Path | None, mode: str) -> "TestStores":
        """Open ``query``, ``db`` and ``dummy_db``; compat mode takes arrays of whatever origin.

        Raises:
            MelprintError: a store is missing, or they were made differently.
        """
        if not folder.is_dir():
            raise MelprintError(f"there is no folder {folder}; make the stores with python generate.py, or name ckpt=…")
        opener = open_foreign if mode == "compat" else open_store
        dummy_at = dummy_folder or folder
        has_dummy = names(dummy_at, "dummy_db")[0].exists()
        if dummy_folder is not None and not has_dummy:
            raise MelprintError(f"{dummy_folder} has no dummy_db.mm")
        if not has_dummy:
            console.print(
                f"{folder} has no dummy_db: only the rows of db are searched", highlight=False, soft_wrap=True
            )
        stores = cls(opener(folder, "query"), opener(folder, "db"), opener(dummy_at, "dummy_db") if has_dummy else None)
        made_by = {(s.meta.model, s.meta.segment) for s in stores.present() if s.meta is not None}
        if len(made_by) > 1:
            raise MelprintError(
                f"the stores of {folder} were made by different models or segments; generate them again"
            )
        return stores

    def present(self) -> list[Store]:
        """Those that there are."""
        return [store for store in (self.query, self.db, self.dummy) if store is not None]

    @property
    def segment(self) -> SegmentSpec:
        """How the audio was cut; the published geometry where nothing is said."""
        return self.db.meta.segment if self.db.meta is not None else SegmentSpec()

    def origin(self) -> dict[str, str]:
        """What a report says of them."""
        said = {store.name: f"{len(store.rows)} rows, {store.folder}" for store in self.present()}
        if self.db.meta is not None:
            said |= {"model": self.db.meta.model, "version": self.db.meta.version, "commit": self.db.meta.commit}
        return said
