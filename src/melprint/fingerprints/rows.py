"""Fingerprint rows of several stores as one space of row numbers.  Axes: N rows · D fingerprint size."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from melprint.errors import MelprintError


class Rows:
    """Arrays ``(N_i, D)`` one behind the other, never copied as a whole.

    >>> rows = Rows([np.zeros((2, 1), np.float32), np.ones((3, 1), np.float32)])
    >>> len(rows), rows.take(np.array([4, 0])).tolist()
    (5, [[1.0], [0.0]])
    """

    def __init__(self, parts: Sequence[NDArray[np.floating]]) -> None:
        dims = {part.shape[1] for part in parts}
        if len(dims) != 1:
            raise MelprintError(f"stores of different fingerprint sizes {sorted(dims)} cannot be searched together")
        self.parts = [np.asarray(part) for part in parts]  # a plain view: indexing a memmap makes memmaps
        self.dim = dims.pop()
        self.first: NDArray[np.int64] = np.cumsum([0] + [len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.first[-1])

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Float32 copies ``(*rows.shape, D)`` of these rows."""
        flat = rows.reshape(-1)
        if len(self.parts) == 1:
            return self.parts[0][flat].astype(np.float32, copy=False).reshape(*rows.shape, self.dim)
        part_of = np.searchsorted(self.first, flat, side="right") - 1
        counts = np.bincount(part_of, minlength=len(self.parts))
        # The part with most of the rows is read for all of them, which spares it a copy; the others overwrite.
        main = int(counts.argmax())
        out = np.take(self.parts[main], flat - self.first[main], axis=0, mode="clip").astype(np.float32, copy=False)
        for number, part in enumerate(self.parts):
            if number != main and counts[number]:
                chosen = np.flatnonzero(part_of == number)
                out[chosen] = part[flat[chosen] - self.first[number]]
        return out.reshape(*rows.shape, self.dim)

    def blocks(self, num_rows: int = 1 << 16) -> Iterator[NDArray[np.float32]]:
        """All rows in order, as float32 blocks of at most ``num_rows``."""
        for part in self.parts:
            for start in range(0, len(part), num_rows):
                # A copy: torch and faiss want memory that is theirs to write to, a mapped file is not.
                yield np.array(part[start : start + num_rows], np.float32)
