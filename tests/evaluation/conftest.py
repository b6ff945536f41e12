"""Stores that are made by hand: distractors, three tracks, and noisy queries that match them row by row."""

from pathlib import Path

import numpy as np
import pytest

from melprint.evaluation.protocol import Trial, make_trial
from melprint.evaluation.stores import TestStores
from melprint.fingerprints.writer import StoreWriter
from melprint.spec import SegmentSpec

SEGMENT = SegmentSpec()
DIM = 16


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def write_store(folder: Path, name: str, tracks: dict[str, np.ndarray]) -> None:
    with StoreWriter(folder, name, DIM, "float32", name) as writer:
        for track_id, rows in tracks.items():
            writer.expect(track_id, f"{track_id}.wav", len(rows), (len(rows) + 1) / 2)
            writer.put(rows)
        writer.finish(SEGMENT, "model")


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Distractors, three tracks, and noisy queries that match them row by row."""
    folder = tmp_path / "stores"
    walk = {f"t{n}": unit(rng.standard_normal((30, DIM))) for n in range(3)}
    write_store(folder, "dummy_db", {f"d{n}": unit(rng.standard_normal((40, DIM))) for n in range(5)})
    write_store(folder, "db", walk)
    write_store(folder, "query", {n: unit(r + 0.25 * rng.standard_normal(r.shape)) for n, r in walk.items()})
    return folder


def trial_of(folder: Path, mode: str, longest: int = 9, test_ids: object = None) -> Trial:
    return make_trial(mode, TestStores.open(folder, None, mode), longest, test_ids, 0)
