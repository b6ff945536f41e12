"""NT-Xent for several positives that compete in one denominator.  Axes: B items · V views · D fingerprint size."""

import torch
from torch import Tensor, nn

from melprint.losses.views import check_positive, rows_of, sum_by_rows


def supcon(views_BVD: Tensor, *, temperature: float) -> Tensor:
    """Supervised contrastive loss, with the item as the label.

    For a view i, its positives P (the other views of its item) and all other views A = P + negatives::

        l(i) = -1/|P| sum_{p in P} [ s_ip / t - log sum_{a in A} exp(s_ia / t) ]

    The loss is the mean of l over all views.  Source: Khosla et al. 2020, eq. 2 (``L_out``); Araz et al. 2025 call
    it MultiPosCon.  With two views it is NT-Xent; with more, the positives of i also stand in its denominator.

    Args:
        views_BVD: unit rows, V >= 2.
        temperature: t.

    Returns:
        A scalar.

    >>> supcon(torch.eye(2)[:, None].expand(2, 2, 2), temperature=1.0)
    tensor(0.5514)
    """
    items, views, _ = views_BVD.shape
    with torch.autocast(views_BVD.device.type, enabled=False):
        rows, item = rows_of(views_BVD, "SupCon")
        number = torch.arange(len(rows), device=rows.device)
        itself = torch.eye(views, dtype=torch.bool, device=rows.device).repeat(items, 1)

        def losses_of(block: slice) -> Tensor:
            logits = rows[block] @ rows.T / temperature
            logits = logits.masked_fill(number[block][:, None] == number, -torch.inf)
            own = logits.unflatten(1, (items, views))[number[: len(logits)], item[block]]
            positives = own.masked_fill(itself[block], 0.0).sum(dim=1) / (views - 1)
            return (torch.logsumexp(logits, dim=1) - positives).sum()

        return sum_by_rows(losses_of, len(rows)) / len(rows)


class SupCon(nn.Module):
    """:func:`supcon` with its parameter bound."""

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        self.temperature = temperature

    def forward(self, views_BVD: Tensor) -> Tensor:
        """A scalar."""
        return supcon(views_BVD, temperature=self.temperature)
