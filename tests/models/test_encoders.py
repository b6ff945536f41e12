"""One interface: spectrograms in, features out, nothing shared between segments."""

import pytest
import torch

from melprint.errors import MelprintError
from melprint.models import build_fingerprinter
from melprint.models.attention import TimeFrequencyGate
from melprint.models.norms import make_norm
from melprint.models.residual import ResidualEncoder

NAFP = {"_target_": "melprint.models.nafp.NafpEncoder"}
DAF = {**NAFP, "activation": "relu", "padding": "symmetric", "time_strides": [2] * 8}
HEAD = {"_target_": "melprint.models.projection.DivideAndEncode"}
COMPACT_MEL = {"num_mels": 128, "unit_level": True}
POWER_MEL = {"power": 2, "range_db": 80.0, "floor": 1e-10}
ENCODERS = {
    "compact": (COMPACT_MEL, {"_target_": "melprint.models.compact.CompactEncoder"}, HEAD),
    "residual": (COMPACT_MEL, {"_target_": "melprint.models.residual.ResidualEncoder"}, HEAD),
    "nafp": ({}, {**NAFP, "width": 16}, HEAD),
    "daf": (
        {"power": 2, "range_db": 80.0, "floor": 1e-10},
        {**DAF, "attention": True, "width": 16},
        {**HEAD, "norm": True},
    ),
    "nmfp": ({"f_min_hz": 160.0, "range_db": 80.0, "floor": 1e-5}, {**NAFP, "width": 16}, {**HEAD, "norm": True}),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_fingerprint_does_not_depend_on_its_batch_mates(name: str) -> None:
    """In training too: that is what lets a batch be computed in chunks."""
    model = build_fingerprinter({}, *ENCODERS[name]).train()
    wave = 0.1 * torch.randn(5, 8_000)
    together = model(wave)
    assert together.shape == (5, 128)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(model(wave[3:4]), together[3:4], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "head", "count"),
    [
        (NAFP, {**HEAD, "norm": True}, 16_947_200),  # neural-music-fp
        (DAF, {**HEAD, "norm": True}, 16_922_624),  # deep-audio-fingerprinting
        ({**DAF, "attention": True}, {**HEAD, "norm": True}, 16_930_344),  # the same with attention
    ],
)
def test_the_networks_of_others_have_their_sizes(encoder: dict, head: dict, count: int) -> None:
    model = build_fingerprinter({}, {}, encoder, head)
    assert sum(weight.numel() for weight in model.parameters()) == count


def test_a_gate_blends_two_gated_copies_and_the_original() -> None:
    gate = TimeFrequencyGate(3)
    with torch.no_grad():
        gate.over_time.weight.fill_(100.0)  # open wherever the mean over bands is positive
        gate.over_time.bias.zero_()
        gate.over_frequency.weight.fill_(-100.0)  # closed there
        gate.over_frequency.bias.zero_()
    x = torch.rand(2, 3, 4, 5) + 0.1
    torch.testing.assert_close(gate(x), x * (1 / 3 + 0 + 1 / 3))
    with torch.no_grad():
        gate.blend.copy_(torch.tensor([0.0, 100.0, 0.0]))
    torch.testing.assert_close(gate(x), torch.zeros_like(x))


@pytest.mark.parametrize("norm", ["layer_norm2d", "group_norm", "channel_norm", "batch_norm"])
def test_what_each_norm_makes_zero_mean(norm: str) -> None:
    x = 5 + 3 * torch.randn(8, 6, 4, 4)
    out = make_norm(norm, (6, 4, 4))(x)
    axes = {"channel_norm": (1,), "batch_norm": (0, 2, 3)}.get(norm, (1, 2, 3))
    torch.testing.assert_close(out.mean(axes), torch.zeros_like(out.mean(axes)), rtol=0, atol=1e-4)
    torch.testing.assert_close(out.var(axes, unbiased=False), torch.ones_like(out.mean(axes)), rtol=0, atol=1e-2)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(MelprintError, match="norm must be"):
        make_norm("instance_norm", (1, 1, 1))
    with pytest.raises(MelprintError, match=r"cannot be halved 3 times after a stem of \[4, 4\]"):
        ResidualEncoder((100, 32))
    with pytest.raises(MelprintError, match="equally many"):
        ResidualEncoder((128, 32), widths=(8, 16), blocks=(1,))
    with pytest.raises(MelprintError, match="time_strides must have 8"):
        build_fingerprinter({}, {}, {**NAFP, "time_strides": [2, 2]}, HEAD)
