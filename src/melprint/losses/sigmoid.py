"""Pairwise sigmoid loss.  Axes: B items · V views of an item · N = B * V · D fingerprint size."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from melprint.losses.views import check_positive, rows_of, sum_by_rows


def sigmoid(views_BVD: Tensor, *, temperature: Tensor | float, bias: Tensor | float) -> Tensor:
    """Every pair of views is a yes-or-no question: are they of one item?

    With z = 1 for two views of one item and -1 otherwise::

        loss = -1/N sum_{i != j} log sigmoid( z_ij (s_ij / t + b) )

    No softmax, so no term knows of all others.  Source: Zhai et al. 2023 (SigLIP), eq. 1, between views of one
    kind as in SigCLR (arXiv:2410.17427), which finds that the bias must be learnt and the temperature need not be.

    Args:
        views_BVD: unit rows, V >= 2.
        temperature: t.
        bias: b; begins very negative, as almost all pairs are negative.

    Returns:
        A scalar.

    >>> sigmoid(torch.eye(2)[:, None].expand(2, 2, 2), temperature=1.0, bias=0.0)
    tensor(1.6996)
    """
    with torch.autocast(views_BVD.device.type, enabled=False):
        rows, item = rows_of(views_BVD, "the sigmoid loss")
        number = torch.arange(len(rows), device=rows.device)

        def logarithms_of(block: slice) -> Tensor:
            logits = rows[block] @ rows.T / temperature + bias
            sign = torch.where(item[block][:, None] == item, 1.0, -1.0)
            itself = number[block][:, None] == number
            return functional.logsigmoid(sign * logits).masked_fill(itself, 0.0).sum()

        return -sum_by_rows(logarithms_of, len(rows)) / len(rows)


class Sigmoid(nn.Module):
    """:func:`sigmoid` with a learnt bias and, if asked for, a learnt temperature.

    Args:
        temperature: at the beginning.
        bias: at the beginning.
        learn_temperature: as SigLIP does; on its logarithm.
    """

    def __init__(self, temperature: float = 0.1, bias: float = -10.0, *, learn_temperature: bool = False) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)), requires_grad=learn_temperature)
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self, views_BVD: Tensor) -> Tensor:
        """A scalar."""
        return sigmoid(views_BVD, temperature=self.log_temperature.exp(), bias=self.bias)
