"""Write fingerprint stores: ``python generate.py [ckpt=NAME|FILE] [data=…|source=FOLDER] [shard=2/8]``."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from melprint.entry import explained, run


@hydra.main(config_path="conf", config_name="generate", version_base="1.3")
@explained
def main(cfg: DictConfig) -> None:
    """Fingerprint a corpus, or any folder of recordings."""
    from hydra.utils import instantiate

    from melprint.build.common import checkpoint_from, corpus_from, device_from
    from melprint.fingerprints.collection import extract_corpus
    from melprint.fingerprints.extractor import Shard, extract, sources_of_folder
    from melprint.models import load
    from melprint.progress import console

    fingerprinter = load(checkpoint_from(cfg), device_from(cfg.device))
    folder, shard = Path(cfg.out), Shard.parse(cfg.shard)
    if cfg.source is not None:
        sources = sources_of_folder(Path(cfg.source), fingerprinter.segment.sample_rate_hz)
        options = {"dtype": cfg.dtype, "batch_size": cfg.batch_size, "skip_unreadable": cfg.skip_unreadable}
        done = [extract(fingerprinter, sources, folder, "custom_source", shard=shard, **options)]
    else:
        queries = instantiate(cfg.queries, _convert_="all")
        options = {"dtype": cfg.dtype, "batch_size": cfg.batch_size, "sets": list(cfg.sets)}
        done = extract_corpus(fingerprinter, corpus_from(cfg), folder, queries, shard=shard, **options)
    for store in done:
        left_out = f", {store.num_rejected} left out" if store.num_rejected else ""
        was_there = ", was there already" if store.was_there else ""
        console.print(f"{folder / store.name}: {store.num_tracks} tracks, {store.num_rows} rows{left_out}{was_there}")


if __name__ == "__main__":
    run(main)
