"""Commands that answer: what is this, where, and is it in the catalog at all?"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from melprint.commands.catalog import CatalogArgument, JsonOption, add, complain, lines, show
from melprint.commands.networks import MODEL_HELP
from melprint.errors import MelprintError
from melprint.weights.shipped import DEFAULT

DeviceOption = Annotated[str, typer.Option(help="Of the network: cpu or cuda.")]
ThresholdOption = Annotated[
    float | None, typer.Option(help="Score from which on a match is accepted; by default as it was measured.")
]
RateOption = Annotated[float, typer.Option(help="Share of unknown music that may be accepted, e.g. 0.001.")]


def fingerprint(
    music: Annotated[Path, typer.Argument(metavar="MUSIC", help="Folder of recordings.")],
    catalog: Annotated[Path, typer.Argument(metavar="CATALOG", help="Folder of the catalog; made if there is none.")],
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEFAULT,
    device: DeviceOption = "cpu",
) -> None:
    """Fingerprint a music collection into a catalog: catalog create, where needed, and catalog add in one.

    An interrupted run goes on where it stopped, by the same command.
    """
    from melprint.audio.files import find_recordings
    from melprint.catalog import Catalog
    from melprint.catalog.catalog import is_catalog
    from melprint.models.checkpoint import load, model_digest

    if not is_catalog(catalog):
        if music.is_dir():
            find_recordings(music)  # refuses before a catalog is made for nothing
        Catalog.create(catalog, model).close()
    elif model != DEFAULT:
        with Catalog.open(catalog) as opened:
            if opened.settings["model"] != model and opened.settings["model_digest"] != model_digest(load(model)):
                raise MelprintError(
                    f"{catalog} was made by {opened.settings['model']}, not by {model}; choose another folder"
                )
    add(catalog, [music], skip_duplicates=False, device=device, as_json=False)


def identify(
    catalog: CatalogArgument,
    recordings: Annotated[list[str], typer.Argument(metavar="FILES…", help="Recordings, folders, or patterns.")],
    best: Annotated[int, typer.Option(help="How many matches of each.", min=1)] = 1,
    threshold: ThresholdOption = None,
    false_accept_rate: RateOption = 0.01,
    matcher: Annotated[str, typer.Option(help="sequence, vote, majority or temporal-network.")] = "sequence",
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Say which track of a catalog each recording is, and where, or that it is not in there.

    The score is the mean cosine of the fingerprints along the recording; recordings of more than 12 s are looked up
    by windows of 10 s within their first minute (monitor takes longer ones). Ends with 1 if a file could not be read.
    """
    from melprint.catalog import Catalog
    from melprint.recognition.identify import identify as look_up

    files, unreadable = _files(recordings)
    with Catalog.open(catalog, device) as opened:
        readable = []
        for answers in look_up(
            opened, files, num_best=best, threshold=threshold, false_accept_rate=false_accept_rate, matcher=matcher
        ):
            if isinstance(answers, MelprintError):
                unreadable += 1
                complain(f"error: {answers}")
            elif as_json:
                lines(answer.as_json() for answer in answers)
            else:
                readable.append(answers)
    if readable:
        from melprint.recognition.answers import answers_table

        show(answers_table(readable))
    if unreadable:
        raise typer.Exit(1)


def _files(patterns: list[str]) -> tuple[list[Path], int]:
    """The files, and how many of the patterns and folders give none."""
    from glob import glob, has_magic

    from melprint.audio.files import find_recordings

    files: list[Path] = []
    failed: list[MelprintError] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            try:
                files += find_recordings(path, failed.append)
            except MelprintError as error:
                failed.append(error)
        elif path.exists() or not has_magic(pattern):
            files.append(path)
        elif found := sorted(glob(pattern, recursive=True)):
            files += [Path(name) for name in found if Path(name).is_file()]
        else:
            failed.append(MelprintError(f"nothing matches {pattern}; give files, folders, or another pattern"))
    for reason in failed:
        complain(f"error: {reason}")
    return files, len(failed)


