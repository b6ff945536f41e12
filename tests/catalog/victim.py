"""What processes do that are killed: changes of a catalog, and a note of each before and after it."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melprint.catalog import vectors
from melprint.catalog.care import merge
from melprint.catalog.catalog import Catalog
from melprint.catalog.tables import Tables
from tests.catalog.made import new

KINDS = ("exact", "hnsw", "ivf-sq8")


def noted(path: Path, **event: Any) -> None:
    """Add a line; with one write, a line is there or not."""
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(event).encode() + b"\n")


def events(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines() if path.exists() else []:
        yield json.loads(line)


def at_random(folder: Path, other: Path, log: Path, seed: int) -> None:
    """Random changes without end."""
    vectors.TAIL_ROWS = 100
    rng = np.random.default_rng(seed)
    catalog, source = Catalog.open(folder), Catalog.open(other)
    next_seed = 1000 * seed
    while True:
        what = rng.choice(["append", "append", "remove", "compact", "reindex", "merge", "tidy"])
        keys = sorted(track.key for track in catalog.tracks().values())
        if what == "append":
            batch = [next_seed + number for number in range(rng.integers(1, 6))]
            next_seed += len(batch)
            added = [f"track-{each}" for each in batch]
            change(log, lambda some=batch: catalog.append([new(each) for each in some]), added)
        elif what == "remove" and len(keys) > 3:
            gone = rng.choice(keys, rng.integers(1, len(keys) // 2), replace=False).tolist()
            change(log, lambda some=gone: catalog.remove(some), gone=gone)
        elif what == "compact":
            change(log, catalog.compact)
        elif what == "reindex":
            kind = str(rng.choice(KINDS))
            change(log, lambda kind=kind: catalog.reindex(kind))
        elif what == "merge":
            change(log, lambda: merge(catalog, source), [track.key for track in source.tracks().values()])
        else:
            change(log, catalog.tidy)


def step_by_step(folder: Path, other: Path, log: Path, last_step: int) -> None:
    """One change of each sort, killed before or after step number ``last_step`` of all that reaches disk."""
    vectors.TAIL_ROWS = 100
    catalog, source = Catalog.open(folder), Catalog.open(other)
    kill_at(last_step)
    change(log, lambda: catalog.append([new(51), new(52)]), ["track-51", "track-52"])
    old = catalog.find(["track-51"])[0].id
    change(log, lambda: catalog.append([new(53, replaces=old)]), ["track-53"], ["track-51"])
    change(log, lambda: catalog.remove(["track-52", "track-1"]), gone=["track-52", "track-1"])
    change(log, lambda: merge(catalog, source), ["track-900", "track-901"])
    change(log, catalog.compact)
    change(log, lambda: catalog.remove(["track-2"]), gone=["track-2"])
    change(log, lambda: catalog.reindex("ivf-sq8"))  # too few for lists: what was there is in the way
    change(log, lambda: catalog.reindex("hnsw"))
    change(log, lambda: catalog.append([new(seed) for seed in range(54, 60)]), [f"track-{n}" for n in range(54, 60)])
    change(log, catalog.tidy)
    change(log, lambda: catalog.reindex("exact"))


NUM_CHANGES = 11


def change(log: Path, do: Callable[[], Any], added: Sequence[str] = (), gone: Sequence[str] = ()) -> None:
    noted(log, **{"is": "begun", "added": list(added), "gone": list(gone)})
    do()
    noted(log, **{"is": "done"})


def kill_at(last_step: int) -> None:
    """Count what reaches disk, before and after, and end this process without warning at one of them."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            step()
            answer = function(*args, **kwargs)
            step()
            return answer

        return call

    os.fsync = counted(os.fsync)
    for owner, names in ((Path, ("unlink", "replace")), (Tables, ("append", "remove", "renumber", "set_index"))):
        for name in names:
            setattr(owner, name, counted(getattr(owner, name)))
