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

    from melprint.build import evaluation as build
    from melprint.evaluation.evaluate import evaluate
    from melprint.evaluation.protocol import make_trial
    from melprint.evaluation.report import print_table, write_report

    lengths, stores = build.lengths_from(cfg), build.stores_from(cfg)
    model, out = build.model_from(cfg, stores), build.folder_from(cfg)
    if cfg.get("study"):
        from melprint.evaluation.grid_report import write_grid

        rows = build.grid_from(cfg, stores, model, lengths).run(out)
        report = write_grid(rows, out, build.origin_from(cfg, stores))
        Console(soft_wrap=True).print(f"report: {report.resolve()}")
        return
    indexes = build.indexes_from(cfg)
    options = build.options_from(cfg, lengths, model)
    trial = make_trial(cfg.mode, stores, lengths[-1], cfg.test_ids, cfg.seed, cfg.num_queries)
    phases = build.phases_from(cfg, stores, trial, model, lengths[-1])
    result = evaluate(trial, indexes, stores.segment, options, Path(cfg.index_cache), stores.digest(), phases)
    print_table(result.metrics, Console())
    report = write_report(result, out, build.origin_from(cfg, stores))
    Console(soft_wrap=True).print(f"report: {report.resolve()}")


if __name__ == "__main__":
    run(main)
