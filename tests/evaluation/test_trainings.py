import json
from pathlib import Path

import pytest

from melprint.errors import MelprintError
from melprint.evaluation.leaderboard import write_leaderboard
from melprint.evaluation.trainings import TRAINING, trainings_below


def training(folder: Path, rate: float | None, changed: list[str], seed: int) -> None:
    said = {
        "objective": rate,
        "rates": {"val/top1_exact": rate, "val/top1_exact_1s": rate, "val/top1_exact_10s": 0.9},
        "changed": changed,
        "steps": 7,
        "date": "2026-01-01",
        "version": "0",
        "recipe": {"seed": seed},
    }
    folder.mkdir(parents=True)
    (folder / TRAINING).write_text(json.dumps(said))


def test_the_best_training_comes_first_with_what_sets_it_apart(tmp_path: Path) -> None:
    training(tmp_path / "a", 0.25, ["name=x", "optimizer.lr=0.1"], 0)
    training(tmp_path / "b" / "deeper", 0.5, ["name=x", "optimizer.lr=0.2"], 1)
    training(tmp_path / "c", None, [], 2)  # nothing was validated
    found = trainings_below(tmp_path)
    assert [(run.run, run.objective, run.seed) for run in found] == [("b/deeper", 0.5, 1), ("a", 0.25, 0)]
    assert found[0].rates == {1.0: 0.5, 10.0: 0.9}
    page = write_leaderboard([], tmp_path, found).read_text()
    assert page.index("optimizer.lr=0.2") < page.index("optimizer.lr=0.1")
    assert "name=x" not in page
    assert "Recall, time and memory" not in page  # there is no evaluation to show


def test_what_is_no_training_is_named(tmp_path: Path) -> None:
    (tmp_path / TRAINING).write_text("{}")
    with pytest.raises(MelprintError, match="does not describe a training"):
        trainings_below(tmp_path)
