"""Dividing recordings into training, validation and test by album, never within one."""

import hashlib
from collections import Counter
from collections.abc import Sequence


def split_by_group(groups: Sequence[str], *, val: float, test: float, seed: int = 0) -> list[str]:
    """The split of each recording; all recordings of a group share it.

    Groups are taken in the order of a keyed hash, so the result depends on names and not on the order
    of files. Test and validation are filled first and get at least one group each where their share is
    positive and there are groups enough.

    Args:
        groups: the album of each recording.
        val: share of the recordings for validation.
        test: share of the recordings for test.
        seed: another seed gives another division.

    >>> split_by_group(["a", "a", "b", "c", "d"], val=0.2, test=0.2)
    ['train', 'train', 'val', 'test', 'train']
    """
    sizes = Counter(groups)
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"{seed}/{group}".encode()).digest())
    split_of: dict[str, str] = {}
    remaining = iter(order)
    for name, share in (("test", test), ("val", val)):
        filled = 0
        while filled < share * len(groups) and len(split_of) < len(order) - 1:
            group = next(remaining)
            split_of[group] = name
            filled += sizes[group]
    return [split_of.get(group, "train") for group in groups]
