"""Normalised-temperature cross entropy.  Axes: B items · V views of an item · D fingerprint size."""

from typing import Literal

import torch
from torch import Tensor, nn

from melprint.losses.views import check_positive, check_reduction, mean_or_sum, rows_of, sum_by_rows


def nt_xent(views_BVD: Tensor, *, temperature: float, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Each view must find the other views of its item among the views of all other items.

    For a view i with a positive p (another view of its item), and negatives N (all views of other items)::

        l(i, p) = -log( exp(s_ip / t) / (exp(s_ip / t) + sum_{n in N} exp(s_in / t)) )

    The loss is the mean of l over all (i, p).  With two views this is Chen et al. 2020 (SimCLR), eq. 1;
    with more, the other positives of i are left out of the denominator, so that they do not repel each
    other.  neural-audio-fp logs the *sum* of the mean over originals and the mean over replicas, which is
    twice as much: ``reduction="sum"`` (mean of l times the number of views).

    Args:
        views_BVD: unit rows, V >= 2; view 0 is the original.
        temperature: t.
        reduction: see above.

    Returns:
        A scalar.

    >>> nt_xent(torch.eye(2)[:, None].expand(2, 2, 2), temperature=1.0)
    tensor(0.5514)
    """
    items, views, _ = views_BVD.shape
    with torch.autocast(views_BVD.device.type, enabled=False):
        rows, item = rows_of(views_BVD, "NT-Xent")
        itself = torch.eye(views, dtype=torch.bool, device=rows.device).repeat(items, 1)

        def losses_of(block: slice) -> Tensor:
            logits = rows[block] @ rows.T / temperature
            mine = item[block]
            negatives = torch.logsumexp(logits.masked_fill(mine[:, None] == item, -torch.inf), dim=1, keepdim=True)
            own = logits.unflatten(1, (items, views))[torch.arange(len(mine), device=rows.device), mine]
            return (torch.logaddexp(own, negatives) - own).masked_fill(itself[block], 0.0).sum()

        mean = sum_by_rows(losses_of, len(rows)) / (len(rows) * (views - 1))
    return mean_or_sum(mean, views, reduction)


class NtXent(nn.Module):
    """:func:`nt_xent` with its parameters bound."""

    def __init__(self, temperature: float = 0.05, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_reduction(reduction)
        self.temperature, self.reduction = temperature, reduction

    def forward(self, views_BVD: Tensor) -> Tensor:
        """A scalar."""
        return nt_xent(views_BVD, temperature=self.temperature, reduction=self.reduction)
