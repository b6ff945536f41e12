"""Processes that are killed in the middle of a change, and long rows of changes in random order."""

import multiprocessing
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from melprint.catalog.care import problems
from melprint.catalog.catalog import Catalog
from tests.catalog.made import NUM_ROWS, finds, heard, new, rows_of
from tests.catalog.victim import NUM_CHANGES, at_random, events, step_by_step

# Children of a server that has imported everything start in hundredths of a second.
SERVED = multiprocessing.get_context("forkserver")
SERVED.set_forkserver_preload(["tests.catalog.victim"])
START_S = 60


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A catalog of 20 tracks with an index, and another one of two."""
    folder, other = tmp_path_factory.mktemp("start") / "catalog", tmp_path_factory.mktemp("other") / "catalog"
    with Catalog.create(folder, index="hnsw") as catalog:
        catalog.append([new(seed) for seed in range(20)])
        catalog.tidy()
    with Catalog.create(other) as catalog:
        catalog.append([new(900), new(901)])
    return folder, other


class Ledger:
    """What the victims have reported: the tracks that must be there, and the change that was under way."""

    def __init__(self, keys: set[str]) -> None:
        self.before, self.after, self.read = set(keys), set(keys), 0

    def follow(self, log: Path) -> None:
        for event in list(events(log))[self.read :]:
            self.read += 1
            if event["is"] == "begun":
                self.after = self.before - set(event["gone"]) | set(event["added"])
            else:
                self.before = self.after

    def settle(self, there: set[str]) -> None:
        """All of the last change is there, or nothing of it."""
        assert there in (self.before, self.after)
        self.before = self.after = there


def is_sound(folder: Path, ledger: Ledger) -> None:
    with Catalog.open(folder) as catalog:
        assert problems(catalog) == []
        tracks = {track.key: track for track in catalog.tracks().values()}
        ledger.settle(set(tracks))
        view = catalog.view()
        assert (np.diff(view.track_ids) > 0).all()
        for key in sorted(tracks)[::5]:
            own = rows_of(int(key.removeprefix("track-")))
            np.testing.assert_array_equal(view.rows_at(view.position_of(tracks[key].id)), own)
            found = catalog.search(own, 1, view).rows[:, 0]
            assert (found == tracks[key].first_row + np.arange(NUM_ROWS)).mean() > 0.9
        catalog.wait_s = 5.0
        catalog.tidy()  # and it can be written to
        assert len(list(folder.glob("fingerprints-*.mm"))) <= 1
        assert not list(folder.glob("*.faiss.partial"))


def killed(target: Callable[..., None], arguments: tuple, log: Path, after_s: float | None = None) -> int | None:
    """The exit code of a process that is killed some time after its first note, or ends by itself."""
    read = len(list(events(log)))
    process = SERVED.Process(target=target, args=arguments)
    process.start()
    deadline = time.monotonic() + START_S
    while len(list(events(log))) == read and process.is_alive():
        assert time.monotonic() < deadline, "it does not begin"
        time.sleep(0.005)
    if after_s is not None:
        process.join(after_s)
        process.kill()
    process.join(START_S)
    return process.exitcode


def kill_at_random(start: tuple[Path, Path], tmp_path: Path, rng: np.random.Generator, times: int) -> None:
    folder, log = tmp_path / "catalog", tmp_path / "log"
    shutil.copytree(start[0], folder)
    ledger = Ledger({f"track-{seed}" for seed in range(20)})
    for seed in range(1, times + 1):
        code = killed(at_random, (folder, start[1], log, seed), log, float(rng.uniform(0, 0.5)))
        assert code == -9, "it ended by itself"
        ledger.follow(log)
        is_sound(folder, ledger)
    assert sum(event["is"] == "done" for event in events(log)) > times / 2


def test_killed_at_any_moment(start: tuple[Path, Path], tmp_path: Path, rng: np.random.Generator) -> None:
    kill_at_random(start, tmp_path, rng, 5)


@pytest.mark.slow
def test_killed_at_many_moments(start: tuple[Path, Path], tmp_path: Path, rng: np.random.Generator) -> None:
    kill_at_random(start, tmp_path, rng, 100)


def kill_at_steps(start: tuple[Path, Path], tmp_path: Path, every: int) -> int:
    step = 0
    while True:
        step += every
        folder, log = tmp_path / f"catalog-{step}", tmp_path / f"log-{step}"
        shutil.copytree(start[0], folder)
        ledger = Ledger({f"track-{seed}" for seed in range(20)})
        code = killed(step_by_step, (folder, start[1], log, step), log)
        if code == 0:
            assert [event["is"] for event in events(log)] == ["begun", "done"] * NUM_CHANGES
            return step
        assert code == -9
        ledger.follow(log)
        is_sound(folder, ledger)
        shutil.rmtree(folder)


def test_killed_at_some_steps(start: tuple[Path, Path], tmp_path: Path) -> None:
    kill_at_steps(start, tmp_path, 11)


@pytest.mark.slow
def test_killed_at_every_step(start: tuple[Path, Path], tmp_path: Path) -> None:
    assert kill_at_steps(start, tmp_path, 1) > 40


def change_at_random(folder: Path, times: int) -> None:
    rng = np.random.default_rng(times)
    with Catalog.create(folder, index="exact") as catalog:
        there: dict[str, np.ndarray] = {}
        for seed in range(times):
            if there and rng.random() < 0.45:
                gone = rng.choice(sorted(there), rng.integers(1, min(4, len(there) + 1)), replace=False).tolist()
                catalog.remove(gone)
                for key in gone:
                    del there[key]
            else:
                num_rows = int(rng.integers(1, 30))
                catalog.append([new(seed, num_rows=num_rows)])
                there[f"track-{seed}"] = rows_of(seed, num_rows)
            if rng.random() < 0.05:
                catalog.compact()
            agrees(catalog, there, rng)
        assert problems(catalog) == []
        assert finds(catalog, [int(key.removeprefix("track-")) for key in there]) == 1.0


def agrees(catalog: Catalog, there: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    """With a look at all rows, for rows that are there and rows that never were."""
    view, names = catalog.view(), catalog.tracks()
    assert sorted(track.key for track in names.values()) == sorted(there)
    if not there:
        assert (catalog.search(heard(0), 1, view).rows == -1).all()
        return
    known = there[str(rng.choice(sorted(there)))][:1]
    queries = np.concatenate([known, heard(int(rng.integers(1 << 20)))[:3]])
    keys = [key for key, rows in there.items() for _ in rows]
    cosines = queries @ np.concatenate(list(there.values())).T
    hits = catalog.search(queries, 1, view)
    found = [names[int(view.track_ids[place])].key for place in view.tracks_at(hits.rows)[:, 0]]
    assert found == [keys[best] for best in cosines.argmax(axis=1)]
    np.testing.assert_allclose(hits.scores[:, 0], cosines.max(axis=1), atol=2e-6)


@pytest.fixture
def _no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melprint.catalog.rows.os.fsync", lambda number: None)
    monkeypatch.setattr(
        "melprint.catalog.tables._sync_fully", lambda connection, _: connection.execute("PRAGMA synchronous=OFF")
    )


@pytest.mark.usefixtures("_no_waiting_for_disks")
def test_changes_in_random_order(tmp_path: Path) -> None:
    change_at_random(tmp_path / "catalog", 300)


@pytest.mark.slow
@pytest.mark.usefixtures("_no_waiting_for_disks")
def test_many_changes_in_random_order(tmp_path: Path) -> None:
    change_at_random(tmp_path / "catalog", 1000)
