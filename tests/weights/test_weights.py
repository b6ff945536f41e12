"""The networks that come with the package, and exchange of others."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import melprint
from melprint.errors import MelprintError
from melprint.models import build_fingerprinter, model_digest
from melprint.models.checkpoint import save_weights
from melprint.models.export import export_onnx
from melprint.weights import shipped
from melprint.weights.files import read_weights, write_weights
from melprint.weights.shipped import NAMES, card_of, card_text, shipped_file

MOST_BYTES = {"compact": 5_000_000, "base": 20_000_000}
MODEL = {
    "segment": {},
    "mel": {"num_mels": 64, "unit_level": True},
    "encoder": {"_target_": "melprint.models.compact.CompactEncoder", "widths": [8, 16], "num_features": 64},
    "projection": {"_target_": "melprint.models.projection.DivideAndEncode", "dim": 16, "hidden": 4},
}
OTHER_MEL = {"num_mels": 64, "power": 2, "range_db": 80.0, "floor": 1e-10, "f_min_hz": 0.0}


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_network_opens_by_name_and_is_what_its_card_says(name: str) -> None:
    model = melprint.load(name)
    card = card_of(name)
    assert not model.training
    assert model_digest(model) == card["digest"]
    assert sum(weight.numel() for weight in model.parameters()) == card["parameters"]
    for suffix in (".safetensors", ".onnx"):
        assert shipped_file(name, suffix).stat().st_size <= MOST_BYTES[name]
    text = card_text(name)
    for heading in ("Data", "Recipe", "Hit rates", "Where it fails", "Licence"):
        assert f"## {heading}" in text


@pytest.mark.parametrize("name", NAMES)
def test_both_runtimes_give_the_same_fingerprints_at_any_batch_and_level(name: str) -> None:
    rng = np.random.default_rng(0)
    torch_model, onnx_model = melprint.load(name), melprint.load(name, runtime="onnx")
    assert onnx_model.digest == model_digest(torch_model)
    assert (onnx_model.segment, onnx_model.dim) == (torch_model.segment, torch_model.dim)
    for batch, level in ((1, 0.3), (2, 1e-3), (5, 0.0)):
        wave = (level * rng.standard_normal((batch, 8_000))).astype(np.float32)
        with torch.no_grad():
            wanted = torch_model(torch.from_numpy(wave)).numpy()
        np.testing.assert_allclose(onnx_model(wave), wanted, atol=1e-4)
    assert onnx_model(np.zeros((0, 8_000))).shape == (0, torch_model.dim)


def test_onnx_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['torchaudio'] = None\n"
        "import numpy as np, melprint\n"
        "print(melprint.load('compact', runtime='onnx')(np.ones((2, 8000), np.float32)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(2, 128)", done.stderr


@pytest.mark.parametrize("mel", [MODEL["mel"], OTHER_MEL])
def test_any_network_can_be_exported(tmp_path: Path, mel: dict[str, object]) -> None:
    model = build_fingerprinter(**{**MODEL, "mel": mel}).eval()
    assert export_onnx(model, tmp_path / "own.onnx") <= 1e-4
    wave = np.random.default_rng(1).standard_normal((3, 8_000)).astype(np.float32) / 4
    exported = melprint.load(tmp_path / "own.onnx", runtime="onnx")
    with torch.no_grad():
        np.testing.assert_allclose(exported(wave), model(torch.from_numpy(wave)).numpy(), atol=1e-4)
    with pytest.raises(MelprintError, match=r"\(3, 4000\)"):
        exported(wave[:, :4_000])


def test_weights_travel_as_half_precision(tmp_path: Path) -> None:
    model = build_fingerprinter(**MODEL)
    state = {f"fingerprinter.{name}": value for name, value in model.state_dict().items()}
    torch.save({"hyper_parameters": {"model": MODEL}, "state_dict": state}, tmp_path / "a.ckpt")
    saved = save_weights(tmp_path / "a.ckpt", tmp_path / "a.safetensors")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(saved.state_dict()[name], value.half().float(), atol=0, rtol=0)
    assert model_digest(melprint.load(tmp_path / "a.safetensors")) == model_digest(saved)
    assert read_weights(tmp_path / "a.safetensors")[0] == MODEL
    with pytest.raises(MelprintError, match="huge does not fit float16"):
        write_weights(tmp_path / "b.safetensors", MODEL, {"huge": np.array([1e6])})
    assert not (tmp_path / "b.safetensors").exists()


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in shipped.FOLDER.glob("compact.*"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    weights = tmp_path / "compact.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(MelprintError, match="not what was released"):
        melprint.load("compact")
    weights.unlink()
    with pytest.raises(MelprintError, match="missing"):
        melprint.load("compact")


def test_what_cannot_be_opened_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "text.onnx").write_text("hello")
    for model, runtime, message in (
        (tmp_path / "text.safetensors", "torch", "damaged"),
        (tmp_path / "none.safetensors", "torch", "there is no"),
        (tmp_path / "text.onnx", "onnx", "damaged"),
        (tmp_path / "none.onnx", "onnx", "there is no"),
        (tmp_path / "a.ckpt", "onnx", "melprint export"),
        ("compact", "tensorflow", "torch or onnx"),
        ("huge", "torch", "compact, base"),
    ):
        with pytest.raises(MelprintError, match=message):
            melprint.load(model, runtime=runtime)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", NAMES)
def test_the_card_lists_what_was_measured(name: str) -> None:
    card = json.loads((shipped.FOLDER / f"{name}.json").read_text())
    rates = {(row["seconds"]): row for row in card["mixed"]}
    assert set(rates) == {1, 2, 3, 5, 6, 10}
    asked = {"compact": 2_000, "base": 1_000}[name]  # base takes six times as long
    assert all(row["num_queries"] >= asked for row in rates.values())
    assert all(row["song_low"] < row["song"] < row["song_high"] for row in rates.values() if 0 < row["song"] < 1)
