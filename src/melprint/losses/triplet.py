"""Triplet losses.  Axes: B items · V views of an item · A anchors · N = B * V rows · D fingerprint size."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from melprint.errors import MelprintError
from melprint.losses.views import check_positive, rows_of

Anchors = Literal["originals", "all"]
Positives = Literal["all", "hard", "semi-hard"]
Negatives = Literal["semi-hard", "semi-hard-or-hard", "hard"]


def triplet(
    views_BVD: Tensor,
    *,
    margin: float,
    squared: bool = True,
    anchors: Anchors = "originals",
    positives: Positives = "all",
    negatives: Negatives = "semi-hard",
) -> Tensor:
    """Mean of ``max(0, d(a, p) - d(a, n) + margin)`` over anchors a and their positives p.

    Positives are the other views of a's item: ``all`` of them, the ``hard`` one (the farthest), or the ``semi-hard``
    one (the farthest that is closer than every negative; where none is, the closest).

    The negative is, among all views of other items, for each (a, p):

    - ``semi-hard``: the closest that is farther than p; where none is, the farthest of all.  Schroff et al. 2015
      (FaceNet), section 3.2, with the fallback that TensorFlow Addons' ``triplet_semihard_loss`` takes;
    - ``semi-hard-or-hard``: the closest strictly between d(a, p) and d(a, p) + margin; where none is, the closest of
      all.  Araz et al. 2025, as described for neural-music-fp;
    - ``hard``: the closest.

    Now Playing (Gfeller et al. 2017) as replicated by neural-audio-fp: margin 0.4, originals as anchors, all
    positives, semi-hard negatives.  neural-music-fp: margin 0.5, all views as anchors, hard positives,
    ``semi-hard-or-hard`` negatives.

    Args:
        views_BVD: unit rows, V >= 2; view 0 is the original.
        margin: in units of the distance.
        squared: whether d is the squared Euclidean distance.
        anchors: the originals, or every view.
        positives: see above.
        negatives: see above.

    Returns:
        A scalar.
    """
    with torch.autocast(views_BVD.device.type, enabled=False):
        rows, item = rows_of(views_BVD, "the triplet loss")
        items, views, _ = views_BVD.shape
        step = views if anchors == "originals" else 1
        number_A = torch.arange(0, len(rows), step, device=rows.device)
        item_A = item[number_A]
        apart_AN = distance(rows[number_A] @ rows.T, squared)
        own_AN = item_A[:, None] == item
        to_own_AV = apart_AN.unflatten(1, (items, views))[torch.arange(len(number_A), device=rows.device), item_A]
        itself_AV = torch.arange(views, device=rows.device) == (number_A % views)[:, None]
        others_AN = apart_AN.masked_fill(own_AN, torch.inf)

        if positives == "all":
            chosen_AP = torch.arange(views - 1, device=rows.device).expand(len(number_A), -1)
            chosen_AP = chosen_AP + (chosen_AP >= (number_A % views)[:, None])
        else:
            with torch.no_grad():
                chosen_AP = _positive(to_own_AV, itself_AV, others_AN, positives)
        to_positive_AP = to_own_AV.gather(1, chosen_AP)
        with torch.no_grad():
            negative_AP = _negative(apart_AN, others_AN, own_AN, to_positive_AP, margin, negatives)
        to_negative_AP = apart_AN.gather(1, negative_AP)
        return (to_positive_AP - to_negative_AP + margin).clamp_min(0).mean()


def _positive(to_own_AV: Tensor, itself_AV: Tensor, others_AN: Tensor, positives: Positives) -> Tensor:
    """The chosen view of each anchor's item ``(A, 1)``."""
    farthest = to_own_AV.masked_fill(itself_AV, -torch.inf)
    if positives == "hard":
        return farthest.argmax(1, keepdim=True)
    closer = farthest < others_AN.amin(1, keepdim=True)
    semi_hard = farthest.masked_fill(~closer, -torch.inf)
    closest = to_own_AV.masked_fill(itself_AV, torch.inf).argmin(1, keepdim=True)
    return torch.where((closer & ~itself_AV).any(1, keepdim=True), semi_hard.argmax(1, keepdim=True), closest)


def _negative(
    apart_AN: Tensor, others_AN: Tensor, own_AN: Tensor, to_positive_AP: Tensor, margin: float, negatives: Negatives
) -> Tensor:
    """The chosen row of each anchor and positive ``(A, P)``."""
    closest_A1 = others_AN.argmin(1, keepdim=True)
    if negatives == "hard":
        return closest_A1.expand_as(to_positive_AP)
    eligible_APN = others_AN[:, None] > to_positive_AP[..., None]
    if negatives == "semi-hard-or-hard":
        eligible_APN = eligible_APN & (others_AN[:, None] < to_positive_AP[..., None] + margin)
        fallback_A1 = closest_A1
    else:
        eligible_APN = eligible_APN & ~own_AN[:, None]
        fallback_A1 = apart_AN.masked_fill(own_AN, -torch.inf).argmax(1, keepdim=True)
    semi_hard = others_AN[:, None].masked_fill(~eligible_APN, torch.inf).argmin(-1)
    return torch.where(eligible_APN.any(-1), semi_hard, fallback_A1)


def distance(cosine: Tensor, squared: bool) -> Tensor:
    """Euclidean distance between unit vectors from their inner product.

    >>> distance(torch.tensor([1.0, 0.0, -1.0]), squared=True)
    tensor([0., 2., 4.])
    """
    square = (2 - 2 * cosine).clamp_min(0)
    # The root has no finite slope at 0, where an original and its replica may meet.
    return square if squared else (square + torch.finfo(square.dtype).eps).sqrt()


class Triplet(nn.Module):
    """:func:`triplet` with its parameters bound."""

    def __init__(
        self,
        margin: float = 0.4,
        *,
        squared: bool = True,
        anchors: Anchors = "originals",
        positives: Positives = "all",
        negatives: Negatives = "semi-hard",
    ) -> None:
        super().__init__()
        check_positive("margin", margin)
        for name, value, known in (
            ("anchors", anchors, Anchors),
            ("positives", positives, Positives),
            ("negatives", negatives, Negatives),
        ):
            if value not in get_args(known):
                raise MelprintError(f"{name} must be one of {', '.join(get_args(known))}, got {value!r}")
        self.margin, self.squared = margin, squared
        self.anchors, self.positives, self.negatives = anchors, positives, negatives

    def forward(self, views_BVD: Tensor) -> Tensor:
        """A scalar."""
        return triplet(
            views_BVD,
            margin=self.margin,
            squared=self.squared,
            anchors=self.anchors,
            positives=self.positives,
            negatives=self.negatives,
        )
