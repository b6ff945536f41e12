import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from melprint.errors import MelprintError
from melprint.losses import AlignmentUniformity, Decoupled, NtXent, Sigmoid, SupCon, Triplet, embed_in_chunks
from melprint.losses.chunks import refuse_batch_norm

LOSSES = [NtXent(), SupCon(), Decoupled(), Triplet(), Triplet(negatives="hard"), AlignmentUniformity(), Sigmoid()]


class Network(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(20, 64), nn.LayerNorm(64), nn.GELU(), nn.Dropout(dropout), nn.Linear(64, 16)
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(self.layers(x).float(), dim=-1)


def gradients(network: Network, loss: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor], **tolerance: float) -> None:
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], **tolerance)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("chunk_size", [1, 4, 5, 11, 12, 100])  # 5 and 11 leave a smaller last chunk
def test_chunks_give_the_value_and_gradient_of_one_pass(loss: nn.Module, chunk_size: int) -> None:
    network, batch = Network(), torch.randn(12, 3, 20)
    whole = loss(network(batch))
    chunked = loss(embed_in_chunks(lambda items: network(batch[items]), 12, chunk_size))
    torch.testing.assert_close(chunked, whole)
    assert_equal(gradients(network, chunked), gradients(network, whole), rtol=1e-4, atol=1e-6)


def test_dropout_is_replayed() -> None:
    """Against the same chunks with all their activations held: the second pass must drop what the first did."""
    network, batch, loss = Network(dropout=0.5), torch.randn(12, 2, 20), NtXent()
    torch.manual_seed(5)
    held = loss(torch.cat([network(part) for part in batch.split(5)]))
    want = gradients(network, held)
    torch.manual_seed(5)
    chunked = loss(embed_in_chunks(lambda items: network(batch[items]), 12, 5))
    after_forward = torch.get_rng_state()
    got = gradients(network, chunked)
    assert torch.equal(held, chunked)
    assert_equal(got, want)
    assert torch.equal(torch.get_rng_state(), after_forward)  # the replay leaves the stream where it was


def test_bfloat16_stays_within_its_tolerance() -> None:
    network, batch, loss = Network(), torch.randn(12, 2, 20), NtXent(temperature=0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        one_pass = loss(network(batch))
        chunked = loss(embed_in_chunks(lambda items: network(batch[items]), 12, 5))
    assert_equal(gradients(network, chunked), gradients(network, one_pass), rtol=0.02, atol=2e-3)


def test_memory_grows_with_the_chunk_and_not_with_the_batch() -> None:
    """Counted by what autograd keeps for the way back."""

    def kept(items: int, chunk_size: int | None) -> int:
        network, batch, total = Network(), torch.randn(items, 2, 20), 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            embed_in_chunks(lambda part: network(batch[part]), items, chunk_size)
        return total

    assert kept(256, None) > 7 * kept(32, None)
    assert kept(256, 8) < 0.2 * kept(32, None)


def test_each_chunk_is_done_before_the_next_is_computed_again() -> None:
    network, batch, events = Network(), torch.randn(40, 2, 20), []
    network.layers[0].register_forward_hook(lambda *_: events.append("again"))
    network.layers[0].register_full_backward_hook(lambda *_: events.append("back"))
    fingerprints = embed_in_chunks(lambda items: network(batch[items].requires_grad_()), 40, 4)
    events.clear()
    NtXent()(fingerprints).backward()
    assert events == ["again", "back"] * 10


def test_a_chunk_needs_an_item() -> None:
    with pytest.raises(MelprintError, match="chunk_size must be at least 1, got 0"):
        embed_in_chunks(lambda items: torch.zeros(1), 4, 0)


def test_batch_normalisation_is_refused_by_name() -> None:
    network = Network()
    network.layers[1] = nn.BatchNorm1d(64)
    with pytest.raises(MelprintError, match=r"batch normalisation of layers\.1 computes; take .*group_norm"):
        refuse_batch_norm(network, "train.chunk_size")
