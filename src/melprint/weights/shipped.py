"""The trained networks that come with the package."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from melprint.errors import MelprintError

FOLDER = Path(__file__).parent
NAMES = ("compact", "base")
DEFAULT = "compact"


def is_shipped(model: str | Path) -> bool:
    """Whether this names a network of the package; ``./compact`` is a file."""
    return isinstance(model, str) and model in NAMES


def shipped_file(name: str, suffix: str) -> Path:
    """The file of a shipped network, once its digest has been checked.

    Args:
        name: compact or base.
        suffix: ``.safetensors`` or ``.onnx``.

    Raises:
        MelprintError: missing, or not what was released.
    """
    path = FOLDER / f"{name}{suffix}"
    if not path.is_file():
        raise MelprintError(f"{path} is missing; install melprint again")
    if (digest := digest_of_file(path)) != _card(name)["sha256"][path.name]:
        raise MelprintError(f"{path} is not what was released (SHA-256 {digest}); install melprint again")
    return path


def card_of(name: str) -> dict[str, Any]:
    """What is known of a shipped network: data, recipe, hours, hit rates, thresholds, digests.

    Raises:
        MelprintError: there is no such network.
    """
    if name not in NAMES:
        raise MelprintError(f"there is no shipped network {name!r}; there are {' and '.join(NAMES)}")
    return _card(name)


def card_text(name: str) -> str:
    """The model card for people, in Markdown.

    Raises:
        MelprintError: there is no such network.
    """
    card_of(name)
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


@cache
def _card(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return content


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
