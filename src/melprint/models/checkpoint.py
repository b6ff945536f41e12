"""Opening a trained model without the trainer that wrote it."""

import hashlib
import pickle
from pathlib import Path

import torch

from melprint.errors import MelprintError
from melprint.models.fingerprinter import Fingerprinter, build_fingerprinter

WEIGHTS_PREFIX = "fingerprinter."  # the attribute of the training module that holds the network


def load(path: str | Path, device: str | torch.device = "cpu") -> Fingerprinter:
    """The trained network of a checkpoint, in evaluation mode.

    Raises:
        MelprintError: missing, damaged, or not a checkpoint of melprint.
    """
    path = Path(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        config = dict(content["hyper_parameters"]["model"])
        weights = {
            name.removeprefix(WEIGHTS_PREFIX): value
            for name, value in content["state_dict"].items()
            if name.startswith(WEIGHTS_PREFIX)
        }
    except FileNotFoundError as error:
        raise MelprintError(f"there is no checkpoint {path}; train one with python train.py") from error
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MelprintError(f"{path} is not a melprint checkpoint ({reason})") from error
    fingerprinter = build_fingerprinter(**config)
    try:
        fingerprinter.load_state_dict(weights)
    except RuntimeError as error:
        raise MelprintError(f"{path}: the weights do not fit the model that it names ({error})") from error
    return fingerprinter.eval().to(device)


def model_digest(fingerprinter: Fingerprinter) -> str:
    """SHA-256 of the weights and of the geometry that they are used with."""
    digest = hashlib.sha256(repr((fingerprinter.segment, fingerprinter.front_end.mel)).encode())
    for name, value in sorted(fingerprinter.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
