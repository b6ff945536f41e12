"""Opening a trained model without the trainer that wrote it."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melprint.errors import MelprintError
from melprint.models.fingerprinter import Fingerprinter, build_fingerprinter
from melprint.weights.files import read_weights, write_weights
from melprint.weights.shipped import NAMES, is_shipped, shipped_file

WEIGHTS_SUFFIX = ".safetensors"
WEIGHTS_PREFIX = "fingerprinter."  # the attribute of the training module that holds the network


def load(model: str | Path, device: str | torch.device = "cpu") -> Fingerprinter:
    """A trained network in evaluation mode.

    Args:
        model: ``compact`` or ``base``, which come with the package, or a file: a checkpoint of ``train.py`` or
            ``.safetensors``.
        device: of the weights.

    Raises:
        MelprintError: missing, damaged, or not a network of melprint.
    """
    config, weights = _read(model)
    fingerprinter = build_fingerprinter(**config)
    try:
        fingerprinter.load_state_dict(weights)
    except RuntimeError as error:
        raise MelprintError(f"{model}: the weights do not fit the model that it names ({error})") from error
    try:
        return fingerprinter.eval().to(device)
    except (RuntimeError, AssertionError) as error:
        raise MelprintError(f"this machine has no device {device} that torch can use; take device=cpu") from error


def _read(model: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    path = shipped_file(str(model), WEIGHTS_SUFFIX) if is_shipped(model) else Path(model)
    return _from_weights(path) if path.suffix == WEIGHTS_SUFFIX else _from_checkpoint(path)


def _from_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    config, weights = read_weights(path)
    return config, {name: torch.from_numpy(value) for name, value in weights.items()}


def _from_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        config = dict(content["hyper_parameters"]["model"])
        weights = {
            name.removeprefix(WEIGHTS_PREFIX): value
            for name, value in content["state_dict"].items()
            if name.startswith(WEIGHTS_PREFIX)
        }
    except FileNotFoundError as error:
        raise MelprintError(
            f"there is no checkpoint {path}; train one with python train.py, or name one of {', '.join(NAMES)}"
        ) from error
    except pickle.UnpicklingError as error:  # torch would recommend to open it unsafely
        raise MelprintError(f"{path} is not a melprint checkpoint") from error
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MelprintError(f"{path} is not a melprint checkpoint ({reason})") from error
    return config, weights


def model_digest(fingerprinter: Fingerprinter) -> str:
    """SHA-256 of the weights and of the geometry that they are used with."""
    digest = hashlib.sha256(repr((fingerprinter.segment, fingerprinter.front_end.mel)).encode())
    for name, value in sorted(fingerprinter.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_weights(model: str | Path, path: Path) -> Fingerprinter:
    """Write a network as float16 weights, without the state of its training.

    Returns:
        The network as it will be opened from there.

    Raises:
        MelprintError: as :func:`load`; a weight that float16 cannot hold.
    """
    config, weights = _read(model)
    write_weights(path, config, {name: value.cpu().numpy() for name, value in weights.items()})
    return load(path)
