"""A residual encoder.  Axes: B batch · C channels · F mel bands · N frames · H features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from melprint.errors import MelprintError
from melprint.models.norms import make_norm

EPSILON = 1e-5


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with normalisation beside a shortcut (He et al. 2016, section 3)."""

    def __init__(self, channels: tuple[int, int], shape_FN: tuple[int, int], stride: int, norm: str) -> None:
        super().__init__()
        narrow, wide = channels
        self.shape_FN = (-(-shape_FN[0] // stride), -(-shape_FN[1] // stride))
        shape = (wide, *self.shape_FN)
        self.first = nn.Conv2d(narrow, wide, 3, stride=stride, padding=1, bias=False)
        self.first_norm = make_norm(norm, shape, EPSILON)
        self.second = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.second_norm = make_norm(norm, shape, EPSILON)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or narrow != wide:
            self.shortcut = nn.Conv2d(narrow, wide, stride, stride=stride)

    def forward(self, x_BCFN: Tensor) -> Tensor:
        """``(B, C, F, N)`` to ``(B, C', F', N')``."""
        inner = functional.relu(self.first_norm(self.first(x_BCFN)), inplace=True)
        return functional.relu(self.second_norm(self.second(inner)) + self.shortcut(x_BCFN))


class ResidualEncoder(nn.Module):
    """A patch stem, stages of residual blocks of which each halves both axes, and one linear layer over all places.

    Args:
        input_shape: ``(F, N)`` of the log-mel spectrogram; both must be multiples of the patch and halvings.
        widths: channels of the stages.
        blocks: residual blocks of each stage; all but the first stage begin with a stride of 2.
        stem: size of a patch in bands and frames.
        num_features: H.
        norm: after each convolution, see :func:`melprint.models.norms.make_norm`.
    """

    def __init__(
        self,
        input_shape: tuple[int, int],
        widths: Sequence[int] = (64, 128, 256, 384),
        blocks: Sequence[int] = (1, 2, 2, 1),
        stem: Sequence[int] = (4, 4),
        num_features: int = 1024,
        norm: str = "group_norm",
    ) -> None:
        super().__init__()
        multiple = [patch * 2 ** (len(widths) - 1) for patch in stem]
        if len(widths) != len(blocks):
            raise MelprintError(f"widths and blocks must be equally many, got {list(widths)} and {list(blocks)}")
        if input_shape[0] % multiple[0] or input_shape[1] % multiple[1]:
            raise MelprintError(
                f"spectrograms of {input_shape} cannot be halved {len(widths) - 1} times after a stem of {list(stem)};"
                " take another stem or fewer stages"
            )
        shape = (input_shape[0] // stem[0], input_shape[1] // stem[1])
        self.stem = nn.Conv2d(1, widths[0], (stem[0], stem[1]), stride=(stem[0], stem[1]), bias=False)
        self.stem_norm = make_norm(norm, (widths[0], *shape), EPSILON)
        layers: list[nn.Module] = []
        channels = widths[0]
        for stage, (wide, count) in enumerate(zip(widths, blocks, strict=True)):
            for number in range(count):
                block = ResidualBlock((channels, wide), shape, 2 if stage and not number else 1, norm)
                layers.append(block)
                channels, shape = wide, block.shape_FN
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels * shape[0] * shape[1], num_features)
        self.num_features = num_features
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in the stubs

    def forward(self, log_mel_BFN: Tensor) -> Tensor:
        """Features ``(B, H)``."""
        x = functional.relu(self.stem_norm(self.stem(log_mel_BFN[:, None])))
        return self.head(self.layers(x).flatten(1))
