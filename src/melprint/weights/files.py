"""Weights with the config that rebuilds their network, in one file.

A ``.safetensors`` file holds float16 weights and, in its metadata, the config and the model card as JSON; opening one
runs no code of the file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from melprint.errors import MelprintError

FORMAT = "melprint-weights-1"


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The config of the network, and its weights as float32 (counters as they are).

    Raises:
        MelprintError: missing, damaged, or not weights of melprint.
    """
    if not path.is_file():
        raise MelprintError(f"there is no {path}")
    try:
        with safe_open(path, "numpy") as file:
            said = file.metadata() or {}
            if said.get("format") != FORMAT:
                raise MelprintError(f"{path} holds no weights of melprint (format {said.get('format')!r})")
            return json.loads(said["model"]), {name: _widened(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise MelprintError(f"{path} is damaged ({error}); copy or install it again") from error


def _widened(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float32) if value.dtype == np.float16 else value


def write_weights(path: Path, model: Mapping[str, Any], weights: Mapping[str, NDArray[Any]]) -> None:
    """Write weights as float16.

    Raises:
        MelprintError: a weight that float16 cannot hold.
    """
    with np.errstate(over="ignore"):  # said below, with the name
        halves = {
            name: np.ascontiguousarray(value, np.float16 if np.issubdtype(value.dtype, np.floating) else value.dtype)
            for name, value in weights.items()
        }
    for name, value in halves.items():
        if not np.isfinite(value).all():
            raise MelprintError(f"{name} does not fit float16; its greatest value is {np.abs(weights[name]).max()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(save(halves, {"format": FORMAT, "model": json.dumps(model)}))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
