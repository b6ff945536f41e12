"""What ``pip install`` brings."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from melprint.weights.shipped import NAMES

ROOT = Path(__file__).parents[1]
OPEN_AND_COMPARE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, torch, melprint
assert melprint.__file__.startswith(sys.argv[1]), melprint.__file__
wave = np.random.default_rng(0).standard_normal((2, 8000)).astype(np.float32) / 4
for name in ("compact", "base"):
    with torch.no_grad():
        here = melprint.load(name)(torch.from_numpy(wave)).numpy()
    assert np.abs(here - melprint.load(name, runtime="onnx")(wave)).max() < 1e-4
print("both open")
"""


@pytest.mark.slow
def test_the_wheel_holds_the_networks_and_they_open_from_it(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a build in place would leave its files, and find those of an earlier one
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("melprint-*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        content.extractall(tmp_path / "installed")
    for name in NAMES:
        for suffix in (".safetensors", ".onnx", ".json", ".md"):
            assert f"melprint/weights/{name}{suffix}" in names
    opened = subprocess.run(
        [sys.executable, "-c", OPEN_AND_COMPARE, str(tmp_path / "installed")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert opened.stdout.strip() == "both open", opened.stderr
