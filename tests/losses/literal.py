"""The losses as their papers print them, one term after the other, in double precision."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def unit_views(items: int, views: int, dim: int = 6) -> Tensor:
    return functional.normalize(torch.randn(items, views, dim), dim=-1).requires_grad_()


def same_value_and_slope(loss: Callable[[Tensor], Tensor], slow: Callable[[Tensor], Tensor], views: Tensor) -> None:
    """On the sphere: fast forms use |x - y|^2 = 2 - 2xy, which has the same slope along the sphere only."""
    fast_views, slow_views = views.detach().requires_grad_(), views.detach().double().requires_grad_()
    got, want = loss(fast_views), slow(slow_views)
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)
    (fast,) = torch.autograd.grad(got, fast_views)
    (exact,) = torch.autograd.grad(want, slow_views)

    def along(grad: Tensor, at: Tensor) -> Tensor:
        return grad - (grad * at).sum(-1, keepdim=True) * at

    torch.testing.assert_close(
        along(fast.double(), slow_views.detach()), along(exact, slow_views.detach()), rtol=1e-3, atol=1e-4
    )


def others(views: Tensor, item: int) -> list[Tensor]:
    return [row for other, rows in enumerate(views) if other != item for row in rows]


def supcon(views: Tensor, temperature: float) -> Tensor:
    items, count, _ = views.shape
    total = torch.zeros((), dtype=views.dtype)
    for item in range(items):
        for view in range(count):
            anchor = views[item, view]
            own = [views[item, v] for v in range(count) if v != view]
            below = sum(torch.exp(anchor @ row / temperature) for row in [*own, *others(views, item)])
            total = total - sum(torch.log(torch.exp(anchor @ p / temperature) / below) for p in own) / len(own)
    return total / (items * count)


def decoupled(views: Tensor, temperature: float) -> Tensor:
    items, count, _ = views.shape
    terms = []
    for item in range(items):
        for view in range(count):
            anchor = views[item, view]
            below = sum(torch.exp(anchor @ row / temperature) for row in others(views, item))
            terms += [
                torch.log(below) - anchor @ views[item, other] / temperature for other in range(count) if other != view
            ]
    return torch.stack(terms).mean()


def alignment_uniformity(views: Tensor, alpha: float, t: float) -> Tensor:
    items, count, _ = views.shape
    pairs = [(i, v, w) for i in range(items) for v in range(count) for w in range(v + 1, count)]
    align = torch.stack([((views[i, v] - views[i, w]) ** 2).sum() ** (alpha / 2) for i, v, w in pairs]).mean()
    spread = []
    for view in range(count):
        potential = [
            torch.exp(-t * ((views[i, view] - views[j, view]) ** 2).sum())
            for i in range(items)
            for j in range(items)
            if i != j
        ]
        spread.append(torch.log(torch.stack(potential).mean()))
    return align + torch.stack(spread).mean()


def sigmoid(views: Tensor, temperature: float, bias: float) -> Tensor:
    rows, item = views.flatten(0, 1), [i for i in range(len(views)) for _ in range(views.shape[1])]
    total = torch.zeros((), dtype=views.dtype)
    for i in range(len(rows)):
        for j in range(len(rows)):
            if i != j:
                z = 1 if item[i] == item[j] else -1
                total = total - torch.log(1 / (1 + torch.exp(-z * (rows[i] @ rows[j] / temperature + bias))))
    return total / len(rows)


def triplet(views: Tensor, margin: float, squared: bool, anchors: str, positives: str, negatives: str) -> Tensor:
    """Section 3.2 of FaceNet and its variants, one triplet after the other."""
    items, count, _ = views.shape

    def dist(x: Tensor, y: Tensor) -> Tensor:
        square = ((x - y) ** 2).sum()
        return square if squared else torch.sqrt(square + torch.finfo(torch.float32).eps)

    losses = []
    for item in range(items):
        for view in range(count if anchors == "all" else 1):
            anchor = views[item, view]
            apart = sorted((dist(anchor, row) for row in others(views, item)), key=lambda d: d.item())
            own = sorted((dist(anchor, views[item, v]) for v in range(count) if v != view), key=lambda d: d.item())
            closer = [d for d in own if d < apart[0]]
            chosen = {"all": own, "hard": own[-1:], "semi-hard": closer[-1:] or own[:1]}[positives]
            for positive in chosen:
                farther = [d for d in apart if d > positive]
                banded = [d for d in farther if d < positive + margin]
                negative = {
                    "hard": apart[0],
                    "semi-hard": (farther or apart[-1:])[0],
                    "semi-hard-or-hard": (banded or apart)[0],
                }[negatives]
                losses.append(torch.clamp(positive - negative + margin, min=0))
    return torch.stack(losses).mean()
