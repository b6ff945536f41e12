"""Make shipped files of a trained network: ``python experiments/004-weights/ship.py NAME CHECKPOINT…``.

Writes float16 weights, the ONNX graph, and a card with the thresholds that are measured on the validation tracks to
``src/melprint/weights``.  ``tables.py`` adds what ``measure.py`` measured of the shipped weights on the test tracks.
"""

import argparse
import csv
import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import RATE_HZ, SECONDS, best, corpus_of

import melprint
from melprint.data.corpora.corpus import Corpus
from melprint.data.manifest import Track
from melprint.data.queries import QueryRenderer, QuerySpec
from melprint.fingerprints.embedding import embed_tracks
from melprint.fingerprints.rows import Rows
from melprint.matching.sequence import Borders
from melprint.matching.thresholds import Thresholds
from melprint.models.checkpoint import model_digest, save_weights
from melprint.models.export import export_onnx
from melprint.models.fingerprinter import Fingerprinter
from melprint.recognition.search import PHASES, exactly, search
from melprint.spec import SegmentSpec
from melprint.weights.files import write_weights
from melprint.weights.shipped import FOLDER

QUERIES = 350  # unknown ones, degraded and clean each
FALSE_ACCEPT_RATES = (0.01, 0.001)
LIBRARIES = (20_000, 100_000)  # rows
THRESHOLD_ROWS = 60_000
SUMMARIES = {
    "compact": "small and fast, for large collections and modest machines",
    "base": "two networks side by side, four fingerprints a second: finds and places more, at a sixth of the speed",
}
# Twice as many fingerprints find short queries better, and tell repeats of a loop apart: results/defaults-*.jsonl.
HOP_S = {"compact": 0.5, "base": 0.25}


def unknown_scores(model: Fingerprinter, corpus: Corpus, num_queries: int) -> dict[int, dict[int, list[np.ndarray]]]:
    """Best scores of queries whose track is not in the library: rows of the library -> seconds -> degraded and clean.

    Queries come from the validation tracks, with noises and rooms of their split; the library holds training tracks.
    (Training tracks as queries would see stems and twins of themselves, of which the packages have some.)
    """
    library = [tracks_of_rows(corpus.music_of("train"), rows, model.segment) for rows in LIBRARIES]
    rows, first = embed_tracks(model, (track.samples(RATE_HZ) for track in library[-1]), 256)
    scores: dict[int, dict[int, list[np.ndarray]]] = {count: {} for count in LIBRARIES}
    for snr_db, room in (((0.0, 10.0), 0.8), ((60.0, 60.0), 0.0)):
        spec = QuerySpec(num_queries, 10.0, snr_db, room, 1.0, 3)
        waves = [wave for _, wave in QueryRenderer(spec, corpus.music_of("val"), corpus.surroundings("val"))]
        for count, tracks in zip(LIBRARIES, library, strict=True):
            references, borders = Rows([rows[: first[len(tracks)]]]), Borders(first[: len(tracks) + 1])
            searched = search(model, exactly(references), waves, PHASES)
            for seconds in SECONDS:
                places = searched.best_places(references, borders, 1, seconds * RATE_HZ)
                scores[count].setdefault(seconds, []).append(np.array([best(its).score for its in places]))
    return scores


def tracks_of_rows(tracks: list[Track], rows: int, segment: SegmentSpec) -> list[Track]:
    """The first tracks, in an order of their own, that have so many rows together."""
    shuffled = [tracks[i] for i in np.random.default_rng(1).permutation(len(tracks))]
    total = np.cumsum([segment.num_segments(track.num_samples) for track in shuffled])
    return shuffled[: 1 + int(np.searchsorted(total, rows))]


def thresholds_of(scores: dict[int, dict[int, list[np.ndarray]]], segment: SegmentSpec) -> dict[str, Any]:
    """A line in the logarithm of the rows through the thresholds of each size; degraded and clean queries together."""
    decades = np.log10(np.array(LIBRARIES) / THRESHOLD_ROWS)
    rates = {}
    for rate in FALSE_ACCEPT_RATES:
        threshold, slope = [], []
        for seconds in SECONDS:
            at_size = [np.quantile(np.concatenate(scores[count][seconds]), 1 - rate) for count in LIBRARIES]
            gradient, offset = np.polyfit(decades, at_size, 1)
            threshold.append(round(float(offset), 4))
            slope.append(round(max(0.0, float(gradient)), 4))
        rates[f"{rate:g}"] = {"threshold": threshold, "slope": slope}
    num_queries = sum(map(len, scores[LIBRARIES[0]][SECONDS[0]]))
    return {
        "num_segments": [segment.num_segments(seconds * RATE_HZ) for seconds in SECONDS],
        "rows": THRESHOLD_ROWS,
        "num_queries": num_queries,
        "false_accept_rates": rates,
    }


