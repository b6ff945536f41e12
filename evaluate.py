"""Measure hit rates: ``python evaluate.py [store=FOLDER|ckpt=FILE] [index=[ip,ivfpq]] [mode=compat]``."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from melprint.entry import explained, run


@hydra.main(config_path="conf", config_name="evaluate", version_base="1.3")
@explained
def main(cfg: DictConfig) -> None:
    """Search degraded queries in every index, at every length; write tables and a report."""
    from rich.console import Console

    from melprint.build import indexes_from, lengths_from, stores_from
    from melprint.evaluation.evaluate import digest_of, evaluate
    from melprint.evaluation.protocol import make_trial
    from melprint.evaluation.report import print_table, write_report

    lengths, stores = lengths_from(cfg), stores_from(cfg)
    name = cfg.name if cfg.store is None else "-".join(Path(cfg.store).resolve().parts[-2:])
    out = Path(cfg.out or f"runs/{name}/evaluation{'' if cfg.mode == 'strict' else '-' + cfg.mode}")
    trial = make_trial(cfg.mode, stores.query, stores.db, stores.dummy, max(lengths), cfg.test_ids, cfg.seed)
    digest = digest_of([store.digest() for store in (stores.dummy, stores.db) if store is not None])
    result = evaluate(trial, indexes_from(cfg), lengths, stores.segment, Path(cfg.index_cache), digest)
    result.write(out)
    print_table(result.metrics, Console())
    report = write_report(result.metrics, out, f"melprint: {cfg.store or cfg.name}, {cfg.mode}", stores.origin())
    Console(soft_wrap=True).print(f"report: {report.resolve()}")


if __name__ == "__main__":
    run(main)
