"""Fingerprints of all devices as one batch."""

import torch
from torch import Tensor, distributed


def gather_views(views_BVD: Tensor) -> Tensor:
    """The views of every process, in the order of their ranks ``(world * B, V, D)``; alone, they stay as they are.

    Every process then computes the same loss on the whole batch.  The gradient that flows back is the sum over the
    processes of what each says about these rows; as DistributedDataParallel takes the mean over processes of the
    gradients of the parameters, they come out as those of one process with all items.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return views_BVD
    return _Gather.apply(views_BVD)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, views_BVD: Tensor) -> Tensor:
        parts = [torch.empty_like(views_BVD) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, views_BVD.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        # By a sum over all and a cut, and not by reduce-scatter: gloo has no such operation for every type.
        grad = grad.contiguous()
        distributed.all_reduce(grad)
        return grad.chunk(distributed.get_world_size())[distributed.get_rank()]
