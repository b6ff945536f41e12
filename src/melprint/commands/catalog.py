"""``melprint catalog``: make, fill and look after catalogs."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from melprint.commands.networks import MODEL_HELP
from melprint.errors import MelprintError
from melprint.progress import console
from melprint.weights.shipped import DEFAULT

app = typer.Typer(help="Make, fill and look after catalogs of fingerprinted tracks.", no_args_is_help=True)

CatalogArgument = Annotated[Path, typer.Argument(metavar="CATALOG", help="Folder of the catalog.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Lines of JSON.")]
INDEX_HELP = "auto, exact, ivf-sq8, ivfpq, hnsw or milvus."


@app.command()
def create(
    catalog: Annotated[Path, typer.Argument(metavar="CATALOG", help="Folder that does not exist yet.")],
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEFAULT,
    index: Annotated[str, typer.Option(help=INDEX_HELP)] = "auto",
    sql: Annotated[
        str | None, typer.Option(help="mysql://, mariadb:// or postgresql:// address; by default SQLite.")
    ] = None,
    milvus: Annotated[
        str | None, typer.Option(help="http://HOST:19530, or NAME.db for milvus-lite; implies --index milvus.")
    ] = None,
    milvus_kind: Annotated[str, typer.Option(help="Index of Milvus, e.g. HNSW, IVF_FLAT or FLAT.")] = "HNSW",
    milvus_metric: Annotated[str, typer.Option(help="ip or l2.")] = "ip",
    milvus_params: Annotated[str | None, typer.Option(help="Of that index, as JSON.")] = None,
    milvus_token: Annotated[str | None, typer.Option(help="USER:PASSWORD.", envvar="MELPRINT_MILVUS_TOKEN")] = None,
) -> None:
    """Make an empty catalog with a copy of its network."""
    from melprint.catalog import Catalog

    address: dict[str, Any] | None = None
    if milvus is not None:
        try:
            params = json.loads(milvus_params) if milvus_params else {}
        except json.JSONDecodeError as error:
            raise MelprintError(
                f"--milvus-params must be JSON, such as '{{\"M\": 16}}', got {milvus_params}"
            ) from error
        address = {"uri": milvus, "kind": milvus_kind, "metric": milvus_metric, "params": params}
        if milvus_token:
            address["token"] = milvus_token
    with Catalog.create(catalog, model, index=index, sql=sql, milvus=address) as made:
        typer.echo(f"{catalog}: empty catalog of {model}, {made.fingerprinter.dim} numbers a fingerprint")


@app.command()
def add(
    catalog: CatalogArgument,
    paths: Annotated[list[Path], typer.Argument(metavar="FILES…", help="Recordings, or folders of them.")],
    skip_duplicates: Annotated[
        bool, typer.Option("--skip-duplicates", help="Leave out recordings whose audio is there in another file.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Fingerprint recordings and add them.

    Files that are there already are not read again, so an interrupted run goes on by the same command. Files that
    cannot be read are named and left out; the command then ends with 1.
    """
    from melprint.catalog import Catalog
    from melprint.catalog.adding import add as add_files

    with Catalog.open(catalog, device) as opened:
        done = add_files(opened, paths, skip_duplicates=skip_duplicates, said=complain)
        if as_json:
            for track in done.tracks:
                _line({"added": True, **track.as_json()})
            for path in done.there:
                _line({"added": False, "path": str(path), "reason": "there already"})
            for path, shared in done.duplicates:
                _line({"added": False, "path": str(path), "reason": "duplicate", **shared.as_json()})
            for path, reason in done.rejected:
                _line({"added": False, "path": str(path), "reason": reason})
        else:
            hours = sum(track.duration_s for track in done.tracks) / 3600
            said = [f"{len(done.tracks)} tracks added ({hours:.2f} h)"]
            said += [f"{len(done.there)} there already"] if done.there else []
            said += [f"{len(done.duplicates)} duplicates left out"] if done.duplicates else []
            said += [f"{len(done.rejected)} unreadable"] if done.rejected else []
            typer.echo(f"{catalog}: {', '.join(said)}; {len(opened)} tracks in all")
    if done.rejected:
        raise typer.Exit(1)


@app.command()
def remove(
    catalog: CatalogArgument,
    tracks: Annotated[list[str], typer.Argument(metavar="TRACKS…", help="Keys or numbers, as list shows them.")],
) -> None:
    """Remove tracks; the next query does not find them any more."""
    from melprint.catalog import Catalog

    with Catalog.open(catalog) as opened:
        gone = opened.remove(tracks)
        typer.echo(f"{catalog}: {len(gone)} tracks removed; {len(opened)} tracks in all")


