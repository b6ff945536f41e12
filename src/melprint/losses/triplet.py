"""Triplet loss with semi-hard negatives.  Axes: B items · V views of an item · D fingerprint size."""

import torch
from torch import Tensor, nn

from melprint.errors import MelprintError


def semi_hard_triplet(views_BVD: Tensor, *, margin: float, squared: bool = True) -> Tensor:
    """Mean over (original, replica) pairs of ``max(0, d(a, p) - d(a, n) + margin)``.

    The negative n is, among all views of other items, the closest to a that is farther than p
    (semi-hard); where none is farther, the farthest of all.  Source: Schroff et al. 2015 (FaceNet),
    section 3.2, with the fallback that TensorFlow Addons' ``triplet_semihard_loss`` takes.

    Args:
        views_BVD: unit rows, V >= 2; view 0 is the original.
        margin: in units of the distance.
        squared: whether d is the squared Euclidean distance.

    Returns:
        A scalar.
    """
    items, views, _ = views_BVD.shape
    if items < 2 or views < 2:
        raise MelprintError(f"the triplet loss needs two items and two views at least, got {items} and {views}")
    with torch.autocast(views_BVD.device.type, enabled=False):
        unit = views_BVD.float()
        anchors_BD, all_ND = unit[:, 0], unit.flatten(0, 1)
        to_all_BN = distance(anchors_BD @ all_ND.T, squared)
        item = torch.arange(items, device=unit.device)
        own_BN = item[:, None] == item.repeat_interleave(views)
        to_positive_BP = distance((anchors_BD[:, None] * unit[:, 1:]).sum(-1), squared)
        farther = (to_all_BN[:, None] > to_positive_BP[..., None]) & ~own_BN[:, None]
        closest = to_all_BN[:, None].masked_fill(~farther, torch.inf).amin(-1)
        farthest = to_all_BN.masked_fill(own_BN, -torch.inf).amax(-1, keepdim=True)
        to_negative_BP = torch.where(farther.any(-1), closest, farthest)
        return (to_positive_BP - to_negative_BP + margin).clamp_min(0).mean()


def distance(cosine: Tensor, squared: bool) -> Tensor:
    """Euclidean distance between unit vectors from their inner product.

    >>> distance(torch.tensor([1.0, 0.0, -1.0]), squared=True)
    tensor([0., 2., 4.])
    """
    square = (2 - 2 * cosine).clamp_min(0)
    # The root has no finite slope at 0, where an original and its replica may meet.
    return square if squared else (square + torch.finfo(square.dtype).eps).sqrt()


class SemiHardTriplet(nn.Module):
    """:func:`semi_hard_triplet` with its parameters bound; 0.4 is the margin of Now Playing."""

    def __init__(self, margin: float = 0.4, *, squared: bool = True) -> None:
        super().__init__()
        if margin <= 0:
            raise MelprintError(f"margin must be positive, got {margin}")
        self.margin, self.squared = margin, squared

    def forward(self, views_BVD: Tensor) -> Tensor:
        """A scalar."""
        return semi_hard_triplet(views_BVD, margin=self.margin, squared=self.squared)
