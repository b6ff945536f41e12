"""The ``melprint`` command."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from melprint.errors import MelprintError
from melprint.progress import console
from melprint.version import __version__
from melprint.weights.shipped import DEFAULT

MODEL_HELP = "compact or base, which come with melprint, or a file: a checkpoint or .safetensors."

app = typer.Typer(help="Neural audio fingerprinting.", no_args_is_help=True, add_completion=False)


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of wav, flac, mp3, ogg or opus files.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder that receives the prepared audio.")],
    sample_rate_hz: Annotated[int, typer.Option(help="Rate of the prepared audio.")] = 8_000,
    min_duration_s: Annotated[float, typer.Option(help="Shorter recordings are left out.")] = 1.0,
    val: Annotated[float, typer.Option(help="Share of the recordings for validation.", min=0, max=1)] = 0.1,
    test: Annotated[float, typer.Option(help="Share of the recordings for test.", min=0, max=1)] = 0.2,
    seed: Annotated[int, typer.Option(help="Another seed gives another division.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Files at a time; by default one a core.", min=1)] = None,
) -> None:
    """Turn any folder of recordings into mono 16-bit wavs with a manifest.

    Albums (folders) are divided into train, val and test as wholes. An interrupted run goes on where it
    stopped. OUT/rejected.csv lists the files that were left out, and why.
    """
    from melprint.data.prepare import prepare as prepare_recordings
    from melprint.data.prepare import recordings_of

    if out.resolve().is_relative_to(source.resolve()):
        raise MelprintError(f"{out} lies inside {source}, and would be prepared again; choose a folder outside")
    recordings = recordings_of(source, val=val, test=test, seed=seed)
    done = prepare_recordings(
        recordings, out, sample_rate_hz=sample_rate_hz, min_duration_s=min_duration_s, workers=workers
    )
    hours = sum(track.num_samples for track in done.tracks) / sample_rate_hz / 3600
    typer.echo(f"{len(done.tracks)} tracks, {hours:.2f} h: {out / 'manifest.csv'}")
    if done.rejected:
        typer.echo(f"{len(done.rejected)} files left out: {out / 'rejected.csv'}")


@app.command()
def augment(
    recording: Annotated[Path, typer.Argument(metavar="IN", help="A recording of any format.")],
    out: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder that receives the versions.")],
    versions: Annotated[int, typer.Option(help="How many.", min=1)] = 6,
    duration_s: Annotated[float, typer.Option(help="Length of each excerpt; 0 takes the whole recording.", min=0)] = 10,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only this kind, again for more: playback, room, band, device, noise, codec."),
    ] = None,
    snr_db: Annotated[tuple[float, float], typer.Option(help="Least and greatest signal-to-noise ratio.")] = (0, 10),
    noise: Annotated[Path | None, typer.Option(help="Folder with train/ inside; by default pink noise.")] = None,
    rooms: Annotated[Path | None, typer.Option(help="Folder with train/ inside; by default simulated rooms.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed gives other versions.", min=0)] = 0,
) -> None:
    """Hear and see what training does to music: degraded versions as wav, with their parameters and spectrograms.

    Each version has one noise and one room from beginning to end, as a query has; versions.csv says where it begins.
    """
    from melprint.data.hearing import KINDS, SHEET, TABLE, write_versions

    made = write_versions(
        recording, out, kinds=only or KINDS, count=versions, duration_s=duration_s or None, snr_db=snr_db,
        noise=noise, rooms=rooms, seed=seed,
    )  # fmt: skip
    for version in made:
        said = ", ".join(f"{name} {value}" for name, value in version.parameters.items())
        typer.echo(f"{version.name}  from {version.start_s:.2f} s: {said}")
    typer.echo(f"{out / TABLE}, {out / SHEET}")


@app.command()
def merge(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the shards.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Store that they are parts of, e.g. dummy_db.")],
    count: Annotated[int, typer.Argument(metavar="COUNT", help="Number of shards.", min=2)],
) -> None:
    """Join the shards of a fingerprint store to the store that one run would have written."""
    from melprint.fingerprints.writer import merge_shards

    store = merge_shards(folder, name, count)
    typer.echo(f"{folder / name}: {len(store.tracks)} tracks, {len(store.rows)} rows")


@app.command()
def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN RUN…", help="Folders that evaluate.py wrote; RUN:INDEX takes one index.")
    ],
    index: Annotated[str | None, typer.Option(help="One index; by default every one that both have.")] = None,
    matcher: Annotated[str, typer.Option(help="As it stands in metrics.csv.")] = "sequence",
    csv: Annotated[Path | None, typer.Option(help="Write the table to this file too.")] = None,
) -> None:
    """Paired differences of hit rates on the same queries: every run against the first.

    Intervals (95 %) come from a bootstrap of whole songs, p from McNemar's exact test.
    """
    from rich.console import Console

    from melprint.data.manifest import write_rows
    from melprint.evaluation.compare import COLUMNS, RunHits, comparison_table
    from melprint.evaluation.compare import compare as compare_runs

    rows = compare_runs([RunHits.read(run) for run in runs], index, matcher)
    for table in comparison_table(rows):
        Console().print(table)
    if csv is not None:
        write_rows(csv, COLUMNS, ([row[name] for name in COLUMNS] for row in rows))


@app.command()
def report(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="A folder with runs in it, at any depth.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the page; by default RUNS itself.")] = None,
) -> None:
    """Gather trainings and evaluations, those of sweeps too, into leaderboard.html and leaderboard.csv."""
    from melprint.evaluation.leaderboard import evaluations_below, write_leaderboard
    from melprint.evaluation.trainings import trainings_below

    found, trained = evaluations_below(runs), trainings_below(runs)
    if not found and not trained:
        raise MelprintError(f"{runs} holds no evaluation and no finished training; run train.py or evaluate.py")
    page = write_leaderboard(found, out or runs, trained)
    typer.echo(f"{len(found)} evaluations, {len(trained)} trainings: {page.resolve()}")


@app.command()
def fingerprint(
    music: Annotated[Path, typer.Argument(metavar="MUSIC", help="Folder of wav, flac, mp3, ogg or opus files.")],
    library: Annotated[Path, typer.Argument(metavar="LIBRARY", help="Folder that receives the fingerprints.")],
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEFAULT,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Drop a library of other music or network.")] = False,
) -> None:
    """Fingerprint a music collection into a library that identify looks in.

    An interrupted run goes on where it stopped, by the same command.
    """
    from melprint.recognition.library import make_library

    done = make_library(music, library, model, device=device, overwrite=overwrite)
    was_there = ", was there already" if done.was_there else ""
    typer.echo(f"{library}: {done.num_tracks} tracks, {done.num_rows} fingerprints of {model}{was_there}")
    if done.num_rejected:
        typer.echo(f"{done.num_rejected} files left out, see {library / 'library_rejected.csv'}", err=True)


@app.command()
def identify(
    library: Annotated[Path, typer.Argument(metavar="LIBRARY", help="Folder that melprint fingerprint wrote.")],
    recordings: Annotated[list[Path], typer.Argument(metavar="FILES…", help="Recordings, or folders of them.")],
    best: Annotated[int, typer.Option(help="How many matches of each.", min=1)] = 1,
    threshold: Annotated[
        float | None, typer.Option(help="Score from which on a match is accepted; by default as it was measured.")
    ] = None,
    false_accept_rate: Annotated[
        float, typer.Option(help="Share of unknown music that may be accepted: 0.01 or 0.001.")
    ] = 0.01,
    model: Annotated[str | None, typer.Option(help="The network of the library, if it is not shipped.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each match.")] = False,
) -> None:
    """Say which track of a library each recording is, and where it starts in it, or that it is not in there.

    The score is the mean cosine of the fingerprints along the recording. Ends with 1 if a file could not be read.
    """
    import json

    from melprint.recognition.identify import identify as look_up
    from melprint.recognition.library import Library

    files = [file for path in recordings for file in _recordings_at(path)]
    opened = Library.open(library, model, device)
    found = look_up(opened, files, num_best=best, threshold=threshold, false_accept_rate=false_accept_rate)
    unreadable = [matches for matches in found if isinstance(matches, MelprintError)]
    readable = [matches for matches in found if not isinstance(matches, MelprintError)]
    if as_json:
        for matches in readable:
            for match in matches:
                typer.echo(json.dumps(match.as_json(), ensure_ascii=False))
    elif readable:
        from rich.console import Console

        from melprint.recognition.answers import answers_table

        # Names of files may look like markup; a pipe has no width of its own.
        width = None if sys.stdout.isatty() else 200
        Console(markup=False, emoji=False, highlight=False, width=width).print(answers_table(readable))
    for error in unreadable:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
    if unreadable:
        raise typer.Exit(1)


def _recordings_at(path: Path) -> list[Path]:
    from melprint.audio.files import find_recordings

    return find_recordings(path) if path.is_dir() else [path]


@app.command()
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


@app.command()
def models() -> None:
    """List the networks that come with melprint."""
    from melprint.weights.shipped import NAMES, card_of

    for name in NAMES:
        card = card_of(name)
        default = " (default)" if name == DEFAULT else ""
        typer.echo(f"{name}{default}: {card['summary']}")


@app.command()
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
