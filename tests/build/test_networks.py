"""Which network a command takes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

import melprint
from melprint.build.common import checkpoint_from
from melprint.build.training import module_from
from melprint.errors import MelprintError

CONF = Path(__file__).parents[2] / "conf"


def composed(entry: str, *overrides: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(entry, [*overrides])


def test_a_training_begins_with_the_weights_that_it_is_given() -> None:
    begun = module_from(composed("train", "model=compact", "init=compact")).fingerprinter.state_dict()
    for name, value in melprint.load("compact").state_dict().items():
        torch.testing.assert_close(begun[name], value, atol=0, rtol=0)
    torch.manual_seed(0)
    fresh = module_from(composed("train", "model=compact")).fingerprinter.state_dict()
    assert not torch.equal(fresh["encoder.head.weight"], begun["encoder.head.weight"])


@pytest.mark.parametrize("overrides", [["model=base"], ["model=small"], ["model=compact", "model.mel.f_min_hz=100"]])
def test_weights_of_another_network_are_refused(overrides: list[str]) -> None:
    with pytest.raises(MelprintError, match="init=compact"):
        module_from(composed("train", "init=compact", *overrides))


def test_the_shipped_recipes_are_those_of_the_shipped_networks() -> None:
    for name, choice in (("compact", "experiment=compact"), ("base", "model=base")):
        config = composed("train", choice)
        network, shipped = module_from(config).fingerprinter, melprint.load(name)
        assert {key: value.shape for key, value in network.state_dict().items()} == {
            key: value.shape for key, value in shipped.state_dict().items()
        }


def test_without_a_trained_network_the_shipped_one_is_taken_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert checkpoint_from(composed("generate", "ckpt=base")) == "base"
    assert checkpoint_from(composed("generate", "name=mine")) == "compact"
    assert "runs/mine has no trained network: taking compact" in capsys.readouterr().err
    (tmp_path / "runs/mine/checkpoints").mkdir(parents=True)
    assert checkpoint_from(composed("generate", "name=mine")) == "runs/mine/checkpoints/best.ckpt"
