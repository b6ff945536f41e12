"""Commands about networks."""

from pathlib import Path
from typing import Annotated

import typer

from melprint.errors import MelprintError
from melprint.weights.shipped import DEFAULT

MODEL_HELP = "compact or base, which come with melprint, or a file: a checkpoint or .safetensors."


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .onnx file, or .safetensors for weights alone.")],
) -> None:
    """Write a network as ONNX: waveform in, fingerprint out, the front end in the graph; checked against PyTorch.

    melprint.load(OUT, runtime="onnx") opens it without torch, and so does any other ONNX runtime.
    """
    from melprint.models.checkpoint import WEIGHTS_SUFFIX, load, save_weights
    from melprint.weights.onnx import SUFFIX

    if out.suffix == WEIGHTS_SUFFIX:
        save_weights(model, out)
        typer.echo(f"{out}: {out.stat().st_size / 1e6:.2f} MB, float16")
        return
    if out.suffix != SUFFIX:
        raise MelprintError(f"OUT must end in {SUFFIX} or {WEIGHTS_SUFFIX}, got {out}")
    from melprint.models.export import export_onnx

    difference = export_onnx(load(model), out)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.2f} MB, differs from PyTorch by {difference:.1e} at most")


def models() -> None:
    """List the networks that come with melprint."""
    from melprint.weights.shipped import NAMES, card_of

    for name in NAMES:
        card = card_of(name)
        default = " (default)" if name == DEFAULT else ""
        typer.echo(f"{name}{default}: {card['summary']}")


def info(model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]) -> None:
    """Say what a checkpoint holds, and of a shipped network all that is known of it."""
    from melprint.models import load, model_digest
    from melprint.weights.shipped import card_text, is_shipped

    opened = load(model)
    typer.echo(f"encoder     {type(opened.encoder).__name__}")
    typer.echo(f"parameters  {sum(weight.numel() for weight in opened.parameters()):,}")
    typer.echo(f"dimensions  {opened.dim}")
    typer.echo(f"segment     {opened.segment}")
    typer.echo(f"log-mel     {opened.front_end.mel}")
    typer.echo(f"digest      {model_digest(opened)}")
    if is_shipped(model):
        typer.echo(f"\n{card_text(model)}")
