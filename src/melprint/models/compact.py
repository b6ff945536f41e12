"""A small encoder that trains on a CPU.  Axes: B batch · C channels · F mel bands · N frames · H features."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from melprint.errors import MelprintError
from melprint.models.norms import make_norm


class CompactEncoder(nn.Module):
    """A patch stem, then 3x3 convolutions that halve both axes, then one linear layer.

    Small CPUs are slow at what moves memory and fast at what multiplies: the stem reduces the spectrogram
    sixteenfold in one step, every further layer has a quarter of the places and more channels, and there
    are no depthwise convolutions (at equal time, they reached a lower hit rate: experiments/001).  The last
    layer sees every place with weights of its own, so that the position of energy in time and frequency
    counts.  With the defaults on 128 x 32 inputs and divide-and-encode behind it: 0.73 M parameters and
    3.8 M multiply-adds, an eightieth of the published network's 304 M.

    Args:
        input_shape: ``(F, N)`` of the log-mel spectrogram.
        widths: channels of the stem and of each further layer.
        stem: size of a patch in bands and frames.
        num_features: H.
        norm: after each convolution, see :func:`melprint.models.norms.make_norm`.
    """

    def __init__(
        self,
        input_shape: tuple[int, int],
        widths: Sequence[int] = (32, 64, 128, 192),
        stem: Sequence[int] = (4, 4),
        num_features: int = 512,
        norm: str = "group_norm",
    ) -> None:
        super().__init__()
        patch = (stem[0], stem[1])
        shape = (input_shape[0] // patch[0], input_shape[1] // patch[1])
        if not shape[0] * shape[1]:
            raise MelprintError(f"spectrograms of {input_shape} are smaller than the stem {patch}")
        layers = [*_normalised(nn.Conv2d(1, widths[0], patch, stride=patch, bias=False), shape, norm)]
        for narrow, wide in pairwise(widths):
            shape = (-(-shape[0] // 2), -(-shape[1] // 2))
            layers += _normalised(nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False), shape, norm)
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1] * shape[0] * shape[1], num_features)
        self.num_features = num_features
        # About a fifth faster on CPUs, and what tensor cores want.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs

    def forward(self, log_mel_BFN: Tensor) -> Tensor:
        """Features ``(B, H)``."""
        return self.head(self.layers(log_mel_BFN[:, None]).flatten(1))


def _normalised(conv: nn.Conv2d, shape_FN: tuple[int, int], norm: str) -> tuple[nn.Module, nn.Module, nn.Module]:
    return conv, make_norm(norm, (conv.out_channels, *shape_FN), epsilon=1e-5), nn.ReLU(inplace=True)
