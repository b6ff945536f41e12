"""Alignment and uniformity, as a loss and as two figures to watch.  Axes: B items · V views · D fingerprint size."""

import math

import torch
from torch import Tensor, nn

from melprint.errors import MelprintError
from melprint.losses.views import rows_of


def alignment(views_BVD: Tensor, *, alpha: float = 2.0) -> Tensor:
    """Mean over pairs of views of an item of ``|a - b| ** alpha``: 0 where all views of an item coincide.

    Source: Wang & Isola 2020, eq. 7 (section 4.1).

    >>> alignment(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]]))
    tensor(1.)
    """
    views = views_BVD.shape[1]
    left, right = torch.triu_indices(views, views, offset=1, device=views_BVD.device)
    square = (views_BVD[:, left] - views_BVD[:, right]).float().square().sum(-1)
    # The root has no finite slope at 0, where two views may meet.
    return (square if alpha == 2 else (square + torch.finfo(square.dtype).eps) ** (alpha / 2)).mean()


def uniformity(views_BVD: Tensor, *, t: float = 2.0) -> Tensor:
    """Log of the mean Gaussian potential between different items, averaged over the views.

    ``log mean_{i != j} exp(-t |a_i - a_j| ** 2)``; the least possible value, of fingerprints spread evenly over a
    sphere of many dimensions, is near ``-2 t``.  Source: Wang & Isola 2020, eq. 8.

    >>> uniformity(torch.eye(2)[:, None], t=2.0)
    tensor(-4.)
    """
    rows_VBD = views_BVD.float().transpose(0, 1)
    items = rows_VBD.shape[1]
    with torch.autocast(views_BVD.device.type, enabled=False):
        exponent = -t * (2 - 2 * rows_VBD @ rows_VBD.mT)
    itself = torch.eye(items, dtype=torch.bool, device=rows_VBD.device)
    potential = torch.logsumexp(exponent.masked_fill(itself, -torch.inf).flatten(1), dim=1)
    return potential.mean() - math.log(items * (items - 1))


class AlignmentUniformity(nn.Module):
    """``weight_alignment * alignment + weight_uniformity * uniformity`` on unit rows.

    Args:
        alpha: exponent of the distance between views.
        t: sharpness of the potential.
        weight_alignment: of the first part.
        weight_uniformity: of the second.
    """

    def __init__(
        self, alpha: float = 2.0, t: float = 2.0, weight_alignment: float = 1.0, weight_uniformity: float = 1.0
    ) -> None:
        super().__init__()
        if min(alpha, t, weight_alignment, weight_uniformity) <= 0:
            raise MelprintError(
                "alpha, t and both weights must be positive, got"
                f" {alpha}, {t}, {weight_alignment} and {weight_uniformity}"
            )
        self.alpha, self.t = alpha, t
        self.weight_alignment, self.weight_uniformity = weight_alignment, weight_uniformity

    def forward(self, views_BVD: Tensor) -> Tensor:
        """A scalar."""
        with torch.autocast(views_BVD.device.type, enabled=False):
            rows_of(views_BVD, "the loss of alignment and uniformity")
            apart = self.weight_uniformity * uniformity(views_BVD, t=self.t)
            return self.weight_alignment * alignment(views_BVD, alpha=self.alpha) + apart
