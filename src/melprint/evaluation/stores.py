"""The stores that an evaluation reads."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from melprint.errors import MelprintError
from melprint.evaluation.distractors import synthetic_store
from melprint.fingerprints.store import Store, names, open_foreign, open_store
from melprint.progress import console
from melprint.spec import SegmentSpec


@dataclass(frozen=True)
class TestStores:
    """Queries, the tracks that are asked for, and distractors where there are any: real ones, then synthetic ones."""

    __test__ = False  # pytest: not a test case

    query: Store
    db: Store
    distractors: tuple[Store, ...] = ()

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
        if not has_dummy and any(path.exists() for path in names(dummy_at, "dummy_db")[1:]):
            raise MelprintError(
                f"{dummy_at} has parts of a dummy_db but no dummy_db.mm: the copy is not complete;"
                " copy that file too, or remove the others"
            )
        if not has_dummy:
            console.print(
                f"{folder} has no dummy_db: only the rows of db are searched", highlight=False, soft_wrap=True
            )
        distractors = (opener(dummy_at, "dummy_db"),) if has_dummy else ()
        stores = cls(opener(folder, "query"), opener(folder, "db"), distractors)
        made_by = {(s.meta.model, s.meta.segment) for s in stores.present() if s.meta is not None}
        if len(made_by) > 1:
            raise MelprintError(
                f"the stores of {folder} were made by different models or segments; generate them again"
            )
        return stores

    def with_distractors(self, num_rows: int, synthetic_folder: Path, seed: int = 0) -> "TestStores":
        """The same queries among another number of distractor rows: the first real ones, then synthetic ones.

        Args:
            num_rows: of all distractors together.
            synthetic_folder: keeps the synthetic ones, which are made when real ones are not enough.
            seed: of the synthetic ones.

        Raises:
            MelprintError: there are no real distractors that a model could be fitted to.
        """
        if num_rows < 0:
            raise MelprintError(f"num_dummy is a number of rows from 0 on, got {num_rows}")
        real = self.distractors[0] if self.distractors else None
        if real is not None and num_rows <= len(real.rows):
            return replace(self, distractors=(real.head(num_rows),) if num_rows else ())
        if real is None:
            if num_rows == 0:
                return self
            raise MelprintError(f"num_dummy={num_rows} needs real distractors to draw synthetic ones like them")
        missing = num_rows - len(real.rows)
        return replace(self, distractors=(real, synthetic_store(real, synthetic_folder, missing, seed).head(missing)))

    def present(self) -> list[Store]:
        """All of them."""
        return [self.query, self.db, *self.distractors]

    def searched(self) -> list[Store]:
        """Those whose rows are searched, in the order of their rows: the distractors come first."""
        return [*self.distractors, self.db]

    def digest(self) -> str:
        """One digest for all rows that are searched."""
        parts = [f"{store.digest()}:{len(store.rows)}" for store in self.searched()]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

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
