"""Learning-rate schedules."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from melprint.errors import MelprintError


def cosine_with_warmup(
    optimizer: Optimizer, num_steps: int, *, warmup_share: float = 0.0, floor: float = 1e-6
) -> LambdaLR:
    """A straight rise over the first steps, then half a cosine down to ``floor``.

    Args:
        optimizer: whose rates are the peak.
        num_steps: of the whole training.
        warmup_share: share of the steps that rise.
        floor: last rate as a fraction of the peak.
    """
    if not 0 <= warmup_share < 1:
        raise MelprintError(f"warmup_share must lie in [0, 1), got {warmup_share}")
    warmup = round(warmup_share * num_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, num_steps - warmup))
        return floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2

    return LambdaLR(optimizer, factor)
