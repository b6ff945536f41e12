import pytest
import torch
from torch import nn

from melprint.losses import Decoupled, NtXent, Sigmoid, SupCon, views
from tests.losses.literal import unit_views


@pytest.mark.parametrize("loss", [NtXent(), SupCon(), Decoupled(), Sigmoid()], ids=lambda loss: type(loss).__name__)
def test_blocks_of_rows_give_what_all_rows_give(loss: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = unit_views(10, 3)
    want = loss(whole)
    want.backward()
    monkeypatch.setattr(views, "ROWS_AT_ONCE", 7)  # 30 rows: the last block is smaller
    parts = whole.detach().requires_grad_()
    got = loss(parts)
    got.backward()
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(parts.grad, whole.grad)


def test_similarities_are_held_by_block() -> None:
    def held(items: int) -> int:
        total = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total = max(total, tensor.numel())
            return tensor

        rows = unit_views(items, 2, 16)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            NtXent()(rows)
        return total

    assert held(400) == 800 * 800
    assert held(2_000) < 4_000 * 128
