"""A small encoder that trains on a CPU.  Axes: B batch · C channels · F mel bands · N frames · H features."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from melprint.errors import MelprintError


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
    """

    def __init__(
        self,
        input_shape: tuple[int, int],
        widths: Sequence[int] = (32, 64, 128, 192),
        stem: Sequence[int] = (4, 4),
        num_features: int = 512,
    ) -> None:
        super().__init__()
        patch = (stem[0], stem[1])
        layers = list(_normalised(nn.Conv2d(1, widths[0], patch, stride=patch, bias=False)))
        for narrow, wide in pairwise(widths):
            layers += _normalised(nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False))
        self.layers = nn.Sequential(*layers)
        with torch.no_grad():
            try:
                num_inputs = self.layers.eval()(torch.zeros(1, 1, *input_shape)).numel()
            except RuntimeError as error:
                raise MelprintError(f"spectrograms of {input_shape} are smaller than the stem {patch}") from error
        self.head = nn.Linear(num_inputs, num_features)
        self.num_features = num_features
        # About a fifth faster on CPUs, and what tensor cores want.
        self.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs

    def forward(self, log_mel_BFN: Tensor) -> Tensor:
        """Features ``(B, H)``."""
        return self.head(self.layers(log_mel_BFN[:, None]).flatten(1))


def _normalised(conv: nn.Conv2d) -> tuple[nn.Module, nn.Module, nn.Module]:
    return conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True)
