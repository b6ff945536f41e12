"""Normalised-temperature cross entropy.  Axes: B items · V views of an item · D fingerprint size."""

from typing import Literal

import torch
from torch import Tensor, nn

from melprint.errors import MelprintError


def nt_xent(views_BVD: Tensor, *, temperature: float, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Each view must find the other views of its item among the views of all other items.

    For a view i with a positive p (another view of its item), and negatives N (all views of other items)::

        l(i, p) = -log( exp(s_ip / t) / (exp(s_ip / t) + sum_{n in N} exp(s_in / t)) )

    The loss is the mean of l over all (i, p).  With two views this is Chen et al. 2020 (SimCLR), eq. 1;
    with more, the other positives of i are left out of the denominator, so that they do not repel each
    other.  neural-audio-fp logs the *sum* of the mean over originals and the mean over replicas, which is
    twice as much: ``reduction="sum"`` (mean of l times the number of views).

    Logits are float32 whatever the precision of the network: at a temperature of 0.05, bfloat16 would
    round them by up to 0.06.

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
    if items < 2 or views < 2:
        raise MelprintError(f"NT-Xent needs two items and two views at least, got {items} and {views}")
    with torch.autocast(views_BVD.device.type, enabled=False):
        flat = views_BVD.flatten(0, 1).float()
        logits = flat @ flat.T / temperature
        item = torch.arange(items, device=flat.device).repeat_interleave(views)
        same_item = item[:, None] == item
        negatives = torch.logsumexp(logits.masked_fill(same_item, -torch.inf), dim=1, keepdim=True)
        own = logits.unflatten(1, (items, views))[torch.arange(len(flat), device=flat.device), item]
        others = ~torch.eye(views, dtype=torch.bool, device=flat.device).repeat(items, 1)
        losses = torch.logaddexp(own, negatives) - own
        mean = losses[others].mean()
    return mean * views if reduction == "sum" else mean


class NtXent(nn.Module):
    """:func:`nt_xent` with its parameters bound."""

    def __init__(self, temperature: float = 0.05, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        if temperature <= 0:
            raise MelprintError(f"temperature must be positive, got {temperature}")
        if reduction not in ("mean", "sum"):
            raise MelprintError(f"reduction must be mean or sum, got {reduction!r}")
        self.temperature, self.reduction = temperature, reduction

    def forward(self, views_BVD: Tensor) -> Tensor:
        """A scalar."""
        return nt_xent(views_BVD, temperature=self.temperature, reduction=self.reduction)
