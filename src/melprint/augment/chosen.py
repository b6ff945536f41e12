"""Transforms that cost much and change few waves.  Axes: B waves · C samples · K draws."""

from collections.abc import Callable

import torch
from torch import Tensor


def change_chosen(
    change: Callable[[Tensor, Tensor], Tensor], chosen_B: Tensor, wave_BC: Tensor, draws_BK: Tensor
) -> Tensor:
    """``change(waves, draws)`` where chosen, the waves as they are elsewhere.

    On a CPU only the chosen ones are computed; on a GPU all are, as picking them would make the host wait.
    """
    if wave_BC.device.type != "cpu":
        return torch.where(chosen_B[:, None], change(wave_BC, draws_BK), wave_BC)
    rows = chosen_B.nonzero()[:, 0]
    if not len(rows):
        return wave_BC
    return wave_BC.index_copy(0, rows, change(wave_BC[rows], draws_BK[rows]))
