import pytest
import torch

from melprint.errors import MelprintError
from melprint.losses import SupCon, nt_xent, supcon
from tests.losses import literal


@pytest.mark.parametrize(("items", "views"), [(2, 2), (4, 3), (3, 5)])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_value_and_gradient_are_those_of_the_equation(items: int, views: int, temperature: float) -> None:
    literal.same_value_and_slope(
        lambda v: supcon(v, temperature=temperature),
        lambda v: literal.supcon(v, temperature),
        literal.unit_views(items, views),
    )


def test_with_two_views_it_is_nt_xent() -> None:
    views = literal.unit_views(6, 2)
    torch.testing.assert_close(supcon(views, temperature=0.1), nt_xent(views, temperature=0.1))


def test_more_positives_compete_in_the_denominator() -> None:
    views = literal.unit_views(6, 4)
    assert supcon(views, temperature=0.1) > nt_xent(views, temperature=0.1)


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(MelprintError, match="temperature"):
        SupCon(temperature=-1)
    with pytest.raises(MelprintError, match="two items"):
        supcon(torch.ones(1, 2, 3), temperature=1.0)
