"""What every loss begins with.  Axes: B items · V views of an item · N = B * V rows · D fingerprint size."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from melprint.errors import MelprintError

ROWS_AT_ONCE = 1_024


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


def sum_by_rows(term: Callable[[slice], Tensor], num_rows: int) -> Tensor:
    """The sum of a term over blocks of rows, each of which compares its rows with all.

    One block after the other is computed, and once more on the way back, so that of N x N similarities never more
    than a block is held: beyond some thousand rows they would weigh more than a chunk of the network.
    """
    if num_rows <= ROWS_AT_ONCE:
        return term(slice(0, num_rows))
    blocks = [slice(start, start + ROWS_AT_ONCE) for start in range(0, num_rows, ROWS_AT_ONCE)]
    return torch.stack([checkpoint(term, block, use_reentrant=False) for block in blocks]).sum()


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
