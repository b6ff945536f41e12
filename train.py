"""Train a fingerprinter: ``python train.py [data=… model=… experiment=…] [key=value …]``."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from melprint.entry import explained, run


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
@explained
def main(cfg: DictConfig) -> float:
    """Train, validate by retrieval, keep the best and the last checkpoint."""
    import pytorch_lightning as pl
    from hydra.core.hydra_config import HydraConfig

    from melprint.build.common import corpus_from, seed_from
    from melprint.build.training import (
        data_from,
        make_room,
        module_from,
        note_finished,
        starting_point,
        trainer_from,
    )
    from melprint.progress import console

    out = Path(HydraConfig.get().runtime.output_dir)
    ckpt_path = starting_point(cfg, out)
    corpus = corpus_from(cfg)
    pl.seed_everything(seed_from(cfg), workers=True, verbose=False)
    module = module_from(cfg)
    data = data_from(cfg, corpus, module)
    trainer = trainer_from(cfg, corpus, module, out)
    if ckpt_path is None:
        make_room(out, overwrite=cfg.overwrite)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    note_finished(trainer, out)
    console.print(f"best checkpoint: {out / 'checkpoints' / 'best.ckpt'}", soft_wrap=True)
    return float(trainer.callback_metrics.get("val/top1_exact", float("nan")))  # what a sweep maximises


if __name__ == "__main__":
    run(main)
