"""The commands as a user types them, in processes of their own."""

import csv
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import SMALL, environment, fails_with, run

SMALL_TRAINING = [
    "trainer.max_epochs=6",
    "train.batch_size=12",
    "validation.queries.num_queries=8",
    "+trainer.enable_progress_bar=false",
]


def test_train_generate_evaluate_and_generate_again_after_a_kill(work: Path, album_folder: Path) -> None:
    music = f"data.corpus.music={album_folder}"
    trained = run(work, "train.py", *SMALL, music, *SMALL_TRAINING)
    assert trained.returncode == 0, trained.stderr
    run_folder = work / "runs" / "small"
    assert {path.name for path in (run_folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert list(run_folder.glob("csv/version_0/metrics.csv"))
    assert list(run_folder.glob("tensorboard/version_0/events*"))

    made = run(work, "generate.py", *SMALL, music, "queries.num_queries=12", "queries.duration_s=5")
    assert made.returncode == 0, made.stderr
    assert "query: 12 tracks, 108 rows" in made.stderr
    stores = run_folder / "fingerprints"
    before = {path.name: path.read_bytes() for path in stores.iterdir() if path.suffix != ".json"}

    evaluated = run(work, "evaluate.py", *SMALL, music, "index=[ip,hnsw]", "lengths=[1,3,9]")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "report: " in evaluated.stdout
    with (run_folder / "evaluation" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["index"], row["num_segments"]) for row in rows] == [(i, n) for i in ("ip", "hnsw") for n in "139"]
    assert float(rows[2]["top1_exact"]) > 0.2  # a handful of steps; chance is about one in two hundred
    with (run_folder / "evaluation" / "hits.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 12 * 3 * 2

    shutil.rmtree(stores)
    command = [sys.executable, "generate.py", *SMALL, music, "queries.num_queries=12", "queries.duration_s=5"]
    killed = subprocess.Popen([*command, "batch_size=1"], cwd=work, stderr=subprocess.DEVNULL, env=environment())
    deadline = time.monotonic() + 60
    while not (stores / ".dummy_db.partial" / "rows").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    again = run(work, *command[1:])
    assert again.returncode == 0, again.stderr
    assert {path.name: path.read_bytes() for path in stores.iterdir() if path.suffix != ".json"} == before

    other = run(work, "train.py", *SMALL, music, *SMALL_TRAINING, "seed=1")
    assert other.returncode == 0, other.stderr
    assert "are now in" in other.stderr
    assert {path.name for path in (run_folder / "checkpoints-1").iterdir()} == {"best.ckpt", "last.ckpt"}
    unfit = run(work, "evaluate.py", f"store={stores}", f"ckpt={run_folder}/checkpoints/best.ckpt", "index=[ip]")
    fails_with(unfit, "was made by another model")


@pytest.mark.slow
def test_phases_grids_sweeps_and_reports(work: Path, album_folder: Path) -> None:
    common = [*SMALL, f"data.corpus.music={album_folder}", "name=studies"]
    queries = ["queries.num_queries=12", "queries.duration_s=5"]
    trained = run(work, "train.py", *common, *SMALL_TRAINING[1:], "trainer.max_epochs=1")
    assert trained.returncode == 0, trained.stderr
    assert run(work, "generate.py", *common, *queries).returncode == 0
    short = [*common, *queries, "lengths=[1,9]", "timing_s=0.01"]
    refined = run(work, "evaluate.py", *short, "phases=2", "index=[l2,hnsw]")
    assert refined.returncode == 0, refined.stderr
    with (work / "runs" / "studies" / "evaluation" / "metrics.csv").open() as file:
        assert {(r["index"], r["matcher"]) for r in csv.DictReader(file)} == {
            (index, matcher) for index in ("l2", "hnsw") for matcher in ("sequence", "sequence-x2")
        }
    grid = ["study=robustness", "study.grid.num_queries=6", "study.grid.duration_s=5"]
    factors = ["study.only=[gain,mp3]", "study.grid.factors.gain=[-20,0]", "study.grid.factors.mp3=[32]"]
    studied = run(work, "evaluate.py", *short, *grid, *factors)
    assert studied.returncode == 0, studied.stderr
    assert len(list((work / "runs" / "studies" / "robustness").glob("cells-*/*.csv"))) == 3
    assert (work / "runs" / "studies" / "robustness" / "gain.png").exists()
    swept = run(work, "evaluate.py", "-m", *short, "index=ip,hnsw", "num_dummy=20,40")
    assert swept.returncode == 0, swept.stderr
    melprint = [sys.executable, "-m", "melprint.cli"]
    told = subprocess.run([*melprint, "report", "runs"], cwd=work, capture_output=True, text=True, check=True)
    assert "5 evaluations" in told.stdout or "6 evaluations" in told.stdout  # that of the other test is there or not
    compared = subprocess.run(
        [*melprint, "compare", "runs/studies:l2", "runs/studies:hnsw"],
        cwd=work,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "12 queries" in compared.stdout
    fails_with(run(work, "evaluate.py", *short, "num_dummy=many"), "num_dummy is a number of rows")
    fails_with(run(work, "evaluate.py", *short, "num_dummy=1e4"), "2000 rows in tracks are needed")
    fails_with(run(work, "evaluate.py", *short, "index=[cagra]"), "leave it out of index")
    fails_with(run(work, "evaluate.py", *short, "index=milvus"), "index=milvus needs uri=")


@pytest.mark.slow
def test_a_folder_of_any_format_becomes_a_store(work: Path, album_folder: Path, tmp_path: Path) -> None:
    name = ["name=from-folder", "overwrite=true", "trainer.max_epochs=1", "trainer.limit_train_batches=1"]
    music = f"data.corpus.music={album_folder}"
    trained = run(work, "train.py", *SMALL, *SMALL_TRAINING[1:], music, *name)
    assert trained.returncode == 0, trained.stderr
    shutil.copytree(album_folder, tmp_path / "music")
    (tmp_path / "music" / "broken.mp3").write_text("no audio")
    done = run(
        work, "generate.py", "name=from-folder", f"source={tmp_path / 'music'}", f"out={tmp_path / 'out'}", "shard=1/2"
    )
    assert done.returncode == 0, done.stderr
    done = run(
        work, "generate.py", "name=from-folder", f"source={tmp_path / 'music'}", f"out={tmp_path / 'out'}", "shard=2/2"
    )
    assert "1 left out" in done.stderr
    merge = [sys.executable, "-m", "melprint.cli", "merge", str(tmp_path / "out"), "custom_source", "2"]
    merged = subprocess.run(merge, capture_output=True, text=True, check=True)
    assert "12 tracks, 372 rows" in merged.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("train.py", ["data=folder", "data.corpus.music=nowhere"], "nowhere is not a folder"),
        ("train.py", ["data=nafp", "data.corpus.path=nowhere"], "is not a folder"),
        ("train.py", ["optimizer.learning_rate=1"], "there is no config key optimizer.learning_rate"),
        ("train.py", ["model=enormous"], "Could not find 'model/enormous'"),
        ("train.py", ["data=folder"], "data.corpus.music"),
        ("train.py", ["ckpt_path=none.ckpt"], "there is no checkpoint none.ckpt"),
        ("generate.py", ["ckpt=none.ckpt"], "there is no checkpoint none.ckpt"),
        ("evaluate.py", ["store=nowhere"], "there is no folder nowhere"),
        ("evaluate.py", ["store=nowhere", "mode=lenient"], "mode must be strict or compat"),
        ("evaluate.py", ["store=nowhere", "lengths=[a]"], "lengths is a list of numbers"),
        ("evaluate.py", ["index=milvus", "store=nowhere"], "there is no folder nowhere"),
    ],
)
def test_bad_input_ends_in_one_sentence(work: Path, script: str, arguments: list[str], words: str) -> None:
    fails_with(run(work, script, *arguments), words)


def test_the_command_prepares_a_folder(album_folder: Path, tmp_path: Path) -> None:
    def melprint(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "melprint.cli", *arguments], capture_output=True, text=True, check=False
        )

    done = melprint("prepare", str(album_folder), str(tmp_path / "out"))
    assert "12 tracks, 0.05 h" in done.stdout
    assert (tmp_path / "out" / "manifest.csv").exists()
    (tmp_path / "empty").mkdir()
    fails_with(melprint("prepare", str(tmp_path / "empty"), str(tmp_path / "out2")), "holds no wav")
    assert not (tmp_path / "out2").exists()
    soundfile.write(tmp_path / "empty" / "short.wav", np.zeros(10), 8_000)
    fails_with(melprint("prepare", str(tmp_path / "empty"), str(tmp_path / "out2")), "none of 1 files can be used")


def test_an_unfinished_run_is_not_lost_by_accident(work: Path) -> None:
    last = work / "runs" / "unfinished" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    fails_with(run(work, "train.py", "name=unfinished"), "holds an unfinished run; go on with ckpt_path=last")
    assert last.exists()
