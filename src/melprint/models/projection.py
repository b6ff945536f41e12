"""From features to a fingerprint.  Axes: B batch · H features · D fingerprint size · S features of a slice."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from melprint.errors import MelprintError
from melprint.models.norms import KERAS_EPSILON


class DivideAndEncode(nn.Module):
    """Each fingerprint element is computed from its own slice of the features by a small network.

    ``H / D`` features -> ``hidden`` (ELU) -> 1, for each of the D slices.  Source: Lai et al. 2015
    ("Simultaneous feature learning and hash coding"), as used by Chang et al. 2021, section 2.3.

    Args:
        num_features: H, a multiple of ``dim``.
        dim: D.
        hidden: units of each slice's hidden layer.
        norm: layer normalisation of each slice's hidden units, as in deep-audio-fingerprinting and neural-music-fp.
    """

    def __init__(self, num_features: int, dim: int = 128, hidden: int = 32, norm: bool = False) -> None:
        super().__init__()
        if num_features % dim:
            raise MelprintError(
                f"{num_features} features cannot be divided into {dim} equal slices; change dim or the width"
            )
        self.dim = dim
        self.weight_in = nn.Parameter(torch.empty(dim, num_features // dim, hidden))
        self.bias_in = nn.Parameter(torch.zeros(dim, 1, hidden))
        self.weight_out = nn.Parameter(torch.empty(dim, hidden, 1))
        self.bias_out = nn.Parameter(torch.zeros(dim, 1, 1))
        for weight in (self.weight_in, self.weight_out):  # Glorot by slice, as separate Dense layers would be
            bound = (6 / (weight.shape[1] + weight.shape[2])) ** 0.5
            nn.init.uniform_(weight, -bound, bound)
        for parameter in (self.weight_in, self.bias_in, self.weight_out, self.bias_out):
            parameter.separate_slices = True  # type: ignore[attr-defined]  # see melprint.training.lamb
        self.norm_weight = nn.Parameter(torch.ones(dim, 1, hidden)) if norm else None
        self.norm_bias = nn.Parameter(torch.zeros(dim, 1, hidden)) if norm else None

    def forward(self, features_BH: Tensor) -> Tensor:
        """``(B, H)`` to ``(B, D)``, not yet normalised."""
        slices_DBS = features_BH.unflatten(1, (self.dim, -1)).transpose(0, 1)
        hidden = functional.elu(torch.baddbmm(self.bias_in, slices_DBS, self.weight_in))
        if self.norm_weight is not None and self.norm_bias is not None:
            unit = functional.layer_norm(hidden, hidden.shape[-1:], eps=KERAS_EPSILON)
            hidden = torch.addcmul(self.norm_bias, unit, self.norm_weight)
        return torch.baddbmm(self.bias_out, hidden, self.weight_out).squeeze(-1).T


class Unchanged(nn.Module):
    """The features as they are.

    Args:
        num_features: H.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.dim = num_features

    def forward(self, features_BH: Tensor) -> Tensor:
        """The same ``(B, H)``."""
        return features_BH
