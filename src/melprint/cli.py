"""The ``melprint`` command."""

import typer

from melprint.commands import catalog, networks, recognition, research
from melprint.errors import MelprintError
from melprint.progress import console
from melprint.version import __version__

app = typer.Typer(help="Neural audio fingerprinting.", no_args_is_help=True, add_completion=False)
app.add_typer(catalog.app, name="catalog")
for command in (
    recognition.fingerprint,
    recognition.identify,
    recognition.locate,
    recognition.monitor,
    recognition.listen,
    recognition.dedup,
    networks.models,
    networks.info,
    networks.export,
    research.prepare,
    research.augment,
    research.merge,
    research.compare,
    research.report,
):
    app.command()(command)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command; what goes wrong ends in one sentence and a non-zero exit."""
    try:
        app(standalone_mode=True)
    except (MelprintError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
