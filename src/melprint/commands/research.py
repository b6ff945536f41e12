"""Commands for training and evaluation."""

from pathlib import Path
from typing import Annotated

import typer

from melprint.errors import MelprintError


def prepare(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of wav, flac, mp3, ogg, opus or m4a files.")],
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


def merge(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the shards.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Store that they are parts of, e.g. dummy_db.")],
    count: Annotated[int, typer.Argument(metavar="COUNT", help="Number of shards.", min=2)],
) -> None:
    """Join the shards of a fingerprint store to the store that one run would have written."""
    from melprint.fingerprints.writer import merge_shards

    store = merge_shards(folder, name, count)
    typer.echo(f"{folder / name}: {len(store.tracks)} tracks, {len(store.rows)} rows")


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
