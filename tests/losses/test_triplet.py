import itertools
import math

import pytest
import torch

from melprint.errors import MelprintError
from melprint.losses import Triplet, triplet
from tests.losses import literal

KINDS = list(
    itertools.product(["originals", "all"], ["all", "hard", "semi-hard"], ["semi-hard", "semi-hard-or-hard", "hard"])
)


@pytest.mark.parametrize(("anchors", "positives", "negatives"), KINDS)
@pytest.mark.parametrize(("items", "views", "squared"), [(2, 2, True), (6, 2, False), (4, 4, True)])
def test_value_and_gradient_are_those_of_the_definition(
    anchors: str, positives: str, negatives: str, items: int, views: int, squared: bool
) -> None:
    options = {"squared": squared, "anchors": anchors, "positives": positives, "negatives": negatives}
    for _ in range(4):
        literal.same_value_and_slope(
            lambda v: triplet(v, margin=0.4, **options),
            lambda v: literal.triplet(v, 0.4, **options),
            literal.unit_views(items, views),
        )


def test_the_band_of_neural_music_fp_falls_back_to_the_hardest() -> None:
    """On a circle: the positive 10 degrees off; negatives at 2, 5 (too close) and 120 degrees (beyond the margin)."""

    def at(degrees: float) -> torch.Tensor:
        angle = torch.deg2rad(torch.tensor(degrees))
        return torch.stack([angle.cos(), angle.sin()])

    views = torch.stack([torch.stack([at(0), at(10)]), torch.stack([at(2), at(5)]), torch.stack([at(120), at(120)])])

    def square(degrees: float) -> float:
        return 2 - 2 * math.cos(math.radians(degrees))

    options = {"margin": 0.1, "anchors": "originals", "positives": "hard"}
    first_banded = max(0.0, square(10.0) - square(2.0) + 0.1)
    rest = float(triplet(views, **options, negatives="semi-hard-or-hard")) * 3 - first_banded
    want = [
        max(0.0, square(3.0) - square(8.0) + 0.1),  # anchor at 2: its positive at 5, in the band only the one at 10
        0.0,  # anchor at 120: its positive coincides, all others are far beyond the margin
    ]
    assert rest == pytest.approx(sum(want), abs=1e-4)


def test_a_separated_batch_costs_nothing() -> None:
    assert float(triplet(torch.eye(4)[:, None].expand(4, 2, 4), margin=0.4)) == 0


def test_coinciding_views_have_a_finite_gradient() -> None:
    views = torch.eye(3)[:, None].repeat(1, 2, 1).requires_grad_()
    triplet(views, margin=3.0, squared=False).backward()
    assert torch.isfinite(views.grad).all()


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(MelprintError, match="margin"):
        Triplet(margin=0)
    with pytest.raises(MelprintError, match="negatives must be one of semi-hard, semi-hard-or-hard, hard, got 'soft'"):
        Triplet(negatives="soft")  # type: ignore[arg-type]
