"""How well a degraded programme is monitored: ``python experiments/005-catalog/programme.py [--minutes 60]``.

A catalog of test tracks; a programme of excerpts of known and unknown tracks and of silence, each with noise and rooms
of the test split; counted are excerpts that are listed, false lines, and errors of beginnings and ends.  One JSON line.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir

import melprint
from melprint.audio.files import INT16_SCALE, write_wav
from melprint.augment.device import degrade
from melprint.augment.filters import ApplyRoom
from melprint.augment.noise import AddNoise
from melprint.build.common import corpus_from
from melprint.catalog import Catalog
from melprint.catalog.adding import add
from melprint.recognition.monitor import Options, monitor

CONF = Path(__file__).parents[2] / "conf"
RATE_HZ = 8_000
CONTEXT_S = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="compact")
    parser.add_argument("--games", type=Path, default=Path("data/games"))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--snr-db", type=float, nargs=2, default=(0.0, 10.0))
    parser.add_argument("--false-accept-rate", type=float, default=0.001)
    parser.add_argument("--unknown", type=int, default=30, help="tracks that are left out of the catalog")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        corpus = corpus_from(compose("train", ["data=games", f"data.corpus.root={arguments.games.resolve()}"]))
    rng = np.random.default_rng(arguments.seed)
    torch.manual_seed(arguments.seed)
    music = [track for track in corpus.music_of("test") if track.num_samples > 45 * RATE_HZ]
    # Whole packages are unknown: tracks of one share sounds.
    sources = sorted({track.source for track in music})
    order = [sources[i] for i in rng.permutation(len(sources))]
    unknown, known = [], []
    for source in order:
        (unknown if len(unknown) < arguments.unknown else known).extend(t for t in music if t.source == source)
    around = corpus.surroundings("test")
    transforms = (ApplyRoom(around, 0.8), AddNoise(around, tuple(arguments.snr_db)))
    work = Path(tempfile.mkdtemp())
    try:
        with Catalog.create(work / "catalog", arguments.model) as catalog:
            add(catalog, [track.path for track in known])
            name_of = {track.path: row.key for row in catalog.tracks().values() for track in known
                       if str(track.path.resolve()) == row.path}  # fmt: skip
            truth, parts, time_s = [], [], 0.0
            while time_s < 60 * arguments.minutes:
                kind = rng.choice(["known", "unknown", "silence"], p=[0.6, 0.3, 0.1])
                length = round(rng.uniform(10, 40) * RATE_HZ)
                wave = np.zeros(length, np.float32)
                if kind != "silence":
                    pool = known if kind == "known" else unknown
                    track = pool[rng.integers(len(pool))]
                    pcm = track.samples(RATE_HZ)
                    first = int(rng.integers(CONTEXT_S * RATE_HZ, len(pcm) - length))
                    clean = pcm[first - CONTEXT_S * RATE_HZ : first + length].astype(np.float32) / INT16_SCALE
                    draws = torch.rand(1, sum(t.num_draws for t in transforms), dtype=torch.float64)
                    wave = degrade(torch.from_numpy(clean)[None], transforms, draws, CONTEXT_S * RATE_HZ)[0].numpy()
                    wave = wave[CONTEXT_S * RATE_HZ :] / max(1.0, float(np.abs(wave).max()))
                    if kind == "known":
                        truth.append((name_of[track.path], time_s, time_s + length / RATE_HZ, first / RATE_HZ))
                parts.append((wave * 32_767).astype(np.int16))
                time_s += length / RATE_HZ
            write_wav(work / "programme.wav", np.concatenate(parts), RATE_HZ)
            options = Options(false_accept_rate=arguments.false_accept_rate)
            rows = [row for row in monitor(catalog, work / "programme.wav", options=options) if row.key]
            tracks = len(catalog)
    finally:
        shutil.rmtree(work)
    used, errors, place, covered = set(), [], [], 0.0
    hit = 0
    for key, start_s, end_s, track_s in truth:
        mine = [
            (min(end_s, row.end_s) - max(start_s, row.start_s), i)
            for i, row in enumerate(rows)
            if row.key == key and min(end_s, row.end_s) > max(start_s, row.start_s)
        ]
        used |= {i for _, i in mine}
        covered += sum(common for common, _ in mine)
        if mine:
            hit += 1
            row = rows[max(mine)[1]]
            errors += [abs(row.start_s - start_s), abs(row.end_s - end_s)]
            place.append(abs((row.track_start_s - row.start_s) - (track_s - start_s)) <= 0.5)
    false = [row for i, row in enumerate(rows) if i not in used]
    print(
        json.dumps(
            {
                "model": arguments.model,
                "version": melprint.__version__,
                "minutes": round(time_s / 60, 1),
                "snr_db": list(arguments.snr_db),
                "false_accept_rate": arguments.false_accept_rate,
                "tracks": tracks,
                "excerpts": len(truth),
                "listed": hit,
                "lines": len(rows),
                "false_lines": len(false),
                "false_s": round(sum(row.end_s - row.start_s for row in false), 1),
                "covered": round(covered / sum(end - start for _, start, end, _ in truth), 3),
                "right_place": round(float(np.mean(place)), 3),
                "border_error_median_s": round(float(np.median(errors)), 2),
                "border_error_90_s": round(float(np.quantile(errors, 0.9)), 2),
            }
        )
    )


if __name__ == "__main__":
    main()
