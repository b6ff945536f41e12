"""How the Hydra entry points begin and end."""

import hashlib
import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from melprint.errors import MelprintError
from melprint.progress import console

LONGEST_NAME = 200  # file systems end at 255 bytes


def file_name(text: str) -> str:
    """The settings of a job as the name of its folder; a long one is cut, and told from others by a digest.

    >>> file_name("seed=1 data.corpus.music=/my/music")
    'seed=1 data.corpus.music=_my_music'
    >>> len(file_name("x" * 300))
    200
    """
    name = text.replace("/", "_")
    if len(name.encode()) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return name.encode()[: LONGEST_NAME - 13].decode(errors="ignore") + " " + digest


def seed_of(text: str) -> int:
    """A seed that belongs to the settings of a job, wherever in a sweep it stands."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


OmegaConf.register_new_resolver("seed_of", seed_of, replace=True)
OmegaConf.register_new_resolver("file_name", file_name, replace=True)  # in the processes of launchers too


def run(main: Callable[[], Any]) -> None:
    """Call a Hydra entry point; what goes wrong ends in one sentence and a non-zero exit."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # otherwise Hydra prints its own account and exits
    explained(main)()


def explained(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn the errors that a user can mend into one sentence on standard error and exit status 1."""

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:  # names one thing only: launchers of sweeps pickle what it names
        return call_explained(function, *args, **kwargs)

    return wrapper


def call_explained(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """See :func:`explained`."""
    try:
        return function(*args, **kwargs)
    except (MelprintError, HydraException, OmegaConfBaseException, OSError) as error:
        console.print(f"error: {sentence(error)}", style="red", markup=False, highlight=False, soft_wrap=True)
        if is_job_of_sweep():  # its launcher notes the failure and goes on with the other jobs
            raise
        sys.exit(1)
    except KeyboardInterrupt:
        training = not is_job_of_sweep() and sys.argv[0].endswith("train.py")
        again = "go on with ckpt_path=last" if training else "the same command goes on from what is finished"
        console.print(f"interrupted; {again}")
        sys.exit(130)


def is_job_of_sweep() -> bool:
    """Whether one of several jobs runs here; when they are all done, Hydra raises what went wrong once more."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN and HydraConfig.get().job.num >= 0


def sentence(error: BaseException) -> str:
    """The innermost cause that was written for a user, on one line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MelprintError):
            return str(cause)
        cause = cause.__cause__
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}"
    text = " ".join(str(error).split())
    if unknown := re.match(r"Could not override '([^']+)'", text):
        key = unknown[1]
        return f"there is no config key {key}; --cfg job shows those that there are, a new one takes a plus: +{key}=…"
    text = text.partition(" Config search path:")[0].partition(", set env var HYDRA_FULL_ERROR")[0]
    return text or type(error).__name__
