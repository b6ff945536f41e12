"""Trainings as a user starts them: on two devices, in sweeps, and again after an interruption."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import SMALL, environment, fails_with, run

BRIEF = [
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "train.batch_size=6",
    "validation.queries.num_queries=4",
    "+trainer.enable_progress_bar=false",
]


@pytest.fixture(scope="module")
def common(album_folder: Path) -> list[str]:
    return [*SMALL, f"data.corpus.music={album_folder}", *BRIEF]


def logged(folder: Path, column: str) -> list[float]:
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)]


@pytest.mark.slow
def test_two_devices_train_as_one_with_twice_the_batch(work: Path, common: list[str]) -> None:
    sampling = ["train.sampling=one-per-track", "trainer.log_every_n_steps=1"]
    alone = run(work, "train.py", *common, *sampling, "name=alone", "train.batch_size=6")
    assert alone.returncode == 0, alone.stderr
    devices = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    chunks = ["train.chunk_size=2"]
    both = run(work, "train.py", *common, *sampling, "name=both", "train.batch_size=3", *devices, *chunks)
    assert both.returncode == 0, both.stderr
    runs = work / "runs"
    for column, tolerance in (("train/loss", 1e-4), ("train/gradient_norm", 1e-3)):
        one, two = logged(runs / "alone", column), logged(runs / "both", column)
        assert len(one) == len(two) == 2
        assert two == pytest.approx(one, rel=tolerance)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py"]
    again = subprocess.run(
        [*torchrun, *common, *sampling, "name=spawned", "train.batch_size=3", *devices],
        cwd=work, capture_output=True, text=True, check=False, env=environment(),
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert logged(runs / "spawned", "train/loss") == pytest.approx(logged(runs / "alone", "train/loss"), rel=1e-4)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(work: Path, common: list[str]) -> None:
    longer = [*common[:-4], "trainer.max_epochs=6", "train.batch_size=6", *common[-2:]]
    whole = run(work, "train.py", *longer, "name=whole")
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "train.py", *longer, "name=killed"]
    process = subprocess.Popen(command, cwd=work, stderr=subprocess.DEVNULL, env=environment())
    last = work / "runs" / "killed" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (work / "runs" / "killed" / "training.json").exists()
    fails_with(run(work, *command[1:]), "holds an unfinished run; go on with ckpt_path=last")
    other = run(work, *command[1:], "ckpt_path=last", "loss.temperature=0.1", "optimizer.lr=0.01")
    fails_with(other, "is of another recipe: it was trained with loss.temperature (0.05, here 0.1); optimizer.lr")
    resumed = run(work, *command[1:], "ckpt_path=last")
    assert resumed.returncode == 0, resumed.stderr
    digests = [
        run(work, "-m", "melprint.cli", "info", f"runs/{name}/checkpoints/last.ckpt").stdout
        for name in ("whole", "killed")
    ]
    assert digests[0].splitlines()[-1].startswith("digest")
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_a_grid_goes_on_after_a_failure_and_skips_what_is_finished(work: Path, common: list[str]) -> None:
    grid = ["-m", "sweep=grid", *common, "name=grid", "optimizer.lr=1e-3,-1,2e-3"]
    swept = run(work, "train.py", *grid)
    assert swept.returncode == 1
    assert "optimizer.lr must be a positive number, got -1" in swept.stderr
    folder = work / "runs" / "grid-sweep"
    finished = sorted(folder.glob("*/training.json"))
    assert len(finished) == 2
    said = [json.loads(path.read_text()) for path in finished]
    assert len({run["recipe"]["seed"] for run in said}) == 2
    before = [path.stat().st_mtime_ns for path in finished]
    again = run(work, "train.py", *grid)
    assert again.stderr.count("is finished") == 2
    assert [path.stat().st_mtime_ns for path in finished] == before
    told = run(work, "-m", "melprint.cli", "report", "runs/grid-sweep")
    assert "2 trainings" in told.stdout
    page = (folder / "leaderboard.html").read_text()
    assert "optimizer.lr=0.002" in page


@pytest.mark.slow
def test_a_study_of_optuna_is_resumed(work: Path, common: list[str]) -> None:
    study = ["-m", "sweep=optuna", *common, "name=study"]
    first = run(work, "train.py", *study, "hydra.sweeper.n_trials=2")
    assert first.returncode == 0, first.stderr
    folder = work / "runs" / "study-sweep"
    assert len(list(folder.glob("*/training.json"))) == 2
    assert "best_params" in (folder / "optimization_results.yaml").read_text()
    more = run(work, "train.py", *study, "hydra.sweeper.n_trials=3")
    assert more.returncode == 0, more.stderr
    assert more.stderr.count("is finished") == 2
    assert len(list(folder.glob("*/training.json"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [["sweep=joblib"], ["sweep=slurm", "hydra/launcher=submitit_local"]])
def test_launchers_run_the_jobs_in_processes_of_their_own(work: Path, common: list[str], launcher: list[str]) -> None:
    name = launcher[0].removeprefix("sweep=")
    swept = run(work, "train.py", "-m", *launcher, *common, f"name={name}", "loss=nt_xent,decoupled")
    assert swept.returncode == 0, swept.stderr + swept.stdout
    assert len(list((work / "runs" / f"{name}-sweep").glob("*/training.json"))) == 2


@pytest.mark.slow
def test_wrong_options_are_told_before_anything_is_trained(work: Path, common: list[str]) -> None:
    tracks = ["train.sampling=one-per-track", "train.batch_size=100"]
    fails_with(run(work, "train.py", *common, *tracks), "a batch of 100 does not fit 6 tracks")
    fails_with(run(work, "train.py", *common, "train.chunk_size=0"), "train.chunk_size must be a positive whole number")
    batch_norm = ["model.encoder.norm=batch_norm", "train.chunk_size=2"]
    fails_with(
        run(work, "train.py", *common, *batch_norm), "train.chunk_size would change what the batch normalisation"
    )
    scaling = run(work, "train.py", *common, "lr_scaling.rule=cubic")
    fails_with(scaling, "lr_scaling.rule must be one of none, linear, square-root, got 'cubic'")
    endless = run(work, "train.py", *common, "trainer.max_epochs=-1")
    fails_with(endless, "a run needs an end for its schedule")
    sweep = ["sweep=grid", "trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    started = run(work, "train.py", "-m", *common, *sweep, "train.batch_size=3", "train.sampling=one-per-track")
    assert started.returncode == 1
    assert "a job of a sweep cannot start 2 processes by itself" in started.stderr