@app.command()
def update(
    catalog: CatalogArgument,
    track: Annotated[str, typer.Argument(metavar="TRACK", help="Key or number.")],
    key: Annotated[str | None, typer.Option(help="Your own name for it; unique.")] = None,
    title: Annotated[str | None, typer.Option()] = None,
    artist: Annotated[str | None, typer.Option()] = None,
    album: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Change what is known of a track."""
    from melprint.catalog import Catalog

    given = {"key": key, "title": title, "artist": artist, "album": album}
    values = {name: value for name, value in given.items() if value is not None}
    if not values:
        raise MelprintError("nothing to change; give --key, --title, --artist or --album")
    with Catalog.open(catalog) as opened:
        changed = opened.update(track, **values)
        typer.echo(
            f"{changed.id}: {changed.key}, {changed.artist or '—'}, {changed.title or '—'}, {changed.album or '—'}"
        )


@app.command("list")
def list_tracks(
    catalog: CatalogArgument,
    search: Annotated[str, typer.Option(help="Only tracks with this text in key, title, artist or album.")] = "",
    as_json: JsonOption = False,
) -> None:
    """List the tracks."""
    from melprint.catalog import Catalog

    with Catalog.open(catalog) as opened:
        tracks = [track for track in opened.tracks().values() if search.lower() in _words(track)]
    if as_json:
        for track in tracks:
            _line(track.as_json())
        return
    from melprint.recognition.answers import clock, plain_table

    rows = [
        (str(track.id), track.key, track.title, track.artist, track.album, clock(track.duration_s)) for track in tracks
    ]
    show(plain_table(("number", "key", "title", "artist", "album", ">duration"), rows))
    typer.echo(f"{len(tracks)} tracks")


def _words(track: Any) -> str:
    return "\n".join((track.key, track.title, track.artist, track.album)).lower()


@app.command()
def info(catalog: CatalogArgument, as_json: JsonOption = False) -> None:
    """Say what a catalog holds and how it is searched."""
    from melprint.catalog import Catalog
    from melprint.catalog.care import describe

    with Catalog.open(catalog) as opened:
        known = describe(opened)
    if as_json:
        _line(known)
        return
    for name, value in known.items():
        typer.echo(f"{name:<18} {value}")


@app.command()
def verify(catalog: CatalogArgument) -> None:
    """Read every fingerprint and compare it with its digest, and try the index; ends with 1 if something is wrong."""
    from melprint.catalog import Catalog
    from melprint.catalog.care import problems

    with Catalog.open(catalog) as opened:
        found = problems(opened)
        count = len(opened)
    for problem in found:
        complain(problem)
    if found:
        raise typer.Exit(1)
    typer.echo(f"{catalog}: {count} tracks, nothing wrong")


@app.command()
def merge(
    catalog: CatalogArgument,
    others: Annotated[list[Path], typer.Argument(metavar="OTHERS…", help="Catalogs of the same network.")],
) -> None:
    """Add the tracks of other catalogs, without fingerprinting them again; files that are in both count once."""
    from melprint.catalog import Catalog
    from melprint.catalog.care import merge as merge_catalogs

    with Catalog.open(catalog) as opened:
        for path in others:
            with Catalog.open(path) as other:
                added = merge_catalogs(opened, other)
                typer.echo(f"{path}: {added} of {len(other)} tracks added to {catalog}")


@app.command()
def reindex(
    catalog: CatalogArgument,
    index: Annotated[str | None, typer.Option(help=f"Another kind: {INDEX_HELP}")] = None,
) -> None:
    """Make the index anew, or another kind of it; nothing is fingerprinted again."""
    from melprint.catalog import Catalog
    from melprint.catalog.care import describe

    with Catalog.open(catalog) as opened:
        opened.reindex(index)
        typer.echo(f"{catalog}: index {describe(opened)['index']}")


@app.command()
def calibrate(
    catalog: CatalogArgument,
    queries: Annotated[int, typer.Option(help="Excerpts of each kind.", min=50)] = 400,
    seed: Annotated[int, typer.Option(help="Another seed takes other excerpts.", min=0)] = 0,
) -> None:
    """Measure on this catalog's own music which scores unknown recordings reach, and keep that for confidence.

    Excerpts of the added files are degraded with noise and rooms and looked up as if their track were not there.
    """
    from melprint.catalog import Catalog
    from melprint.catalog.calibrating import calibrate as measure

    with Catalog.open(catalog) as opened:
        measured = measure(opened, queries, seed)
        seconds = [opened.segment.query_seconds(count) for count in measured["num_segments"]]
    for rate, values in measured["false_accept_rates"].items():
        limits = ", ".join(f"{limit:.3f} at {s:g} s" for s, limit in zip(seconds, values["threshold"], strict=True))
        typer.echo(f"false accepts {float(rate):.1%}: {limits}")
    typer.echo(f"known recordings accepted at 1 %: {measured['accepted_right']:.1%} of {measured['num_queries']}")


@app.command()
def export(
    catalog: CatalogArgument,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A .csv or .jsonl file, or a folder for fingerprints too.")
    ],
) -> None:
    """Write what is known of the tracks, and into a folder their fingerprints too, as generate.py writes them."""
    from melprint.catalog import Catalog
    from melprint.catalog.care import export as write

    with Catalog.open(catalog) as opened:
        write(opened, out)
        typer.echo(f"{out}: {len(opened)} tracks")


def show(table: Any) -> None:
    """Print a table; names of files may look like markup, and a pipe has no width of its own."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 200
    Console(markup=False, emoji=False, highlight=False, width=width).print(table)


def lines(rows: Iterable[dict[str, Any]]) -> None:
    """Print lines of JSON."""
    for row in rows:
        _line(row)


def _line(row: dict[str, Any]) -> None:
    typer.echo(json.dumps(row, ensure_ascii=False))


def complain(sentence: str) -> None:
    """Say on standard error what went wrong."""
    console.print(sentence, style="red", markup=False, highlight=False, soft_wrap=True)
