"""Several networks as one.  Axes: B batch · F mel bands · N frames · H features."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from melprint.models.fingerprinter import make_part


class Towers(nn.Module):
    """Networks side by side on one spectrogram; the features are their fingerprints, one behind the other.

    The cosine of two such fingerprints is the mean of the towers' cosines: networks that were trained apart make
    different mistakes, and the mean is right more often than each (Hansen & Salamon 1990, "Neural network ensembles").

    Args:
        input_shape: ``(F, N)`` of the log-mel spectrogram.
        towers: an ``encoder`` and a ``projection`` each, as in the configuration of a model.
    """

    def __init__(self, input_shape: tuple[int, int], towers: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.encoders, self.projections = nn.ModuleList(), nn.ModuleList()
        for tower in towers:
            encoder = make_part(tower["encoder"], input_shape=input_shape)
            self.encoders.append(encoder)
            self.projections.append(make_part(tower["projection"], num_features=encoder.num_features))
        dims: list[Any] = [projection.dim for projection in self.projections]
        self.num_features = int(sum(dims))

    def forward(self, log_mel_BFN: Tensor) -> Tensor:
        """Features ``(B, H)``; those of each tower have unit norm."""
        towers = zip(self.encoders, self.projections, strict=True)
        return torch.cat([functional.normalize(project(encode(log_mel_BFN)), dim=1) for encode, project in towers], 1)
