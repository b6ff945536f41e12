"""Two real processes against one."""

import os
import socket
from pathlib import Path

import pytest
import torch
from torch import multiprocessing, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from melprint.losses import Decoupled, NtXent, Sigmoid, Triplet, embed_in_chunks, gather_views

LOSSES = {"nt_xent": NtXent(), "decoupled": Decoupled(), "triplet": Triplet(anchors="all"), "sigmoid": Sigmoid()}
ITEMS, CHUNK = 6, 4


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(20, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 8))


def batch_of(rank: int) -> torch.Tensor:
    return torch.randn(ITEMS, 2, 20, generator=torch.Generator().manual_seed(rank))


def embed(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return functional.normalize(model(batch), dim=-1)


def process(rank: int, port: int, folder: Path, chunk_size: int | None) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    results = {}
    for name, loss in LOSSES.items():
        model = DistributedDataParallel(network())
        batch = batch_of(rank)
        value = loss(gather_views(embed_in_chunks(lambda i: embed(model, batch[i]), ITEMS, chunk_size)))  # noqa: B023
        value.backward()
        results[name] = (value.detach(), [parameter.grad for parameter in model.parameters()])
    torch.save(results, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("chunk_size", [None, CHUNK])
def test_two_processes_give_the_loss_and_gradients_of_one(tmp_path: Path, chunk_size: int | None) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.start_processes(process, (port, tmp_path, chunk_size), nprocs=2, start_method="spawn")
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, loss in LOSSES.items():
        alone = network()
        whole = loss(embed(alone, torch.cat([batch_of(0), batch_of(1)])))
        whole.backward()
        for value, grads in (result[name] for result in results):
            torch.testing.assert_close(value, whole.detach())
            for got, parameter in zip(grads, alone.parameters(), strict=True):
                torch.testing.assert_close(got, parameter.grad, rtol=1e-4, atol=1e-6)


def test_one_process_keeps_what_it_has() -> None:
    views = torch.randn(3, 2, 4)
    assert gather_views(views) is views
