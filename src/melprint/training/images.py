"""Arrays as pictures.  Axes: R rows of a sheet · S spectrograms of a row · F mel bands · N frames."""

import numpy as np
from numpy.typing import NDArray

GAP = 2  # pixels between spectrograms
MAGNIFIED = 2  # pixels for each band and frame


def to_pixels(
    values: NDArray[np.floating], *, low: float | None = None, high: float | None = None
) -> NDArray[np.uint8]:
    """Values ``(rows, columns)`` as colours ``(rows, columns, 3)``; by default from their least to their greatest."""
    from matplotlib import colormaps

    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    share = (values - low) / max(high - low, 1e-9)
    return (colormaps["magma"](np.clip(share, 0, 1))[..., :3] * 255).astype(np.uint8)


def spectrogram_sheet(log_mel_RSFN: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A contact sheet: rows of spectrograms with low bands below, as ``(height, width, 3)`` colours."""
    rows, columns, bands, frames = log_mel_RSFN.shape
    upright = log_mel_RSFN[:, :, ::-1]
    low, high = float(upright.min()), float(upright.max())
    sheet = np.full((rows, columns, bands + GAP, frames + GAP), high)
    sheet[:, :, :bands, :frames] = upright
    flat = sheet.transpose(0, 2, 1, 3).reshape(rows * (bands + GAP), columns * (frames + GAP))
    large = flat.repeat(MAGNIFIED, axis=0).repeat(2 * MAGNIFIED, axis=1)
    return to_pixels(large, low=low, high=high)
