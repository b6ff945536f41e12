"""What the runs of a sweep of trainings reached."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melprint.errors import MelprintError

TRAINING = "training.json"


@dataclass(frozen=True)
class Training:
    """One finished run of ``train.py``.

    Attributes:
        run: its folder, seen from the one that was searched.
        changed: the options of its command.
        seed: of the run.
        steps: of the optimizer.
        objective: mean of the validation hit rates.
        rates: validation hit rate by query length in seconds.
        origin: date and version.
    """

    run: str
    changed: Sequence[str]
    seed: int
    steps: int
    objective: float
    rates: Mapping[float, float]
    origin: str


def trainings_below(folder: Path) -> list[Training]:
    """Every finished training in a folder and below it, the best first.

    Raises:
        MelprintError: a file of that name holds something else.
    """
    found = []
    for path in sorted(folder.rglob(TRAINING)):
        try:
            said: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if said["objective"] is None:  # nothing was validated
                continue
            found.append(
                Training(
                    run=path.parent.relative_to(folder).as_posix(),
                    changed=[str(option) for option in said["changed"]],
                    seed=int(said["recipe"]["seed"]),
                    steps=int(said["steps"]),
                    objective=float(said["objective"]),
                    rates={_seconds(key): float(rate) for key, rate in said["rates"].items() if key.endswith("s")},
                    origin=f"{said['date']}, melprint {said['version']}",
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MelprintError(f"{path} does not describe a training ({error}); train again") from error
    return sorted(found, key=lambda training: -training.objective)


def _seconds(key: str) -> float:
    """The query length that a logged rate is for.

    >>> _seconds("val/top1_exact_10s")
    10.0
    """
    return float(key.rpartition("_")[2].removesuffix("s"))


def differences(trainings: Sequence[Training]) -> list[str]:
    """The options in which each training differs from the others, on one line each.

    >>> one, two = (Training(n, ["a=1", f"lr={n}"], 0, 1, 0.0, {}, "") for n in "12")
    >>> differences([one, two])
    ['lr=1', 'lr=2']
    """
    shared = set.intersection(*(set(training.changed) for training in trainings)) if len(trainings) > 1 else set()
    return [
        " ".join(option for option in training.changed if option not in shared) or training.run
        for training in trainings
    ]
