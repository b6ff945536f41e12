import pytest
import torch
from torch.nn import functional

from melprint.errors import MelprintError
from melprint.losses import AlignmentUniformity, uniformity
from tests.losses import literal


@pytest.mark.parametrize(("items", "views"), [(2, 2), (5, 2), (4, 3)])
@pytest.mark.parametrize(("alpha", "t"), [(2.0, 2.0), (1.0, 8.0)])
def test_value_and_gradient_are_those_of_the_equations(items: int, views: int, alpha: float, t: float) -> None:
    literal.same_value_and_slope(
        AlignmentUniformity(alpha, t),
        lambda v: literal.alignment_uniformity(v, alpha, t),
        literal.unit_views(items, views),
    )


def test_points_spread_over_a_sphere_are_near_the_bound() -> None:
    """For independent directions in many dimensions |a - b|^2 is near 2, hence -2t."""
    spread = functional.normalize(torch.randn(400, 1, 512), dim=-1)
    assert float(uniformity(spread, t=2.0)) == pytest.approx(-4.0, abs=0.05)
    assert float(uniformity(spread[:1].expand(400, 1, 512), t=2.0)) == pytest.approx(0.0, abs=1e-5)


def test_coinciding_views_have_a_finite_gradient() -> None:
    views = torch.eye(3)[:, None].repeat(1, 2, 1).requires_grad_()
    AlignmentUniformity(alpha=1.0)(views).backward()
    assert torch.isfinite(views.grad).all()


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(MelprintError, match="must be positive"):
        AlignmentUniformity(weight_uniformity=0)
