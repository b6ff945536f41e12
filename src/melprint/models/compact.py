"""A small encoder that trains on a CPU.  Axes: B batch · C channels · F mel bands · N frames · H features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from melprint.errors import MelprintError


class ResidualBlock(nn.Module):
    """x + conv1x1(relu(norm(depthwise 3x3(x)))) with a hidden expansion."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x_BCFN: Tensor) -> Tensor:
        return x_BCFN + self.body(x_BCFN)


class CompactEncoder(nn.Module):
    def __init__(self, input_shape: tuple[int, int], widths: Sequence[int] = (32, 64, 128, 192), depths: Sequence[int] = (0, 1, 1, 1), stem: tuple[int,int]=(4,4), expansion: int = 2, num_features: int = 512, kind="dw") -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(1, widths[0], stem, stride=stem, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        for i,(w,d) in enumerate(zip(widths, depths)):
            if i:
                layers += [nn.Conv2d(widths[i-1], w, 3 if kind=="full" else 2, stride=2, padding=1 if kind=="full" else 0, bias=False), nn.BatchNorm2d(w), nn.ReLU(inplace=True)]
            for _ in range(d):
                if kind=="dw": layers.append(ResidualBlock(w, expansion))
                else: layers += [nn.Conv2d(w,w,3,padding=1,bias=False), nn.BatchNorm2d(w), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        F,N=input_shape
        with torch.no_grad(): sh=self.layers(torch.zeros(2,1,F,N)).shape
        self.out_shape=sh
        self.project = nn.Linear(sh[1]*sh[2]*sh[3], num_features)
        self.num_features = num_features

    def forward(self, log_mel_BFN: Tensor) -> Tensor:
        return self.project(self.layers(log_mel_BFN[:, None]).flatten(1))
