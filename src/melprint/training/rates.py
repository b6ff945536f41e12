"""How the learning rate follows the batch size: a rule that is written down, never hidden."""

from typing import Literal, get_args

from melprint.errors import MelprintError

Rule = Literal["none", "linear", "square-root"]


def scaled_rate(rate: float, rule: Rule, batch_size: int, reference_batch_size: int) -> float:
    """The rate for a batch, from one that was found for another.

    ``linear`` (Goyal et al. 2017) for plain gradients, ``square-root`` (Krizhevsky 2014; You et al. 2020 for LAMB) for
    adaptive ones.

    Args:
        rate: at the reference.
        rule: ``none`` leaves it as it is.
        batch_size: items of all processes together.
        reference_batch_size: items that ``rate`` was found for.

    >>> scaled_rate(1e-3, "square-root", 512, 128)
    0.002
    """
    if rule not in get_args(Rule):
        raise MelprintError(f"lr_scaling.rule must be one of {', '.join(get_args(Rule))}, got {rule!r}")
    if not isinstance(rate, int | float) or rate <= 0:
        raise MelprintError(f"optimizer.lr must be a positive number, got {rate!r}")
    if reference_batch_size < 1:
        raise MelprintError(f"lr_scaling.batch_size must be positive, got {reference_batch_size}")
    ratio = batch_size / reference_batch_size
    return rate * {"none": 1.0, "linear": ratio, "square-root": ratio**0.5}[rule]
