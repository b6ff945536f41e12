from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import melprint
from melprint.errors import MelprintError
from melprint.models import build_fingerprinter, model_digest
from melprint.models.compact import CompactEncoder
from melprint.models.nafp import AxisConv, NafpEncoder
from melprint.models.norms import ElementNorm
from melprint.models.projection import DivideAndEncode

NAFP = {"_target_": "melprint.models.nafp.NafpEncoder"}
COMPACT = {"_target_": "melprint.models.compact.CompactEncoder"}
HEAD = {"_target_": "melprint.models.projection.DivideAndEncode"}
COMPACT_CONFIG = {"segment": {}, "mel": {"num_mels": 128, "unit_level": True}, "encoder": COMPACT, "projection": HEAD}


def num_parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def multiply_adds(module: nn.Module, shape: tuple[int, int]) -> float:
    with FlopCounterMode(display=False) as counter:
        module.eval()(torch.zeros(1, *shape))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(("norm", "count"), [("layer_norm2d", 16_939_008), ("layer_norm1d", 14_662_656)])
def test_the_published_network_has_its_published_size(norm: str, count: int) -> None:
    assert num_parameters(build_fingerprinter({}, {}, {**NAFP, "norm": norm}, HEAD)) == count


def test_every_convolution_pads_as_tensorflow_does() -> None:
    """A SAME convolution of an impulse, written down from TensorFlow's rule: out[i] sees in[2i .. 2i+2]."""
    layer = AxisConv((1, 1), (4, 8), 1, 2, "batch_norm", "elu", "same")
    with torch.no_grad():
        layer.conv.weight.copy_(torch.tensor([1.0, 10.0, 100.0]).view(1, 1, 1, 3))
    layer.norm = nn.Identity()
    wave = torch.arange(8.0).repeat(4, 1)[None, None]
    want = [0 + 10 + 200, 2 + 30 + 400, 4 + 50 + 600, 6 + 70 + 0]
    assert layer(wave)[0, 0, 0].tolist() == want


def test_normalisation_uses_the_epsilon_of_keras() -> None:
    norms = [module for module in NafpEncoder((32, 32), 4).modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 16
    assert {norm.eps for norm in norms} == {1e-3}


def test_the_element_norm_is_layer_normalisation_over_all_three_axes() -> None:
    norm, plain = ElementNorm((5, 4, 3), eps=1e-3), nn.LayerNorm((5, 4, 3), eps=1e-3)
    with torch.no_grad():
        for ours, theirs in zip(norm.parameters(), plain.parameters(), strict=True):
            theirs.copy_(ours.normal_())
    features = torch.randn(2, 5, 4, 3)
    torch.testing.assert_close(norm(features), plain(features))
    torch.testing.assert_close(norm(features.to(memory_format=torch.channels_last)), plain(features))


@pytest.mark.parametrize("norm", ["layer_norm2d", "layer_norm1d", "batch_norm"])
def test_smaller_widths_keep_the_design(norm: str) -> None:
    encoder = NafpEncoder((256, 32), width=16, norm=norm)
    assert encoder(torch.randn(2, 256, 32)).shape == (2, encoder.num_features) == (2, 128)


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(MelprintError, match="layer_norm2d"):
        NafpEncoder((256, 32), width=16, norm="group")


def test_divide_and_encode_is_one_small_network_for_each_slice() -> None:
    head = DivideAndEncode(12, dim=3, hidden=5)
    features = torch.randn(2, 12)
    for place in range(3):
        piece = features[:, 4 * place : 4 * place + 4]
        hidden = functional.elu(piece @ head.weight_in[place] + head.bias_in[place])
        want = (hidden @ head.weight_out[place] + head.bias_out[place]).squeeze(-1)
        torch.testing.assert_close(head(features)[:, place], want)
    with pytest.raises(MelprintError, match="13 features"):
        DivideAndEncode(13, dim=3)


def test_the_compact_encoder_is_small() -> None:
    compact = nn.Sequential(CompactEncoder((128, 32)), DivideAndEncode(512))
    published = nn.Sequential(NafpEncoder((256, 32)), DivideAndEncode(1024))
    assert num_parameters(compact) <= 1_000_000
    assert multiply_adds(compact, (128, 32)) <= multiply_adds(published, (256, 32)) / 20


@pytest.mark.parametrize("encoder", [{**NAFP, "width": 16}, COMPACT])
def test_fingerprints_have_unit_norm_and_do_not_depend_on_batch_mates(encoder: dict) -> None:
    model = build_fingerprinter({}, {"num_mels": 128}, encoder, HEAD).eval()
    wave = torch.randn(5, 8_000) * torch.tensor([0.5, 0.01, 0.1, 1.0, 0.003])[:, None]
    together = model(wave)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(model(wave[1:2]), together[1:2], atol=1e-5, rtol=1e-4)


def save(path: Path, model: nn.Module, config: dict) -> None:
    state = {f"fingerprinter.{name}": value for name, value in model.state_dict().items()}
    torch.save({"hyper_parameters": {"model": config}, "state_dict": state}, path)


def test_a_checkpoint_opens_without_the_trainer(tmp_path: Path) -> None:
    model = build_fingerprinter(**COMPACT_CONFIG)
    model(torch.randn(4, 8_000))  # moves the running statistics
    save(tmp_path / "a.ckpt", model, COMPACT_CONFIG)
    opened = melprint.load(tmp_path / "a.ckpt")
    assert not opened.training
    assert model_digest(opened) == model_digest(model)
    wave = torch.randn(3, 8_000)
    torch.testing.assert_close(opened(wave), model.eval()(wave))


def test_the_digest_tells_models_apart() -> None:
    model = build_fingerprinter(**COMPACT_CONFIG)
    before = model_digest(model)
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    assert model_digest(model) != before


def test_what_is_no_checkpoint_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("hello")
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    model = build_fingerprinter(**COMPACT_CONFIG)
    save(tmp_path / "unfit.ckpt", model, {**COMPACT_CONFIG, "encoder": {**COMPACT, "widths": [8, 16]}})
    save(tmp_path / "evil.ckpt", model, {**COMPACT_CONFIG, "encoder": {"_target_": "os.system"}})
    for name, message in {
        "none": "there is no checkpoint",
        "text": "not a melprint checkpoint",
        "other": "not a melprint checkpoint",
        "unfit": "do not fit",
        "evil": r"must name a class of melprint\.models",
    }.items():
        with pytest.raises(MelprintError, match=message):
            melprint.load(tmp_path / f"{name}.ckpt")


def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(MelprintError, match="wdith"):
        build_fingerprinter({}, {}, {**NAFP, "wdith": 3}, HEAD)