def open_set(
    work: Path, name: str, thresholds: dict[str, Any], rows: int, segment: SegmentSpec
) -> list[dict[str, Any]]:
    """What the thresholds accept of the mixed test queries: right ones, and wrong ones without their track."""
    lines = []
    for rate in FALSE_ACCEPT_RATES:
        limits = Thresholds.from_card(thresholds, rate)
        for seconds in SECONDS:
            found = np.load(work / f"{name}-{seconds}s.npz")
            limit = limits.at(segment.num_segments(seconds * RATE_HZ), rows)
            accepted = (found["score"] >= limit) & (found["track"] == found["true_track"])
            lines.append(
                {
                    "rate": rate,
                    "seconds": seconds,
                    "threshold": round(limit, 4),
                    "num_queries": len(accepted),
                    "accepted_right": float(accepted.mean()),
                    "false_accepts": float((found["other"] >= limit).mean()),
                }
            )
    return lines


def curve_of(checkpoint: Path) -> list[dict[str, float]]:
    """Validation rates after each epoch, from the run's own log."""
    logs = sorted((checkpoint.parents[1] / "csv").glob("version_*/metrics.csv"))
    points: dict[int, dict[str, float]] = {}
    for log in logs:
        with log.open(newline="") as file:
            for row in csv.DictReader(file):
                rates = {key.removeprefix("val/top1_exact_"): value for key, value in row.items() if "exact_" in key}
                if any(rates.values()):
                    points[int(row["step"])] = {key: round(float(value), 4) for key, value in rates.items() if value}
    return [{"step": step + 1, **rates} for step, rates in sorted(points.items())]


def save_towers(checkpoints: list[Path], path: Path, hop_s: float) -> Fingerprinter:
    """Several trained networks of the same front end as one, see melprint.models.towers."""
    towers, weights = [], {}
    for number, checkpoint in enumerate(checkpoints):
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model = content["hyper_parameters"]["model"]
        towers.append({part: model[part] for part in ("encoder", "projection")})
        state = melprint.load(checkpoint).state_dict()
        for part in ("encoder", "projection"):
            for name, value in state.items():
                if name.startswith(f"{part}."):
                    weights[f"encoder.{part}s.{number}.{name.removeprefix(f'{part}.')}"] = value.numpy()
    config = {
        "segment": {**model["segment"], "hop_s": hop_s},
        "mel": model["mel"],
        "encoder": {"_target_": "melprint.models.towers.Towers", "towers": towers},
        "projection": {"_target_": "melprint.models.projection.Unchanged"},
    }
    write_weights(path, config, weights)
    return melprint.load(path)


def ship(name: str, checkpoints: list[Path], corpus: Corpus, num_queries: int, core_hours: float | None) -> None:
    """Weights, graph, and a card with thresholds."""
    made = FOLDER / ".made"  # moved to their places together, when all is there
    made.mkdir(exist_ok=True)
    weights, graph = made / f"{name}.safetensors", made / f"{name}.onnx"
    model = (
        save_weights(checkpoints[0], weights)
        if len(checkpoints) == 1
        else save_towers(checkpoints, weights, HOP_S[name])
    )
    checkpoint = checkpoints[-1]
    difference = export_onnx(model, graph)
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    config = content["hyper_parameters"]["config"]
    card = {
        "name": name,
        "summary": SUMMARIES[name],
        "date": date.today().isoformat(),
        "version": melprint.__version__,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "digest": model_digest(model),
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (weights, graph)},
        "bytes": {path.name: path.stat().st_size for path in (weights, graph)},
        "onnx_difference": difference,
        "config": {key: config[key] for key in ("model", "augment", "loss", "optimizer", "scheduler", "train", "seed")},
        "training": {
            "steps": int(content["global_step"]),
            "curve": curve_of(checkpoint),
            "core_hours": core_hours,
        },
        "thresholds": thresholds_of(unknown_scores(model, corpus, num_queries), model.segment),
    }
    (made / card_path(name).name).write_text(json.dumps(card, indent=1) + "\n")
    for path in made.iterdir():
        path.replace(FOLDER / path.name)
    made.rmdir()


def card_path(name: str) -> Path:
    return FOLDER / f"{name}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(SUMMARIES))
    parser.add_argument("checkpoints", nargs="+", type=Path, help="one, or several that become towers")
    parser.add_argument("--games", type=Path, default=Path("data/games"))
    parser.add_argument("--core-hours", type=float, help="what the training took, for the card")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--queries", type=int, default=QUERIES, help="unknown ones of each kind")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ship(arguments.name, arguments.checkpoints, corpus_of(arguments.games), arguments.queries, arguments.core_hours)


if __name__ == "__main__":
    main()
