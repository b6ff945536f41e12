"""What evaluation is made of."""

import os
import platform
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig

from melprint.build.common import corpus_from, device_from, plain
from melprint.errors import MelprintError
from melprint.evaluation.evaluate import Options
from melprint.evaluation.localisation import Phases
from melprint.evaluation.openset import OpenSetSpec
from melprint.evaluation.protocol import MODES, Trial
from melprint.evaluation.robustness import Grid
from melprint.evaluation.scene import GridSpec, Scene
from melprint.evaluation.stores import TestStores
from melprint.fingerprints.collection import extract_corpus, extract_phases
from melprint.fingerprints.store import check_model
from melprint.index.base import Index
from melprint.index.exact import ExactIndex
from melprint.models.checkpoint import load, model_digest
from melprint.models.fingerprinter import Fingerprinter
from melprint.weights.shipped import NAMES, card_of

MOST_PHASES = 16


def indexes_from(config: DictConfig) -> list[Index]:
    """The indexes of ``index=[…]``; exact ones compare on the device of ``device=…``."""
    indexes = [instantiate(node, _convert_="all") for node in config.index.values()]
    for index in indexes:
        if isinstance(index, ExactIndex):
            index.device = device_from(config.device)
    return indexes


def lengths_from(config: DictConfig) -> list[int]:
    """The query lengths of ``lengths=[…]``, in segments.

    Raises:
        MelprintError: not a list of positive whole numbers.
    """
    lengths = plain(config)["lengths"]
    if not (isinstance(lengths, list) and lengths and all(isinstance(n, int) and n > 0 for n in lengths)):
        raise MelprintError(f"lengths is a list of numbers of segments from 1 on, e.g. [1,3,19], got {lengths}")
    return sorted(set(lengths))


def options_from(config: DictConfig, lengths: list[int], model: Fingerprinter | None) -> Options:
    """What is measured, and at which query lengths."""
    values: Mapping[str, Any] = plain(config)
    return Options(
        lengths=lengths,
        num_neighbours=values["num_neighbours"],
        timing_s=_seconds(values["timing_s"]),
        mmap=values["index_mmap"],
        open_set=OpenSetSpec(**values["open_set"]) if values["open_set"] else None,
        embed=_embedding(model) if model is not None else None,
        exact=config.mode == "strict" if values["exact"] == "auto" else bool(values["exact"]),
    )


def stores_from(config: DictConfig) -> TestStores:
    """The stores of ``store=…``, or those of ``ckpt=…``, which are made where they are not there yet.

    Every row is read once and checked.
    """
    if config.mode not in MODES:
        raise MelprintError(f"mode must be {' or '.join(MODES)}, got {config.mode!r}")
    stores = _stores(config)
    if config.num_dummy is not None:
        stores = stores.with_distractors(_whole(config.num_dummy), Path(config.synthetic_cache))
    for store in stores.present():
        store.check(unit_rows=config.unit_rows)
    return stores


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and value >= 0:
        return float(value)
    raise MelprintError(f"timing_s is a number of seconds from 0 on, got {value!r}")


def _whole(number: object) -> int:
    if isinstance(number, int | float) and float(number).is_integer():
        return int(number)
    raise MelprintError(f"num_dummy is a number of rows, e.g. 1e6, got {number!r}")


def _stores(config: DictConfig) -> TestStores:
    dummy = Path(config.dummy_store) if config.dummy_store else None
    if config.ckpt is None:
        return TestStores.open(Path(config.store or f"runs/{config.name}/fingerprints"), dummy, config.mode)
    fingerprinter = load(config.ckpt, device_from(config.device))
    digest = model_digest(fingerprinter)
    if config.store is None:
        folder = Path(f"runs/{config.name}/fingerprints-{digest[:12]}")
        queries = instantiate(config.queries, _convert_="all")
        extract_corpus(
            fingerprinter, corpus_from(config), folder, queries, dtype=config.dtype, batch_size=config.batch_size
        )
    else:
        folder = Path(config.store)
    stores = TestStores.open(folder, dummy, config.mode)
    for store in stores.present():
        check_model(store, digest, str(config.ckpt))
    return stores


