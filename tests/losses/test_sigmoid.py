import pytest
import torch

from melprint.errors import MelprintError
from melprint.losses import Sigmoid, sigmoid
from tests.losses import literal


@pytest.mark.parametrize(("items", "views"), [(2, 2), (5, 2), (3, 3)])
@pytest.mark.parametrize(("temperature", "bias"), [(0.1, -3.0), (1.0, 0.0)])
def test_value_and_gradient_are_those_of_the_equation(items: int, views: int, temperature: float, bias: float) -> None:
    literal.same_value_and_slope(
        lambda v: sigmoid(v, temperature=temperature, bias=bias),
        lambda v: literal.sigmoid(v, temperature, bias),
        literal.unit_views(items, views),
    )


def test_the_bias_is_learnt_and_the_temperature_if_asked_for() -> None:
    fixed, learnt = Sigmoid(), Sigmoid(learn_temperature=True)
    for loss in (fixed, learnt):
        loss(literal.unit_views(4, 2)).backward()
    assert fixed.bias.grad is not None
    assert fixed.log_temperature.grad is None
    assert learnt.log_temperature.grad is not None


def test_a_pair_far_beyond_its_threshold_stays_finite() -> None:
    views = torch.eye(2)[:, None].repeat(1, 2, 1).requires_grad_()
    sigmoid(views, temperature=1e-3, bias=-10.0).backward()
    assert torch.isfinite(views.grad).all()


def test_a_temperature_must_be_positive() -> None:
    with pytest.raises(MelprintError, match="temperature"):
        Sigmoid(temperature=0)
