"""The file of a catalog's fingerprints: it grows at its end, and what readers see of it never changes.

Axes: N rows · D fingerprint size.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melprint.errors import MelprintError

DTYPE = np.dtype(np.float16)  # loses nothing that a hit rate shows, and is half as large


class RowFile:
    """Fingerprints of one generation, as float16 without a header.

    The database says how many rows count.  A writer puts new ones behind these, over whatever an interrupted
    writer left there, and has them on disk before the database is told.

    Args:
        folder: of the catalog.
        generation: number of the file.
        dim: D.
    """

    def __init__(self, folder: Path, generation: int, dim: int) -> None:
        self.path = folder / f"fingerprints-{generation}.mm"
        self.dim = dim

    def view(self, num_rows: int) -> NDArray[np.float16]:
        """The first rows ``(num_rows, D)``, mapped and read-only.

        Raises:
            MelprintError: the file has fewer.
        """
        if not num_rows:
            return np.empty((0, self.dim), DTYPE)
        try:
            there = self.path.stat().st_size // (self.dim * DTYPE.itemsize)
        except FileNotFoundError as error:
            raise MelprintError(f"{self.path} is missing; restore the catalog from a copy") from error
        if there < num_rows:
            raise MelprintError(
                f"{self.path} holds {there} of {num_rows} fingerprints; restore the catalog from a copy"
            )
        # A plain view: indexing a memmap makes memmaps.
        return np.asarray(np.memmap(self.path, DTYPE, "r", 0, (num_rows, self.dim)))

    def append(self, at_row: int, blocks: Iterable[NDArray[np.floating]]) -> int:
        """Write rows from ``at_row`` on, and wait until they are on disk.

        Returns:
            The row behind the last one.

        Raises:
            MelprintError: the disk is full, or does not take them.
        """
        there = self.path.stat().st_size if self.path.exists() else 0
        if there < at_row * self.dim * DTYPE.itemsize:
            raise MelprintError(
                f"{self.path} holds {there // (self.dim * DTYPE.itemsize)} of {at_row} fingerprints; restore the"
                " catalog from a copy"
            )
        try:
            is_new = not self.path.exists()
            with self.path.open("wb" if is_new else "r+b") as file:
                file.seek(at_row * self.dim * DTYPE.itemsize)
                for block in blocks:
                    file.write(np.ascontiguousarray(block, DTYPE).data)
                    at_row += len(block)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise MelprintError(
                f"{self.path} cannot be written ({error.strerror or error}); what was there is intact: make room and"
                " run the same command again"
            ) from error
        return at_row


def _sync_folder(folder: Path) -> None:
    """Wait until the name of a new file is on disk, too."""
    if os.name == "posix":  # elsewhere folders cannot be opened
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def rows_digest(rows_ND: NDArray[np.floating]) -> str:
    """SHA-256 of fingerprints as they are stored."""
    return hashlib.sha256(np.ascontiguousarray(rows_ND, DTYPE).data).hexdigest()
