"""What every entry point needs."""

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from melprint.data.corpora.corpus import Corpus
from melprint.errors import MelprintError
from melprint.progress import console
from melprint.weights.shipped import DEFAULT


def plain(config: DictConfig) -> Any:
    """A config as plain dicts, lists and values, with everything resolved."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def seed_from(config: DictConfig) -> int:
    """The seed of the run.

    Raises:
        MelprintError: not a whole number from 0 on.
    """
    if not isinstance(config.seed, int) or not 0 <= config.seed < 2**32:
        raise MelprintError(f"seed must be a whole number from 0 to 2**32 - 1, got {config.seed}")
    return config.seed


def corpus_from(config: DictConfig) -> Corpus:
    """Fetch or find, and prepare, the corpus of ``data=…``."""
    corpus: Corpus = instantiate(config.data.corpus, _convert_="all").prepare()
    return corpus


def checkpoint_from(config: DictConfig) -> str:
    """The network of ``ckpt=…``: by default the best of ``runs/NAME``; where there is none a shipped one, aloud."""
    if config.ckpt is not None:
        return str(config.ckpt)
    best = Path(f"runs/{config.name}/checkpoints/best.ckpt")
    if best.parent.exists():
        return str(best)  # a run that has none yet is not to be taken for another network's
    console.print(
        f"runs/{config.name} has no trained network: taking {DEFAULT}, which comes with melprint",
        highlight=False,
        soft_wrap=True,
    )
    return DEFAULT


def device_from(name: str) -> str:
    """``auto`` takes a GPU where there is one.

    Raises:
        MelprintError: CUDA is asked for and not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise MelprintError(
            "device=cuda needs a CUDA GPU, and this machine has none that torch can use; take device=cpu"
        )
    return name
