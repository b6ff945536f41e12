"""LAMB as its paper has it."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from melprint.errors import MelprintError


class Lamb(Optimizer):
    """Adam's direction, in steps proportional to the norm of each weight.

    With bias-corrected moments m and v of the gradient (You et al., "Large batch optimization for deep learning",
    arXiv:1904.00962v5, algorithm 2, phi the identity)::

        r = m / (sqrt(v) + eps) + weight_decay * w
        w = w - lr * |w| / |r| * r          (ratio 1 where either norm is 0)

    ``torch_optimizer.Lamb`` differs: it clamps ``|w|`` at 10, leaves the moments uncorrected, and its ``debias`` scales
    the step instead.  With ``bias_correction=False, clamp=10`` this is what it does.

    A parameter with the attribute ``separate_slices`` is a stack of independent layers: each slice of its first axis
    has a ratio of its own, as separate layers would have.

    Args:
        params: parameters or groups.
        lr: step relative to the norm of a weight.
        betas: of the two moments.
        eps: added to the root of the second moment.
        weight_decay: within r, so scaled by the ratio.
        bias_correction: of the moments.
        clamp: upper limit of ``|w|``; ``None`` has none.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        bias_correction: bool = True,
        clamp: float | None = None,
    ) -> None:
        if lr < 0 or eps < 0 or weight_decay < 0 or not (0 <= betas[0] < 1 and 0 <= betas[1] < 1):
            raise MelprintError(
                "LAMB needs lr, eps and weight_decay of at least 0 and betas in [0, 1),"
                f" got {lr}, {eps}, {weight_decay} and {betas}"
            )
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "bias_correction": bias_correction,
            "clamp": clamp,
            "num_steps": 0,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, without waiting for the device."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                group["num_steps"] += 1
                self._step(group, weights)
        return loss

    def _step(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {"first": torch.zeros_like(weight), "second": torch.zeros_like(weight)}
        grads = [weight.grad for weight in weights if weight.grad is not None]
        first = [self.state[weight]["first"] for weight in weights]
        second = [self.state[weight]["second"] for weight in weights]
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(first, grads, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, 1 - beta2)

        correct1, correct2 = 1.0, 1.0
        if group["bias_correction"]:
            correct1, correct2 = 1 - beta1 ** group["num_steps"], 1 - beta2 ** group["num_steps"]
        scale = torch._foreach_sqrt(second)
        torch._foreach_div_(scale, correct2**0.5)
        torch._foreach_add_(scale, group["eps"])
        update = torch._foreach_div(first, scale)
        torch._foreach_div_(update, correct1)
        if group["weight_decay"]:
            torch._foreach_add_(update, weights, alpha=group["weight_decay"])

        for weight, change in zip(weights, update, strict=True):
            change.mul_(trust_ratio(weight, change, group["clamp"]))
        torch._foreach_add_(weights, update, alpha=-group["lr"])


def trust_ratio(weight: Tensor, change: Tensor, clamp: float | None) -> Tensor:
    """``|w| / |r|``, one number or one for each slice; 1 where either norm is 0."""
    axes = tuple(range(1 if getattr(weight, "separate_slices", False) else 0, weight.ndim))
    weight_norm = torch.linalg.vector_norm(weight, dim=axes, keepdim=True)
    change_norm = torch.linalg.vector_norm(change, dim=axes, keepdim=True)
    if clamp is not None:
        weight_norm = weight_norm.clamp_max(clamp)
    return torch.where((weight_norm > 0) & (change_norm > 0), weight_norm / change_norm, 1.0)
