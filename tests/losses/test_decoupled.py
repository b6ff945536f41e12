import pytest
import torch

from melprint.errors import MelprintError
from melprint.losses import Decoupled, decoupled, nt_xent
from tests.losses import literal


@pytest.mark.parametrize(("items", "views"), [(2, 2), (5, 2), (4, 3)])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_value_and_gradient_are_those_of_the_equation(items: int, views: int, temperature: float) -> None:
    literal.same_value_and_slope(
        lambda v: decoupled(v, temperature=temperature),
        lambda v: literal.decoupled(v, temperature),
        literal.unit_views(items, views),
    )


def test_without_the_positive_in_the_denominator_it_is_below_nt_xent() -> None:
    views = literal.unit_views(6, 2)
    assert decoupled(views, temperature=0.1) < nt_xent(views, temperature=0.1)


def test_the_sum_adds_both_directions() -> None:
    views = literal.unit_views(4, 2)
    twice = 2 * decoupled(views, temperature=0.1)
    torch.testing.assert_close(decoupled(views, temperature=0.1, reduction="sum"), twice)


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(MelprintError, match="reduction"):
        Decoupled(reduction="max")  # type: ignore[arg-type]
    with pytest.raises(MelprintError, match="two views"):
        decoupled(torch.ones(3, 1, 3), temperature=1.0)
