"""Exact gradients of a large batch in the memory of a small one."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from melprint.errors import MelprintError


def embed_in_chunks(
    embed: Callable[[slice], Tensor],
    num_items: int,
    chunk_size: int | None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Fingerprints of a whole batch, of whose computation only one chunk is ever held.

    Gradient caching (Gao et al. 2021, arXiv:2101.06983): fingerprints of all chunks without the activations behind
    them; any loss on all of them, and its gradient; then, on the way back, each chunk once more with its activations.
    The result is that of one pass over the batch, for about one more forward pass.  What ``embed`` draws from torch's
    generators (dropout) is replayed, and so is autocast; it runs under ``torch.utils.checkpoint``, which keeps the
    gradients ordinary: gradient scaling, clipping, accumulation and DistributedDataParallel need nothing special.

    Args:
        embed: items of the batch, as a slice, to their fingerprints ``(items, …)``; called twice for each chunk.
        num_items: in the batch.
        chunk_size: items at once; the last chunk may be smaller.  ``None`` takes the batch in one pass.
        device: whose generator ``embed`` draws from, beside the CPU's.

    Returns:
        ``(num_items, …)``.

    Raises:
        MelprintError: a chunk without items.
    """
    if chunk_size is None or chunk_size >= num_items > 0:
        return embed(slice(0, num_items))
    if chunk_size < 1:
        raise MelprintError(f"chunk_size must be at least 1, got {chunk_size}")
    chunks = [slice(start, min(start + chunk_size, num_items)) for start in range(0, num_items, chunk_size)]
    # checkpoint keeps the generators of the devices that it finds among the arguments.
    where = torch.empty(0, device=device)
    parts = [checkpoint(lambda items, _: embed(items), chunk, where, use_reentrant=False) for chunk in chunks]
    return torch.cat(parts)


def refuse_batch_norm(network: nn.Module, reason: str) -> None:
    """Statistics of a part of a batch are not those of the batch.

    Raises:
        MelprintError: the network normalises over the batch.
    """
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            raise MelprintError(
                f"{reason} would change what the batch normalisation of {name} computes;"
                " take a normalisation within each segment, e.g. model.encoder.norm=group_norm"
            )
