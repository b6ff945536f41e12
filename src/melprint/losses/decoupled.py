"""Decoupled contrastive loss.  Axes: B items · V views of an item · D fingerprint size."""

from typing import Literal

import torch
from torch import Tensor, nn

from melprint.losses.views import check_positive, check_reduction, mean_or_sum, rows_of, sum_by_rows


def decoupled(views_BVD: Tensor, *, temperature: float, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """NT-Xent without the positive in the denominator: an easy positive no longer weakens the negatives.

    For a view i with a positive p, and negatives N (all views of other items)::

        l(i, p) = -s_ip / t + log sum_{n in N} exp(s_in / t)

    The loss is the mean of l over all (i, p); it can be negative.  Source: Yeh et al. 2022, "Decoupled contrastive
    learning", eq. 5.  Araz et al. 2025 add the two directions: ``reduction="sum"``.

    Args:
        views_BVD: unit rows, V >= 2.
        temperature: t.
        reduction: see above.

    Returns:
        A scalar.

    >>> decoupled(torch.eye(2)[:, None].expand(2, 2, 2), temperature=1.0)
    tensor(-0.3069)
    """
    views = views_BVD.shape[1]
    with torch.autocast(views_BVD.device.type, enabled=False):
        rows, item = rows_of(views_BVD, "the decoupled loss")

        def negatives_of(block: slice) -> Tensor:
            logits = rows[block] @ rows.T / temperature
            return torch.logsumexp(logits.masked_fill(item[block][:, None] == item, -torch.inf), dim=1).sum()

        negatives = sum_by_rows(negatives_of, len(rows)) / len(rows)
        of_item = views_BVD.float().sum(dim=1)
        positives = (of_item.square().sum() - rows.square().sum()) / temperature / (len(rows) * (views - 1))
        return mean_or_sum(negatives - positives, views, reduction)


class Decoupled(nn.Module):
    """:func:`decoupled` with its parameters bound."""

    def __init__(self, temperature: float = 0.05, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_reduction(reduction)
        self.temperature, self.reduction = temperature, reduction

    def forward(self, views_BVD: Tensor) -> Tensor:
        """A scalar."""
        return decoupled(views_BVD, temperature=self.temperature, reduction=self.reduction)