def locate(
    query: Annotated[Path, typer.Argument(metavar="QUERY", help="A recording.")],
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="A recording, or the folder of a catalog.")],
    plot: Annotated[Path | None, typer.Option(help="PNG of the similarities with the ranges on it.")] = None,
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEFAULT,
    best: Annotated[int, typer.Option(help="Tracks of a catalog that are looked at.", min=1)] = 5,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Say which part of a recording is which part of another one, or of tracks of a catalog."""
    from melprint.recognition.answers import clock, plain_table
    from melprint.recognition.locating import locate as find_ranges

    found = find_ranges(query, reference, plot=plot, model=model, num_tracks=best, device=device)
    if as_json:
        lines({"query": str(query), **row.as_json()} for row in found)
        return
    rows = [
        (row.track, clock(row.query_start_s), clock(row.query_end_s), clock(row.reference_start_s),
         clock(row.reference_end_s), f"{row.score:.3f}")
        for row in found
    ]  # fmt: skip
    if rows:
        show(plain_table(("track", ">from", ">to", ">in the track from", ">to", ">score"), rows))
    else:
        typer.echo(f"{query} has no part of {reference}")
    if plot is not None and plot.exists():
        typer.echo(str(plot))


def monitor(
    catalog: CatalogArgument,
    source: Annotated[
        str, typer.Argument(metavar="FILE|-|URL", help="A recording, raw PCM on standard input, a stream.")
    ],
    out: Annotated[Path | None, typer.Option(help="Write the cue list here: .csv, .jsonl or .cue.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where OUT ends after an interruption.")] = False,
    bridge_s: Annotated[float, typer.Option(help="Gaps up to this are bridged.", min=0)] = 5.0,
    false_accept_rate: Annotated[float, typer.Option(help="Of a single window of 5 s.")] = 0.001,
    sample_rate_hz: Annotated[int, typer.Option(help="Of raw PCM on standard input (s16le).", min=1)] = 44_100,
    channels: Annotated[int, typer.Option(help="Of raw PCM on standard input.", min=1)] = 2,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Write down which tracks are played when in hours of audio or in a live stream, in constant memory.

    Tracks come with start, end and confidence as soon as they are over; stretches of nothing known are listed too.
    """
    from melprint.audio.streams import RawPcm
    from melprint.catalog import Catalog
    from melprint.recognition.answers import clock
    from melprint.recognition.monitor import Options
    from melprint.recognition.monitor import monitor as follow

    options = Options(bridge_s=bridge_s, false_accept_rate=false_accept_rate)
    where = "-" if source == "-" else source if "://" in source else Path(source)
    with Catalog.open(catalog, device) as opened:
        for row in follow(opened, where, out=out, resume=resume, options=options, raw=RawPcm(sample_rate_hz, channels)):
            if as_json:
                lines([row.as_json()])
                continue
            sure = f"{row.confidence:.2%}" if row.confidence is not None else ""
            title = " – ".join(part for part in (row.artist, row.title) if part)
            typer.echo(
                f"{clock(row.start_s):>10} {clock(row.end_s):>10}  {row.key or 'unknown'}  {title}  {sure}".rstrip()
            )
            sys.stdout.flush()


def listen(
    catalog: CatalogArgument,
    microphone: Annotated[
        str | None, typer.Option("--device", help="Name or number of the microphone, or a file that stands for one.")
    ] = None,
    duration_s: Annotated[float | None, typer.Option(help="Stop after this; by default with Ctrl-C.")] = None,
    false_accept_rate: RateOption = 0.001,
    as_json: JsonOption = False,
) -> None:
    """Recognise live from the microphone: the answer is refined second by second, and given once it is sure."""
    from melprint.catalog import Catalog
    from melprint.recognition.listen import listen as hear

    with Catalog.open(catalog) as opened:
        try:
            for heard in hear(opened, microphone, duration_s=duration_s, false_accept_rate=false_accept_rate):
                if as_json:
                    lines([heard.as_json()])
                else:
                    typer.echo(str(heard))
                sys.stdout.flush()
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def dedup(
    source: Annotated[Path, typer.Argument(metavar="CATALOG|FOLDER", help="A catalog, or a folder of recordings.")],
    min_duration_s: Annotated[float, typer.Option(help="Shortest stretch that counts.")] = 10.0,
    min_similarity: Annotated[float, typer.Option(help="Mean cosine of a stretch.")] = 0.75,
    whole: Annotated[bool, typer.Option("--whole", help="Leave out tracks that only have a part in common.")] = False,
    model: Annotated[str, typer.Option(help=f"For a folder: {MODEL_HELP}")] = DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Find tracks that share audio: the same recording, an excerpt, another encoding, a common part."""
    from contextlib import ExitStack
    from tempfile import TemporaryDirectory

    from melprint.catalog import Catalog
    from melprint.catalog.adding import add as add_files
    from melprint.catalog.catalog import is_catalog
    from melprint.catalog.dedup import duplicates

    with ExitStack() as stack:
        if is_catalog(source):
            opened, same, rejected = stack.enter_context(Catalog.open(source)), [], []
        else:
            folder = stack.enter_context(TemporaryDirectory(prefix="melprint-dedup-"))
            opened = stack.enter_context(Catalog.create(Path(folder, "catalog"), model))
            added = add_files(opened, [source], said=complain)
            same, rejected = added.there, added.rejected
        keys = {number: track.key for number, track in opened.tracks().items()}
        found = duplicates(opened, min_duration_s=min_duration_s, min_similarity=min_similarity, whole_only=whole)
    if as_json:
        for number, group in enumerate(found):
            lines({"group": number, "track_key": keys[pair.track], **pair.as_json()} for pair in group)
        lines({"group": None, "path": os.fspath(path), "kind": "identical file"} for path in same)
        raise typer.Exit(1 if rejected else 0)
    from melprint.recognition.answers import clock, plain_table

    rows = [
        (str(number + 1), keys[pair.track], pair.key, pair.kind, clock(common.start_s), clock(common.end_s),
         clock(common.other_start_s), f"{common.similarity:.3f}")
        for number, group in enumerate(found)
        for pair in group
        for common in pair.ranges
    ]  # fmt: skip
    if rows:
        show(
            plain_table((">group", "track", "other", "what", ">from", ">to", ">in the other from", ">similarity"), rows)
        )
    for path in same:
        typer.echo(f"{path} is the same file as another one")
    typer.echo(f"{len(found)} groups of tracks that share audio")
    if rejected:
        raise typer.Exit(1)
