"""Choose hop and phases on validation tracks: ``python experiments/004-weights/defaults.py NAME WORK``.

References are the validation tracks among music of the training tracks; queries are degraded as in training, by noises
and rooms of the validation split.  Writes WORK/defaults-NAME.jsonl, a line for each combination and query length.
"""

import argparse
import json
import time
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measure import RATE_HZ, SECONDS, Found, corpus_of, figures

import melprint
from melprint.data.queries import QueryRenderer, QuerySpec
from melprint.fingerprints.embedding import embed_tracks
from melprint.fingerprints.rows import Rows
from melprint.matching.sequence import Borders
from melprint.recognition.search import exactly, search

QUERIES = 200
DISTRACTOR_TRACKS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("work", type=Path)
    parser.add_argument("--games", type=Path, default=Path("data/games"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    corpus = corpus_of(arguments.games)
    tracks = [*corpus.music_of("val"), *corpus.music_of("train")[:DISTRACTOR_TRACKS]]
    number = {track.track_id: position for position, track in enumerate(tracks)}
    spec = QuerySpec(QUERIES, 10.0, (0.0, 10.0), 0.8, 1.0, 5)
    rendered = list(QueryRenderer(spec, corpus.music_of("val"), corpus.surroundings("val")))
    waves = [wave for _, wave in rendered]
    true_track = np.array([number[query.track_id] for query, _ in rendered])
    true_start_s = np.array([query.start_s for query, _ in rendered])
    log = arguments.work / f"defaults-{arguments.name}.jsonl"
    arguments.work.mkdir(parents=True, exist_ok=True)
    for hop_s in (0.5, 0.25):
        model = copy(melprint.load(arguments.name))
        model.segment = replace(model.segment, hop_s=hop_s)
        rows, first = embed_tracks(model, (track.samples(RATE_HZ) for track in tracks), 256)
        references, borders = Rows([rows]), Borders(first)
        for phases in (1, 2, 4) if hop_s == 0.5 else (1, 2):
            began = time.perf_counter()
            searched = search(model, exactly(references), waves, phases)
            for seconds in SECONDS:
                places = searched.best_places(references, borders, 1, seconds * RATE_HZ)
                found = Found(*(np.array(column) for column in zip(*(best[0][:3] for best in places), strict=True)))
                row = {"hop_s": hop_s, "phases": phases, "rows": len(rows), "seconds": seconds}
                row |= figures(found, true_track, true_start_s)
                with log.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            print(hop_s, phases, f"{time.perf_counter() - began:.0f} s", row["song"], row["near"], flush=True)


if __name__ == "__main__":
    main()