def model_from(config: DictConfig, stores: TestStores) -> Fingerprinter | None:
    """The network that made the stores: that of ``ckpt=…``, a shipped one, or of the run where it is at hand."""
    if stores.db.meta is None:
        return None
    trained = Path(f"runs/{config.name}/checkpoints/best.ckpt")
    of_run = [str(trained)] if trained.exists() else []
    shipped = [name for name in NAMES if card_of(name)["digest"] == stores.db.meta.model]
    for name in [str(config.ckpt)] if config.ckpt is not None else [*shipped, *of_run]:
        model = load(name, device_from(config.device))
        if model_digest(model) == stores.db.meta.model:
            return model
    return None


def phases_from(
    config: DictConfig, stores: TestStores, trial: Trial, model: Fingerprinter | None, longest: int
) -> Phases | None:
    """The queries of a trial cut at a fraction of the hop, for ``phases=4``; made where they are not there yet.

    Raises:
        MelprintError: there is no model to make them with.
    """
    count = config.phases
    if count == 1:
        return None
    if not isinstance(count, int) or not 2 <= count <= MOST_PHASES:
        raise MelprintError(f"phases must be a whole number from 1 to {MOST_PHASES}, got {count!r}")
    if model is None or trial.borders is None or not trial.details:
        raise MelprintError(
            f"phases={count} fingerprints the queries again at shifts below one hop: it needs mode=strict, the corpus"
            " of the queries, and the model that made the stores, as ckpt=…"
        )
    queries = instantiate(config.queries, _convert_="all")
    fine = extract_phases(
        model,
        corpus_from(config),
        stores.query.folder,
        queries,
        count,
        dtype=config.dtype,
        batch_size=config.batch_size,
    )
    return Phases.of(trial, fine, stores.segment, longest)


def grid_from(config: DictConfig, stores: TestStores, model: Fingerprinter | None, lengths: list[int]) -> Grid:
    """What ``study=robustness`` measures with: queries of its own, and exact search.

    Raises:
        MelprintError: the model that made the stores is not at hand.
    """
    if model is None or config.mode != "strict":
        raise MelprintError(
            "study=robustness fingerprints queries of its own: it needs mode=strict and the model that made the stores,"
            " as ckpt=…"
        )
    study: Mapping[str, Any] = plain(config.study)
    spec = GridSpec(**study["grid"])
    if study["only"] is not None:
        spec = spec.only(study["only"])
    corpus = corpus_from(config)
    index = ExactIndex(device=device_from(config.device))
    grid = Grid(Scene(corpus, spec, corpus.root / "grid"), model, stores, index, lengths)
    index.build(grid.references)
    return grid


def folder_from(config: DictConfig) -> Path:
    """Where the evaluation is written to; each job of a sweep has a folder of its own."""
    if config.out is not None:
        return Path(config.out)
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return Path(HydraConfig.get().runtime.output_dir) / "evaluation"
    name = config.name if config.store is None else "-".join(Path(config.store).resolve().parts[-2:])
    if config.get("study"):
        return Path(f"runs/{name}/{config.study.name}")
    return Path(f"runs/{name}/evaluation{'' if config.mode == 'strict' else '-' + config.mode}")


def origin_from(config: DictConfig, stores: TestStores) -> dict[str, Any]:
    """What a report says of how it was made."""
    return {
        "run": config.name if config.store is None else str(config.store),
        "mode": config.mode,
        **stores.origin(),
        "hardware": hardware(device_from(config.device)),
        "date": date.today().isoformat(),
    }


def hardware(device: str) -> str:
    """The processor, in words.

    >>> "torch" in hardware("cpu")
    True
    """
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    if models and not device.startswith("cuda"):
        name = models[0].partition(":")[2].strip()
    return f"{os.cpu_count()} cores, {name}, torch {torch.__version__}"


def _embedding(model: Fingerprinter) -> Callable[[int], object]:
    """Fingerprints of so many segments of noise: how long a network takes does not depend on what it hears."""
    device = next(model.parameters()).device
    noise = torch.randn(1, model.segment.num_samples, device=device)

    def embed(num_segments: int) -> object:
        with torch.inference_mode():
            return model(noise.expand(num_segments, -1).contiguous()).cpu()

    return embed
