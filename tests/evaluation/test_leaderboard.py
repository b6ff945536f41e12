import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from melprint.cli import app
from melprint.commands.research import report
from melprint.errors import MelprintError
from melprint.evaluation.evaluate import Options, evaluate
from melprint.evaluation.leaderboard import COLUMNS, evaluations_below
from melprint.evaluation.report import write_report
from melprint.index.exact import ExactIndex
from melprint.index.faiss import FaissIndex
from tests.evaluation.conftest import SEGMENT, trial_of


@pytest.fixture
def runs(folder: Path, tmp_path: Path) -> Path:
    """A sweep of two jobs and a run by itself."""
    for job, factory in (("sweep/index=ivf seed=0", "IVF4,Flat"), ("sweep/index=hnsw seed=0", "HNSW8,Flat")):
        name = job.partition("=")[2].partition(" ")[0]
        found = evaluate(
            trial_of(folder, "strict"),
            [ExactIndex(), FaissIndex(factory, name)],
            SEGMENT,
            Options([1, 9], timing_s=0.01),
            tmp_path / "kept",
            "digest",
        )
        write_report(found, tmp_path / "runs" / job / "evaluation", {"run": name, "mode": "strict", "model": "abc"})
    alone = evaluate(trial_of(folder, "compat"), [ExactIndex("l2")], SEGMENT, Options([1]), tmp_path / "kept", "digest")
    write_report(alone, tmp_path / "runs" / "alone" / "evaluation-compat", {"run": "alone", "mode": "compat"})
    return tmp_path / "runs"


def test_all_evaluations_come_together(runs: Path) -> None:
    log = runs / "training"
    log.mkdir()
    (log / "metrics.csv").write_text("epoch,step\n0,1\n")
    (log / "hparams.yaml").write_text("")
    shown = CliRunner().invoke(app, ["report", str(runs)])
    assert shown.exit_code == 0, shown.output
    assert "3 evaluations" in shown.output
    with (runs / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 2 * 2 * 2 + 1
    assert {row["mode"] for row in rows} == {"strict", "compat"}
    page = (runs / "leaderboard.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("data:image/png;base64,iVBOR") == 1
    first_table = page.partition("<tbody>")[2].partition("</tbody>")[0]
    assert first_table.count("<tr>") == 4  # exact search of the sweep once, its two indexes, and the run by itself
    assert "index=ivf seed=0" not in first_table


def test_a_run_can_be_read_again_without_its_note(runs: Path) -> None:
    for note in runs.rglob("evaluation.json"):
        note.unlink()
    found = evaluations_below(runs)
    assert [evaluation.run for evaluation in found] == [
        "alone/evaluation-compat",
        "sweep/index=hnsw seed=0",
        "sweep/index=ivf seed=0",
    ]


def test_what_is_no_evaluation(tmp_path: Path) -> None:
    assert evaluations_below(tmp_path) == []
    with pytest.raises(MelprintError, match="holds no evaluation and no finished training"):
        report(tmp_path)
    with pytest.raises(MelprintError, match="there is no folder"):
        evaluations_below(tmp_path / "nothing")
    (tmp_path / "metrics.csv").write_text("index,matcher\nl2,sequence\n")
    with pytest.raises(MelprintError, match="is not an evaluation"):
        evaluations_below(tmp_path)
    (tmp_path / "evaluation.json").write_text(json.dumps({}))
