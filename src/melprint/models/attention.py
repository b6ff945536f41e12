"""Attention over time and frequency.  Axes: B batch · C channels · F mel bands · N frames."""

import torch
from torch import Tensor, nn


class TimeFrequencyGate(nn.Module):
    """A blend of what comes in, of what a gate over frames leaves of it, and of what a gate over bands leaves.

    Each gate is the sigmoid of a 1x1 convolution to one channel, averaged over the other axis; the three parts are
    weighted by the softmax of three learnt numbers.  Source: Singh et al. 2022 (arXiv:2210.08624), in the form that
    deep-audio-fingerprinting uses after each block.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.over_time = nn.Conv2d(channels, 1, kernel_size=1)
        self.over_frequency = nn.Conv2d(channels, 1, kernel_size=1)
        self.blend = nn.Parameter(torch.zeros(3))

    def forward(self, x_BCFN: Tensor) -> Tensor:
        """Same shape."""
        time_B11N = self.over_time(x_BCFN).mean(dim=2, keepdim=True).sigmoid()
        frequency_B1F1 = self.over_frequency(x_BCFN).mean(dim=3, keepdim=True).sigmoid()
        share = self.blend.softmax(0)
        return x_BCFN * (share[0] * time_B11N + share[1] * frequency_B1F1 + share[2])
