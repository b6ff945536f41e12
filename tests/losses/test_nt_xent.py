import math

import pytest
import torch
from torch.nn import functional

from melprint.errors import MelprintError
from melprint.losses import NtXent, nt_xent


def literal(views: torch.Tensor, temperature: float) -> torch.Tensor:
    """Equation 1 of SimCLR, one pair after the other."""
    items, count, _ = views.shape
    losses = []
    for item in range(items):
        for view in range(count):
            anchor = views[item, view]
            for other in set(range(count)) - {view}:
                positive = torch.exp(anchor @ views[item, other] / temperature)
                negatives = sum(
                    torch.exp(anchor @ views[i, v] / temperature)
                    for i in range(items)
                    for v in range(count)
                    if i != item
                )
                losses.append(-torch.log(positive / (positive + negatives)))
    return torch.stack(losses).mean()


def published(originals: torch.Tensor, replicas: torch.Tensor, temperature: float) -> torch.Tensor:
    """The loss of neural-audio-fp: cross entropy over [ab | aa] and [ba | bb] without the diagonals, summed."""
    n = len(originals)
    off = ~torch.eye(n, dtype=torch.bool)
    aa = (originals @ originals.T)[off].view(n, n - 1) / temperature
    bb = (replicas @ replicas.T)[off].view(n, n - 1) / temperature
    ab, ba = originals @ replicas.T / temperature, replicas @ originals.T / temperature
    target = torch.arange(n)
    return functional.cross_entropy(torch.cat([ab, aa], 1), target) + functional.cross_entropy(
        torch.cat([ba, bb], 1), target
    )


def unit_views(items: int, views: int) -> torch.Tensor:
    return functional.normalize(torch.randn(items, views, 6), dim=-1).requires_grad_()


@pytest.mark.parametrize(("items", "views"), [(2, 2), (5, 2), (4, 3), (3, 5)])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_value_and_gradient_are_those_of_the_equation(items: int, views: int, temperature: float) -> None:
    fast, slow = unit_views(items, views), None
    slow = fast.detach().clone().double().requires_grad_()
    got, want = nt_xent(fast, temperature=temperature), literal(slow, temperature)
    got.backward()
    want.backward()
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast.grad.double(), slow.grad, rtol=1e-3, atol=1e-4)


def test_the_sum_is_what_neural_audio_fp_logs() -> None:
    views = unit_views(7, 2).detach()
    want = published(views[:, 0], views[:, 1], 0.05)
    torch.testing.assert_close(nt_xent(views, temperature=0.05, reduction="sum"), want)


def test_equal_fingerprints_give_the_logarithm_of_the_number_of_choices() -> None:
    same = torch.ones(5, 2, 1)
    assert float(nt_xent(same, temperature=0.05)) == pytest.approx(math.log(1 + 2 * 4))


def test_the_order_of_items_does_not_matter() -> None:
    views = unit_views(6, 3).detach()
    torch.testing.assert_close(nt_xent(views[torch.randperm(6)], temperature=0.1), nt_xent(views, temperature=0.1))


def test_logits_stay_float32_under_autocast() -> None:
    views = unit_views(32, 2).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = nt_xent(views, temperature=0.05)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, nt_xent(views, temperature=0.05))


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(MelprintError, match="temperature"):
        NtXent(temperature=0)
    with pytest.raises(MelprintError, match="reduction"):
        NtXent(reduction="median")
    with pytest.raises(MelprintError, match="two items"):
        nt_xent(torch.ones(1, 2, 3), temperature=1.0)
