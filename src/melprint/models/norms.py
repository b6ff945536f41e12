"""Normalisations after a convolution.  Axes: B batch · C channels · F mel bands · N frames."""

from torch import Tensor, nn
from torch.nn import functional

from melprint.errors import MelprintError

KERAS_EPSILON = 1e-3  # PyTorch would take 1e-5


class ElementNorm(nn.LayerNorm):
    """Layer normalisation over channels, bands and frames, with a weight for each element (``layer_norm2d``).

    Computed with the channels last, where the convolutions leave their results: no copy between the two.
    """

    def forward(self, x_BCFN: Tensor) -> Tensor:
        """Same shape."""
        channels, bands, frames = self.normalized_shape
        weight_FNC, bias_FNC = self.weight.permute(1, 2, 0), self.bias.permute(1, 2, 0)
        x_BFNC = x_BCFN.permute(0, 2, 3, 1)
        return functional.layer_norm(x_BFNC, (bands, frames, channels), weight_FNC, bias_FNC, self.eps).movedim(-1, 1)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channel axis alone, for each band and frame."""

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=epsilon)

    def forward(self, x_BCFN: Tensor) -> Tensor:
        """Same shape."""
        return self.norm(x_BCFN.movedim(1, -1)).movedim(-1, 1)


def make_norm(norm: str, shape_CFN: tuple[int, int, int], epsilon: float = KERAS_EPSILON) -> nn.Module:
    """The normalisation after one convolution.

    All look at one segment at a time: ``layer_norm2d`` at the whole of it, with a weight for each element;
    ``group_norm`` the same with a weight for each channel; ``channel_norm`` (neural-audio-fp: ``layer_norm1d``) at each
    place by itself.  Only ``batch_norm`` mixes the segments of a batch in training, and excludes gradients by chunk.

    Raises:
        MelprintError: an unknown name.
    """
    match norm:
        case "layer_norm2d":
            return ElementNorm(shape_CFN, eps=epsilon)
        case "channel_norm" | "layer_norm1d":
            return ChannelNorm(shape_CFN[0], epsilon)
        case "group_norm":
            return nn.GroupNorm(1, shape_CFN[0], eps=epsilon)
        case "batch_norm":
            return nn.BatchNorm2d(shape_CFN[0], eps=epsilon, momentum=0.01)
    raise MelprintError(
        f"norm must be layer_norm2d, group_norm, channel_norm (layer_norm1d) or batch_norm, got {norm!r}"
    )
