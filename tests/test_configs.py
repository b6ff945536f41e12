"""Every shipped config is composed, and its keys are held against the signatures that they go to."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"


def options() -> Iterator[tuple[str, str]]:
    groups = {
        "train": ["model", "loss", "augment", "optimizer", "scheduler", "trainer", "logger", "data", "experiment"],
        "generate": ["data", "queries"],
        "evaluate": ["data", "queries", "index"],
    }
    for entry, names in groups.items():
        yield entry, ""
        for group in names:
            for path in sorted((CONF / group).glob("*.yaml")):
                yield entry, f"{group}={path.stem}"
        yield entry, "data=folder data/noise=folder"
        yield entry, "data=folder data/noise=packages"


def composed(entry: str, overrides: str) -> Any:
    given = []
    if "data=folder" in overrides:
        given.append("data.corpus.music=x")
    if "noise=folder" in overrides:
        given.append("data.corpus.noise.path=x")
    if "data=nafp" in overrides:
        given.append("data.corpus.path=x")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(entry, [*overrides.split(), *given])
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def targets(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


@pytest.mark.parametrize(("entry", "overrides"), list(options()))
def test_a_config_names_only_real_parameters(entry: str, overrides: str) -> None:
    for node in targets(composed(entry, overrides)):
        signature = inspect.signature(get_object(node["_target_"]))
        keys = {key: value for key, value in node.items() if key not in {"_target_", "_partial_"}}
        signature.bind_partial(**keys)


@pytest.mark.parametrize("name", ["train", "generate", "evaluate"])
def test_entry_points_are_thin(name: str) -> None:
    assert len((ROOT / f"{name}.py").read_text().splitlines()) <= 60


def test_the_conda_environment_installs_what_the_package_names() -> None:
    """Names and bounds of the two lists are the same; conda's name for torch is pytorch."""
    import tomllib

    import yaml
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lists = (project["dependencies"], extras["cpu"], extras["sweep"], extras["dev"])
    wanted = {line.split(";")[0].strip() for lines in lists for line in lines}
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert {line for line in pip if not line.startswith("-e")} == wanted
    assert "-e ." in pip
    for line in wanted:
        Requirement(line)
    python = next(entry for entry in environment["dependencies"] if str(entry).startswith("python"))
    assert python == "python" + project["requires-python"]
    assert extras["gpu"][0].split(";")[0].strip() in (ROOT / "environment.yml").read_text()


def test_imports_point_down() -> None:
    import subprocess
    import sys

    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
