"""Train a fingerprinter: ``python train.py [data=… model=… experiment=…] [key=value …]``; many: ``-m sweep=…``."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from melprint.entry import explained, is_job_of_sweep, run


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
@explained
def main(cfg: DictConfig) -> float:
    """Train, validate by retrieval, keep the best and the last checkpoint; gives the hit rate that sweeps maximise."""
    import pytorch_lightning as pl
    from hydra.core.hydra_config import HydraConfig

    from melprint.build.common import corpus_from, seed_from
    from melprint.build.resuming import make_room, note_finished, objective_if_finished, starting_point
    from melprint.build.training import data_from, fit, module_from, refuse_devices_in_sweep, trainer_from
    from melprint.progress import console

    job = HydraConfig.get()
    out, in_sweep = Path(job.runtime.output_dir), is_job_of_sweep()
    if in_sweep and (objective := objective_if_finished(cfg, out)) is not None:
        return objective
    ckpt_path = starting_point(cfg, out, in_sweep=in_sweep)
    corpus = corpus_from(cfg)
    pl.seed_everything(seed_from(cfg), workers=True, verbose=False)
    module = module_from(cfg)
    data = data_from(cfg, corpus, module)
    trainer = trainer_from(cfg, corpus, module, out)
    if in_sweep:
        refuse_devices_in_sweep(trainer)
    make_room(out, overwrite=cfg.overwrite, going_on=ckpt_path is not None)
    fit(trainer, module, data, ckpt_path)
    objective = note_finished(cfg, trainer, out, job.overrides.task)
    if trainer.is_global_zero:
        console.print(f"best checkpoint: {out / 'checkpoints' / 'best.ckpt'}", highlight=False, soft_wrap=True)
    return objective


if __name__ == "__main__":
    run(main)
