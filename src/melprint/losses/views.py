"""What every loss begins with.  Axes: B items · V views of an item · N = B * V rows · D fingerprint size."""

import torch
from torch import Tensor

from melprint.errors import MelprintError


def rows_of(views_BVD: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """All views as float32 rows ``(N, D)``, and the item of each ``(N,)``.

    Float32 whatever the precision of the network: at a temperature of 0.05, bfloat16 would round logits by up to 0.06.

    Raises:
        MelprintError: fewer than two items or two views.
    """
    items, views, _ = views_BVD.shape
    if items < 2 or views < 2:
        raise MelprintError(f"{loss} needs two items and two views at least, got {items} and {views}")
    item = torch.arange(items, device=views_BVD.device).repeat_interleave(views)
    return views_BVD.flatten(0, 1).float(), item


def mean_or_sum(mean: Tensor, views: int, reduction: str) -> Tensor:
    """``sum`` adds the means of the directions (one for each view), as neural-audio-fp logs it."""
    return mean * views if reduction == "sum" else mean


def check_reduction(reduction: str) -> None:
    """Refuse what is neither of the two conventions."""
    if reduction not in ("mean", "sum"):
        raise MelprintError(f"reduction must be mean or sum, got {reduction!r}")


def check_positive(name: str, value: float) -> None:
    """Refuse a temperature or margin that is not positive."""
    if not value > 0:
        raise MelprintError(f"{name} must be positive, got {value}")
