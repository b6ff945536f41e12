import pytest
import torch
from torch.nn import functional

from melprint.errors import MelprintError
from melprint.losses import SemiHardTriplet, semi_hard_triplet


def literal(views: torch.Tensor, margin: float, squared: bool) -> torch.Tensor:
    """Section 3.2 of FaceNet, one triplet after the other."""
    items, count, _ = views.shape

    def dist(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        square = ((x - y) ** 2).sum()
        return square if squared else torch.sqrt(square + torch.finfo(torch.float32).eps)

    losses = []
    for item in range(items):
        negatives = [dist(views[item, 0], views[i, v]) for i in range(items) for v in range(count) if i != item]
        for view in range(1, count):
            positive = dist(views[item, 0], views[item, view])
            farther = [d for d in negatives if d > positive]
            chosen = min(farther) if farther else max(negatives)
            losses.append(torch.clamp(positive - chosen + margin, min=0))
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("items", "views"), [(2, 2), (6, 2), (4, 4)])
@pytest.mark.parametrize("squared", [True, False])
def test_value_and_gradient_are_those_of_the_definition(items: int, views: int, squared: bool) -> None:
    fast = functional.normalize(torch.randn(items, views, 5), dim=-1).requires_grad_()
    slow = fast.detach().clone().requires_grad_()
    got = semi_hard_triplet(fast, margin=0.4, squared=squared)
    want = literal(slow, 0.4, squared)
    got.backward()
    want.backward()
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)

    # On the sphere: the fast form uses |x - y|^2 = 2 - 2xy, which has the same slope along the sphere only.
    def along(grad: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return grad - (grad * at).sum(-1, keepdim=True) * at

    unit = fast.detach()
    torch.testing.assert_close(along(fast.grad, unit), along(slow.grad, unit), rtol=1e-3, atol=1e-5)


def test_a_separated_batch_costs_nothing() -> None:
    assert float(semi_hard_triplet(torch.eye(4)[:, None].expand(4, 2, 4), margin=0.4)) == 0


def test_coinciding_views_have_a_finite_gradient() -> None:
    views = torch.eye(3)[:, None].repeat(1, 2, 1).requires_grad_()
    semi_hard_triplet(views, margin=3.0, squared=False).backward()
    assert torch.isfinite(views.grad).all()


def test_a_margin_must_be_positive() -> None:
    with pytest.raises(MelprintError, match="margin"):
        SemiHardTriplet(margin=0)
