"""More music out of the same music: whole windows at another speed.

Axes: B items · W samples of a window · K draws.
"""

from dataclasses import replace

import torch
from torch import Tensor

from melprint.audio.files import INT16_SCALE
from melprint.augment.chain import SegmentBatch, WindowSpec
from melprint.augment.playback import resample_grains
from melprint.errors import MelprintError

GRAIN = 256  # samples; any will do where tempo and pitch are one


class Varispeed:
    """Plays the music of some items faster or slower, as a tape would, before any view is cut from it.

    Both views of an item are of the changed music, so nothing is asked of the network but to tell apart what would
    sound in another key, at another tempo and with other timbres: pieces that the corpus does not have.  Speech
    recognition multiplies its voices in this way (Ko et al. 2015, "Audio augmentation for speech recognition").

    Args:
        change: largest relative change; speeds lie between ``1 / (1 + change)`` and ``1 + change``.
        share: share of the items that are changed.
    """

    num_draws = 2

    def __init__(self, change: float = 0.2, share: float = 0.5) -> None:
        if not (0 < change <= 1 and 0 <= share <= 1):
            raise MelprintError(f"varispeed needs a change in (0, 1] and a share in [0, 1], got {change} and {share}")
        self.change, self.share = change, share

    def widened(self, window: WindowSpec) -> WindowSpec:
        """What has to be read so that the fastest music fills the window."""
        return replace(window, reach=1 + self.change)

    def speeds_of(self, draws_BK: Tensor) -> Tensor:
        """Speed of each item, uniform in octaves; 1 for those that stay as they are."""
        speeds = (1 + self.change) ** (2 * draws_BK[:, 1] - 1)
        return torch.where(draws_BK[:, 0] < self.share, speeds, 1.0)

    def __call__(self, batch: SegmentBatch, window: WindowSpec) -> SegmentBatch:
        """Windows of the usual width; the last draws are used up.

        Args:
            batch: with two draws more than its views need.
            window: the widened one, that the batch was read with.
        """
        draws, own = batch.draws[:, : -self.num_draws], batch.draws[:, -self.num_draws :]
        speeds = self.speeds_of(own)
        plain = replace(window, reach=1.0)
        windows = batch.windows[:, window.before - plain.before :][:, : plain.num_samples].clone()
        changed = (speeds != 1).nonzero()[:, 0]
        if len(changed):
            windows[changed] = self._played(batch.windows[changed], speeds[changed], window, plain)
        # The place stays where it is, what lies around it comes nearer or goes away.
        before, after = ((slack / speeds).long().clamp_max(plain.margin) for slack in batch[1:3])
        return SegmentBatch(windows, before, after, batch.keys, draws)

    def _played(self, windows_BW: Tensor, speed_B: Tensor, window: WindowSpec, plain: WindowSpec) -> Tensor:
        # resample_grains keeps the last sample in its place: that of the window, once the music after it is cut off.
        after = plain.num_samples - plain.before - 1
        ends = window.before + (after * speed_B).round().long()
        width = windows_BW.shape[1]
        at = ends[:, None] - torch.arange(width - 1, -1, -1, device=ends.device)
        waves = torch.take_along_dim(windows_BW, at.clamp_min(0), 1) * (at >= 0) / INT16_SCALE
        speed_B = speed_B.float()
        played = resample_grains(waves, speed_B, speed_B, GRAIN)[:, -plain.num_samples :]
        return (played * INT16_SCALE).round().clamp(-INT16_SCALE, INT16_SCALE - 1).to(windows_BW.dtype)
